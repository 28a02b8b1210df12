//! Contract suites: each is generic over the implementation and run on all of them.

mod cache;
mod cron;
mod database;
mod database_model;
mod event_bus;
mod job_queue;
mod notification;
mod queue;
mod scheduler;
mod sqlite;
mod storage;
mod support;
