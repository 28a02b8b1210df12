//! The database port. Services see [`Reader`], [`Claimer`] and [`Committer`]; `setup` and adapters see
//! [`DatabaseClient`] too. Documents are JSON objects with a version that grows by one with every write.
//!
//! The one write path of business data is [`Committer::commit`]: many writes, each with what it expects to find, all or
//! none.

use async_trait::async_trait;
use serde::Serialize;

pub use super::entity::Entity;
use super::{
    entity::body_of,
    schema::{Collection, CollectionSpec},
};

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
    /// The disk is full; nothing was written.
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

/// A value that filters and guards compare with. Amounts are strings and can't be ordered; compare them in the domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scalar {
    /// JSON null, or a missing field.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A text.
    Text(String),
}

impl From<i64> for Scalar {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Scalar {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Scalar {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Scalar {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

/// A condition on documents. Fields are dotted paths; comparisons hold only between values of one type, and never with
/// null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Every document.
    All,
    /// The field equals the value; `Null` also matches a missing field.
    Eq(String, Scalar),
    /// The field is less than the value.
    Lt(String, Scalar),
    /// The field is at most the value.
    Le(String, Scalar),
    /// The field is more than the value.
    Gt(String, Scalar),
    /// The field is at least the value.
    Ge(String, Scalar),
    /// The field is one of the values; an empty list matches nothing.
    In(String, Vec<Scalar>),
    /// The document's id is one of these.
    Ids(Vec<String>),
    /// The document's id starts with this.
    IdPrefix(String),
    /// All conditions hold; an empty list matches everything.
    And(Vec<Filter>),
    /// Any condition holds; an empty list matches nothing.
    Or(Vec<Filter>),
}

impl Filter {
    /// `field = value`.
    #[must_use]
    pub fn eq(field: &str, value: impl Into<Scalar>) -> Self {
        Self::Eq(field.to_owned(), value.into())
    }

    /// `self` and `other`.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match self {
            Self::All => other,
            Self::And(mut all) => {
                all.push(other);
                Self::And(all)
            }
            one => Self::And(vec![one, other]),
        }
    }
}

/// The order of a result. Ties are broken by id, in the same direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Sort {
    /// By id, ascending.
    #[default]
    Id,
    /// By id, descending.
    IdDescending,
    /// By a field, ascending; documents without it come first.
    Field(String),
    /// By a field, descending; documents without it come last.
    FieldDescending(String),
}

/// Where a page ended: hand it back to go on after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Cursor {
    /// Value of the sort field of the last document as JSON; null when sorted by id.
    pub key: serde_json::Value,
    /// Id of the last document.
    pub id: String,
}

/// A question to one collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Where.
    pub collection: Collection,
    /// Which.
    pub filter: Filter,
    /// In which order.
    pub sort: Sort,
    /// At most so many, 1 to 10,000.
    pub limit: usize,
    /// Only what comes after this.
    pub after: Option<Cursor>,
}

impl Query {
    /// All documents of a collection, the first 1,000 by id.
    #[must_use]
    pub const fn new(collection: Collection) -> Self {
        Self { collection, filter: Filter::All, sort: Sort::Id, limit: 1_000, after: None }
    }

    /// With this filter.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// In this order.
    #[must_use]
    pub fn sort(mut self, sort: Sort) -> Self {
        self.sort = sort;
        self
    }

    /// At most so many.
    #[must_use]
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Going on after a page.
    #[must_use]
    pub fn after(mut self, cursor: Option<Cursor>) -> Self {
        self.after = cursor;
        self
    }
}

/// A page of documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the query's order.
    pub documents: Vec<Document>,
    /// Where to go on; `None` when this was the end.
    pub next: Option<Cursor>,
}

/// What a write expects of the document that it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// It has this version.
    Version(u64),
    /// This field has this value: how a worker's writes are guarded by its fencing token.
    Field(String, Scalar),
}

