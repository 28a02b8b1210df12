//! The event-bus port: domain events to whoever asked for them by rule.

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::core::market::event::DomainEvent;

/// What an event bus answers when it can't do as asked.
#[derive(Debug, thiserror::Error)]
pub enum EventBusError {
    /// No such bus.
    #[error("event bus `{0}` does not exist")]
    NoBus(String),
    /// A rule's pattern is no dotted name with an optional `*` at the end.
    #[error("`{0}` is no event pattern: use a dotted name, or one that ends in `.*`, or `*`")]
    InvalidPattern(String),
    /// An event that no service takes.
    #[error("event `{id}` has {bytes} bytes, more than the bus takes")]
    TooLarge {
        /// The event.
        id: String,
        /// Its size.
        bytes: usize,
    },
    /// It can't be reached.
    #[error("the event bus is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A rule: events whose type matches go to the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRule {
    /// Unique on the bus; putting it again replaces it.
    pub name: String,
    /// `allocation.active`, `allocation.*` or `*`.
    pub pattern: String,
    /// The queue that gets the event as JSON.
    pub queue: String,
}

/// An event bus.
#[async_trait]
pub trait EventBusClient: Send + Sync + 'static {
    /// Makes sure that the bus exists; twice is fine.
    async fn create_bus(&self, bus: &str) -> Result<(), EventBusError>;

    /// Sets a rule.
    async fn put_rule(&self, bus: &str, rule: EventRule) -> Result<(), EventBusError>;

    /// Removes a rule; a missing one is no error.
    async fn delete_rule(&self, bus: &str, name: &str) -> Result<(), EventBusError>;

    /// Publishes in the order given; an empty batch does nothing. Publishing twice delivers twice. A service elsewhere may
    /// deliver in another order: the ids of events sort by time.
    async fn publish(&self, bus: &str, events: &[DomainEvent]) -> Result<(), EventBusError>;
}

/// Live events for the API's stream, where the bus can give them in process. A slow reader loses the oldest and is told
/// how many.
pub trait EventFeed: Send + Sync + 'static {
    /// Events from now on.
    fn subscribe(&self) -> broadcast::Receiver<DomainEvent>;
}
