//! Collections and indexes: what the schema wants, what is there, and how the one becomes the other.
//!
//! Every index but the unique ones ends with the id, so that it answers a sort by its fields, ties and all. A unique
//! index holds the documents only whose first field has a value. Where the schema knows of an expiry, an index on a date
//! beside the body lets the server expire what the purge trigger left. Indexes here leave no values out: a partial index of
//! the server can't say "none of these".

use ::mongodb::{
    Database,
    bson::{Bson, Document as BsonDocument, doc},
};

use super::{
    commit::number,
    encode::{self, EXPIRES},
    fault::{self, fault},
};
use crate::core::client::{
    database::{DatabaseError, Result},
    schema::{Collection, CollectionSpec, EXPIRIES, Expiry, IndexSpec},
};

/// How documents lie, as a number; a database with a higher one is refused.
const LAYOUT: i64 = 1;
/// The collection of one document that says so.
const LAYOUT_COLLECTION: &str = "_layout";
/// The types of values that are neither null nor missing and can be compared.
pub(super) const PRESENT: [&str; 3] = ["long", "string", "bool"];
/// The index by which the server expires documents.
const EXPIRY_INDEX: &str = "expires";

/// A difference between the schema and the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The collection.
    pub collection: Collection,
    /// The index; `None` when the collection itself is missing.
    pub index: Option<String>,
    /// What is the matter.
    pub kind: DriftKind,
}

/// How something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriftKind {
    /// It is not there.
    Missing,
    /// It has other fields or options.
    Different,
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = match self.kind {
            DriftKind::Missing => "is missing",
            DriftKind::Different => "has other fields or options than it should",
        };
        match &self.index {
            Some(index) => write!(f, "index {index} of collection {} {how}", self.collection),
            None => write!(f, "collection {} {how}", self.collection),
        }
    }
}

/// The expiry of a collection's documents, if they have one.
pub(super) fn expiry(collection: Collection) -> Option<&'static Expiry> {
    EXPIRIES.iter().find(|expiry| expiry.collection == collection)
}

fn index(spec: &IndexSpec) -> BsonDocument {
    let mut key: BsonDocument =
        spec.fields.iter().map(|path| (encode::field(path), Bson::Int32(1))).collect();
    if !spec.unique {
        key.insert("_id", 1);
        return doc! { "name": spec.name, "key": key };
    }
    let first = spec.fields.first().map(|path| encode::field(path)).unwrap_or_default();
    let partial = doc! { first: { "$type": PRESENT.to_vec() } };
    doc! { "name": spec.name, "key": key, "unique": true, "partialFilterExpression": partial }
}

/// The indexes of a collection, as the server is told.
fn wanted(spec: &CollectionSpec, expire: bool) -> Vec<BsonDocument> {
    let mut all: Vec<_> = spec.indexes.iter().map(index).collect();
    if expire && expiry(spec.collection).is_some() {
        all.push(doc! { "name": EXPIRY_INDEX, "key": { EXPIRES: 1 }, "expireAfterSeconds": 0 });
    }
    all
}

fn name(index: &BsonDocument) -> &str {
    index.get_str("name").unwrap_or_default()
}

/// Whether an index of the server is as it should be. It gives numbers back in types of its own choice.
fn same(there: &BsonDocument, wanted: &BsonDocument) -> bool {
    let key = |index: &BsonDocument| -> Vec<(String, i64)> {
        let key = index.get_document("key").cloned().unwrap_or_default();
        key.keys().map(|field| (field.clone(), number(&key, field))).collect()
    };
    let flag = |index: &BsonDocument, name: &str| index.get_bool(name).unwrap_or(false);
    let expires = |index: &BsonDocument| {
        index.contains_key("expireAfterSeconds").then(|| number(index, "expireAfterSeconds"))
    };
    key(there) == key(wanted)
        && flag(there, "unique") == flag(wanted, "unique")
        && !flag(there, "sparse")
        && !flag(there, "hidden")
        && there.get("partialFilterExpression") == wanted.get("partialFilterExpression")
        && expires(there) == expires(wanted)
}

/// What a collection lacks.
struct Gap {
    spec: CollectionSpec,
    absent: bool,
    missing: Vec<BsonDocument>,
    different: Vec<BsonDocument>,
}

async fn first_batch(
    database: &Database,
    command: BsonDocument,
) -> ::mongodb::error::Result<Vec<BsonDocument>> {
    let reply = database.run_command(command).await?;
    let cursor = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    Ok(cursor.map(|batch| batch.iter().filter_map(Bson::as_document).cloned().collect()).unwrap_or_default())
}