/// What a write does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOp {
    /// Makes a new document, version 1.
    Insert {
        /// A JSON object.
        body: String,
    },
    /// Puts a new body in place of the old.
    Replace {
        /// What must hold.
        expect: Expect,
        /// A JSON object.
        body: String,
    },
    /// Adds to an integer field; refuses to take it below `floor`. Needs no version: adds commute.
    Add {
        /// Dotted path of an integer.
        field: String,
        /// What to add; may be negative.
        delta: i64,
        /// The lowest value allowed after it.
        floor: i64,
    },
    /// Removes the document.
    Delete {
        /// What must hold.
        expect: Expect,
    },
    /// Changes nothing, but fails unless the expectation holds.
    Require {
        /// What must hold.
        expect: Expect,
    },
}

/// One write of a changeset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub collection: Collection,
    /// Which document.
    pub id: String,
    /// What.
    pub op: WriteOp,
}

/// Many writes over many collections that happen together or not at all, in the order given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changeset {
    /// The writes.
    pub writes: Vec<Write>,
}

impl Changeset {
    /// No writes yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { writes: Vec::new() }
    }

    /// Whether there is nothing to do; committing an empty changeset does nothing and succeeds.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Adds the insertion of an entity.
    pub fn insert<T: Entity>(&mut self, value: &T) -> &mut Self {
        let op = WriteOp::Insert { body: body_of(value) };
        self.writes.push(Write { collection: T::COLLECTION, id: value.document_id(), op });
        self
    }

    /// Adds the insertion of anything that serialises to a JSON object; it carries no version.
    pub fn insert_json<T: Serialize>(&mut self, collection: Collection, id: String, value: &T) -> &mut Self {
        self.writes.push(Write { collection, id, op: WriteOp::Insert { body: to_body(value) } });
        self
    }

    /// Adds the replacement of an entity that was read at `version`.
    pub fn replace<T: Entity>(&mut self, version: u64, value: &T) -> &mut Self {
        self.replace_expecting(Expect::Version(version), value)
    }

    /// Adds the replacement of an entity, guarded by `expect`.
    pub fn replace_expecting<T: Entity>(&mut self, expect: Expect, value: &T) -> &mut Self {
        let op = WriteOp::Replace { expect, body: body_of(value) };
        self.writes.push(Write { collection: T::COLLECTION, id: value.document_id(), op });
        self
    }

    /// Adds a guarded addition to a counter.
    pub fn add(
        &mut self,
        collection: Collection,
        id: impl ToString,
        field: &str,
        delta: i64,
        floor: i64,
    ) -> &mut Self {
        let op = WriteOp::Add { field: field.to_owned(), delta, floor };
        self.writes.push(Write { collection, id: id.to_string(), op });
        self
    }

    /// Adds a deletion.
    pub fn delete(&mut self, collection: Collection, id: impl ToString, expect: Expect) -> &mut Self {
        self.writes.push(Write { collection, id: id.to_string(), op: WriteOp::Delete { expect } });
        self
    }

    /// Adds a condition without a change.
    pub fn require(&mut self, collection: Collection, id: impl ToString, expect: Expect) -> &mut Self {
        self.writes.push(Write { collection, id: id.to_string(), op: WriteOp::Require { expect } });
        self
    }

    /// Appends another changeset's writes.
    pub fn extend(&mut self, other: Self) -> &mut Self {
        self.writes.extend(other.writes);
        self
    }
}

/// JSON text of a value; what does not serialise becomes `null`, which every back end refuses as "not an object".
fn to_body<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
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
        self.commit(Changeset { writes: vec![Write { collection, id: id.to_owned(), op }] }).await
    }

    /// Replaces one document that has this version.
    async fn update(&self, collection: Collection, id: &str, version: u64, body: String) -> Result<()> {
        let op = WriteOp::Replace { expect: Expect::Version(version), body };
        self.commit(Changeset { writes: vec![Write { collection, id: id.to_owned(), op }] }).await
    }

    /// Deletes one document that has this version.
    async fn delete(&self, collection: Collection, id: &str, version: u64) -> Result<()> {
        let op = WriteOp::Delete { expect: Expect::Version(version) };
        self.commit(Changeset { writes: vec![Write { collection, id: id.to_owned(), op }] }).await
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
