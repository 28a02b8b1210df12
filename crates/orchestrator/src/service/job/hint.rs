//! Hints: who commits new jobs tells the workers of all replicas over the job queue. A hint names a job and nothing more;
//! the job's document decides what is done. A hint that is lost costs the engine's fallback interval, never the job, so
//! hints are sent after the commit, in the background, and dropped when the queue is slower than the commits.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::core::{
    client::{
        clock::Clock,
        database::{Changeset, Committer, Result, Write, WriteOp},
        schema,
    },
    job::{JobKind, JobState, Phase},
    madara::job_queue::JobQueueClient,
    market::{
        ids::JobId,
        quantity::{Micros, Timestamp},
    },
};

/// Hints that wait to be sent.
const PENDING: usize = 65_536;
/// Most hints that are taken together for sending.
const BATCH: usize = 1_000;
/// A job that is due later than this is left to the engine's own look: the longest delay that every queue knows.
const FARTHEST: Micros = Micros::from_secs(900);

/// That a job is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hint {
    kind: JobKind,
    phase: Phase,
    job: JobId,
    due: Timestamp,
}

/// What a hint needs of a job's body.
#[derive(Deserialize)]
struct Body {
    kind: JobKind,
    state: JobState,
    due: Option<i64>,
}

fn hint(write: &Write) -> Option<Hint> {
    let (WriteOp::Insert { body } | WriteOp::Replace { body, .. }) = &write.op else { return None };
    if write.collection != schema::JOBS {
        return None;
    }
    let job = write.id.parse().ok()?;
    let body: Body = serde_json::from_str(body).ok()?;
    let phase = [Phase::Process, Phase::Verify].into_iter().find(|p| p.claimable().contains(&body.state))?;
    Some(Hint { kind: body.kind, phase, job, due: Timestamp(body.due?) })
}

/// Takes hints for the sender; cheap to clone.
#[derive(Clone)]
pub struct Hints {
    sender: mpsc::Sender<Hint>,
}

/// Sends hints; [`HintSender::run`] is a task of its own.
pub struct HintSender {
    receiver: mpsc::Receiver<Hint>,
    queue: Arc<dyn JobQueueClient>,
    clock: Arc<dyn Clock>,
}

/// A way to give hints, and what sends them.
#[must_use]
pub fn hints(queue: Arc<dyn JobQueueClient>, clock: Arc<dyn Clock>) -> (Hints, HintSender) {
    let (sender, receiver) = mpsc::channel(PENDING);
    (Hints { sender }, HintSender { receiver, queue, clock })
}

impl Hints {
    fn of(&self, changes: &Changeset) -> Vec<Hint> {
        changes.writes.iter().filter_map(hint).collect()
    }

    fn give(&self, hints: Vec<Hint>) {
        for hint in hints {
            if self.sender.try_send(hint).is_err() {
                metrics::counter!("orchestrator_job_hints_dropped_total").increment(1);
            }
        }
    }
}

impl HintSender {
    /// Sends hints until nobody can give any more.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        while self.receiver.recv_many(&mut batch, BATCH).await > 0 {
            self.send(&std::mem::take(&mut batch)).await;
        }
    }

    /// Those that are due go together; those that come later each with a delay of its own.
    async fn send(&self, batch: &[Hint]) {
        let now = self.clock.now();
        let mut groups: BTreeMap<(JobKind, Phase, u64), Vec<JobId>> = BTreeMap::new();
        for hint in batch {
            let delay = hint.due.since(now);
            if delay > FARTHEST {
                continue;
            }
            // Whole seconds, upwards: what queues know, and never too early.
            let seconds = delay.get().div_ceil(1_000_000);
            groups.entry((hint.kind, hint.phase, seconds)).or_default().push(hint.job);
        }
        for ((kind, phase, seconds), jobs) in groups {
            let delay = Micros::from_secs(seconds);
            match self.queue.send(kind, phase, &jobs, delay).await {
                Ok(()) => {
                    metrics::counter!("orchestrator_job_hints_sent_total").increment(jobs.len() as u64);
                }
                Err(error) => {
                    metrics::counter!("orchestrator_job_hints_dropped_total").increment(jobs.len() as u64);
                    let error = crate::error::chain(&error);
                    tracing::warn!(%kind, jobs = jobs.len(), error, "workers were not told of jobs; they will look");
                }
            }
        }
    }
}

/// A committer that gives a hint for each job that a commit makes due.
pub struct HintingCommitter {
    inner: Arc<dyn Committer>,
    hints: Hints,
}

impl HintingCommitter {
    /// Decorates a committer.
    #[must_use]
    pub fn new(inner: Arc<dyn Committer>, hints: Hints) -> Self {
        Self { inner, hints }
    }
}

#[async_trait]
impl Committer for HintingCommitter {
    async fn commit(&self, changeset: Changeset) -> Result<()> {
        let hints = self.hints.of(&changeset);
        self.inner.commit(changeset).await?;
        self.hints.give(hints);
        Ok(())
    }
}
