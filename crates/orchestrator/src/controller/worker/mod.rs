//! The background: job driver, triggers, relay, prober.

pub mod prober;
