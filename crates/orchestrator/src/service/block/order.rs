//! The order of transfers inside a block: causal, by the numbers that each transfer got from its accounts. Between
//! transfers that do not depend on one another, time and idempotency key decide; ids and the order of insertion say
//! nothing.

use std::collections::{BTreeSet, HashMap};

use crate::core::market::account::{AccountKey, Transfer};

/// What must come next: per account, and for deposits.
pub(super) struct Next<F> {
    /// The number that the next transfer of an account has.
    pub(super) sequence: F,
    /// The next deposit's index.
    pub(super) deposit: u64,
}

/// Orders the transfers that can be sealed now; those that wait for one that is not here are left out.
pub(super) fn causal_order<F: Fn(&AccountKey) -> u64>(
    transfers: Vec<(Transfer, Option<u64>)>,
    mut next: Next<F>,
) -> Vec<Transfer> {
    let mut expected: HashMap<AccountKey, u64> = HashMap::new();
    let mut by_place: HashMap<(AccountKey, u64), usize> = HashMap::new();
    let mut by_deposit: HashMap<u64, usize> = HashMap::new();
    for (at, (transfer, deposit)) in transfers.iter().enumerate() {
        for place in places(transfer) {
            expected.entry(place.0).or_insert_with(|| (next.sequence)(&place.0));
            by_place.insert(place, at);
        }
        if let Some(index) = deposit {
            by_deposit.insert(*index, at);
        }
    }
    let is_ready = |at: usize, expected: &HashMap<AccountKey, u64>, next_deposit: u64| {
        transfers.get(at).is_some_and(|(transfer, deposit)| {
            deposit.is_none_or(|index| index == next_deposit)
                && places(transfer).all(|(key, sequence)| expected.get(&key) == Some(&sequence))
        })
    };
    let rank = |at: usize| {
        let found = transfers.get(at);
        found.map(|(transfer, _)| (transfer.created_at, transfer.idempotency_key.clone(), at))
    };
    let mut ready: BTreeSet<_> =
        (0..transfers.len()).filter(|at| is_ready(*at, &expected, next.deposit)).filter_map(rank).collect();
    let mut ordered = Vec::with_capacity(transfers.len());
    while let Some((_, _, at)) = ready.pop_first() {
        let Some((transfer, deposit)) = transfers.get(at) else { break };
        let mut followers: Vec<usize> = Vec::new();
        for (key, sequence) in places(transfer) {
            expected.insert(key, sequence + 1);
            followers.extend(by_place.get(&(key, sequence + 1)).copied());
        }
        if let Some(index) = deposit {
            next.deposit = index + 1;
            followers.extend(by_deposit.get(&next.deposit).copied());
        }
        ordered.push(transfer.clone());
        ready.extend(
            followers.into_iter().filter(|at| is_ready(*at, &expected, next.deposit)).filter_map(rank),
        );
    }
    ordered
}

/// The numbers that a transfer got from its accounts.
fn places(transfer: &Transfer) -> impl Iterator<Item = (AccountKey, u64)> + use<> {
    let debit = transfer.debit_sequence.map(|sequence| (transfer.debit, sequence));
    let credit = transfer.credit_sequence.map(|sequence| (transfer.credit, sequence));
    debit.into_iter().chain(credit)
}
