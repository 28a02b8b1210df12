//! The message-queue port: at-least-once delivery with a visibility time-out. Messages are hints that carry an id; the
//! database is the truth.

use async_trait::async_trait;

use crate::core::market::quantity::Micros;

/// What a queue answers when it can't do as asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// No such queue.
    #[error("queue `{0}` does not exist")]
    NoQueue(String),
    /// The receipt is of another delivery, or the message is gone.
    #[error("the receipt is stale")]
    StaleReceipt,
    /// The message is larger than 64 KiB, or a batch has more than 1,000.
    #[error("invalid message: {0}")]
    Invalid(String),
    /// It can't be reached.
    #[error("the queue is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl QueueError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::NoQueue(_) | Self::StaleReceipt | Self::Invalid(_) => false,
        }
    }
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Text, at most 64 KiB.
    pub body: String,
    /// Not visible before this has passed.
    pub delay: Micros,
}

/// A delivered message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Names the message.
    pub id: String,
    /// Names this delivery; needed to delete or to extend.
    pub receipt: String,
    /// The text.
    pub body: String,
    /// How often it was delivered, this time included. For people; nothing relies on it.
    pub deliveries: u32,
}

/// A queue service.
#[async_trait]
pub trait QueueClient: Send + Sync + 'static {
    /// Makes sure that the queue exists; twice is fine.
    async fn create(&self, queue: &str) -> Result<(), QueueError>;

    /// Sends a batch; an empty one does nothing. What is refused as invalid leaves nothing; a batch that met another error
    /// may have been sent in part. Sending twice delivers twice, in any order.
    async fn send(&self, queue: &str, messages: Vec<NewMessage>) -> Result<(), QueueError>;

    /// Up to `max` messages, in any order, hidden from others for `visibility`; waits up to `wait` for the first. Without a
    /// wait a service of many servers may not ask them all, and find nothing where something is.
    async fn receive(
        &self,
        queue: &str,
        max: usize,
        visibility: Micros,
        wait: Micros,
    ) -> Result<Vec<Message>, QueueError>;

    /// Removes a delivered message for good; one that is gone already is no error. The receipt of an earlier delivery is
    /// refused as stale or, where the service can't tell, does as that of the last one.
    async fn delete(&self, queue: &str, receipt: &str) -> Result<(), QueueError>;

    /// Hides a delivered message for `visibility` from now; zero gives it back at once. One that is gone is refused as stale;
    /// the receipt of an earlier delivery is treated as by [`QueueClient::delete`].
    async fn change_visibility(
        &self,
        queue: &str,
        receipt: &str,
        visibility: Micros,
    ) -> Result<(), QueueError>;

    /// Removes every message that was sent before the call.
    async fn purge(&self, queue: &str) -> Result<(), QueueError>;

    /// Messages that wait, hidden and delayed ones included; a service of many servers may count late.
    async fn depth(&self, queue: &str) -> Result<u64, QueueError>;
}
