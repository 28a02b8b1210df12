//! Notifications.

mod log;
mod memory;
pub(crate) mod topics;
mod webhook;

pub use memory::MemoryNotifier;
pub use webhook::{LocalNotifier, NotifierSettings};
