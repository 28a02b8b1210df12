//! One write as one guarded statement of the server's: what the write expects is the statement's filter, so that the
//! server decides at the moment of writing, and a statement that met nothing was refused.
//!
//! **Requirements write.** Under snapshot isolation two transactions that each read what the other one writes may both
//! commit. A requirement that only read would allow that (two changesets, each requiring the document that the other
//! changes). So a requirement counts up the document's hidden field [`LOCK`], not its version: any other write to the
//! document, or another requirement, that is under way then conflicts with it, and one of the two starts over.

use ::mongodb::bson::{Bson, DateTime, Document as BsonDocument, doc};

use super::{
    Table,
    encode::{self, BODY, EXPIRES, LOCK, VERSION},
    filter,
};
use crate::{
    client::db::{
        scan,
        value::{self, Key},
    },
    core::client::database::{DatabaseError, Document, Expect, Result, Write, WriteOp},
};

/// What the server is asked to do.
#[derive(Debug, Clone)]
pub(super) enum Statement {
    Insert(BsonDocument),
    Update { filter: BsonDocument, update: BsonDocument },
    Delete { filter: BsonDocument },
}

/// A value as the server counts versions.
fn count(value: u64) -> Bson {
    // No document has a version beyond.
    Bson::Int64(i64::try_from(value).unwrap_or(-1))
}

/// One more version.
pub(super) fn next_version() -> BsonDocument {
    doc! { VERSION: 1_i64 }
}

/// The document with this version.
pub(super) fn at_version(id: &str, version: u64) -> BsonDocument {
    doc! { "_id": id, VERSION: count(version) }
}

fn expecting(id: &str, expect: &Expect) -> BsonDocument {
    match expect {
        Expect::Version(version) => at_version(id, *version),
        Expect::Field(path, scalar) => {
            let mut document = filter::equals(path, scalar);
            document.insert("_id", id);
            document
        }
    }
}

/// When a document with this text expires; null when it does not.
pub(super) fn expiry(table: &Table, text: &str) -> Option<Bson> {
    let expiry = table.expiry?;
    let Key::Int(micros) = scan::key(text, expiry.field) else { return Some(Bson::Null) };
    let after = i64::try_from(expiry.after.as_millis()).unwrap_or(i64::MAX);
    Some(Bson::DateTime(DateTime::from_millis((micros / 1_000).saturating_add(after))))
}

/// The new content of a document, as fields to set.
pub(super) fn content(table: &Table, text: &str) -> BsonDocument {
    let mut document = doc! { BODY: encode::encode(text) };
    if let Some(expiry) = expiry(table, text) {
        document.insert(EXPIRES, expiry);
    }
    document
}

/// The statement of a write.
pub(super) fn statement(table: &Table, write: &Write) -> Statement {
    let id = write.id.as_str();
    match &write.op {
        WriteOp::Insert { body } => {
            let mut document = doc! { "_id": id, VERSION: 1_i64 };
            document.extend(content(table, body));
            Statement::Insert(document)
        }
        WriteOp::Replace { expect, body } => Statement::Update {
            filter: expecting(id, expect),
            update: doc! { "$set": content(table, body), "$inc": next_version() },
        },
        WriteOp::Delete { expect } => Statement::Delete { filter: expecting(id, expect) },
        WriteOp::Require { expect } => {
            Statement::Update { filter: expecting(id, expect), update: doc! { "$inc": { LOCK: 1_i64 } } }
        }
        WriteOp::Add { field, delta, floor } => add(table, id, field, *delta, *floor),
    }
}

fn add(table: &Table, id: &str, path: &str, delta: i64, floor: i64) -> Statement {
    let field = encode::field(path);
    // What may be there before, so that what is there after is neither below the floor nor beyond 64 bits.
    let (delta_wide, least, most) = (i128::from(delta), i128::from(i64::MIN), i128::from(i64::MAX));
    let low = (i128::from(floor) - delta_wide).max(least - delta_wide).max(least);
    let high = (most - delta_wide).min(most);
    let filter = match (i64::try_from(low), i64::try_from(high)) {
        (Ok(low), Ok(high)) => doc! { "_id": id, &field: { "$type": "long", "$gte": low, "$lte": high } },
        _ => filter::never(),
    };
    let mut increments = next_version();
    increments.insert(field, delta);
    let mut update = doc! { "$inc": increments };
    if table.expiry.is_some_and(|expiry| expiry.field == path) {
        // Rather never than wrongly; the purge trigger reads the field itself.
        update.insert("$unset", doc! { EXPIRES: "" });
    }
    Statement::Update { filter, update }
}

/// Why a write is refused on the document that is there; `None` when it is not.
pub(super) fn refusal(write: &Write, present: Option<&Document>) -> Option<DatabaseError> {
    let (collection, id) = (write.collection, write.id.clone());
    let Some(present) = present else {
        return match write.op {
            WriteOp::Insert { .. } => None,
            _ => Some(DatabaseError::Missing { collection, id }),
        };
    };
    match &write.op {
        WriteOp::Insert { .. } => {
            Some(DatabaseError::AlreadyExists { collection, id, index: "id".to_owned() })
        }
        WriteOp::Replace { expect, .. } | WriteOp::Delete { expect } | WriteOp::Require { expect } => {
            let holds = match expect {
                Expect::Version(wanted) => present.version == *wanted,
                Expect::Field(path, wanted) => scan::key(&present.body, path) == Key::from(wanted),
            };
            (!holds).then_some(DatabaseError::Conflict { collection, id })
        }
        WriteOp::Add { field, delta, floor } => {
            value::add((collection, &write.id), &present.body, field, *delta, *floor).err()
        }
    }
}

/// A refusal by a unique index, from the server's words.
pub(super) fn duplicate(table: &Table, id: &str, message: &str) -> DatabaseError {
    let named = |name: &str| message.contains(&format!("index: {name} dup key"));
    let index = table.spec.indexes.iter().find(|index| index.unique && named(index.name));
    let index = index.map_or("id", |index| index.name).to_owned();
    DatabaseError::AlreadyExists { collection: table.spec.collection, id: id.to_owned(), index }
}

/// Refuses bodies that no object are, or that a unique index can't hold.
pub(super) fn check(table: &Table, write: &Write) -> Result<()> {
    /// What the server takes is 16 MiB; what is beside the body needs some of it.
    const LARGEST: usize = (16 << 20) - (64 << 10);
    let (WriteOp::Insert { body } | WriteOp::Replace { body, .. }) = &write.op else { return Ok(()) };
    value::check_object(write.collection, &write.id, body)?;
    if body.len() > LARGEST {
        return Err(DatabaseError::Invalid("the document is too large".to_owned()));
    }
    check_keys(table, body)
}

/// Refuses bodies whose fields a unique index can't hold.
pub(super) fn check_keys(table: &Table, body: &str) -> Result<()> {
    for index in table.spec.indexes.iter().filter(|index| index.unique) {
        let keys = scan::keys(body, index.fields);
        let absent = keys.first().is_none_or(|first| *first == Key::Null);
        if !absent && keys.contains(&Key::Other) {
            return Err(value::not_indexable(table.spec.collection, index.name));
        }
    }
    Ok(())
}
