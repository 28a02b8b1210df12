//! The order of transfers inside a block: causal, by the numbers that each transfer got from its accounts. Between
//! transfers that do not depend on one another, time and idempotency key decide; ids and the order of insertion say
//! nothing. A period's payment and what follows from it stand together, because a block may credit only what the payment
//! just before it paid.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::core::market::account::{AccountKey, Transfer, TransferKind};

/// What must come next: per account, and for deposits.
pub(super) struct Next<F> {
    /// The number that the next transfer of an account has.
    pub(super) sequence: F,
    /// The next deposit's index.
    pub(super) deposit: u64,
}

/// What is sealed together, in this order: one transfer, or a period's payment, fee, credit and slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// At least one.
    pub(super) transfers: Vec<Transfer>,
    /// The index on the chain, of a deposit.
    pub(super) deposit: Option<u64>,
}

/// The parts of a period's charge, in the order in which they are posted, with what their idempotency keys begin with.
const PARTS: [(TransferKind, &str); 4] = [
    (TransferKind::Payment, "payment"),
    (TransferKind::Fee, "fee"),
    (TransferKind::Credit, "credit"),
    (TransferKind::Slash, "slash"),
];

/// The period whose charge a transfer is a part of.
pub(super) fn period_of(transfer: &Transfer) -> Option<&str> {
    let (_, prefix) = PARTS.into_iter().find(|(kind, _)| *kind == transfer.kind)?;
    transfer.idempotency_key.strip_prefix(prefix)?.strip_prefix(':')
}

/// The idempotency keys of the parts of a period's charge.
pub(super) fn parts_of(period: &str) -> impl Iterator<Item = String> + '_ {
    PARTS.into_iter().map(move |(_, prefix)| format!("{prefix}:{period}"))
}

/// Puts the parts of each charge together.
pub(super) fn grouped(transfers: Vec<(Transfer, Option<u64>)>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::with_capacity(transfers.len());
    let mut by_period: HashMap<String, usize> = HashMap::new();
    for (transfer, deposit) in transfers {
        let period = period_of(&transfer).map(str::to_owned);
        let at = period.map(|period| *by_period.entry(period).or_insert(groups.len()));
        match at.and_then(|at| groups.get_mut(at)) {
            Some(group) => group.transfers.push(transfer),
            None => groups.push(Group { transfers: vec![transfer], deposit }),
        }
    }
    for group in &mut groups {
        group.transfers.sort_by_key(|transfer| transfer.kind as u8);
    }
    groups
}

/// Orders the groups that can be sealed now; those that wait for one that is not here are left out.
pub(super) fn causal_order<F: Fn(&AccountKey) -> u64>(groups: Vec<Group>, mut next: Next<F>) -> Vec<Group> {
    let places: Vec<_> = groups.iter().map(Group::places).collect();
    let mut expected: HashMap<AccountKey, u64> = HashMap::new();
    let mut by_place: HashMap<(AccountKey, u64), usize> = HashMap::new();
    let mut by_deposit: HashMap<u64, usize> = HashMap::new();
    for (at, (group, places)) in groups.iter().zip(&places).enumerate() {
        for (key, place) in places {
            expected.entry(*key).or_insert_with(|| (next.sequence)(key));
            by_place.insert((*key, place.first), at);
        }
        if let Some(index) = group.deposit {
            by_deposit.insert(index, at);
        }
    }
    let is_ready = |at: usize, expected: &HashMap<AccountKey, u64>, next_deposit: u64| {
        let deposit = groups.get(at).and_then(|group| group.deposit);
        deposit.is_none_or(|index| index == next_deposit)
            && places.get(at).is_some_and(|places| {
                places.iter().all(|(key, place)| place.is_whole() && expected.get(key) == Some(&place.first))
            })
    };
    let rank = |at: usize| {
        let first = groups.get(at).and_then(|group| group.transfers.first());
        first.map(|transfer| (transfer.created_at, transfer.idempotency_key.clone(), at))
    };
    let mut ready: BTreeSet<_> =
        (0..groups.len()).filter(|at| is_ready(*at, &expected, next.deposit)).filter_map(rank).collect();
    let mut order = Vec::with_capacity(groups.len());
    while let Some((_, _, at)) = ready.pop_first() {
        let (Some(group), Some(places)) = (groups.get(at), places.get(at)) else { break };
        let mut followers: Vec<usize> = Vec::new();
        for (key, place) in places {
            expected.insert(*key, place.last + 1);
            followers.extend(by_place.get(&(*key, place.last + 1)).copied());
        }
        if let Some(index) = group.deposit {
            next.deposit = index + 1;
            followers.extend(by_deposit.get(&next.deposit).copied());
        }
        order.push(at);
        ready.extend(
            followers.into_iter().filter(|at| is_ready(*at, &expected, next.deposit)).filter_map(rank),
        );
    }
    let mut groups: Vec<Option<Group>> = groups.into_iter().map(Some).collect();
    order.into_iter().filter_map(|at| groups.get_mut(at)?.take()).collect()
}

/// The numbers that a group got from one account.
struct Place {
    first: u64,
    last: u64,
    count: u64,
}

impl Place {
    /// Whether no number between the first and the last is somebody else's: a part of the charge is not here.
    const fn is_whole(&self) -> bool {
        self.last - self.first + 1 == self.count
    }
}

impl Group {
    fn places(&self) -> BTreeMap<AccountKey, Place> {
        let mut places: BTreeMap<AccountKey, Place> = BTreeMap::new();
        for (key, number) in self.transfers.iter().flat_map(numbers) {
            let place = places.entry(key).or_insert(Place { first: number, last: number, count: 0 });
            place.first = place.first.min(number);
            place.last = place.last.max(number);
            place.count += 1;
        }
        places
    }

    /// The accounts that it touches.
    pub(super) fn accounts(&self) -> impl Iterator<Item = AccountKey> + '_ {
        self.transfers.iter().flat_map(|transfer| [transfer.debit, transfer.credit])
    }
}

/// The numbers that a transfer got from its accounts.
fn numbers(transfer: &Transfer) -> impl Iterator<Item = (AccountKey, u64)> + use<> {
    let debit = transfer.debit_sequence.map(|sequence| (transfer.debit, sequence));
    let credit = transfer.credit_sequence.map(|sequence| (transfer.credit, sequence));
    debit.into_iter().chain(credit)
}
