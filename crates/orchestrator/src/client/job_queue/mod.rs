//! Queues of jobs.

mod over_queue;
#[cfg(feature = "sqs")]
mod sqs;

pub use over_queue::OverQueue;
#[cfg(feature = "sqs")]
pub use sqs::{SqsJobQueue, SqsJobQueueSettings};
