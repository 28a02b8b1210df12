//! What a run is judged by, once all is over: the market is at rest, the model agrees, what was acknowledged holds, and the
//! providers and the settlement layer, by their own counts, did everything once.

use std::collections::BTreeMap;

use futures::FutureExt;
use orchestrator::{
    core::{
        client::{
            database::{Entity, Filter, Reader, ReaderExt, Scalar, Stored},
            schema::{self, Collection},
        },
        job::Job,
        madara::settlement::SettlementClient,
        market::{
            account::{Account, AccountKey, TransferKind},
            allocation::{Allocation, AllocationState},
            block::Block,
            credential::Credential,
            dispute::Dispute,
            ids::{Id, UnitId},
            unit::DataUnit,
        },
    },
    service::{outbox::WAITING, settlement::verify_with_evidence},
};

use crate::{
    actors::{Acknowledged, Stage},
    model::{Model, Room, is_over},
    world::World,
};

/// What a judge counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Allocations that were made.
    pub allocations: u64,
    /// Allocations by the state that they ended in.
    pub ends: BTreeMap<String, u64>,
    /// Transfers of money.
    pub transfers: u64,
    /// Verdicts by outcome.
    pub verdicts: u64,
    /// Disputes.
    pub disputes: u64,
    /// Blocks that were sealed.
    pub blocks: u64,
    /// What was acknowledged to clients.
    pub acknowledged: u64,
    /// Effects that took hold: at providers, at the settlement layer, and transfers of money.
    pub effects: u64,
    /// Effects that took hold more often than they should.
    pub duplicates: u64,
    /// Effects that were acknowledged, and did not take hold.
    pub lost: u64,
}

impl Counts {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        self.allocations += other.allocations;
        for (end, count) in &other.ends {
            *self.ends.entry(end.clone()).or_default() += count;
        }
        self.transfers += other.transfers;
        self.verdicts += other.verdicts;
        self.disputes += other.disputes;
        self.blocks += other.blocks;
        self.acknowledged += other.acknowledged;
        self.effects += other.effects;
        self.duplicates += other.duplicates;
        self.lost += other.lost;
    }
}

/// The judge's finding.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// What is wrong.
    pub violations: Vec<String>,
    /// The state root of the last block.
    pub root: String,
    /// Counts.
    pub counts: Counts,
}

/// Every entity of a kind. The store is in memory and answers at once.
fn all<T: Entity>(world: &World) -> Vec<T> {
    let found = world.store.memory.list_all::<T>(Filter::All).now_or_never();
    let found: Vec<Stored<T>> = found.and_then(Result::ok).unwrap_or_default();
    found.into_iter().map(|stored| stored.value).collect()
}

fn count(world: &World, collection: Collection, filter: Filter) -> u64 {
    world.store.memory.count(collection, filter).now_or_never().and_then(Result::ok).unwrap_or(u64::MAX)
}

/// What lies at the providers although nobody stands behind it.
fn orphans(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for (_, provider) in world.providers.all() {
        for (id, _) in provider.holdings().into_iter().filter(|(_, held)| !held.gone) {
            // The prober's own allocation has the number of its unit.
            let probed = UnitId::from_uuid(id.uuid()).to_string();
            let known = world.store.memory.get(schema::UNITS, &probed).now_or_never();
            if !matches!(known, Some(Ok(Some(_)))) {
                found.push(format!("{id} is an orphan at its provider"));
            }
        }
    }
    found
}

/// Whether nothing is left to be done.
#[must_use]
pub fn is_at_rest(world: &World) -> bool {
    // Counting is cheaper than reading, and mostly there is something left.
    let some = |collection, filter| count(world, collection, filter) > 0;
    let states = AllocationState::ALL.into_iter().filter(|state| !is_over(*state));
    let live = states.map(|state| Scalar::from(state.as_str())).collect();
    !some(schema::ALLOCATIONS, Filter::In("state".into(), live))
        && !some(schema::UNSEALED, Filter::All)
        && !some(schema::DISPUTES, Filter::eq("state", "open"))
        && unrest(world).is_empty()
}

