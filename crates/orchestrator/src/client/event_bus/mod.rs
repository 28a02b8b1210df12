//! Event buses.

mod local;

pub use local::{DEFAULT_FEED_CAPACITY, LocalEventBus};
