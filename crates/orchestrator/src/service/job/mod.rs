//! The job engine: handlers, claims, leases, retries, triggers.

pub mod handler;
pub mod trigger;

pub use handler::{JobContext, JobError, JobHandler, Policy, Processed, Verified};
pub use trigger::{Trigger, TriggerReport};