/// What is left to be done.
#[must_use]
pub fn unrest(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for allocation in all::<Allocation>(world).iter().filter(|allocation| !is_over(allocation.state)) {
        found.push(format!("{} is {}", allocation.id, allocation.state.as_str()));
    }
    for job in all::<Job>(world).iter().filter(|job| !job.state.is_terminal()) {
        let (id, kind, subject, state) = (job.id, job.kind, &job.subject, job.state);
        let last = job.failures.last().map(|failure| failure.error.clone());
        let (attempts, losses) = (job.attempts, job.losses);
        found.push(format!(
            "{id} ({kind}) about {subject} is {state:?} after {attempts} attempts and {losses} losses: {last:?}"
        ));
    }
    for (what, collection, filter) in [
        ("what no block has", schema::UNSEALED, Filter::All),
        ("open disputes", schema::DISPUTES, Filter::eq("state", "open")),
        ("unsent messages", schema::OUTBOX, Filter::eq("unsent", WAITING)),
    ] {
        let left = count(world, collection, filter);
        if left > 0 {
            found.push(format!("{what}: {left}"));
        }
    }
    found.extend(orphans(world));
    found
}

/// Judges a run.
#[must_use]
pub fn judge(world: &World, stage: &Stage) -> Verdict {
    let mut verdict = Verdict::default();
    verdict.violations.extend(stage.outrages.lock().drain(..));
    verdict.violations.extend(unrest(world));
    for (what, collection) in
        [("damaged documents", schema::DAMAGED), ("quarantined items", schema::QUARANTINED)]
    {
        let found = count(world, collection, Filter::All);
        if found > 0 {
            verdict.violations.push(format!("{what}: {found}"));
        }
    }
    let mut model = Model::of(&world.journal.take_commits());
    verdict.violations.append(&mut model.violations);
    compare(world, &model, &mut verdict);
    chain(world, &model, &mut verdict);
    acknowledged(world, &model, stage, &mut verdict);
    effects(world, &model, &mut verdict);
    verdict
}

/// The store says what the model says.
fn compare(world: &World, model: &Model, verdict: &mut Verdict) {
    let mut wrong = |text: String| verdict.violations.push(text);
    for unit in all::<DataUnit>(world) {
        let stored =
            Room { capacity: unit.capacity.signed(), free: unit.free, live: unit.live, active: unit.active };
        if model.rooms.get(&unit.id) != Some(&stored) {
            wrong(format!("{} is {stored:?}, the model has {:?}", unit.id, model.rooms.get(&unit.id)));
        }
    }
    let allocations = all::<Allocation>(world);
    if allocations.len() != model.allocations.len() {
        wrong(format!("{} allocations, the model has {}", allocations.len(), model.allocations.len()));
    }
    for allocation in &allocations {
        if model.allocations.get(&allocation.id) != Some(allocation) {
            wrong(format!("{} differs from the model", allocation.id));
        }
    }
    let mut accounts: BTreeMap<AccountKey, (i128, u128)> = BTreeMap::new();
    for account in all::<Account>(world) {
        let balance = i128::try_from(account.balance.0).unwrap_or(i128::MAX);
        accounts.insert(account.key, (balance, account.withdrawable.0));
    }
    for key in model.balances.keys().filter(|key| **key != AccountKey::External) {
        let expected = (
            model.balances.get(key).copied().unwrap_or(0),
            model.withdrawable.get(key).copied().unwrap_or(0),
        );
        let found = accounts.get(key).copied().unwrap_or((0, 0));
        if expected != found {
            wrong(format!("{key} has {found:?}, the model {expected:?}"));
        }
        if matches!(key, AccountKey::Escrow(_) | AccountKey::Held(_)) && expected.0 != 0 {
            wrong(format!("{key} still has {}", expected.0));
        }
    }
    for dispute in all::<Dispute>(world) {
        if model.disputes.get(&dispute.id) != Some(&dispute) {
            wrong(format!("{} differs from the model", dispute.id));
        }
    }
}

/// What the chain has: deposits are booked once each, and anyone can rebuild the ledger from the published blocks.
fn chain(world: &World, model: &Model, verdict: &mut Verdict) {
    let deposits =
        world.settlement.deposits(0, 1_000_000).now_or_never().and_then(Result::ok).unwrap_or_default();
    let mut paid_in = 0;
    for deposit in &deposits {
        paid_in += deposit.amount.0;
        let booked = model.transfers.get(&format!("deposit:{}", deposit.index));
        if !booked.is_some_and(|t| t.amount == deposit.amount && t.credit == deposit.account) {
            verdict.counts.lost += 1;
            verdict.violations.push(format!("deposit {} was not booked as it was paid in", deposit.index));
        }
    }
    let kept: i128 =
        model.balances.iter().filter(|(key, _)| **key != AccountKey::External).map(|(_, b)| b).sum();
    let released: u128 = model.withdrawable.values().sum();
    if u128::try_from(kept).ok().and_then(|kept| kept.checked_add(released)) != Some(paid_in) {
        verdict.violations.push(format!("{paid_in} came in, and there are {kept} and {released}"));
    }
    let evidence = world.evidence();
    match verify_with_evidence(&world.settlement, &world.da, Some(&evidence)).now_or_never() {
        Some(Ok(report)) => {
            verdict.root = format!("{:?}", report.state_root);
            verdict.violations.extend(report.all_problems().map(str::to_owned));
            // At rest nothing is still to come.
            let open = report.credits.as_ref().map_or(0, |credits| credits.open);
            if open > 0 {
                verdict.violations.push(format!("{open} payments or verdicts are without one another"));
            }
            if !report.is_final && !deposits.is_empty() {
                verdict.violations.push("the last block is not final".into());
            }
            if report.total.0 != paid_in {
                verdict
                    .violations
                    .push(format!("the blocks say that {} came in, not {paid_in}", report.total));
            }
        }
        other => verdict.violations.push(format!("the ledger can't be rebuilt: {other:?}")),
    }
    verdict.counts.blocks = all::<Block>(world).len() as u64;
}

