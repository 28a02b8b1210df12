//! Leases: renewed by a heartbeat apart from the work, reaped when they run out, and freed at once when the process that
//! held them is known to be gone.

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{
    backlog, backoff, damage,
    engine::{Engine, Inner},
    outcome,
    step::EngineStep,
};
use crate::{
    core::{
        client::{
            database::{
                Changeset, Claim, Committer, DatabaseError, Entity, Filter, Query, Reader, ReaderExt, Sort,
                Stored,
            },
            schema::{self, Collection},
        },
        job::{Job, JobKind},
        market::{ids::JobId, quantity::Timestamp},
    },
    error::Result,
};

/// How many leases are dealt with at once.
const BATCH: usize = 500;
/// A job whose lease was lost is due at once for so many attempts; after that it backs off.
const AT_ONCE: u32 = 2;

/// Counts the starts of a single-process daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BootEpoch {
    epoch: u64,
}

impl Entity for BootEpoch {
    const NAME: &'static str = "boot_epoch";
    const COLLECTION: Collection = schema::META;
    fn document_id(&self) -> String {
        "boot-epoch".into()
    }
}

impl Engine {
    /// Renews the leases of all held jobs that have not been renewed for a third of the lease, in one call per 500. A job
    /// that turns out to be held by somebody else is dropped by its worker. Returns how many were renewed.
    ///
    /// # Errors
    /// When the database does not answer: try again soon, the leases still run.
    pub async fn renew(&self) -> Result<usize> {
        let inner = self.inner();
        let now = inner.clock.now();
        let old = now.minus(crate::core::market::quantity::Micros(inner.settings.lease.get() / 3));
        let held: Vec<JobId> = {
            let running = inner.running.lock();
            running.iter().filter(|(_, held)| held.renewed_at <= old).map(|(id, _)| *id).collect()
        };
        let mut renewed = 0;
        for chunk in held.chunks(BATCH) {
            let ids = chunk.iter().map(ToString::to_string).collect();
            let until = now.plus(inner.settings.lease);
            let claim = Claim {
                collection: schema::JOBS,
                filter: Filter::Ids(ids).and(Filter::eq("lease_owner", inner.owner.as_str())),
                sort: Sort::Id,
                limit: chunk.len(),
                set: vec![("lease_until".into(), until.as_micros().into())],
                increment: Vec::new(),
            };
            let documents = inner.writes.claim(EngineStep::Renewed, None, claim).await?;
            renewed += documents.len();
            let mut running = inner.running.lock();
            for id in chunk {
                let Some(held) = running.get_mut(id) else { continue };
                if documents.iter().any(|document| document.id == id.to_string()) {
                    held.renewed_at = now;
                } else {
                    held.lost.cancel();
                }
            }
        }
        Ok(renewed)
    }

