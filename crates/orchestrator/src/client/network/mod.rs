//! Network clients that the other adapters use.

pub mod guard;
pub mod http;
