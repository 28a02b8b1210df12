//! The background: the driver of the job engine, the consumer of triggers and the relay of the outbox. Each is a loop that
//! ends when its shutdown token is cancelled; each can be stepped by a test.

pub mod changes;
pub mod depths;
pub mod driver;
pub mod feed;
pub mod hints;
mod idle;
pub mod leader;
pub mod prober;
pub mod relay;
pub mod trigger;
pub mod trigger_consumer;
pub mod visibility;

pub use changes::ChangeFollower;
pub use driver::{Driver, DriverSettings};
pub use feed::OutboxFeed;
pub use hints::{HintConsumer, HintSettings};
pub use leader::Leader;
pub use relay::{Relay, RelayPorts, RelayReport, RelaySettings};
pub use trigger::{ScheduledTrigger, TriggerRegistry, TriggerStatus};
pub use trigger_consumer::{TriggerConsumer, TriggerSettings};
pub use visibility::{Hint, InWork, KeptMessage, QueueMessage, VisibilityKeeper};
