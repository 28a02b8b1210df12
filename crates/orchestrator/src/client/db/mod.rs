//! Implementations of the database port, and what they share: how a document's fields are read and compared.

pub mod memory;
#[cfg(feature = "mongodb")]
pub mod mongodb;
mod scan;
pub mod sqlite;
mod value;

use crate::core::client::database::DatabaseError;

/// What a closed database answers.
fn closed() -> DatabaseError {
    DatabaseError::Unavailable("the database is closed".into())
}

/// What is asked about a collection that the schema lacks.
#[cfg(feature = "mongodb")]
fn unknown(collection: crate::core::client::schema::Collection) -> DatabaseError {
    DatabaseError::Invalid(format!("there is no collection {collection}"))
}

/// Counts a request, for the metrics.
fn asked(kind: &'static str) {
    ::metrics::counter!("orchestrator_database_requests_total", "kind" => kind).increment(1);
}
