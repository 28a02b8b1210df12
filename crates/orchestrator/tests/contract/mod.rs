//! Contract suites: one per port, generic over the implementation, run on every implementation.

mod database;
mod database_model;
mod provider;
mod provider_crash;
mod sqlite;
