//! The money that rests on verdicts: every payment out of an escrow has its verdict, every credit and slash is what that
//! verdict comes to, and every penalty stands behind a third breach in a row.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    CreditReport,
    book::{Book, Charge, Movement},
    judged::Period,
    row,
};
use crate::core::market::{
    account::{AccountKey, TransferKind},
    billing::{breaches_in_a_row, credit_split},
    block::BlockFormat,
    ids::AllocationId,
    money::Amount,
    quantity::Ppm,
    state::{account_key_hash, commitment::AllocationTerms},
    terms::DomainId,
};

/// What belongs to what is committed in one write, and a page of what is to be sealed may end inside it: so the verdict of
/// a payment may lie one block later than the payment.
const LATE: u64 = 1;

/// The accounts of an allocation; `None` for one that the chain does not have.
struct Accounts {
    escrow: Option<u32>,
    consumer: Option<u32>,
    provider: Option<u32>,
    collateral: Option<u32>,
}

/// A penalty that a third breach in a row asks for.
struct Wanted {
    name: String,
    block: u64,
    /// It stands behind this record,
    after: u64,
    /// and the next period is paid by this one.
    before: u64,
    share: Ppm,
    accounts: (Option<u32>, Option<u32>),
    /// The period's payment is still to come, and the penalty behind it.
    unpaid: bool,
}

/// The check of a chain's money against its verdicts.
pub(super) struct Money<'a> {
    domain: &'a DomainId,
    book: &'a Book,
    report: &'a mut CreditReport,
    /// Places of charges in the book, by escrow.
    charges: HashMap<u32, Vec<usize>>,
    /// Places of those that a verdict explains.
    explained: HashSet<usize>,
    /// Credits, slashes and penalties that no charge holds, each with whether it is explained.
    loose: Vec<(Movement, bool)>,
    wanted: Vec<Wanted>,
}

impl<'a> Money<'a> {
    pub(super) fn new(domain: &'a DomainId, book: &'a Book, report: &'a mut CreditReport) -> Self {
        let mut charges: HashMap<u32, Vec<usize>> = HashMap::new();
        for (place, charge) in book.charges.iter().enumerate() {
            charges.entry(charge.escrow).or_default().push(place);
        }
        let mut loose: Vec<_> = book.loose.iter().chain(&book.penalties).map(|it| (*it, false)).collect();
        loose.sort_by_key(|(movement, _)| movement.at);
        Self { domain, book, report, charges, explained: HashSet::new(), loose, wanted: Vec::new() }
    }

    /// Holds everything against everything. `complete` says that every verdict could be told which period it is of.
    pub(super) fn check(mut self, periods: Vec<Period>, complete: bool) {
        let mut by_allocation: BTreeMap<AllocationId, Vec<Period>> = BTreeMap::new();
        for period in periods {
            by_allocation.entry(period.terms.allocation).or_default().push(period);
        }
        for (id, mut periods) in by_allocation {
            periods.sort_by_key(|period| (period.number, period.block));
            self.allocation(id, &periods);
        }
        self.penalties();
        self.rest(complete);
    }

    fn allocation(&mut self, id: AllocationId, periods: &[Period]) {
        let Some(first) = periods.first() else { return };
        let in_order = row::in_order(id, periods, self.report);
        row::terms(id, periods, self.domain, self.book, self.report);
        let accounts = self.accounts(first);
        self.others(id, &accounts);
        let places = accounts.escrow.and_then(|it| self.charges.get(&it)).cloned().unwrap_or_default();
        if !in_order {
            // Which payment is whose can't be told then; that is said already.
            self.explained.extend(places);
            return;
        }
        let mut left = places.into_iter();
        let mut last = 0;
        let mut count = 0;
        for period in periods {
            let name = format!("period {} of {id}", period.number);
            let mut unpaid = false;
            if !period.payment.is_zero() {
                match left.next() {
                    Some(place) => {
                        self.explained.insert(place);
                        let next = left.as_slice().first();
                        if let Some(charge) = self.book.charges.get(place).cloned() {
                            let end = self.start_of(next);
                            self.charge(&name, period, &charge, &accounts, (last, end));
                            last = charge.at;
                        }
                    }
                    // The consumer has not paid it yet, so there is nothing to give back.
                    None => {
                        unpaid = true;
                        self.report.open += 1;
                    }
                }
            }
            let (next, repeated) = breaches_in_a_row(count, period.status);
            count = next;
            let share = period.terms.sla.collateral_slash.min(Ppm::ONE);
            if repeated && share != Ppm(0) {
                self.wanted.push(Wanted {
                    name,
                    block: period.block,
                    after: last,
                    before: self.start_of(left.as_slice().first()),
                    share,
                    accounts: (accounts.collateral, accounts.consumer),
                    unpaid,
                });
            }
        }
    }

