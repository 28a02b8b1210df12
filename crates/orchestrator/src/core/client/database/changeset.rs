//! Changes: many writes over many collections, each with what it expects to find, that happen together or not at all.

use serde::Serialize;

use super::{Entity, Scalar};
use crate::core::client::{entity::body_of, schema::Collection};

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
    /// Whether the body was serialised here.
    serialised: bool,
}

impl Write {
    /// A write; a body may be any text, and is looked at by whoever stores it.
    #[must_use]
    pub fn new(collection: Collection, id: impl Into<String>, op: WriteOp) -> Self {
        Self { collection, id: id.into(), op, serialised: false }
    }

    /// A write whose body was serialised here.
    fn serialised(collection: Collection, id: String, op: WriteOp) -> Self {
        Self { collection, id, op, serialised: true }
    }

    /// Whether the body, if there is one, was serialised from a value: then it is JSON, and need not be read to know it.
    #[must_use]
    pub const fn is_serialised(&self) -> bool {
        self.serialised
    }
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
        self.writes.push(Write::serialised(T::COLLECTION, value.document_id(), op));
        self
    }

    /// Adds the insertion of anything that serialises to a JSON object; it carries no version.
    pub fn insert_json<T: Serialize>(&mut self, collection: Collection, id: String, value: &T) -> &mut Self {
        self.writes.push(Write::serialised(collection, id, WriteOp::Insert { body: to_body(value) }));
        self
    }

    /// Adds the replacement of an entity that was read at `version`.
    pub fn replace<T: Entity>(&mut self, version: u64, value: &T) -> &mut Self {
        self.replace_expecting(Expect::Version(version), value)
    }

    /// Adds the replacement of an entity, guarded by `expect`.
    pub fn replace_expecting<T: Entity>(&mut self, expect: Expect, value: &T) -> &mut Self {
        let op = WriteOp::Replace { expect, body: body_of(value) };
        self.writes.push(Write::serialised(T::COLLECTION, value.document_id(), op));
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
        self.writes.push(Write::new(collection, id.to_string(), op));
        self
    }

    /// Adds a deletion.
    pub fn delete(&mut self, collection: Collection, id: impl ToString, expect: Expect) -> &mut Self {
        self.writes.push(Write::new(collection, id.to_string(), WriteOp::Delete { expect }));
        self
    }

    /// Adds a condition without a change.
    pub fn require(&mut self, collection: Collection, id: impl ToString, expect: Expect) -> &mut Self {
        self.writes.push(Write::new(collection, id.to_string(), WriteOp::Require { expect }));
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
