//! Queues.

mod database;

pub use database::{DatabaseQueue, DatabaseQueueSettings};
