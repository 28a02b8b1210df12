//! Leases: one holder among the replicas for each name. A lease is a document that names its holder and when it runs out. Its
//! version is the fencing token: every write of the holder requires the version that it took or renewed the lease at.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    database::{Changeset, Committer, DatabaseError, Entity, Expect, Reader, ReaderExt, Result, Stored},
    schema::{self, Collection},
};
use crate::core::market::quantity::{Micros, Timestamp};

fn document_id(name: &str) -> String {
    format!("lease/{name}")
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LeaseRow {
    /// Only the document's id says it.
    #[serde(skip)]
    name: String,
    owner: String,
    until: Timestamp,
}

impl Entity for LeaseRow {
    const NAME: &'static str = "scheduler_lease";
    const COLLECTION: Collection = schema::META;
    fn document_id(&self) -> String {
        document_id(&self.name)
    }
}

/// A lease that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    name: String,
    version: u64,
    /// When it runs out unless it is renewed.
    pub until: Timestamp,
}

impl Held {
    /// Makes a changeset fail unless the lease is still this one.
    pub fn guard(&self, changes: &mut Changeset) {
        changes.require(schema::META, document_id(&self.name), Expect::Version(self.version));
    }
}

/// Who has the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// We do.
    Ours(Held),
    /// Somebody else does, until then.
    Theirs(Timestamp),
}

/// A lease, as one runner sees it.
pub struct Lease {
    reader: Arc<dyn Reader>,
    committer: Arc<dyn Committer>,
    name: String,
    owner: String,
    length: Micros,
}

impl Lease {
    /// The lease of this name. `owner` must differ between replicas; a process that alone may open the database can use the
    /// same name at each start and so goes on with its own lease at once.
    #[must_use]
    pub fn new(
        reader: Arc<dyn Reader>,
        committer: Arc<dyn Committer>,
        name: impl Into<String>,
        owner: impl Into<String>,
        length: Micros,
    ) -> Self {
        Self { reader, committer, name: name.into(), owner: owner.into(), length }
    }

    /// How long it lasts without being renewed.
    #[must_use]
    pub const fn length(&self) -> Micros {
        self.length
    }

    /// Keeps the lease that is held while more than half of it is left; else renews or takes it, when it is free.
    ///
    /// # Errors
    /// [`DatabaseError`]; whether it was renewed is then open.
    pub async fn hold(&self, held: Option<Held>, now: Timestamp) -> Result<Leadership> {
        if let Some(held) = held
            && held.until.since(now).get() > self.length.get() / 2
        {
            return Ok(Leadership::Ours(held));
        }
        let found: Option<Stored<LeaseRow>> = self.reader.load(&document_id(&self.name)).await?;
        let mut changes = Changeset::new();
        let until = now.plus(self.length);
        let row = LeaseRow { name: self.name.clone(), owner: self.owner.clone(), until };
        let version = match found {
            None => {
                changes.insert(&row);
                1
            }
            Some(found) if found.value.owner == self.owner || found.value.until <= now => {
                changes.replace(found.version, &row);
                found.version + 1
            }
            Some(found) => return Ok(Leadership::Theirs(found.value.until)),
        };
        match self.committer.commit(changes).await {
            Ok(()) => Ok(Leadership::Ours(Held { name: self.name.clone(), version, until })),
            // Somebody was faster; the next look tells who.
            Err(DatabaseError::Conflict { .. } | DatabaseError::AlreadyExists { .. }) => {
                Ok(Leadership::Theirs(now))
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the lease back, so that another need not wait for its end.
    ///
    /// # Errors
    /// [`DatabaseError`]; the lease then runs out by itself.
    pub async fn release(&self, held: Held) -> Result<()> {
        let mut changes = Changeset::new();
        changes.delete(schema::META, document_id(&held.name), Expect::Version(held.version));
        match self.committer.commit(changes).await {
            Err(DatabaseError::Conflict { .. } | DatabaseError::Missing { .. }) => Ok(()),
            result => result,
        }
    }
}
