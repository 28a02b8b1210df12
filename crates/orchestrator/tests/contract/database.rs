//! What every database promises.

mod queries;
mod together;
mod writes;

use std::{collections::BTreeSet, sync::Arc};

use futures::future::join_all;
use orchestrator::{
    client::db::{
        memory::MemoryDatabase,
        sqlite::{Options, SqliteDatabase},
    },
    core::client::{
        database::{
            Changeset, Claim, Cursor, DatabaseClient, DatabaseError, Document, Expect, Filter, Query, Scalar,
            Sort, Write, WriteOp,
        },
        schema::{self, Collection, JOBS, META, TRANSFERS, UNITS},
    },
};
use serde_json::{Value, json};

use self::{queries::*, together::*, writes::*};
use super::support::Keep;

/// A database, and what must live as long as it does.
pub struct Opened {
    pub db: Arc<dyn DatabaseClient>,
    pub _keep: Keep,
}

pub async fn memory() -> Opened {
    let db = MemoryDatabase::new();
    db.connect(schema::ALL).await.unwrap();
    Opened { db: Arc::new(db), _keep: None }
}

pub async fn sqlite() -> Opened {
    let dir = tempfile::tempdir().unwrap();
    let db = SqliteDatabase::open(&dir.path().join("db"), Options::default()).unwrap();
    db.connect(schema::ALL).await.unwrap();
    Opened { db, _keep: Some(Box::new(dir)) }
}

#[cfg(feature = "mongodb")]
pub async fn mongodb() -> Opened {
    let (db, keep) = super::mongodb::connected().await;
    Opened { db, _keep: Some(Box::new(keep)) }
}

macro_rules! contract {
    ($($test:ident),+ $(,)?) => {
        mod on_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(&super::memory().await.db).await; })+
        }
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(&super::sqlite().await.db).await; })+
        }
        #[cfg(feature = "mongodb")]
        mod on_mongodb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(&super::mongodb().await.db).await; })+
        }
    };
}

contract! {
    an_inserted_document_is_read_back,
    a_second_insert_is_refused,
    replaces_and_deletes_expect_a_version,
    writes_may_expect_a_field,
    require_changes_nothing,
    adds_stop_at_their_floor,
    a_changeset_happens_as_a_whole,
    changesets_given_together_stand_alone,
    an_empty_changeset_does_nothing,
    unique_indexes_name_themselves,
    unique_indexes_take_null_for_a_value_behind_the_first_field,
    a_unique_key_is_free_again,
    bodies_must_be_objects,
    bad_requests_are_refused,
    filters_compare_within_one_type,
    filters_compare_in_fields_with_an_index_as_in_those_without,
    null_is_missing,
    lists_prefixes_and_combinations,
    sorts_break_ties_by_id,
    sorts_put_missing_fields_first,
    pages_skip_nothing_while_others_write,
    odd_texts_survive,
    claims_change_and_return,
    claims_are_refused_as_a_whole,
    claims_give_each_document_to_one_caller,
    concurrent_adds_never_pass_the_floor,
    concurrent_changesets_are_all_or_none,
    concurrent_replaces_let_one_win,
    a_read_sees_what_was_acknowledged,
    connecting_twice_changes_nothing,
    a_closed_database_is_unavailable,
}

type Db = Arc<dyn DatabaseClient>;

async fn put(db: &Db, collection: Collection, id: &str, body: Value) {
    db.insert(collection, id, body.to_string()).await.unwrap();
}

async fn body(db: &Db, collection: Collection, id: &str) -> Value {
    value(&db.get(collection, id).await.unwrap().unwrap())
}

fn value(document: &Document) -> Value {
    serde_json::from_str(&document.body).unwrap()
}

async fn ids(db: &Db, query: Query) -> Vec<String> {
    let found = db.find(query).await.unwrap();
    found.documents.into_iter().map(|document| document.id).collect()
}

/// Ids of the units that match, and the same by counting.
async fn matching(db: &Db, collection: Collection, filter: Filter) -> Vec<String> {
    let found = ids(db, Query::new(collection).filter(filter.clone())).await;
    assert_eq!(db.count(collection, filter).await.unwrap(), found.len() as u64);
    found
}

fn write(collection: Collection, id: &str, op: WriteOp) -> Write {
    Write::new(collection, id, op)
}

fn insert(collection: Collection, id: &str, body: Value) -> Write {
    write(collection, id, WriteOp::Insert { body: body.to_string() })
}

fn changes(writes: Vec<Write>) -> Changeset {
    Changeset { writes }
}

fn claim(filter: Filter, limit: usize) -> Claim {
    Claim {
        collection: JOBS,
        filter,
        sort: Sort::Field("due".into()),
        limit,
        set: vec![("due".into(), Scalar::Null), ("lease_owner".into(), "me".into())],
        increment: vec![("lease_token".into(), 1), ("attempts".into(), 1)],
    }
}

fn due(until: i64) -> Filter {
    Filter::Le("due".into(), Scalar::Int(until))
}

async fn connecting_twice_changes_nothing(db: &Db) {
    put(db, JOBS, "a", json!({"dedup": "k"})).await;
    db.connect(schema::ALL).await.unwrap();
    assert_eq!(body(db, JOBS, "a").await, json!({"dedup": "k"}));
    exists_by(db.insert(JOBS, "b", json!({"dedup": "k"}).to_string()).await, "by_dedup");
}

async fn a_closed_database_is_unavailable(db: &Db) {
    put(db, UNITS, "a", json!({})).await;
    db.disconnect().await.unwrap();
    db.disconnect().await.unwrap();
    let closed = |error: DatabaseError| assert!(matches!(error, DatabaseError::Unavailable(_)), "{error:?}");
    closed(db.health().await.unwrap_err());
    closed(db.get(UNITS, "a").await.unwrap_err());
    closed(db.find(Query::new(UNITS)).await.unwrap_err());
    closed(db.count(UNITS, Filter::All).await.unwrap_err());
    closed(db.claim(claim(Filter::All, 1)).await.unwrap_err());
    closed(db.insert(UNITS, "b", "{}".into()).await.unwrap_err());
    // It can be opened again, and has kept what it had.
    db.connect(schema::ALL).await.unwrap();
    assert_eq!(matching(db, UNITS, Filter::All).await, ["a"]);
}
