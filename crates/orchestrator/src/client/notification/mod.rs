//! Notifications.

mod log;
mod memory;
#[cfg(feature = "sns")]
mod sns;
pub(crate) mod topics;
mod webhook;

pub use memory::MemoryNotifier;
#[cfg(feature = "sns")]
pub use sns::SnsNotifier;
pub use webhook::{LocalNotifier, NotifierSettings};
