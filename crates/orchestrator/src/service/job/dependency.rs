//! `depends_on`: a job waits, uncounted, until the jobs before it are completed. A failed one holds up its descendants only;
//! they go on once a person has retried it. Within one process a completed job calls those that wait for it.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::{damage, engine::Inner, step::EngineStep};
use crate::core::{
    client::{
        database::{Changeset, Filter, Query, ReaderExt, Result, Stored},
        schema,
    },
    job::{Job, JobState, Phase},
    market::{ids::JobId, quantity::Micros},
};

/// Who waits for whom, as far as this process knows.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    by_dependency: Mutex<BTreeMap<JobId, BTreeSet<JobId>>>,
}

impl Waiters {
    fn add(&self, job: &Job) {
        let mut waiting = self.by_dependency.lock();
        for dependency in &job.depends_on {
            waiting.entry(*dependency).or_default().insert(job.id);
        }
    }

    fn forget(&self, job: &Job) {
        let mut waiting = self.by_dependency.lock();
        for dependency in &job.depends_on {
            if let Some(waiters) = waiting.get_mut(dependency) {
                waiters.remove(&job.id);
                if waiters.is_empty() {
                    waiting.remove(dependency);
                }
            }
        }
    }

    fn take(&self, dependency: JobId) -> BTreeSet<JobId> {
        self.by_dependency.lock().remove(&dependency).unwrap_or_default()
    }
}

/// How long the job must wait before it looks again; `None` when nothing holds it up.
pub(super) async fn wait(inner: &Inner, job: &Job) -> Result<Option<Micros>> {
    // First noted, then looked up: a dependency that completes in between calls the job.
    inner.waiters.add(job);
    let mut delay = None;
    for chunk in job.depends_on.chunks(1_000) {
        let mut missing: BTreeSet<String> = chunk.iter().map(ToString::to_string).collect();
        let ids = missing.iter().cloned().collect();
        let query = Query::new(schema::JOBS).filter(Filter::Ids(ids)).limit(1_000);
        let documents = inner.reader.find(query).await?.documents;
        for Stored { value, .. } in damage::readable(inner, documents).await {
            missing.remove(&value.id.to_string());
            match value.state {
                JobState::Completed => {}
                JobState::Failed | JobState::Cancelled => return Ok(Some(inner.settings.blocked_delay)),
                _ => delay = Some(inner.settings.dependency_delay),
            }
        }
        // One that is not found was completed long ago and purged: only completed jobs are. But a damaged one is not.
        if damage::any_set_aside(inner, missing.iter()).await? {
            return Ok(Some(inner.settings.blocked_delay));
        }
    }
    if delay.is_none() {
        inner.waiters.forget(job);
    }
    Ok(delay)
}

/// Makes those that wait for `completed` due at once. Best effort: they look by themselves, too.
pub(super) async fn call_waiters(inner: &Inner, completed: JobId) {
    for waiter in inner.waiters.take(completed) {
        let Ok(Some(Stored { version, value: mut job })) =
            inner.reader.load::<Job>(&waiter.to_string()).await
        else {
            continue;
        };
        let now = inner.clock.now();
        let waits = Phase::Process.claimable().contains(&job.state)
            && job.due.is_some_and(|due| due > now.as_micros())
            && job.attempts == 0;
        if !waits {
            continue;
        }
        job.due = Some(now.as_micros());
        job.updated_at = now;
        let mut changes = Changeset::new();
        changes.replace(version, &job);
        if inner.writes.commit(EngineStep::Called, Some(&job), changes).await.is_ok() {
            inner.wake.jobs.notify_one();
        }
    }
}
