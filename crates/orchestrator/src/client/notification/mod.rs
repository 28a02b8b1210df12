//! Notifications.

mod log;
mod memory;
mod topics;
mod webhook;

pub use memory::MemoryNotifier;
pub use webhook::{LocalNotifier, NotifierSettings};
