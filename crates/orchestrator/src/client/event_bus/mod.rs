//! Event buses.

#[cfg(feature = "eventbridge")]
mod event_bridge;
mod local;

#[cfg(feature = "eventbridge")]
pub use event_bridge::EventBridgeBus;
pub use local::{DEFAULT_FEED_CAPACITY, LocalEventBus};
