//! Ports of the settlement side: schedules of triggers, job queues, settlement layer and data availability. The name is
//! the source document's.

pub mod attestation;
pub mod cron;
pub mod da;
pub mod evidence;
pub mod job_queue;
pub mod payout;
pub mod settlement;
pub mod transaction;