/// Whatever a client was told holds.
fn acknowledged(world: &World, model: &Model, stage: &Stage, verdict: &mut Verdict) {
    let credentials: Vec<_> = all::<Credential>(world).into_iter().map(|credential| credential.id).collect();
    let reached =
        |id, state: AllocationState| model.history.get(&id).is_some_and(|states| states.contains(&state));
    let done = |key: &str, action: &str| model.requests.contains_key(&(key.to_owned(), action.to_owned()));
    let moved = |key: String, kind, amount| {
        model.transfers.get(&key).is_some_and(|transfer| transfer.kind == kind && transfer.amount == amount)
    };
    let all_acknowledged = stage.acknowledged.lock().clone();
    verdict.counts.acknowledged = all_acknowledged.len() as u64;
    for what in all_acknowledged {
        let holds = match &what {
            Acknowledged::Reserved(id, consumer, key) => {
                model.allocations.get(id).is_some_and(|a| a.consumer == *consumer)
                    && done(key, "allocation.reserve")
            }
            Acknowledged::Funded(id) => reached(*id, AllocationState::Funded),
            Acknowledged::Cancelled(id) => reached(*id, AllocationState::Cancelled),
            Acknowledged::Closing(id) => reached(*id, AllocationState::Closing),
            Acknowledged::Renewed(_, key) => done(key, "allocation.renew"),
            Acknowledged::Issued(id) => credentials.contains(id),
            Acknowledged::Disputed(id, key) => model.disputes.contains_key(id) && done(key, "dispute.open"),
            Acknowledged::Decided(id, decision) => model.disputes.get(id).is_some_and(|dispute| {
                let state = format!("{:?}", dispute.state);
                state == format!("For{decision:?}")
            }),
            Acknowledged::Withdrawn(_, amount, key) => {
                moved(format!("withdraw:{key}"), TransferKind::Withdraw, *amount)
            }
            // That it was booked is looked at with the chain.
            Acknowledged::Deposited(_, _, key) => world.settled.lock().contains_key(key),
        };
        if !holds {
            verdict.counts.lost += 1;
            verdict.violations.push(format!("acknowledged and lost: {what:?}"));
        }
    }
}

/// Everything took effect once.
fn effects(world: &World, model: &Model, verdict: &mut Verdict) {
    let counts = &mut verdict.counts;
    let mut doubled = Vec::new();
    for (_, provider) in world.providers.all() {
        for ((id, operation), times) in provider.effects() {
            counts.effects += times;
            // Access may be narrowed and opened again, and each key is installed and dropped once: those are compared by state.
            let once = matches!(operation, "allocate" | "deallocate");
            if once && times > 1 {
                doubled.push((format!("{operation} of {id} at its provider"), times - 1));
            }
        }
    }
    for (key, times) in world.settled.lock().iter() {
        counts.effects += times;
        if *times > 1 {
            doubled.push((format!("`{key}` at the settlement layer"), times - 1));
        }
    }
    for ((key, action), times) in &model.requests {
        if *times > 1 {
            doubled.push((format!("{action} of request `{key}`"), times - 1));
        }
    }
    counts.effects += model.transfers.len() as u64;
    counts.transfers = model.transfers.len() as u64;
    counts.disputes = model.disputes.len() as u64;
    counts.verdicts = count(world, schema::VERDICTS, Filter::All);
    counts.allocations = model.allocations.len() as u64;
    for allocation in model.allocations.values() {
        *counts.ends.entry(allocation.state.as_str().to_owned()).or_default() += 1;
    }
    for (what, more) in doubled {
        verdict.counts.duplicates += more;
        verdict.violations.push(format!("{what} took effect {} times", more + 1));
    }
}
