//! The inside of the daemon: the domain and the ports. No IO, no SDK, no driver, no wall clock, no randomness.

pub mod breaker;
pub mod client;
pub mod job;
pub mod madara;
pub mod market;
pub mod payload;