    /// Returns jobs whose lease ran out to the queue. Needs no message and no owner; any process may do it for all. Returns
    /// how many it returned.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn reap(&self) -> Result<usize> {
        let inner = self.inner();
        let now = inner.clock.now();
        let query = Query::new(schema::JOBS)
            .filter(of_known_kinds(Filter::Le("lease_until".into(), now.as_micros().into())))
            .sort(Sort::Field("lease_until".into()))
            .limit(BATCH);
        let page = inner.reader.find(query).await?;
        let jobs = damage::readable(inner, page.documents).await;
        let reaped = return_all(inner, EngineStep::Reaped, jobs, now).await;
        if reaped > 0 {
            tracing::warn!(reaped, "leases ran out; their jobs are due again");
            metrics::counter!("orchestrator_job_leases_reaped_total").increment(reaped as u64);
            inner.wake.jobs.notify_one();
        }
        Ok(reaped)
    }

    /// Counts the jobs that are due, for those who look at the gauge while nobody asks [`super::Backlog`].
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn measure(&self) -> Result<u64> {
        let inner = self.inner();
        Ok(backlog::count(inner.reader.as_ref(), inner.clock.now()).await?)
    }

    /// Frees every lease at once and counts the boot epoch. Only for a process that knows itself to be alone on its
    /// database, before it starts to claim: whoever holds a lease then is gone. Returns how many it freed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn release_leases_of_previous_process(&self) -> Result<usize> {
        let inner = self.inner();
        let now = inner.clock.now();
        count_boot(inner.reader.as_ref(), &inner.writes.at(EngineStep::Booted)).await?;
        let mut freed = 0;
        let mut after = None;
        loop {
            let query = Query::new(schema::JOBS)
                .filter(of_known_kinds(Filter::Gt("lease_until".into(), i64::MIN.into())))
                .sort(Sort::Field("lease_until".into()))
                .limit(BATCH)
                .after(after);
            let page = inner.reader.find(query).await?;
            let mut jobs = damage::readable(inner, page.documents).await;
            jobs.retain(|job| job.value.lease_owner.as_deref() != Some(inner.owner.as_str()));
            freed += return_all(inner, EngineStep::Freed, jobs, now).await;
            match page.next {
                Some(cursor) => after = Some(cursor),
                None => break,
            }
        }
        if freed > 0 {
            tracing::info!(freed, "leases of the previous process were released");
            inner.wake.jobs.notify_one();
        }
        Ok(freed)
    }
}

/// Jobs of kinds that this program does not know can't be read, but are not damaged: they are left to those that do.
fn of_known_kinds(filter: Filter) -> Filter {
    filter.and(Filter::In("kind".into(), JobKind::ALL.iter().map(|kind| kind.as_str().into()).collect()))
}

/// Returns each job to the queue, unless it changed since it was read. Commits run side by side, so that the database can
/// group them.
async fn return_all(inner: &Inner, step: EngineStep, jobs: Vec<Stored<Job>>, now: Timestamp) -> usize {
    let outcomes = stream::iter(jobs)
        .map(|Stored { version, value: mut job }| async move {
            let due = due_after_loss(inner, &job, now);
            let changed = outcome::lose_lease(&mut job, now, due);
            if let Err(error) = changed {
                tracing::error!(job = %job.id, %error, "a lease on a job that does not run");
                return false;
            }
            let mut changes = Changeset::new();
            changes.replace(version, &job);
            match inner.writes.commit(step, Some(&job), changes).await {
                Ok(()) => true,
                // Renewed, completed or reaped in between.
                Err(DatabaseError::Conflict { .. } | DatabaseError::Missing { .. }) => false,
                Err(error) => {
                    tracing::warn!(job = %job.id, error = crate::error::chain(&error), "a lease was not returned");
                    false
                }
            }
        })
        .buffer_unordered(64)
        .collect::<Vec<_>>()
        .await;
    outcomes.into_iter().filter(|returned| *returned).count()
}

/// When a job whose lease was lost comes back: at once, unless that happened before. A process that dies again and again, by
/// this job or with it, must not spend all of the job's attempts within seconds.
fn due_after_loss(inner: &Inner, job: &Job, now: Timestamp) -> Timestamp {
    let begun = job.attempts.max(job.verify_attempts);
    if begun <= AT_ONCE {
        // In front of what has not begun: the queue is in the order of `due`, and a backlog must not keep what was cut short
        // from its end.
        return job.created_at.min(now);
    }
    let policy = inner.kinds.get(&job.kind).map(|kind| kind.policy).unwrap_or_default();
    now.plus(backoff::full_jitter(inner.entropy.as_ref(), policy.base_delay, policy.max_delay, begun))
}

async fn count_boot(reader: &dyn Reader, committer: &dyn Committer) -> Result<()> {
    let mut changes = Changeset::new();
    match reader.load::<BootEpoch>("boot-epoch").await? {
        None => changes.insert(&BootEpoch { epoch: 1 }),
        Some(found) => {
            let epoch = found.value.epoch.saturating_add(1);
            changes.replace(found.version, &BootEpoch { epoch })
        }
    };
    committer.commit(changes).await?;
    Ok(())
}