    /// The record of a charge, or the end of the book.
    fn start_of(&self, place: Option<&usize>) -> u64 {
        place.and_then(|place| self.book.charges.get(*place)).map_or(self.book.end(), |charge| charge.at)
    }

    fn accounts(&self, period: &Period) -> Accounts {
        let AllocationTerms { allocation, consumer, provider, .. } = &period.terms;
        let find = |owner: &Option<_>, key: AccountKey| {
            self.book.account(&account_key_hash(self.domain, owner.as_ref(), &key))
        };
        Accounts {
            escrow: find(&period.consumer_owner, AccountKey::Escrow(*allocation)),
            consumer: find(&period.consumer_owner, AccountKey::Consumer(*consumer)),
            provider: find(&period.provider_owner, AccountKey::Provider(*provider)),
            collateral: find(&period.provider_owner, AccountKey::Collateral(*provider)),
        }
    }

    /// Whether the escrow is left by nothing but payments, disputes, and what goes back to the consumer.
    fn others(&mut self, id: AllocationId, accounts: &Accounts) {
        const REFUND: u8 = TransferKind::Refund as u8;
        const HOLD: u8 = TransferKind::Hold as u8;
        const WITHDRAW: u8 = TransferKind::Withdraw as u8;
        let Some(escrow) = accounts.escrow else { return };
        let out = self.book.others.range((escrow, 0, 0)..=(escrow, u8::MAX, u32::MAX));
        let wrong: Vec<_> = out
            .filter(|((_, kind, to), _)| match *kind {
                REFUND => Some(*to) != accounts.consumer,
                HOLD | WITHDRAW => false,
                _ => true,
            })
            .map(|((_, kind, to), block)| (*kind, *to, *block))
            .collect();
        for (kind, to, block) in wrong {
            self.report.problem(
                block,
                format!("money left the escrow of {id} for account {to} as a transfer of kind {kind}, past every verdict"),
            );
        }
    }

    /// Holds one payment and what stands behind it against its verdict. `times` are the records of the charges of the same
    /// escrow before and after.
    fn charge(
        &mut self,
        name: &str,
        period: &Period,
        charge: &Charge,
        accounts: &Accounts,
        times: (u64, u64),
    ) {
        let block = charge.block;
        let paid = Amount(charge.earned.saturating_add(charge.fee));
        if paid != period.payment {
            let said = period.payment;
            self.report
                .problem(block, format!("{name} cost {paid} on the chain, and {said} by the evidence"));
        }
        if charge.provider.is_some() && charge.provider != accounts.provider {
            self.report
                .problem(block, format!("the payment of {name} went to another account than its provider's"));
        }
        self.report.payments += 1;
        let (credit, rest) = credit_split(paid, Amount(charge.earned), period.credit);
        let (credits, slashes) = match charge.format {
            BlockFormat::Steps => (charge.credits.clone(), charge.slashes.clone()),
            BlockFormat::Records => self.loose_of(charge, accounts, credit, rest),
        };
        let parties = (accounts.provider, accounts.consumer);
        self.part(name, block, "credit", &credits, parties, |_| credit, credit.is_zero());
        // What was not covered was not moved.
        let bare = || self.book.held(accounts.collateral, times.0, times.1, |held| held == 0);
        let none = rest.is_zero() || bare();
        let parties = (accounts.collateral, accounts.consumer);
        self.part(name, block, "slash", &slashes, parties, |held| rest.min(held), none);
    }

