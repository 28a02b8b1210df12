//! The runner that fires schedules. Among the runners over one database, the holder of the lease is the leader. It sends the
//! messages of a due schedule first and then moves its `next_at`, in a commit that requires the lease: so a crash, or a
//! pause that outlasts the lease, repeats a firing at most and never loses one. What the messages start is idempotent.

use std::sync::Arc;

use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use super::row::{Row, Rows};
use crate::core::{
    client::{
        clock::Clock,
        database::{Changeset, DatabaseClient, DatabaseError, Entity, Expect, Stored},
        lease::{Held, Leadership, Lease},
        queue::{NewMessage, QueueClient, QueueError},
        schema,
    },
    market::quantity::{Micros, Timestamp},
};

/// Schedules that are fired between two looks at the lease.
const BATCH: usize = 100;

/// Longest time before another try after a failure.
const RETRY: Micros = Micros::from_secs(1);

/// Settings of the runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSchedulerSettings {
    /// How long the lease of the leader lasts; another runner takes over when it is not renewed for so long. A leader
    /// that shuts down gives it back at once.
    pub lease: Micros,
    /// Longest time between two looks at the schedules: how late a change by another process may be noticed.
    pub look: Micros,
}

impl Default for LocalSchedulerSettings {
    fn default() -> Self {
        Self { lease: Micros::from_secs(30), look: Micros::from_secs(5) }
    }
}

/// What one look at the schedules came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickReport {
    /// Whether this runner is the leader.
    pub leader: bool,
    /// Schedules that were fired.
    pub fired: usize,
    /// Schedules that were due and could not be fired; they are tried again.
    pub failed: usize,
    /// When to look again.
    pub next: Timestamp,
}

/// The runner.
pub struct LocalScheduler {
    rows: Rows,
    lease: Lease,
    queue: Arc<dyn QueueClient>,
    clock: Arc<dyn Clock>,
    settings: LocalSchedulerSettings,
    wake: Arc<Notify>,
    held: Mutex<Option<Held>>,
}

/// What became of one due schedule.
enum Firing {
    Done,
    /// The queue failed, or somebody changed the schedule meanwhile: it is still due, or no longer.
    Again,
    /// The lease was lost.
    Deposed,
}

impl LocalScheduler {
    /// A runner. `owner` names it among the runners over one database and must differ between replicas; a process that
    /// alone may open the database can use the same name at each start and so goes on with its own lease at once. `wake`
    /// is the one that the clients of this process have.
    #[must_use]
    pub fn new(
        database: Arc<dyn DatabaseClient>,
        queue: Arc<dyn QueueClient>,
        clock: Arc<dyn Clock>,
        wake: Arc<Notify>,
        owner: impl Into<String>,
        settings: LocalSchedulerSettings,
    ) -> Self {
        let lease = Lease::new(database.clone(), database.clone(), "scheduler", owner, settings.lease);
        Self { rows: Rows { database }, lease, queue, clock, settings, wake, held: Mutex::new(None) }
    }

    /// Fires schedules until `shutdown`, then gives the lease back.
    pub async fn run(&self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let next = match self.tick().await {
                Ok(report) => report.next,
                Err(error) => {
                    tracing::warn!(error = %crate::error::chain(&error), "the schedules can't be read");
                    self.clock.now().plus(self.settings.look.min(RETRY))
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = self.clock.sleep_until(next) => {}
                () = self.wake.notified() => {}
            }
        }
        self.resign().await;
    }

    /// Looks once: takes or renews the lease if it can, and as the leader fires what is due.
    ///
    /// # Errors
    /// [`DatabaseError`] when the lease or the schedules can't be read; what was fired before stays fired.
    pub async fn tick(&self) -> Result<TickReport, DatabaseError> {
        let mut held = self.held.lock().await;
        let mut report = TickReport {
            leader: false,
            fired: 0,
            failed: 0,
            next: self.clock.now().plus(self.settings.look),
        };
        loop {
            let now = self.clock.now();
            let lease = match self.lease.hold(held.take(), now).await? {
                Leadership::Ours(lease) => held.insert(lease).clone(),
                Leadership::Theirs(until) => {
                    *held = None;
                    report.leader = false;
                    // The end of their lease is the time to try; one that has passed was taken just now.
                    let look = now.plus(self.settings.look);
                    report.next = if until > now { until.min(look) } else { look };
                    return Ok(report);
                }
            };
            report.leader = true;
            let due = self.rows.due(now, BATCH).await?;
            let full = due.len() == BATCH;
            let failed_before = report.failed;
            for row in &due {
                match self.fire(row, &lease).await? {
                    Firing::Done => report.fired += 1,
                    Firing::Again => report.failed += 1,
                    Firing::Deposed => {
                        *held = None;
                        report.leader = false;
                        return Ok(report);
                    }
                }
            }
            // A batch with failures would come first again at once: it waits for the next look.
            if !full || report.failed > failed_before {
                report.next = self.next_look(now, &lease, report.failed > 0).await?;
                return Ok(report);
            }
        }
    }

    /// The next due instant, but no later than a look, and in time to renew the lease.
    async fn next_look(
        &self,
        now: Timestamp,
        lease: &Held,
        failed: bool,
    ) -> Result<Timestamp, DatabaseError> {
        if failed {
            return Ok(now.plus(self.settings.look.min(RETRY)));
        }
        let look = now.plus(self.settings.look);
        let renew = lease.until.minus(Micros(self.settings.lease.get() / 2)).max(now.plus(Micros(1)));
        let due = self.rows.next_due(now).await?.unwrap_or(look);
        Ok(look.min(renew).min(due))
    }

    async fn fire(&self, due: &Stored<Row>, lease: &Held) -> Result<Firing, DatabaseError> {
        let now = self.clock.now();
        if now >= lease.until {
            return Ok(Firing::Deposed);
        }
        let id = due.value.document_id();
        for target in due.value.targets() {
            let message = NewMessage { body: target.body, delay: Micros::ZERO };
            match self.queue.send(&target.queue, vec![message]).await {
                Ok(()) => {}
                Err(error @ QueueError::Unavailable(_)) => {
                    tracing::warn!(id, queue = target.queue, error = %crate::error::chain(&error), "a schedule did not fire");
                    return Ok(Firing::Again);
                }
                // It will never work; the other targets and the next period may.
                Err(error) => {
                    tracing::error!(id, queue = target.queue, error = %crate::error::chain(&error), "a target of a schedule was skipped");
                }
            }
        }
        let mut changes = Changeset::new();
        lease.guard(&mut changes);
        match due.value.fired(now) {
            Some(next) => changes.replace(due.version, &next),
            None => changes.delete(schema::SCHEDULES, &id, Expect::Version(due.version)),
        };
        match self.rows.database.commit(changes).await {
            Ok(()) => Ok(Firing::Done),
            Err(DatabaseError::Conflict { collection, .. } | DatabaseError::Missing { collection, .. }) => {
                Ok(if collection == schema::META { Firing::Deposed } else { Firing::Again })
            }
            Err(error) => Err(error),
        }
    }

    async fn resign(&self) {
        if let Some(held) = self.held.lock().await.take()
            && let Err(error) = self.lease.release(held).await
        {
            tracing::warn!(error = %crate::error::chain(&error), "the scheduler's lease could not be given back");
        }
    }
}
