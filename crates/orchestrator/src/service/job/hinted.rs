//! Jobs that were named by hints: claimed by id, in one call for a batch. What can't be claimed is held by somebody, done,
//! or not due; none of that is this hint's business any more.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering};

use tokio::{sync::OwnedSemaphorePermit, task::JoinHandle};

use super::{
    claim::{self, Lane},
    damage,
    engine::Engine,
};
use crate::{
    core::{
        client::database::Stored,
        job::{JobKind, Phase},
        market::ids::JobId,
    },
    error::Result,
};

impl Engine {
    /// The kinds that this process runs.
    #[must_use]
    pub fn kinds(&self) -> Vec<JobKind> {
        self.inner().kinds.keys().copied().collect()
    }

    /// Waits until a job of this kind could be started, and says how many could. Zero: this process does not run the kind,
    /// or runs nothing any more.
    pub async fn free(&self, kind: JobKind) -> usize {
        let inner = self.inner();
        let Some(kind) = inner.kinds.get(&kind) else { return 0 };
        if inner.stopping.load(Ordering::Acquire) {
            return 0;
        }
        match kind.slots.acquire().await {
            Ok(slot) => {
                drop(slot);
                kind.slots.available_permits()
            }
            Err(_) => 0,
        }
    }

    /// Claims those of `jobs` that are due in this phase and have a slot, and starts them. A handle ends with the attempt of
    /// its job. Jobs that are left out for want of a slot are found by the engine's own look. The slots are taken by the call
    /// itself, before its future is polled, so that [`Engine::free`] no longer counts them.
    ///
    /// # Errors
    /// When the database does not answer; nothing was started then.
    pub fn run_named(
        &self,
        kind: JobKind,
        phase: Phase,
        mut jobs: Vec<JobId>,
    ) -> impl Future<Output = Result<BTreeMap<JobId, JoinHandle<()>>>> + Send + use<> {
        let slots = self.slots_for(kind, jobs.len());
        let engine = self.clone();
        async move {
            let mut started = BTreeMap::new();
            let inner = engine.inner();
            let (Some(mut slots), Some(known)) = (slots, inner.kinds.get(&kind)) else { return Ok(started) };
            jobs.truncate(slots.num_permits());
            let now = inner.clock.now();
            let until = now.plus(inner.settings.lease);
            let claim = claim::claim_named(Lane::new(kind, phase), &jobs, now, &inner.owner, until);
            let documents = engine.take(kind, claim).await?;
            let labels = [("kind", kind.as_str()), ("phase", phase.as_str())];
            metrics::counter!("orchestrator_jobs_claimed_total", &labels).increment(documents.len() as u64);
            for Stored { value: job, .. } in damage::readable(inner, documents).await {
                let id = job.id;
                started.insert(id, engine.start(known, phase, job, now, slots.split(1)));
            }
            Ok(started)
        }
    }

    /// As many free slots of a kind as there are, `wanted` at most; none once the engine stops.
    fn slots_for(&self, kind: JobKind, wanted: usize) -> Option<OwnedSemaphorePermit> {
        let inner = self.inner();
        let known = inner.kinds.get(&kind)?;
        let wanted = known.slots.available_permits().min(wanted);
        if wanted == 0 || inner.stopping.load(Ordering::Acquire) {
            return None;
        }
        let permits = u32::try_from(wanted).unwrap_or(u32::MAX);
        Arc::clone(&known.slots).try_acquire_many_owned(permits).ok()
    }
}