    /// Credit and slash of a charge in a block of the first format, where they may stand anywhere behind the payment.
    fn loose_of(
        &mut self,
        charge: &Charge,
        accounts: &Accounts,
        credit: Amount,
        rest: Amount,
    ) -> (Vec<Movement>, Vec<Movement>) {
        let mut take = |kind: TransferKind, from: Option<u32>, fits: &dyn Fn(&Movement) -> bool| {
            let found = self.loose.iter_mut().find(|(it, used)| {
                let between = Some(it.from) == from && Some(it.to) == accounts.consumer;
                !used && it.kind == kind as u8 && it.at > charge.at && between && fits(it)
            });
            found.map(|(movement, used)| {
                *used = true;
                *movement
            })
        };
        let credits = take(TransferKind::Credit, accounts.provider, &|it| it.amount == credit.0);
        let slashes =
            take(TransferKind::Slash, accounts.collateral, &|it| it.amount == rest.min(Amount(it.held)).0);
        (credits.into_iter().collect(), slashes.into_iter().collect())
    }

    /// Whether a credit or slash is there once, between the right accounts, with the right amount; `none` when it may be
    /// missing.
    #[expect(clippy::too_many_arguments, reason = "what one movement is held against")]
    fn part(
        &mut self,
        name: &str,
        block: u64,
        what: &str,
        found: &[Movement],
        (from, to): (Option<u32>, Option<u32>),
        wanted: impl Fn(Amount) -> Amount,
        none: bool,
    ) {
        let Some((first, more)) = found.split_first() else {
            if !none {
                self.report.problem(block, format!("the {what} of {name} is missing"));
            }
            return;
        };
        if !more.is_empty() {
            self.report.problem(block, format!("{name} has {} of its {what}, and one is due", found.len()));
        }
        let (amount, wanted) = (Amount(first.amount), wanted(Amount(first.held)));
        if amount != wanted {
            self.report
                .problem(block, format!("the {what} of {name} is {amount}, and {wanted} by its verdict"));
        } else if Some(first.from) != from || Some(first.to) != to {
            self.report
                .problem(block, format!("the {what} of {name} moves between other accounts than its own"));
        } else {
            self.report.credit(amount);
        }
    }

    /// Finds the penalty of each third breach in a row.
    fn penalties(&mut self) {
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.sort_by_key(|it| it.after);
        for Wanted { name, block, after, before, share, accounts, unpaid } in wanted {
            let (collateral, consumer) = accounts;
            let found = self.loose.iter_mut().find(|(it, used)| {
                let between = Some(it.from) == collateral && Some(it.to) == consumer;
                let fits = it.amount == Amount(it.held).ppm(share).0;
                !used && it.kind != TransferKind::Credit as u8 && it.at > after && between && fits
            });
            if let Some((movement, used)) = found {
                *used = true;
                let amount = Amount(movement.amount);
                self.report.credit(amount);
            } else if !self.book.held(collateral, after, before, |held| Amount(held).ppm(share).is_zero()) {
                if unpaid || block.saturating_add(LATE) >= self.book.last() {
                    self.report.open += 1;
                } else {
                    self.report.problem(
                        block,
                        format!("the penalty is missing that {name}, a third breach in a row, asks for"),
                    );
                }
            }
        }
    }

    /// Whatever no verdict explains.
    fn rest(&mut self, complete: bool) {
        let mut unknown = Vec::new();
        for (place, charge) in self.book.charges.iter().enumerate() {
            // A fee alone is that of a decided dispute.
            if self.explained.contains(&place) || charge.provider.is_none() {
                continue;
            }
            let Charge { block, escrow, earned, .. } = *charge;
            unknown.push((
                block,
                format!("the payment of {} out of account {escrow} has no verdict", Amount(earned)),
            ));
        }
        for (movement, _) in self.loose.iter().filter(|(_, used)| !used) {
            let Movement { block, kind, from, to, amount, .. } = *movement;
            let what = match kind {
                kind if kind == TransferKind::Credit as u8 => "credit",
                kind if kind == TransferKind::Slash as u8 => "slash",
                _ => "penalty",
            };
            unknown.push((
                block,
                format!(
                    "the {what} of {} from account {from} to account {to} rests on no verdict",
                    Amount(amount)
                ),
            ));
        }
        let last = self.book.last();
        let (late, wrong): (Vec<_>, Vec<_>) =
            unknown.into_iter().partition(|(block, _)| block.saturating_add(LATE) >= last);
        self.report.open += late.len() as u64;
        if complete {
            wrong.into_iter().for_each(|(block, problem)| self.report.problem(block, problem));
        } else if let Some((block, _)) = wrong.first() {
            // Which are of the verdicts that could not be checked can't be told.
            let problem = format!(
                "{} payments and credits, from here on, have no verdict that could be checked",
                wrong.len()
            );
            self.report.problem(*block, problem);
        }
    }
}
