//! The job engine: handlers, claims, leases, retries.

pub mod handler;

pub use handler::{JobContext, JobError, JobHandler, Policy, Processed, Verified};
