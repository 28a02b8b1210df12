//! What the market should look like: plain code without waiting, clocks or chance, written from the domain's rules and not
//! from the services. It is fed the recorded commits in their order. What is a decision (who reserved, who closed, what a
//! verdict found, what the meter showed) it takes from them; what follows from a decision (prices, payments, fees, credits,
//! refunds, capacity) it computes itself, and every commit must hold exactly that.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator::core::{
    client::{
        database::{Write, WriteOp},
        schema,
    },
    job::JobState,
    market::{
        account::{AccountKey, Transfer, TransferKind},
        allocation::{Allocation, AllocationState, RestrictReason},
        dispute::{Dispute, DisputeKind, DisputeState},
        ids::{AllocationId, DisputeId, UnitId},
        terms::SlaTerms,
        unit::DataUnit,
        verdict::{Metric, SlaVerdict, VerdictStatus},
    },
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::journal::Commit;

const GIB: u128 = 1 << 30;
const MONTH_SECONDS: u128 = 30 * 24 * 3_600;
/// The platform's share of payments, in hundredths of a percent.
const FEE: u128 = 200;
/// The most that a violation forfeits, in hundredths of the escrow.
const FORFEIT_PERCENT: u128 = 10;

/// A unit's books.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    /// All of it.
    pub capacity: i64,
    /// Not reserved.
    pub free: i64,
    /// Allocations that hold capacity.
    pub live: i64,
    /// Allocations in use.
    pub active: i64,
}

/// A movement that is due.
type Movement = (u8, AccountKey, AccountKey, u128);

/// The model.
#[derive(Default)]
pub struct Model {
    /// Units by id.
    pub rooms: BTreeMap<UnitId, Room>,
    /// Allocations as they stand.
    pub allocations: BTreeMap<AllocationId, Allocation>,
    /// Every state that an allocation was ever in.
    pub history: BTreeMap<AllocationId, BTreeSet<AllocationState>>,
    /// Disputes as they stand.
    pub disputes: BTreeMap<DisputeId, Dispute>,
    /// Money by account; `external` is negative.
    pub balances: BTreeMap<AccountKey, i128>,
    /// Money released for withdrawal.
    pub withdrawable: BTreeMap<AccountKey, u128>,
    /// Transfers by idempotency key.
    pub transfers: BTreeMap<String, Transfer>,
    /// How often a request with a key did what.
    pub requests: BTreeMap<(String, String), u64>,
    /// Fencing tokens of jobs, and whether a job was over.
    tokens: BTreeMap<String, (i64, bool)>,
    /// Prices that a unit ever had.
    prices: BTreeMap<UnitId, BTreeSet<(u128, u128)>>,
    /// What does not agree.
    pub violations: Vec<String>,
}

#[derive(Deserialize)]
struct Token {
    lease_token: i64,
    state: JobState,
}

#[derive(Deserialize)]
struct Audit {
    action: String,
    trace_id: String,
}

/// A commit, taken apart.
#[derive(Default)]
struct Parts {
    allocations: Vec<Allocation>,
    transfers: Vec<Transfer>,
    disputes: Vec<Dispute>,
    verdicts: Vec<SlaVerdict>,
}

fn decode<T: DeserializeOwned>(write: &Write) -> Option<T> {
    match &write.op {
        WriteOp::Insert { body } | WriteOp::Replace { body, .. } => serde_json::from_str(body).ok(),
        _ => None,
    }
}

/// What holding so much for so long and sending so much costs.
fn price(allocation: &Allocation, byte_seconds: u128, egress: u128) -> u128 {
    byte_seconds * allocation.price.per_gib_month.0 / (GIB * MONTH_SECONDS)
        + egress * allocation.price.per_gib_egress.0 / GIB
}

fn seconds_up(micros: u64) -> u128 {
    u128::from(micros).div_ceil(1_000_000)
}

