//! The background: job driver, triggers, relay, prober.
