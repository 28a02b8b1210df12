//! The database port. Services see [`Reader`], [`Claimer`] and [`Committer`]; `setup` and adapters see
//! [`DatabaseClient`] too. Documents are JSON objects with a version that grows by one with every write.
//!
//! The one write path of business data is [`Committer::commit`]: many writes, each with what it expects to find, all or
//! none.

mod changeset;
mod query;

use async_trait::async_trait;
use futures::future::join_all;

pub use self::{
    changeset::{Changeset, Expect, Write, WriteOp},
    query::{Cursor, Filter, Page, Query, Scalar, Sort},
};
pub use super::entity::Entity;
use super::schema::{Collection, CollectionSpec};

/// What a database answers when it can't do as asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A document had another version, or other field values, than the write expected. Read again and retry.
    #[error("{collection}/{id} has changed since it was read")]
    Conflict {
        /// The collection.
        collection: Collection,
        /// The document.
        id: String,
    },
    /// An insert, or a unique index, met a document that is already there. `id` is the id that was written.
    #[error("{collection}/{id} already exists (index {index})")]
    AlreadyExists {
        /// The collection.
        collection: Collection,
        /// The document that was to be written.
        id: String,
        /// `id`, or the name of the unique index.
        index: String,
    },
    /// A write met no document.
    #[error("{collection}/{id} does not exist")]
    Missing {
        /// The collection.
        collection: Collection,
        /// The document.
        id: String,
    },
    /// A guarded add would have taken a counter below its floor.
    #[error("{field} of {collection}/{id} would fall below its floor")]
    BelowFloor {
        /// The collection.
        collection: Collection,
        /// The document.
        id: String,
        /// The counter.
        field: String,
    },
    /// A newer release wrote the document, in a shape that this one does not know.
    #[error(
        "{collection}/{id} was written by a newer release: its version is {found}, known are those up to {known}"
    )]
    TooNew {
        /// The collection.
        collection: Collection,
        /// The document.
        id: String,
        /// Its version.
        found: u32,
        /// The highest version that this release reads.
        known: u32,
    },
    /// The request itself makes no sense.
    #[error("invalid database request: {0}")]
    Invalid(String),
    /// A stored document could not be read as what it should be.
    #[error("{collection}/{id} is damaged")]
    Damaged {
        /// The collection.
        collection: Collection,
        /// The document.
        id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The disk is full, or takes no more: nothing was written.
    #[error("the database's disk is full")]
    Full,
    /// The database can't be reached, or is closed.
    #[error("the database is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl DatabaseError {
    /// Whether the same call may succeed later, unchanged. A conflict is not: the caller must read again first.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Full | Self::Unavailable(_) => true,
            Self::Conflict { .. }
            | Self::AlreadyExists { .. }
            | Self::Missing { .. }
            | Self::BelowFloor { .. }
            | Self::Invalid(_)
            | Self::Damaged { .. }
            | Self::TooNew { .. } => false,
        }
    }
}

/// The result of a database call.
pub type Result<T, E = DatabaseError> = std::result::Result<T, E>;

/// A stored document: JSON text, and the version that it had when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its id, unique in the collection.
    pub id: String,
    /// Grows by one with every write.
    pub version: u64,
    /// A JSON object.
    pub body: String,
}

/// A document's content with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    /// The version that it had when it was read.
    pub version: u64,
    /// The content.
    pub value: T,
}

/// Reads. A read sees every commit that was acknowledged before it began.
#[async_trait]
pub trait Reader: Send + Sync + 'static {
    /// The document, or `None`.
    async fn get(&self, collection: Collection, id: &str) -> Result<Option<Document>>;

    /// One page of the answer. Pages are not one snapshot: documents written meanwhile may or may not be seen, but
    /// none that stays unchanged is skipped or repeated.
    async fn find(&self, query: Query) -> Result<Page>;

    /// How many documents match.
    async fn count(&self, collection: Collection, filter: Filter) -> Result<u64>;
}