/// The share of a payment that a verdict gives back, in millionths.
fn credit_share(verdict: &SlaVerdict, sla: &SlaTerms) -> u128 {
    if verdict.status != VerdictStatus::Breached {
        return 0;
    }
    let uptime = verdict.metrics.get(&Metric::Uptime).and_then(|metric| metric.observed);
    let promised = u64::from(sla.uptime.0);
    match uptime {
        Some(seen) if seen < promised && seen < 950_000 => 1_000_000,
        Some(seen) if seen < promised && seen < 990_000 => 250_000,
        _ => 100_000,
    }
}

impl Model {
    /// Runs through the commits of a whole run.
    #[must_use]
    pub fn of(commits: &[Commit]) -> Self {
        let mut model = Self::default();
        for commit in commits {
            model.take(commit);
        }
        model
    }

    fn balance(&self, account: AccountKey) -> i128 {
        self.balances.get(&account).copied().unwrap_or(0)
    }

    fn funds(&self, account: AccountKey) -> u128 {
        u128::try_from(self.balance(account)).unwrap_or(0)
    }

    fn wrong(&mut self, commit: &Commit, text: impl std::fmt::Display) {
        self.violations.push(format!("at {} by lane {}: {text}", commit.at, commit.lane));
    }

    /// Takes in one commit.
    fn take(&mut self, commit: &Commit) {
        let mut parts = Parts::default();
        for write in &commit.writes {
            match write.collection {
                schema::JOBS => self.job(commit, write),
                schema::UNITS => self.unit(commit, write),
                schema::ALLOCATIONS => parts.allocations.extend(decode::<Allocation>(write)),
                schema::TRANSFERS => parts.transfers.extend(decode::<Transfer>(write)),
                schema::DISPUTES => parts.disputes.extend(decode::<Dispute>(write)),
                schema::VERDICTS => {
                    parts.verdicts.extend(decode::<SlaVerdict>(write).filter(|v| v.allocation.is_some()));
                }
                schema::AUDIT => {
                    if let Some(audit) = decode::<Audit>(write) {
                        *self.requests.entry((audit.trace_id, audit.action)).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        let mut due: Vec<Movement> = Vec::new();
        let mut touched = BTreeSet::new();
        for allocation in &parts.allocations {
            touched.insert(allocation.unit);
            self.allocation(commit, allocation, &parts, &mut due);
        }
        for dispute in &parts.disputes {
            self.dispute(commit, dispute, &mut due);
        }
        self.compare_movements(commit, due, &parts.transfers);
        for transfer in parts.transfers {
            self.transfer(commit, transfer);
        }
        for allocation in parts.allocations {
            self.history.entry(allocation.id).or_default().insert(allocation.state);
            self.allocations.insert(allocation.id, allocation);
        }
        for dispute in parts.disputes {
            self.disputes.insert(dispute.id, dispute);
        }
        for unit in touched {
            self.room(commit, unit);
        }
    }

    /// Nobody writes a job who has lost it to another, and what is over stays over.
    fn job(&mut self, commit: &Commit, write: &Write) {
        let Some(new) = decode::<Token>(write) else { return };
        if let Some((token, over)) = self.tokens.get(&write.id).copied() {
            if new.lease_token < token {
                let held = new.lease_token;
                self.wrong(commit, format!("{} was written with token {held}, after {token}", write.id));
            }
            if over {
                self.wrong(commit, format!("{} was over, and is {:?} again", write.id, new.state));
            }
        }
        let over = matches!(new.state, JobState::Completed | JobState::Failed | JobState::Cancelled);
        self.tokens.insert(write.id.clone(), (new.lease_token, over));
    }

    fn unit(&mut self, commit: &Commit, write: &Write) {
        match &write.op {
            WriteOp::Insert { .. } | WriteOp::Replace { .. } => {
                let Some(unit) = decode::<DataUnit>(write) else { return };
                let price = (unit.price.per_gib_month.0, unit.price.per_gib_egress.0);
                self.prices.entry(unit.id).or_default().insert(price);
                let books = Room {
                    capacity: unit.capacity.signed(),
                    free: unit.free,
                    live: unit.live,
                    active: unit.active,
                };
                // Whoever writes the whole unit must have read it as it is.
                if let Some(known) = self.rooms.insert(unit.id, books.clone())
                    && known != books
                {
                    self.wrong(commit, format!("unit {} was {known:?} and is written as {books:?}", unit.id));
                }
            }
            WriteOp::Add { field, delta, .. } => {
                let Ok(id) = write.id.parse::<UnitId>() else { return };
                let room = self.rooms.entry(id).or_default();
                match field.as_str() {
                    "free" => room.free += delta,
                    "live" => room.live += delta,
                    _ => room.active += delta,
                }
                if room.free < 0 {
                    let free = room.free;
                    self.wrong(commit, format!("unit {id} is oversold: {free}"));
                }
            }
            WriteOp::Delete { .. } | WriteOp::Require { .. } => {}
        }
    }

    /// The counters of a unit follow from its allocations.
    fn room(&mut self, commit: &Commit, unit: UnitId) {
        let mut expected =
            Room { capacity: self.rooms.get(&unit).map_or(0, |r| r.capacity), ..Room::default() };
        expected.free = expected.capacity;
        for allocation in self.allocations.values().filter(|a| a.unit == unit && !is_over(a.state)) {
            expected.free -= allocation.bytes.signed();
            expected.live += 1;
            expected.active += i64::from(is_used(allocation.state));
        }
        if self.rooms.get(&unit) != Some(&expected) {
            let found = self.rooms.get(&unit).cloned();
            self.wrong(commit, format!("unit {unit} should be {expected:?} and is {found:?}"));
        }
    }

    /// What an allocation's change brings about.
    fn allocation(&mut self, commit: &Commit, new: &Allocation, parts: &Parts, due: &mut Vec<Movement>) {
        let (escrow, consumer) = (AccountKey::Escrow(new.id), AccountKey::Consumer(new.consumer));
        let Some(old) = self.allocations.get(&new.id).cloned() else {
            return self.reservation(commit, new);
        };
        if !may_follow(old.state, new.state) {
            let (from, to) = (old.state.as_str(), new.state.as_str());
            self.wrong(commit, format!("{} went from {from} to {to}", new.id));
        }
        if (old.bytes, old.price, old.consumer, old.unit) != (new.bytes, new.price, new.consumer, new.unit) {
            self.wrong(commit, format!("the frozen terms of {} changed", new.id));
        }
        let mut left = self.funds(escrow);
        match (old.state, new.state) {
            (AllocationState::Reserved, AllocationState::Funded) => {
                due.push((TransferKind::Fund as u8, consumer, escrow, old.escrow_required.0));
            }
            (_, AllocationState::Cancelled | AllocationState::Failed) => {
                due.push((TransferKind::Refund as u8, escrow, consumer, left));
            }
            _ => {}
        }
        if new.period != old.period || new.egress_allowance != old.egress_allowance {
            let seconds = seconds_up(new.period.get().saturating_sub(old.period.get()));
            let egress = u128::from(new.egress_allowance.0.saturating_sub(old.egress_allowance.0));
            let cost = price(new, u128::from(new.bytes.0) * seconds, egress);
            due.push((TransferKind::Fund as u8, consumer, escrow, cost));
            left += cost;
        }
        for verdict in parts.verdicts.iter().filter(|verdict| verdict.allocation == Some(new.id)) {
            left -= self.period(commit, (&old, new), verdict, due).min(left);
        }
        if old.purge_at.is_none() && new.purge_at.is_some() {
            due.push((TransferKind::Refund as u8, escrow, consumer, left));
        }
        let exhausted = new.restrictions.contains(&RestrictReason::EscrowExhausted);
        if is_used(new.state) && new.periods_settled > old.periods_settled && left == 0 && !exhausted {
            self.wrong(commit, format!("{} has nothing left and is not restricted", new.id));
        }
    }

    fn reservation(&mut self, commit: &Commit, new: &Allocation) {
        let known = self.prices.get(&new.unit);
        let price_of = (new.price.per_gib_month.0, new.price.per_gib_egress.0);
        if new.state != AllocationState::Reserved || !known.is_some_and(|known| known.contains(&price_of)) {
            self.wrong(commit, format!("{} was not reserved as it should be", new.id));
        }
        let held = u128::from(new.bytes.0) * seconds_up(new.period.get());
        let ceiling = price(new, held, u128::from(new.egress_allowance.0));
        if new.escrow_required.0 != ceiling {
            let asked = new.escrow_required;
            self.wrong(commit, format!("{} must be funded with {ceiling}, not {asked}", new.id));
        }
    }

    /// The money of one judged period; answers what leaves the escrow.
    fn period(
        &mut self,
        commit: &Commit,
        (old, new): (&Allocation, &Allocation),
        verdict: &SlaVerdict,
        due: &mut Vec<Movement>,
    ) -> u128 {
        if verdict.period != old.periods_settled || new.periods_settled != old.periods_settled + 1 {
            self.wrong(commit, format!("{}: period {} was judged out of turn", new.id, verdict.period));
        }
        let (escrow, consumer) = (AccountKey::Escrow(new.id), AccountKey::Consumer(new.consumer));
        let (provider, collateral) =
            (AccountKey::Provider(new.provider), AccountKey::Collateral(new.provider));
        let from = old.settled_through.or(old.activated_at).unwrap_or(verdict.from);
        let reading = new.usage;
        let most = u128::from(new.bytes.0) * seconds_up(reading.read_at.since(from).get());
        let stored = reading.byte_seconds.saturating_sub(old.settled_usage.byte_seconds).min(most);
        let sent = reading.egress.0.saturating_sub(old.settled_usage.egress.0);
        let payment = price(new, stored, u128::from(sent)).min(self.funds(escrow));
        let fee = payment * FEE / 10_000;
        let earned = payment - fee;
        let back = payment * credit_share(verdict, &new.sla) / 1_000_000;
        let from_earnings = back.min(earned);
        let stake = self.funds(collateral);
        let from_collateral = (back - from_earnings).min(stake);
        due.push((TransferKind::Payment as u8, escrow, provider, earned));
        due.push((TransferKind::Fee as u8, escrow, AccountKey::Fees, fee));
        due.push((TransferKind::Credit as u8, provider, consumer, from_earnings));
        due.push((TransferKind::Slash as u8, collateral, consumer, from_collateral));
        // Each third breach in a row costs a share of the collateral that is left.
        let breaches = match verdict.status {
            VerdictStatus::Met => 0,
            VerdictStatus::Unknown => old.breached_in_a_row,
            VerdictStatus::Breached => old.breached_in_a_row + 1,
        };
        let repeated = verdict.status == VerdictStatus::Breached && breaches >= 3;
        let mut slashed = 0;
        if repeated {
            slashed = (stake - from_collateral) * u128::from(new.sla.collateral_slash.0) / 1_000_000;
            due.push((TransferKind::Penalty as u8, collateral, consumer, slashed));
        }
        let expected = (
            if repeated { 0 } else { breaches },
            old.paid.0 + payment,
            old.credited.0 + from_earnings + from_collateral + slashed,
        );
        let found = (new.breached_in_a_row, new.paid.0, new.credited.0);
        if expected != found {
            self.wrong(commit, format!("{}: breaches, paid, credited {found:?}, not {expected:?}", new.id));
        }
        payment
    }

    fn dispute(&mut self, commit: &Commit, new: &Dispute, due: &mut Vec<Movement>) {
        let held = AccountKey::Held(new.id);
        let Some(old) = self.disputes.get(&new.id).cloned() else {
            let escrow = AccountKey::Escrow(new.allocation);
            let required = self.allocations.get(&new.allocation).map_or(0, |a| a.escrow_required.0);
            let mut most = self.funds(escrow);
            if new.kind == DisputeKind::Violation {
                most = most.min(required * FORFEIT_PERCENT / 100);
            }
            if new.held.0 > most || new.state != DisputeState::Open {
                self.wrong(commit, format!("{} holds {} of {most}", new.id, new.held));
            }
            due.push((TransferKind::Hold as u8, escrow, held, new.held.0));
            return;
        };
        if old.state != DisputeState::Open {
            self.wrong(commit, format!("{} was decided twice", new.id));
        }
        let (provider, consumer) = (AccountKey::Provider(new.provider), AccountKey::Consumer(new.consumer));
        match (new.state, new.kind) {
            (DisputeState::ForProvider, DisputeKind::Violation) => {
                due.push((TransferKind::Forfeit as u8, held, provider, old.held.0));
            }
            (DisputeState::ForProvider, _) => {
                let fee = old.held.0 * FEE / 10_000;
                due.push((TransferKind::Release as u8, held, provider, old.held.0 - fee));
                due.push((TransferKind::Fee as u8, held, AccountKey::Fees, fee));
            }
            _ => due.push((TransferKind::Release as u8, held, consumer, old.held.0)),
        }
    }

    /// The commit moves what is due, and nothing else; deposits, collateral and withdrawals are their owners' decisions.
    fn compare_movements(&mut self, commit: &Commit, due: Vec<Movement>, transfers: &[Transfer]) {
        let free = [
            TransferKind::Deposit,
            TransferKind::CollateralPost,
            TransferKind::CollateralRelease,
            TransferKind::Withdraw,
        ];
        let mut due: Vec<Movement> = due.into_iter().filter(|movement| movement.3 > 0).collect();
        let bound = transfers.iter().filter(|transfer| !free.contains(&transfer.kind));
        let mut made: Vec<Movement> = bound.map(|t| (t.kind as u8, t.debit, t.credit, t.amount.0)).collect();
        due.sort_unstable();
        made.sort_unstable();
        if due != made {
            self.wrong(commit, format!("due were {due:?}, made were {made:?}"));
        }
    }

    fn transfer(&mut self, commit: &Commit, transfer: Transfer) {
        let amount = i128::try_from(transfer.amount.0).unwrap_or(i128::MAX);
        *self.balances.entry(transfer.debit).or_default() -= amount;
        if transfer.kind == TransferKind::Withdraw {
            *self.withdrawable.entry(transfer.debit).or_default() += transfer.amount.0;
        } else {
            *self.balances.entry(transfer.credit).or_default() += amount;
        }
        if transfer.debit != AccountKey::External && self.balance(transfer.debit) < 0 {
            self.wrong(commit, format!("{} is overdrawn", transfer.debit));
        }
        let key = transfer.idempotency_key.clone();
        if self.transfers.insert(key.clone(), transfer).is_some() {
            self.wrong(commit, format!("`{key}` was moved twice"));
        }
    }
}

/// Whether nothing can happen any more.
#[must_use]
pub const fn is_over(state: AllocationState) -> bool {
    matches!(
        state,
        AllocationState::Closed
            | AllocationState::Cancelled
            | AllocationState::Expired
            | AllocationState::Failed
    )
}

const fn is_used(state: AllocationState) -> bool {
    matches!(state, AllocationState::Active | AllocationState::Restricted)
}

/// The arrows of the lifecycle; a change may leave the state as it is. Provisioning may begin and end in one commit.
fn may_follow(from: AllocationState, to: AllocationState) -> bool {
    use AllocationState as S;
    from == to && !is_over(from)
        || match from {
            S::Reserved => matches!(to, S::Funded | S::Cancelled | S::Expired),
            S::Funded => matches!(to, S::Provisioning | S::Active | S::Cancelled | S::Failed),
            S::Provisioning => matches!(to, S::Active | S::Failed),
            S::Active => matches!(to, S::Restricted | S::Closing),
            S::Restricted => matches!(to, S::Active | S::Closing),
            S::Closing => matches!(to, S::Closed),
            S::Closed | S::Cancelled | S::Expired | S::Failed => false,
        }
}
