//! The notification port: alerts to people, by topic.

use async_trait::async_trait;

use crate::core::market::quantity::Micros;

/// What a notification service answers when it can't do as asked.
#[derive(Debug, thiserror::Error)]
pub enum NotificationError {
    /// No such topic.
    #[error("topic `{0}` does not exist")]
    NoTopic(String),
    /// An address that this service can't deliver to, or must not.
    #[error("`{address}` can't be subscribed: {reason}")]
    InvalidAddress {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// At least one subscriber was not reached; publishing again reaches those that were reached a second time.
    #[error("a notification was not delivered")]
    Undelivered(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The service is left alone for now, because it failed too often; it was not asked. Come again after so long.
    #[error("the notification service is left alone for {} ms", .0.as_millis())]
    Deferred(Micros),
}

/// A notification.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Notification {
    /// Same id, same notification: receivers may drop repeats.
    pub id: String,
    /// A line for people.
    pub subject: String,
    /// The details.
    pub body: serde_json::Value,
}

/// A notification service.
#[async_trait]
pub trait NotificationClient: Send + Sync + 'static {
    /// Makes sure that the topic exists; twice is fine.
    async fn create_topic(&self, topic: &str) -> Result<(), NotificationError>;

    /// The topics, by name.
    async fn topics(&self) -> Result<Vec<String>, NotificationError>;

    /// Adds a subscriber address to a topic; twice is fine.
    async fn subscribe(&self, topic: &str, address: &str) -> Result<(), NotificationError>;

    /// Removes a subscriber; a missing one is no error.
    async fn unsubscribe(&self, topic: &str, address: &str) -> Result<(), NotificationError>;

    /// Delivers to every subscriber; without any, it is done.
    async fn publish(&self, topic: &str, notification: &Notification) -> Result<(), NotificationError>;
}
