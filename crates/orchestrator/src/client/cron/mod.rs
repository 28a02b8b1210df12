//! The embedded scheduler: recurring and one-time schedules in the database, and the runner that fires them, which has
//! one leader among the replicas. Recurring ones at EventBridge.

#[cfg(feature = "eventbridge")]
pub(crate) mod event_bridge;
mod local;
mod once;
pub(crate) mod row;
mod scheduler;

#[cfg(feature = "eventbridge")]
pub use event_bridge::{EventBridgeCron, rate_expression};
pub use local::LocalCron;
pub use once::LocalOneTime;
pub use scheduler::{LocalScheduler, LocalSchedulerSettings, TickReport};
