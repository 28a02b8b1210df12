//! The cron port: recurring schedules whose targets are queues; how triggers are fired.

use async_trait::async_trait;

use crate::core::market::quantity::Micros;

/// What a cron service answers when it can't do as asked.
#[derive(Debug, thiserror::Error)]
pub enum CronError {
    /// No such schedule.
    #[error("schedule `{0}` does not exist")]
    NoSchedule(String),
    /// A rate that the service can't keep; it is refused, never rounded.
    #[error("schedule `{name}` is invalid: {reason}")]
    Invalid {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// It can't be reached.
    #[error("the cron service is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A recurring schedule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CronSchedule {
    /// Unique.
    pub name: String,
    /// Time from one firing to the next.
    pub every: Micros,
    /// Whether it fires.
    pub enabled: bool,
    /// Where the messages go; none until a target is added.
    pub targets: Vec<CronTarget>,
}

/// A target of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CronTarget {
    /// The queue.
    pub queue: String,
    /// The message.
    pub body: String,
}

/// A service of recurring schedules. A firing that is late is not made up for more than once.
#[async_trait]
pub trait CronClient: Send + Sync + 'static {
    /// Sets a schedule's rate; its targets stay. Twice is fine.
    async fn create(&self, name: &str, every: Micros) -> Result<(), CronError>;

    /// Adds a target; the same one twice is fine.
    async fn add_target(&self, name: &str, target: CronTarget) -> Result<(), CronError>;

    /// Lets it fire, or not.
    async fn set_enabled(&self, name: &str, enabled: bool) -> Result<(), CronError>;

    /// All schedules, by name.
    async fn list(&self) -> Result<Vec<CronSchedule>, CronError>;

    /// Removes a schedule with its targets; a missing one is no error.
    async fn delete(&self, name: &str) -> Result<(), CronError>;
}
