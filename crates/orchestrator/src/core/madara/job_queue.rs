//! The job-queue port: which queue a kind of job in a phase goes to, dead letters and their redrive. Messages are hints:
//! each carries the id of a job that is in the database.

use async_trait::async_trait;

use crate::core::{
    client::queue::{Message, QueueError},
    job::{JobKind, Phase},
    market::{ids::JobId, quantity::Micros},
};

/// A delivered hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobMessage {
    /// The job; `None` when the message can't be read, which makes it poison.
    pub job: Option<JobId>,
    /// The delivery.
    pub message: Message,
}

/// Queues of jobs.
#[async_trait]
pub trait JobQueueClient: Send + Sync + 'static {
    /// Makes sure that the queues of all kinds and phases exist, and the dead-letter queue; twice is fine.
    async fn create_queues(&self) -> Result<(), QueueError>;

    /// Sends hints.
    async fn send(
        &self,
        kind: JobKind,
        phase: Phase,
        jobs: &[JobId],
        delay: Micros,
    ) -> Result<(), QueueError>;

    /// Up to `max` hints, in any order; waits up to `wait` for the first.
    async fn receive(
        &self,
        kind: JobKind,
        phase: Phase,
        max: usize,
        visibility: Micros,
        wait: Micros,
    ) -> Result<Vec<JobMessage>, QueueError>;

    /// Hides a delivered hint for `visibility` from now, while its job is being worked on.
    async fn extend(
        &self,
        kind: JobKind,
        phase: Phase,
        message: &Message,
        visibility: Micros,
    ) -> Result<(), QueueError>;

    /// Removes a delivered hint.
    async fn acknowledge(&self, kind: JobKind, phase: Phase, message: &Message) -> Result<(), QueueError>;

    /// Puts a job, or the bytes of a poison message, among the dead letters.
    async fn dead_letter(&self, kind: JobKind, body: &str) -> Result<(), QueueError>;

    /// How many dead letters wait.
    async fn dead_letters(&self) -> Result<u64, QueueError>;

    /// Sends up to `max` dead letters back to where they came from; returns how many.
    async fn redrive(&self, max: usize) -> Result<usize, QueueError>;
}
