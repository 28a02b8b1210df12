//! Queues of jobs.

mod over_queue;

pub use over_queue::OverQueue;
