//! Damaged documents: what can't be read as what it should be is moved out of its collection, with its bytes, so that it
//! hides nothing that stands behind it and a person can look at it.

use serde::{Deserialize, Serialize};

use super::{
    database::{Changeset, Document, Entity, Expect},
    schema::{self, Collection},
};
use crate::core::market::quantity::Timestamp;

/// A document, or the text of a message, that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// `<collection>/<id>@<when, in microseconds>`.
    pub id: String,
    /// Where it was.
    pub collection: String,
    /// Its id there.
    pub document: String,
    /// The version that was set aside.
    pub version: u64,
    /// Its text, unchanged.
    pub body: String,
    /// Why it could not be read.
    pub reason: String,
    /// When it was set aside.
    pub at: Timestamp,
}

impl Entity for Damaged {
    const NAME: &'static str = "damaged_document";
    const COLLECTION: Collection = schema::DAMAGED;
    fn document_id(&self) -> String {
        self.id.clone()
    }
}

impl Damaged {
    /// The record of a text that was found in `collection` under `id`.
    #[must_use]
    pub fn new(collection: Collection, document: &Document, reason: impl ToString, at: Timestamp) -> Self {
        Self {
            id: format!("{}{}", Self::prefix(collection, &document.id), at.as_micros()),
            collection: collection.to_string(),
            document: document.id.clone(),
            version: document.version,
            body: document.body.clone(),
            reason: reason.to_string(),
            at,
        }
    }

    /// What the ids of all records of one document start with.
    #[must_use]
    pub fn prefix(collection: Collection, id: &str) -> String {
        format!("{collection}/{id}@")
    }

    /// The changes that move a document here, guarded by the version that was read: somebody who repaired it meanwhile wins.
    #[must_use]
    pub fn set_aside(
        collection: Collection,
        document: &Document,
        reason: impl ToString,
        at: Timestamp,
    ) -> Changeset {
        let mut changes = Changeset::new();
        changes.delete(collection, &document.id, Expect::Version(document.version));
        changes.insert(&Self::new(collection, document, reason, at));
        changes
    }
}
