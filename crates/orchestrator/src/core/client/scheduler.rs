//! The scheduler port: one message to a queue at one instant.

use async_trait::async_trait;

use crate::core::market::quantity::Timestamp;

/// What a scheduler answers when it can't do as asked.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// No such schedule.
    #[error("schedule `{0}` does not exist")]
    NoSchedule(String),
    /// A schedule that the service can't keep.
    #[error("schedule `{name}` is invalid: {reason}")]
    Invalid {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// It can't be reached.
    #[error("the scheduler is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A one-time schedule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OneTimeSchedule {
    /// Unique; creating it again replaces it.
    pub name: String,
    /// When; an instant that has passed is due at once.
    pub at: Timestamp,
    /// The queue.
    pub queue: String,
    /// The message.
    pub body: String,
    /// Whether it fires.
    pub enabled: bool,
}

/// A service of one-time schedules. Each fires at least once, and is gone after it fired.
#[async_trait]
pub trait SchedulerClient: Send + Sync + 'static {
    /// Sets a schedule.
    async fn create(&self, schedule: OneTimeSchedule) -> Result<(), SchedulerError>;

    /// Lets it fire, or not.
    async fn set_enabled(&self, name: &str, enabled: bool) -> Result<(), SchedulerError>;

    /// Those that have not fired, by name.
    async fn list(&self) -> Result<Vec<OneTimeSchedule>, SchedulerError>;

    /// Removes one; a missing one is no error.
    async fn delete(&self, name: &str) -> Result<(), SchedulerError>;
}
