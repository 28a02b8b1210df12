//! What a run is judged by, once all is over: the market is at rest, the model agrees, what was acknowledged holds, and the
//! providers and the settlement layer, by their own counts, did everything once.

use futures::FutureExt;
use orchestrator::{
    core::{
        client::{
            database::{Entity, Filter, Reader, ReaderExt, Stored},
            schema,
        },
        job::Job,
        market::{allocation::Allocation, block::Block},
    },
    service::settlement::verify_ledger,
};

use crate::{
    actors::Stage,
    world::{Cast, World},
};

/// What a judge counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Allocations that were made.
    pub allocations: u64,
    /// Blocks that were sealed.
    pub blocks: u64,
    /// Effects that took hold: at providers, at the settlement layer, and transfers of money.
    pub effects: u64,
    /// Effects that took hold more often than they should.
    pub duplicates: u64,
    /// Effects that were acknowledged or decided, and did not take hold.
    pub lost: u64,
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
pub fn all<T: Entity>(world: &World) -> Vec<T> {
    let found = world.store.memory.list_all::<T>(Filter::All).now_or_never();
    let found: Vec<Stored<T>> = found.and_then(Result::ok).unwrap_or_default();
    found.into_iter().map(|stored| stored.value).collect()
}

fn count(world: &World, collection: orchestrator::core::client::schema::Collection, filter: Filter) -> u64 {
    world.store.memory.count(collection, filter).now_or_never().and_then(Result::ok).unwrap_or(u64::MAX)
}

/// Whether nothing is left to be done.
#[must_use]
pub fn is_at_rest(world: &World) -> bool {
    unrest(world).is_empty()
}

/// What is left to be done.
#[must_use]
pub fn unrest(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for allocation in all::<Allocation>(world) {
        if !allocation.state.is_terminal() {
            found.push(format!("{} is {}", allocation.id, allocation.state.as_str()));
        }
    }
    for job in all::<Job>(world) {
        if !job.state.is_terminal() {
            found.push(format!(
                "{} ({}) about {} is {:?} after {} attempts, due {:?}: {:?}",
                job.id,
                job.kind,
                job.subject,
                job.state,
                job.attempts,
                job.due,
                job.failures.last()
            ));
        }
    }
    for (what, collection, filter) in [
        ("what no block has", schema::UNSEALED, Filter::All),
        ("open disputes", schema::DISPUTES, Filter::eq("state", "open")),
        ("unsent messages", schema::OUTBOX, Filter::eq("unsent", orchestrator::service::outbox::WAITING)),
    ] {
        let left = count(world, collection, filter);
        if left > 0 {
            found.push(format!("{what}: {left}"));
        }
    }
    found
}

/// Judges a run.
#[must_use]
pub fn judge(world: &World, _cast: &Cast, stage: &Stage) -> Verdict {
    let mut verdict = Verdict::default();
    verdict.violations.extend(stage.outrages.lock().drain(..));
    verdict.violations.extend(unrest(world));
    let blocks = all::<Block>(world);
    verdict.counts.blocks = blocks.len() as u64;
    verdict.root = blocks.last().map(|block| format!("{:?}", block.header.state_root)).unwrap_or_default();
    verdict.counts.allocations = all::<Allocation>(world).len() as u64;
    match verify_ledger(&world.settlement, &world.da).now_or_never() {
        Some(Ok(report)) if report.holds() => {}
        Some(Ok(report)) => verdict.violations.extend(report.problems),
        other => verdict.violations.push(format!("the ledger can't be rebuilt: {other:?}")),
    }
    verdict
}
