//! Implementations of the cron port.
