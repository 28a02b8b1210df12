//! Queues.

pub(crate) mod database;
#[cfg(feature = "sqs")]
pub mod sqs;

pub use database::{DatabaseQueue, DatabaseQueueSettings};
#[cfg(feature = "sqs")]
pub use sqs::{QueueAttributes, QueueDepths, Redrive, SqsQueue};
