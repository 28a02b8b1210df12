//! Job queues over any queue service: `<prefix>-<kind>-<phase>` carries hints, `<prefix>-<kind>-dead` the dead letters
//! of a kind with their bytes unchanged, so that a poison message of any length fits and the queue's name tells its kind.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::core::{
    client::queue::{Message, NewMessage, QueueClient, QueueError},
    job::{JobKind, Phase},
    madara::job_queue::{JobMessage, JobQueueClient},
    market::{ids::JobId, quantity::Micros},
};

/// Most hints that are sent or taken at once.
const BATCH: usize = 1_000;

/// How long a dead letter is hidden while it is sent back.
const REDRIVE_VISIBILITY: Micros = Micros::from_secs(60);

/// Job queues over a queue service.
pub struct OverQueue {
    queue: Arc<dyn QueueClient>,
    prefix: String,
    redrive_wait: Micros,
}

/// The text of a hint.
#[derive(Serialize, Deserialize)]
pub(super) struct Hint {
    pub(super) job: JobId,
}

pub(super) fn hint(job: JobId) -> Result<String, QueueError> {
    serde_json::to_string(&Hint { job }).map_err(|error| QueueError::Invalid(error.to_string()))
}

/// What a dead letter is sent back as: a job's bare id becomes a hint again, anything else stays as it is.
pub(super) fn hint_of(letter: &str) -> Result<String, QueueError> {
    letter.parse().map_or_else(|_| Ok(letter.to_owned()), hint)
}

impl OverQueue {
    /// Job queues whose names start with `prefix`.
    #[must_use]
    pub fn new(queue: Arc<dyn QueueClient>, prefix: impl Into<String>) -> Self {
        Self { queue, prefix: prefix.into(), redrive_wait: Micros::ZERO }
    }

    /// With a wait for dead letters, for services that look everywhere only when they wait.
    #[must_use]
    pub fn with_redrive_wait(self, redrive_wait: Micros) -> Self {
        Self { redrive_wait, ..self }
    }

    /// The queue of a kind in a phase.
    #[must_use]
    pub fn queue_name(&self, kind: JobKind, phase: Phase) -> String {
        Self::name_of(&self.prefix, kind, phase)
    }

    /// The queue of a kind in a phase, for job queues whose names start with `prefix`.
    #[must_use]
    pub fn name_of(prefix: &str, kind: JobKind, phase: Phase) -> String {
        let phase = match phase {
            Phase::Process => "process",
            Phase::Verify => "verify",
        };
        format!("{prefix}-{kind}-{phase}")
    }

    /// The queue of a kind's dead letters, for job queues whose names start with `prefix`.
    #[must_use]
    pub fn dead_letter_name_of(prefix: &str, kind: JobKind) -> String {
        format!("{prefix}-{kind}-dead")
    }

    /// The queue of a kind's dead letters.
    #[must_use]
    pub fn dead_letter_name(&self, kind: JobKind) -> String {
        Self::dead_letter_name_of(&self.prefix, kind)
    }

    /// Moves up to `max` dead letters of a kind to its first phase: the job's own state in the database decides what is
    /// done then. A crash in between repeats hints, which is harmless.
    pub(super) async fn redrive_kind(&self, kind: JobKind, max: usize) -> Result<usize, QueueError> {
        let dead = self.dead_letter_name(kind);
        let target = self.queue_name(kind, Phase::Process);
        let mut moved = 0;
        while moved < max {
            let batch = (max - moved).min(BATCH);
            let letters = self.queue.receive(&dead, batch, REDRIVE_VISIBILITY, self.redrive_wait).await?;
            if letters.is_empty() {
                break;
            }
            let again = letters
                .iter()
                .map(|letter| Ok(NewMessage { body: hint_of(&letter.body)?, delay: Micros::ZERO }))
                .collect::<Result<_, QueueError>>()?;
            self.queue.send(&target, again).await?;
            for letter in &letters {
                self.queue.delete(&dead, &letter.receipt).await?;
            }
            moved += letters.len();
        }
        Ok(moved)
    }
}

#[async_trait]
impl JobQueueClient for OverQueue {
    async fn create_queues(&self) -> Result<(), QueueError> {
        for kind in JobKind::ALL {
            for phase in [Phase::Process, Phase::Verify] {
                self.queue.create(&self.queue_name(kind, phase)).await?;
            }
            self.queue.create(&self.dead_letter_name(kind)).await?;
        }
        Ok(())
    }

    async fn send(
        &self,
        kind: JobKind,
        phase: Phase,
        jobs: &[JobId],
        delay: Micros,
    ) -> Result<(), QueueError> {
        let queue = self.queue_name(kind, phase);
        for batch in jobs.chunks(BATCH) {
            let messages = batch
                .iter()
                .map(|job| Ok(NewMessage { body: hint(*job)?, delay }))
                .collect::<Result<_, QueueError>>()?;
            self.queue.send(&queue, messages).await?;
        }
        Ok(())
    }

    async fn receive(
        &self,
        kind: JobKind,
        phase: Phase,
        max: usize,
        visibility: Micros,
        wait: Micros,
    ) -> Result<Vec<JobMessage>, QueueError> {
        let messages = self.queue.receive(&self.queue_name(kind, phase), max, visibility, wait).await?;
        let read = |message: Message| JobMessage {
            job: serde_json::from_str::<Hint>(&message.body).ok().map(|hint| hint.job),
            message,
        };
        Ok(messages.into_iter().map(read).collect())
    }

    async fn extend(
        &self,
        kind: JobKind,
        phase: Phase,
        message: &Message,
        visibility: Micros,
    ) -> Result<(), QueueError> {
        self.queue.change_visibility(&self.queue_name(kind, phase), &message.receipt, visibility).await
    }

    async fn acknowledge(&self, kind: JobKind, phase: Phase, message: &Message) -> Result<(), QueueError> {
        self.queue.delete(&self.queue_name(kind, phase), &message.receipt).await
    }

    async fn dead_letter(&self, kind: JobKind, body: &str) -> Result<(), QueueError> {
        let message = NewMessage { body: body.to_owned(), delay: Micros::ZERO };
        self.queue.send(&self.dead_letter_name(kind), vec![message]).await
    }

    async fn dead_letters(&self) -> Result<u64, QueueError> {
        let mut total = 0_u64;
        for kind in JobKind::ALL {
            total = total.saturating_add(self.queue.depth(&self.dead_letter_name(kind)).await?);
        }
        Ok(total)
    }

    async fn redrive(&self, max: usize) -> Result<usize, QueueError> {
        let mut moved = 0;
        for kind in JobKind::ALL {
            if moved >= max {
                break;
            }
            moved += self.redrive_kind(kind, max - moved).await?;
        }
        Ok(moved)
    }
}
