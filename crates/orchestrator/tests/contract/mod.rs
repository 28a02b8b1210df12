//! Contract suites: one per port, generic over the implementation, run on every implementation.

#[cfg(feature = "aws")]
pub mod aws;
mod cache;
mod cron;
mod da;
mod database;
mod database_model;
mod event_bus;
mod job_queue;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "mongodb")]
pub mod mongodb;
mod notification;
mod provider;
mod provider_crash;
mod queue;
#[cfg(feature = "redis")]
mod redis;
mod scheduler;
mod settlement;
mod sqlite;
mod storage;
mod support;
mod visibility;
