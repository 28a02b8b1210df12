//! Sets damaged documents aside, with an alert in the same commit.

use serde_json::json;

use super::outbox;
use crate::core::{
    client::{
        damaged::Damaged,
        database::{Committer, DatabaseError, Document, Result},
        schema::Collection,
    },
    market::ids::IdGenerator,
};

/// Moves a damaged document out of its collection. False when it changed meanwhile, and when it is not damaged but, say, of
/// a newer release: then it is left alone.
///
/// # Errors
/// When the database does not answer; the document stays where it is.
pub async fn set_aside(
    committer: &dyn Committer,
    ids: &IdGenerator,
    collection: Collection,
    document: &Document,
    error: &DatabaseError,
) -> Result<bool> {
    let reason = crate::error::chain(error);
    if !matches!(error, DatabaseError::Damaged { .. }) {
        tracing::error!(%collection, id = document.id, error = reason, "a document can't be read; it is left alone");
        return Ok(false);
    }
    let mut changes = Damaged::set_aside(collection, document, &reason, ids.now());
    let headline = format!("{collection}/{} is damaged and was set aside", document.id);
    let body = json!({
        "collection": collection.0, "document": document.id, "version": document.version, "error": reason,
    });
    outbox::alert(&mut changes, ids, headline, body);
    match committer.commit(changes).await {
        Ok(()) => {
            tracing::error!(%collection, id = document.id, error = reason, "a damaged document was set aside");
            metrics::counter!("orchestrator_damaged_documents_total", "collection" => collection.0)
                .increment(1);
            Ok(true)
        }
        Err(DatabaseError::Conflict { .. } | DatabaseError::Missing { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
