//! The embedded scheduler: recurring and one-time schedules in the database, and the runner that fires them, which has
//! one leader among the replicas.

mod local;
mod once;
pub(crate) mod row;
mod scheduler;

pub use local::LocalCron;
pub use once::LocalOneTime;
pub use scheduler::{LocalScheduler, LocalSchedulerSettings, TickReport};