/// A batch take: change up to `limit` matching documents at once and say which they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Where.
    pub collection: Collection,
    /// Which.
    pub filter: Filter,
    /// Which first.
    pub sort: Sort,
    /// At most so many, 1 to 10,000.
    pub limit: usize,
    /// Fields to set on each.
    pub set: Vec<(String, Scalar)>,
    /// Integer fields to add to on each; a missing one counts as zero.
    pub increment: Vec<(String, i64)>,
}

/// Claims.
#[async_trait]
pub trait Claimer: Send + Sync + 'static {
    /// Changes up to `limit` matching documents and returns them as they are after the change, in the claim's order.
    /// No document goes to two callers whose filters exclude what the claim sets. Nothing matching: an empty list.
    async fn claim(&self, claim: Claim) -> Result<Vec<Document>>;
}

/// Commits.
#[async_trait]
pub trait Committer: Send + Sync + 'static {
    /// Applies all writes or none; durable when it returns. Called twice with inserts or versions, the second call fails
    /// and changes nothing. A result of [`DatabaseError::Unavailable`] leaves open whether it happened: the caller
    /// reads again.
    async fn commit(&self, changeset: Changeset) -> Result<()>;

    /// Commits each changeset by itself, and answers for each, in their order; no order is promised of what they do. The same as
    /// so many calls of [`Committer::commit`] at once, and cheaper where the back end can take them together.
    async fn commit_each(&self, changesets: Vec<Changeset>) -> Vec<Result<()>> {
        join_all(changesets.into_iter().map(|changeset| self.commit(changeset))).await
    }
}

/// The whole client, in the words of the source document: for `setup`, health checks and other adapters.
#[async_trait]
pub trait DatabaseClient: Reader + Claimer + Committer {
    /// Opens the store and makes collections and indexes; doing it twice changes nothing.
    async fn connect(&self, schema: &'static [CollectionSpec]) -> Result<()>;

    /// Finishes what is under way and closes; later calls answer [`DatabaseError::Unavailable`].
    async fn disconnect(&self) -> Result<()>;

    /// Whether it answers, by a real round trip.
    async fn health(&self) -> Result<()>;

    /// Inserts one document.
    async fn insert(&self, collection: Collection, id: &str, body: String) -> Result<()> {
        let op = WriteOp::Insert { body };
        self.commit(Changeset { writes: vec![Write::new(collection, id, op)] }).await
    }

    /// Replaces one document that has this version.
    async fn update(&self, collection: Collection, id: &str, version: u64, body: String) -> Result<()> {
        let op = WriteOp::Replace { expect: Expect::Version(version), body };
        self.commit(Changeset { writes: vec![Write::new(collection, id, op)] }).await
    }

    /// Deletes one document that has this version.
    async fn delete(&self, collection: Collection, id: &str, version: u64) -> Result<()> {
        let op = WriteOp::Delete { expect: Expect::Version(version) };
        self.commit(Changeset { writes: vec![Write::new(collection, id, op)] }).await
    }
}

/// Typed reads, for every [`Reader`].
#[async_trait]
pub trait ReaderExt: Reader {
    /// The entity with this id, or `None`.
    async fn load<T: Entity>(&self, id: &str) -> Result<Option<Stored<T>>> {
        self.get(T::COLLECTION, id).await?.map(|document| document.decode()).transpose()
    }

    /// One page of entities, and where to go on.
    async fn list<T: Entity>(&self, query: Query) -> Result<(Vec<Stored<T>>, Option<Cursor>)> {
        let page = self.find(query).await?;
        let values = page.documents.iter().map(Document::decode).collect::<Result<_>>()?;
        Ok((values, page.next))
    }

    /// Every match, page by page; for sets that are known to fit into memory.
    async fn list_all<T: Entity>(&self, filter: Filter) -> Result<Vec<Stored<T>>> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let query = Query::new(T::COLLECTION).filter(filter.clone()).limit(10_000).after(after);
            let (mut values, next) = self.list::<T>(query).await?;
            all.append(&mut values);
            match next {
                Some(cursor) => after = Some(cursor),
                None => return Ok(all),
            }
        }
    }
}

impl<R: Reader + ?Sized> ReaderExt for R {}
