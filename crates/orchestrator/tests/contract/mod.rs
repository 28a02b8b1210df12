//! Contract suites: each is generic over the implementation and run on all of them.

mod cache;
mod cron;
mod event_bus;
mod job_queue;
mod notification;
mod queue;
mod scheduler;
mod storage;
mod support;
