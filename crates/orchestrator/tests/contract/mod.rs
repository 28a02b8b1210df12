//! Contract suites: each is generic over the implementation and run on all of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod database;
mod database_model;
mod sqlite;
