//! Contract suites: each is generic over the implementation and run on all of them.

mod database;
mod database_model;
mod sqlite;