async fn gaps(database: &Database, schema: &[CollectionSpec], expire: bool) -> Result<Vec<Gap>> {
    let present = database.list_collection_names().await.map_err(fault)?;
    let mut gaps = Vec::new();
    for spec in schema {
        let wanted = wanted(spec, expire);
        let absent = !present.iter().any(|name| name == spec.collection.0);
        let mut gap = Gap { spec: *spec, absent, missing: Vec::new(), different: Vec::new() };
        let there = if absent {
            Vec::new()
        } else {
            let list = doc! { "listIndexes": spec.collection.0, "cursor": { "batchSize": 1_000 } };
            first_batch(database, list).await.map_err(fault)?
        };
        for index in wanted {
            match there.iter().find(|one| name(one) == name(&index)) {
                None => gap.missing.push(index),
                Some(there) if !same(there, &index) => gap.different.push(index),
                Some(_) => {}
            }
        }
        gaps.push(gap);
    }
    Ok(gaps)
}

/// How the database differs from the schema.
pub(super) async fn drift(
    database: &Database,
    schema: &[CollectionSpec],
    expire: bool,
) -> Result<Vec<Drift>> {
    let mut all = Vec::new();
    for gap in gaps(database, schema, expire).await? {
        let collection = gap.spec.collection;
        if gap.absent {
            all.push(Drift { collection, index: None, kind: DriftKind::Missing });
        }
        let named = |kind| {
            move |index: &BsonDocument| Drift { collection, index: Some(name(index).to_owned()), kind }
        };
        all.extend(gap.missing.iter().map(named(DriftKind::Missing)));
        all.extend(gap.different.iter().map(named(DriftKind::Different)));
    }
    Ok(all)
}

/// Makes the collections and indexes that are missing, and makes anew those that differ. Nothing else is touched.
pub(super) async fn make(database: &Database, schema: &[CollectionSpec], expire: bool) -> Result<()> {
    check_layout(database).await?;
    for gap in gaps(database, schema, expire).await? {
        let collection = gap.spec.collection;
        // Making an index makes its collection.
        if gap.absent && gap.missing.is_empty() {
            match database.create_collection(collection.0).await {
                // Another replica was faster.
                Err(error) if fault::code(&error) == Some(48) => {}
                result => result.map_err(fault)?,
            }
        }
        for index in &gap.different {
            tracing::warn!(%collection, index = name(index), "an index has other fields or options; it is made anew");
            let drop = doc! { "dropIndexes": collection.0, "index": name(index) };
            match database.run_command(drop).await {
                // Another replica was faster.
                Err(error) if fault::code(&error) == Some(27) => {}
                result => drop_reply(result)?,
            }
        }
        let indexes: Vec<_> = gap.different.into_iter().chain(gap.missing).collect();
        if indexes.is_empty() {
            continue;
        }
        let create =
            doc! { "createIndexes": collection.0, "indexes": indexes, "writeConcern": { "w": "majority" } };
        match database.run_command(create).await {
            Err(error) if fault::duplicate(&error).is_some() => {
                return Err(DatabaseError::Invalid(format!(
                    "a unique index of {collection} can't be made, because documents share a key: {error}"
                )));
            }
            // IndexOptionsConflict, IndexKeySpecsConflict: only a person knows what the other one is for.
            Err(error) if matches!(fault::code(&error), Some(85 | 86)) => {
                return Err(DatabaseError::Invalid(format!(
                    "an index of {collection} can't be made beside one that somebody else made; drop that: {error}"
                )));
            }
            result => drop_reply(result)?,
        }
    }
    Ok(())
}

fn drop_reply(result: ::mongodb::error::Result<BsonDocument>) -> Result<()> {
    result.map(drop).map_err(fault)
}

/// Refuses a database that a newer release laid out.
async fn check_layout(database: &Database) -> Result<()> {
    let collection = database.collection::<BsonDocument>(LAYOUT_COLLECTION);
    match collection.find_one(doc! { "_id": "layout" }).await.map_err(fault)? {
        Some(found) if number(&found, "n") > LAYOUT => Err(DatabaseError::Invalid(format!(
            "the database has layout {}, this release knows those up to {LAYOUT}: a newer release made it",
            number(&found, "n")
        ))),
        Some(_) => Ok(()),
        None => match collection.insert_one(doc! { "_id": "layout", "n": LAYOUT }).await {
            // Another replica was faster.
            Err(error) if fault::duplicate(&error).is_some() => Ok(()),
            result => result.map(drop).map_err(fault),
        },
    }
}
