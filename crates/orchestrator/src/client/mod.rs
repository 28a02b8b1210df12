//! Implementations of the ports. Each module holds one port's back ends; `crate::setup` chooses among them.

#[cfg(feature = "aws")]
pub mod aws;
pub mod breaker;
pub mod cache;
pub mod clock;
pub mod cron;
pub mod da;
pub mod db;
pub mod event_bus;
pub mod evidence;
pub mod job_queue;
pub mod network;
pub mod notification;
pub mod provider;
pub mod queue;
pub mod settlement;
pub mod storage;
pub mod vault;
