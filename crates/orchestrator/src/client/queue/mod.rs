//! Queues.

pub(crate) mod database;

pub use database::{DatabaseQueue, DatabaseQueueSettings};
