//! The leader's lease: a document that names its holder and when it runs out. Its version is the fencing token: every
//! write of the leader requires the version that it took or renewed the lease at.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::core::{
    client::{
        database::{Changeset, DatabaseClient, DatabaseError, Entity, Expect, ReaderExt, Result, Stored},
        schema::{self, Collection},
    },
    market::quantity::{Micros, Timestamp},
};

/// The document's id.
const ID: &str = "lease/scheduler";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LeaseRow {
    owner: String,
    until: Timestamp,
}

impl Entity for LeaseRow {
    const NAME: &'static str = "scheduler_lease";
    const COLLECTION: Collection = schema::META;
    fn document_id(&self) -> String {
        ID.to_owned()
    }
}

/// A lease that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    version: u64,
    pub(super) until: Timestamp,
}

impl Held {
    /// Makes a changeset fail unless the lease is still this one.
    pub(super) fn guard(&self, changes: &mut Changeset) {
        changes.require(schema::META, ID, Expect::Version(self.version));
    }
}

/// Who has the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leadership {
    /// We do.
    Ours(Held),
    /// Somebody else does, until then.
    Theirs(Timestamp),
}

/// The lease, as one runner sees it.
pub(super) struct Lease {
    database: Arc<dyn DatabaseClient>,
    owner: String,
    length: Micros,
}

impl Lease {
    pub(super) const fn new(database: Arc<dyn DatabaseClient>, owner: String, length: Micros) -> Self {
        Self { database, owner, length }
    }

    /// Keeps the lease that is held while more than half of it is left; else renews or takes it, when it is free.
    pub(super) async fn hold(&self, held: Option<Held>, now: Timestamp) -> Result<Leadership> {
        if let Some(held) = held
            && held.until.since(now).get() > self.length.get() / 2
        {
            return Ok(Leadership::Ours(held));
        }
        let found: Option<Stored<LeaseRow>> = self.database.load(ID).await?;
        let mut changes = Changeset::new();
        let until = now.plus(self.length);
        let row = LeaseRow { owner: self.owner.clone(), until };
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
        match self.database.commit(changes).await {
            Ok(()) => Ok(Leadership::Ours(Held { version, until })),
            // Somebody was faster; the next look tells who.
            Err(DatabaseError::Conflict { .. } | DatabaseError::AlreadyExists { .. }) => {
                Ok(Leadership::Theirs(now))
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the lease back, so that another need not wait for its end.
    pub(super) async fn release(&self, held: Held) -> Result<()> {
        let mut changes = Changeset::new();
        changes.delete(schema::META, ID, Expect::Version(held.version));
        match self.database.commit(changes).await {
            Err(DatabaseError::Conflict { .. } | DatabaseError::Missing { .. }) => Ok(()),
            result => result,
        }
    }
}
