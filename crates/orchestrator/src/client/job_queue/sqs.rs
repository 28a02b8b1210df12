//! Job queues at SQS: those over any queue service, and what SQS adds. A hint that was delivered so often and never removed
//! (its consumers die of it) is moved by SQS itself to the dead letters of its kind, with its bytes, and is sent back like any
//! other dead letter.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};

use super::OverQueue;
use crate::{
    client::queue::{QueueAttributes, Redrive, SqsQueue},
    core::{
        client::queue::{Message, QueueError},
        job::{JobKind, Phase},
        madara::job_queue::{JobMessage, JobQueueClient},
        market::{ids::JobId, quantity::Micros},
    },
};

/// Queues that are looked up or made at the same time.
const CONCURRENCY: usize = 8;
/// A short poll asks only some of SQS's servers: dead letters would be overlooked.
const REDRIVE_WAIT: Micros = Micros::from_secs(1);

/// Settings of the job queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqsJobQueueSettings {
    /// How long a hint is hidden when a receiver does not say.
    pub visibility: Micros,
    /// How long hints and dead letters are kept.
    pub retention: Micros,
    /// Deliveries of a hint before SQS moves it to the dead letters. The attempts of a job are counted in the database; this
    /// is for hints that nobody lives to remove.
    pub max_receives: u32,
}

impl Default for SqsJobQueueSettings {
    fn default() -> Self {
        Self { visibility: Micros::from_secs(60), retention: Micros::from_days(14), max_receives: 16 }
    }
}

impl SqsJobQueueSettings {
    /// What a queue of dead letters is made with.
    #[must_use]
    pub fn dead_letters(&self) -> QueueAttributes {
        QueueAttributes { visibility: self.visibility, retention: self.retention, redrive: None }
    }

    /// What a queue of hints is made with.
    #[must_use]
    pub fn hints(&self, dead_letters: String) -> QueueAttributes {
        let redrive = Some(Redrive { dead_letters, max_receives: self.max_receives });
        QueueAttributes { redrive, ..self.dead_letters() }
    }
}

/// Job queues at SQS.
pub struct SqsJobQueue {
    over: OverQueue,
    queue: Arc<SqsQueue>,
    settings: SqsJobQueueSettings,
}

impl SqsJobQueue {
    /// Job queues whose names go on with `prefix` after that of the service.
    #[must_use]
    pub fn new(queue: Arc<SqsQueue>, prefix: &str, settings: SqsJobQueueSettings) -> Self {
        let over = OverQueue::new(queue.clone(), prefix).with_redrive_wait(REDRIVE_WAIT);
        Self { over, queue, settings }
    }

    /// The names of all queues: those of hints with that of their dead letters.
    #[must_use]
    pub fn names(prefix: &str) -> Vec<(String, String)> {
        let both = |kind| [(kind, Phase::Process), (kind, Phase::Verify)];
        let named = |(kind, phase)| {
            (OverQueue::name_of(prefix, kind, phase), OverQueue::dead_letter_name_of(prefix, kind))
        };
        JobKind::ALL.into_iter().flat_map(both).map(named).collect()
    }

    async fn create_kind(&self, kind: JobKind) -> Result<(), QueueError> {
        let dead = self.over.dead_letter_name(kind);
        self.queue.ensure(&dead, &self.settings.dead_letters()).await?;
        for phase in [Phase::Process, Phase::Verify] {
            let name = self.over.queue_name(kind, phase);
            if self.queue.exists(&name).await? {
                continue;
            }
            let dead_letters = self.queue.arn(&dead).await?;
            self.queue.ensure(&name, &self.settings.hints(dead_letters)).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl JobQueueClient for SqsJobQueue {
    async fn create_queues(&self) -> Result<(), QueueError> {
        let kinds: Vec<_> = JobKind::ALL.into_iter().map(|kind| self.create_kind(kind)).collect();
        stream::iter(kinds).buffer_unordered(CONCURRENCY).try_collect().await
    }

    async fn send(
        &self,
        kind: JobKind,
        phase: Phase,
        jobs: &[JobId],
        delay: Micros,
    ) -> Result<(), QueueError> {
        self.over.send(kind, phase, jobs, delay).await
    }

    async fn receive(
        &self,
        kind: JobKind,
        phase: Phase,
        max: usize,
        visibility: Micros,
        wait: Micros,
    ) -> Result<Vec<JobMessage>, QueueError> {
        self.over.receive(kind, phase, max, visibility, wait).await
    }

    async fn extend(
        &self,
        kind: JobKind,
        phase: Phase,
        message: &Message,
        visibility: Micros,
    ) -> Result<(), QueueError> {
        self.over.extend(kind, phase, message, visibility).await
    }

    async fn acknowledge(&self, kind: JobKind, phase: Phase, message: &Message) -> Result<(), QueueError> {
        self.over.acknowledge(kind, phase, message).await
    }

    async fn dead_letter(&self, kind: JobKind, body: &str) -> Result<(), QueueError> {
        self.over.dead_letter(kind, body).await
    }

    async fn dead_letters(&self) -> Result<u64, QueueError> {
        let count = async |kind| self.queue.depths(&self.over.dead_letter_name(kind)).await;
        let counts: Vec<_> = JobKind::ALL.into_iter().map(count).collect();
        let depths: Vec<_> = stream::iter(counts).buffer_unordered(CONCURRENCY).try_collect().await?;
        Ok(depths.into_iter().fold(0, |total, depths| total.saturating_add(depths.total())))
    }

    async fn redrive(&self, max: usize) -> Result<usize, QueueError> {
        let mut moved = 0;
        for kind in JobKind::ALL {
            if moved >= max {
                break;
            }
            // Most kinds have no dead letters: to count is quicker than to wait for none.
            if self.queue.depths(&self.over.dead_letter_name(kind)).await?.visible > 0 {
                moved += self.over.redrive_kind(kind, max - moved).await?;
            }
        }
        Ok(moved)
    }
}
