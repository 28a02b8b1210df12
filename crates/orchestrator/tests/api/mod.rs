//! The HTTP API through its real router on a loopback listener.

mod access;
mod description;
mod events;
mod fakes;
mod frame;
mod harness;
mod market;
mod money;
