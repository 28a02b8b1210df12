//! Queues of jobs.

#[cfg(feature = "kafka")]
mod kafka;
mod over_queue;
#[cfg(feature = "sqs")]
mod sqs;

#[cfg(feature = "kafka")]
pub use kafka::{KafkaBroker, KafkaCluster, KafkaJobQueue, KafkaSasl, KafkaSecurity, KafkaSettings};
pub use over_queue::OverQueue;
#[cfg(feature = "sqs")]
pub use sqs::{SqsJobQueue, SqsJobQueueSettings};
