//! What every database promises.

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

async fn an_inserted_document_is_read_back(db: &Db) {
    assert_eq!(db.get(UNITS, "a").await.unwrap(), None);
    put(db, UNITS, "a", json!({"x": 1})).await;
    let found = db.get(UNITS, "a").await.unwrap().unwrap();
    assert_eq!((found.id.as_str(), found.version, value(&found)), ("a", 1, json!({"x": 1})));
    // Ids are a collection's own.
    assert_eq!(db.get(JOBS, "a").await.unwrap(), None);
    assert_eq!(db.count(UNITS, Filter::All).await.unwrap(), 1);
    db.health().await.unwrap();
}

async fn a_second_insert_is_refused(db: &Db) {
    put(db, JOBS, "a", json!({"dedup": "k"})).await;
    for body in ["{}", r#"{"dedup":"k"}"#, r#"{"dedup":"other"}"#] {
        let error = db.insert(JOBS, "a", body.to_owned()).await.unwrap_err();
        assert!(
            matches!(&error, DatabaseError::AlreadyExists { collection: JOBS, id, index } if id == "a" && index == "id"),
            "{error:?}"
        );
    }
    assert_eq!(body(db, JOBS, "a").await, json!({"dedup": "k"}));
}

async fn replaces_and_deletes_expect_a_version(db: &Db) {
    put(db, UNITS, "a", json!({"x": 1})).await;
    db.update(UNITS, "a", 1, json!({"x": 2}).to_string()).await.unwrap();
    assert_eq!(db.get(UNITS, "a").await.unwrap().unwrap().version, 2);
    for version in [0, 1, 3, u64::MAX] {
        let error = db.update(UNITS, "a", version, "{}".into()).await.unwrap_err();
        assert!(
            matches!(&error, DatabaseError::Conflict { collection: UNITS, id } if id == "a"),
            "{error:?}"
        );
        assert!(matches!(db.delete(UNITS, "a", version).await, Err(DatabaseError::Conflict { .. })));
    }
    assert_eq!(body(db, UNITS, "a").await, json!({"x": 2}));
    db.delete(UNITS, "a", 2).await.unwrap();
    assert_eq!(db.get(UNITS, "a").await.unwrap(), None);
    for error in [db.delete(UNITS, "a", 2).await, db.update(UNITS, "a", 2, "{}".into()).await] {
        assert!(matches!(error, Err(DatabaseError::Missing { collection: UNITS, id }) if id == "a"));
    }
    // Born again, it begins anew.
    put(db, UNITS, "a", json!({})).await;
    assert_eq!(db.get(UNITS, "a").await.unwrap().unwrap().version, 1);
}

async fn writes_may_expect_a_field(db: &Db) {
    put(db, JOBS, "a", json!({"lease_token": 7, "owner": {"name": "w"}, "flag": true})).await;
    let replace = |field: &str, scalar: Scalar| {
        let expect = Expect::Field(field.into(), scalar);
        let body = r#"{"lease_token":7,"owner":{"name":"w"},"flag":true}"#.to_owned();
        changes(vec![write(JOBS, "a", WriteOp::Replace { expect, body })])
    };
    for (field, scalar) in [
        ("lease_token", Scalar::Int(7)),
        ("owner.name", "w".into()),
        ("flag", true.into()),
        ("none", Scalar::Null),
        ("owner.none", Scalar::Null),
        ("flag.deeper", Scalar::Null),
    ] {
        db.commit(replace(field, scalar)).await.unwrap();
    }
    for (field, scalar) in [
        ("lease_token", Scalar::Int(8)),
        ("lease_token", "7".into()),
        ("lease_token", Scalar::Null),
        ("flag", 1.into()),
        ("owner", Scalar::Null),
        ("owner", r#"{"name":"w"}"#.into()),
    ] {
        let error = db.commit(replace(field, scalar)).await.unwrap_err();
        assert!(matches!(error, DatabaseError::Conflict { .. }), "{field}: {error:?}");
    }
    assert_eq!(db.get(JOBS, "a").await.unwrap().unwrap().version, 7);
    let expect = Expect::Field("lease_token".into(), 7.into());
    db.commit(changes(vec![write(JOBS, "a", WriteOp::Delete { expect })])).await.unwrap();
    assert_eq!(db.get(JOBS, "a").await.unwrap(), None);
}

async fn require_changes_nothing(db: &Db) {
    put(db, UNITS, "a", json!({"x": 1})).await;
    let require = |id: &str, expect| changes(vec![write(UNITS, id, WriteOp::Require { expect })]);
    db.commit(require("a", Expect::Version(1))).await.unwrap();
    db.commit(require("a", Expect::Field("x".into(), 1.into()))).await.unwrap();
    assert_eq!(db.get(UNITS, "a").await.unwrap().unwrap().version, 1);
    let stale = db.commit(require("a", Expect::Version(2))).await;
    assert!(matches!(stale, Err(DatabaseError::Conflict { .. })));
    let missing = db.commit(require("b", Expect::Field("x".into(), Scalar::Null))).await;
    assert!(matches!(missing, Err(DatabaseError::Missing { .. })));
    // It fails the changeset that it stands in.
    let mut both = changes(vec![insert(UNITS, "c", json!({}))]);
    both.require(UNITS, "a", Expect::Version(9));
    assert!(db.commit(both).await.is_err());
    assert_eq!(db.get(UNITS, "c").await.unwrap(), None);
}

async fn adds_stop_at_their_floor(db: &Db) {
    put(db, UNITS, "a", json!({"free": 10, "deep": {"n": -5}, "text": "1", "half": 0.5})).await;
    let add = |id: &str, field: &str, delta, floor| {
        let mut changes = Changeset::new();
        changes.add(UNITS, id, field, delta, floor);
        changes
    };
    db.commit(add("a", "free", -10, 0)).await.unwrap();
    let error = db.commit(add("a", "free", -1, 0)).await.unwrap_err();
    assert!(matches!(&error, DatabaseError::BelowFloor { field, .. } if field == "free"), "{error:?}");
    db.commit(add("a", "free", 3, 0)).await.unwrap();
    db.commit(add("a", "deep.n", 1, -4)).await.unwrap();
    assert_eq!(body(db, UNITS, "a").await, json!({"free": 3, "deep": {"n": -4}, "text": "1", "half": 0.5}));
    assert_eq!(db.get(UNITS, "a").await.unwrap().unwrap().version, 4);
    for field in ["none", "text", "half", "deep", "text.n"] {
        let error = db.commit(add("a", field, 1, 0)).await.unwrap_err();
        assert!(matches!(error, DatabaseError::Invalid(_)), "{field}: {error:?}");
    }
    let error = db.commit(add("a", "free", i64::MAX, 0)).await.unwrap_err();
    assert!(matches!(error, DatabaseError::Invalid(_)), "{error:?}");
    assert!(matches!(db.commit(add("b", "free", 1, 0)).await, Err(DatabaseError::Missing { .. })));
    assert_eq!(db.get(UNITS, "a").await.unwrap().unwrap().version, 4);
}

async fn a_changeset_happens_as_a_whole(db: &Db) {
    put(db, UNITS, "a", json!({"free": 1})).await;
    put(db, JOBS, "j", json!({"dedup": "k"})).await;
    let mut good = changes(vec![insert(JOBS, "k", json!({"dedup": "l"}))]);
    good.add(UNITS, "a", "free", 1, 0).add(UNITS, "a", "free", -2, 0).delete(JOBS, "j", Expect::Version(1));
    // The key of a document deleted by the same changeset is free.
    good.writes.push(insert(JOBS, "m", json!({"dedup": "k"})));
    let twice = good.clone();
    db.commit(good).await.unwrap();
    assert_eq!(matching(db, JOBS, Filter::All).await, ["k", "m"]);
    assert_eq!(db.get(UNITS, "a").await.unwrap().unwrap().version, 3);
    // The same again fails, and changes nothing.
    assert!(matches!(db.commit(twice).await, Err(DatabaseError::AlreadyExists { .. })));
    // Whichever write fails, and wherever it stands.
    let bad = [
        write(UNITS, "a", WriteOp::Replace { expect: Expect::Version(1), body: "{}".into() }),
        write(UNITS, "none", WriteOp::Delete { expect: Expect::Version(1) }),
        write(UNITS, "a", WriteOp::Add { field: "free".into(), delta: -1, floor: 0 }),
        insert(JOBS, "new", json!({"dedup": "l"})),
        insert(JOBS, "k", json!({})),
        write(JOBS, "new", WriteOp::Insert { body: "null".into() }),
    ];
    for write_of_it in bad {
        for place in 0..3 {
            let mut writes = vec![insert(UNITS, "b", json!({})), insert(JOBS, "x", json!({"dedup": "x"}))];
            writes.insert(place, write_of_it.clone());
            assert!(db.commit(changes(writes)).await.is_err());
            assert_eq!(matching(db, JOBS, Filter::All).await, ["k", "m"]);
            assert_eq!(matching(db, UNITS, Filter::All).await, ["a"]);
        }
    }
    assert_eq!(body(db, UNITS, "a").await, json!({"free": 0}));
    // Nor do their keys stay taken.
    put(db, JOBS, "y", json!({"dedup": "x"})).await;
}

async fn changesets_given_together_stand_alone(db: &Db) {
    assert!(db.commit_each(Vec::new()).await.is_empty());
    put(db, UNITS, "there", json!({"n": 1})).await;
    let pair = |first: &str, second: &str| {
        changes(vec![insert(UNITS, first, json!({})), insert(UNITS, second, json!({}))])
    };
    let stale = Expect::Version(7);
    let replace = WriteOp::Replace { expect: stale, body: json!({"n": 2}).to_string() };
    let given = vec![
        pair("a", "b"),
        pair("c", "there"),
        changes(vec![insert(UNITS, "no object", json!([]))]),
        changes(vec![write(UNITS, "there", replace)]),
        Changeset::new(),
        pair("d", "e"),
    ];
    let answers = db.commit_each(given).await;
    assert_eq!(answers.len(), 6);
    assert!(answers[0].is_ok() && answers[4].is_ok() && answers[5].is_ok(), "{answers:?}");
    assert!(
        matches!(&answers[1], Err(DatabaseError::AlreadyExists { id, .. }) if id == "there"),
        "{answers:?}"
    );
    assert!(matches!(answers[2], Err(DatabaseError::Invalid(_))), "{answers:?}");
    assert!(matches!(answers[3], Err(DatabaseError::Conflict { .. })), "{answers:?}");
    assert_eq!(matching(db, UNITS, Filter::All).await, ["a", "b", "d", "e", "there"]);
    assert_eq!(body(db, UNITS, "there").await["n"], 1);
    // One insertion of two wins, as if they were called at once.
    let twins = db.commit_each(vec![pair("x", "y"), pair("y", "z")]).await;
    assert_eq!(twins.iter().filter(|answer| answer.is_ok()).count(), 1, "{twins:?}");
}

async fn an_empty_changeset_does_nothing(db: &Db) {
    db.commit(Changeset::new()).await.unwrap();
    assert_eq!(db.count(META, Filter::All).await.unwrap(), 0);
}

fn exists_by(result: Result<(), DatabaseError>, wanted: &str) {
    let error = result.unwrap_err();
    assert!(matches!(&error, DatabaseError::AlreadyExists { index, .. } if index == wanted), "{error:?}");
}

async fn unique_indexes_name_themselves(db: &Db) {
    put(db, JOBS, "a", json!({"dedup": "k"})).await;
    put(db, JOBS, "b", json!({"dedup": "l"})).await;
    let error = db.insert(JOBS, "c", json!({"dedup": "k"}).to_string()).await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::AlreadyExists { collection: JOBS, id, index } if id == "c" && index == "by_dedup"),
        "{error:?}"
    );
    exists_by(db.update(JOBS, "b", 1, json!({"dedup": "k"}).to_string()).await, "by_dedup");
    // Keeping one's own key is no collision, nor is the same text of another type.
    db.update(JOBS, "b", 1, json!({"dedup": "l", "x": 1}).to_string()).await.unwrap();
    put(db, JOBS, "d", json!({"dedup": 1})).await;
    put(db, JOBS, "e", json!({"dedup": "1"})).await;
    put(db, JOBS, "f", json!({"dedup": true})).await;
    exists_by(db.insert(JOBS, "g", json!({"dedup": true}).to_string()).await, "by_dedup");
    // Documents without the field share nothing.
    put(db, JOBS, "h", json!({})).await;
    put(db, JOBS, "i", json!({"dedup": null})).await;
    for body in [json!({"dedup": []}), json!({"dedup": {"a": 1}}), json!({"dedup": 0.5})] {
        let error = db.insert(JOBS, "z", body.to_string()).await.unwrap_err();
        assert!(matches!(error, DatabaseError::Invalid(_)), "{error:?}");
    }
}

async fn unique_indexes_take_null_for_a_value_behind_the_first_field(db: &Db) {
    put(db, TRANSFERS, "a", json!({"domain": "d"})).await;
    exists_by(
        db.insert(TRANSFERS, "b", json!({"domain": "d", "idempotency_key": null}).to_string()).await,
        "by_idempotency",
    );
    put(db, TRANSFERS, "b", json!({"domain": "d", "idempotency_key": "k"})).await;
    put(db, TRANSFERS, "c", json!({"domain": "e", "idempotency_key": "k"})).await;
    exists_by(
        db.insert(TRANSFERS, "f", json!({"domain": "d", "idempotency_key": "k"}).to_string()).await,
        "by_idempotency",
    );
    put(db, TRANSFERS, "g", json!({"idempotency_key": "k"})).await;
    put(db, TRANSFERS, "h", json!({"idempotency_key": "k"})).await;
}

async fn a_unique_key_is_free_again(db: &Db) {
    put(db, JOBS, "a", json!({"dedup": "k"})).await;
    db.update(JOBS, "a", 1, json!({"dedup": "l"}).to_string()).await.unwrap();
    put(db, JOBS, "b", json!({"dedup": "k"})).await;
    db.delete(JOBS, "b", 1).await.unwrap();
    put(db, JOBS, "c", json!({"dedup": "k"})).await;
}

async fn bodies_must_be_objects(db: &Db) {
    put(db, UNITS, "a", json!({})).await;
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(500), "]".repeat(500));
    for body in
        ["null", "[]", "1", "\"x\"", "", "{", "{}{}", "{\"a\":}", "{a:1}", "{\"a\":\"\\ud800\"}", &deep]
    {
        let error = db.insert(UNITS, "b", body.to_owned()).await.unwrap_err();
        assert!(matches!(error, DatabaseError::Invalid(_)), "{body}: {error:?}");
        let error = db.update(UNITS, "a", 1, body.to_owned()).await.unwrap_err();
        assert!(matches!(error, DatabaseError::Invalid(_)), "{body}: {error:?}");
    }
    assert_eq!(matching(db, UNITS, Filter::All).await, ["a"]);
    assert_eq!(db.get(UNITS, "a").await.unwrap().unwrap().version, 1);
    put(db, UNITS, "c", json!({})).await;
    db.insert(UNITS, "d", " \n{ \"a\" : [ ] } ".to_owned()).await.unwrap();
    assert_eq!(body(db, UNITS, "d").await, json!({"a": []}));
}

async fn bad_requests_are_refused(db: &Db) {
    let invalid = |error: DatabaseError| assert!(matches!(error, DatabaseError::Invalid(_)), "{error:?}");
    let none = Collection("none");
    invalid(db.get(none, "a").await.unwrap_err());
    invalid(db.find(Query::new(none)).await.unwrap_err());
    invalid(db.count(none, Filter::All).await.unwrap_err());
    invalid(db.insert(none, "a", "{}".into()).await.unwrap_err());
    invalid(db.claim(Claim { collection: none, ..claim(Filter::All, 1) }).await.unwrap_err());
    for limit in [0, 10_001] {
        invalid(db.find(Query::new(UNITS).limit(limit)).await.unwrap_err());
        invalid(db.claim(claim(Filter::All, limit)).await.unwrap_err());
    }
    let long = "x".repeat(2_000);
    for id in ["", "a\0b", &long] {
        invalid(db.insert(UNITS, id, "{}".into()).await.unwrap_err());
    }
    for path in ["", ".", "a.", "a b", "a'b", "a\"b", "a[0]", "$"] {
        invalid(db.find(Query::new(UNITS).filter(Filter::eq(path, 1))).await.unwrap_err());
        invalid(db.count(UNITS, Filter::In(path.into(), vec![])).await.unwrap_err());
        invalid(db.find(Query::new(UNITS).sort(Sort::Field(path.into()))).await.unwrap_err());
        let mut add = Changeset::new();
        add.add(UNITS, "a", path, 1, 0);
        invalid(db.commit(add).await.unwrap_err());
        invalid(
            db.claim(Claim { set: vec![(path.into(), Scalar::Null)], ..claim(Filter::All, 1) })
                .await
                .unwrap_err(),
        );
    }
    let mut nested = Filter::All;
    for _ in 0..100 {
        nested = Filter::Or(vec![nested]);
    }
    invalid(db.count(UNITS, nested).await.unwrap_err());
    let many = (0..20_000).map(|n| n.to_string()).collect();
    invalid(db.count(UNITS, Filter::Ids(many)).await.unwrap_err());
}

/// The same values in a field with an index, and in one without.
async fn mixed(db: &Db) {
    let values = [
        ("array", json!([1])),
        ("big", json!(u64::MAX)),
        ("empty", json!("")),
        ("false", json!(false)),
        ("half", json!(0.5)),
        ("int-1", json!(-1)),
        ("int1", json!(1)),
        ("int10", json!(10)),
        ("int9", json!(9)),
        ("null", json!(null)),
        ("object", json!({"a": 1})),
        ("one", json!(1.0)),
        ("text1", json!("1")),
        ("text10", json!("10")),
        ("text9", json!("9")),
        ("true", json!(true)),
        ("umlaut", json!("ä")),
    ];
    for (id, value) in values {
        put(db, UNITS, id, json!({"updated_at": value, "plain": value, "in": {"side": value}})).await;
    }
    put(db, UNITS, "without", json!({})).await;
}

async fn filters_compare_within_one_type(db: &Db) {
    mixed(db).await;
    type Make = fn(String, Scalar) -> Filter;
    let cases: Vec<(Make, Scalar, &[&str])> = vec![
        (Filter::Eq, 1.into(), &["int1"]),
        (Filter::Eq, 0.into(), &[]),
        (Filter::Eq, "1".into(), &["text1"]),
        (Filter::Eq, "true".into(), &[]),
        (Filter::Eq, "[1]".into(), &[]),
        (Filter::Eq, true.into(), &["true"]),
        (Filter::Eq, false.into(), &["false"]),
        (Filter::Eq, Scalar::Null, &["null", "without"]),
        (Filter::Lt, 9.into(), &["int-1", "int1"]),
        (Filter::Le, 9.into(), &["int-1", "int1", "int9"]),
        (Filter::Gt, 1.into(), &["int10", "int9"]),
        (Filter::Ge, 9.into(), &["int10", "int9"]),
        (Filter::Ge, i64::MIN.into(), &["int-1", "int1", "int10", "int9"]),
        (Filter::Lt, "9".into(), &["empty", "text1", "text10"]),
        (Filter::Le, "".into(), &["empty"]),
        (Filter::Gt, "1".into(), &["text10", "text9", "umlaut"]),
        (Filter::Ge, "".into(), &["empty", "text1", "text10", "text9", "umlaut"]),
        (Filter::Lt, true.into(), &["false"]),
        (Filter::Le, true.into(), &["false", "true"]),
        (Filter::Gt, false.into(), &["true"]),
        (Filter::Ge, false.into(), &["false", "true"]),
        (Filter::Lt, Scalar::Null, &[]),
        (Filter::Le, Scalar::Null, &[]),
        (Filter::Gt, Scalar::Null, &[]),
        (Filter::Ge, Scalar::Null, &[]),
    ];
    for (make, scalar, wanted) in cases {
        for field in ["plain", "updated_at", "in.side"] {
            let filter = make(field.into(), scalar.clone());
            assert_eq!(matching(db, UNITS, filter.clone()).await, wanted, "{filter:?}");
        }
    }
}

async fn filters_compare_in_fields_with_an_index_as_in_those_without(db: &Db) {
    mixed(db).await;
    for list in [
        vec![],
        vec![Scalar::Null],
        vec![1.into(), "1".into(), true.into()],
        vec![Scalar::Null, 9.into(), "nothing".into()],
    ] {
        let with = matching(db, UNITS, Filter::In("updated_at".into(), list.clone())).await;
        let without = matching(db, UNITS, Filter::In("plain".into(), list.clone())).await;
        assert_eq!(with, without, "{list:?}");
        assert_eq!(with.is_empty(), list.is_empty());
    }
    for sort in [Sort::Field as fn(String) -> Sort, Sort::FieldDescending] {
        let with = ids(db, Query::new(UNITS).sort(sort("updated_at".into()))).await;
        let without = ids(db, Query::new(UNITS).sort(sort("plain".into()))).await;
        assert_eq!(with, without);
        assert_eq!(with.len(), 18);
    }
}

async fn null_is_missing(db: &Db) {
    put(db, UNITS, "a", json!({"x": null, "y": {"z": null}})).await;
    put(db, UNITS, "b", json!({})).await;
    put(db, UNITS, "c", json!({"x": 0, "y": {"z": ""}})).await;
    put(db, UNITS, "d", json!({"x": [], "y": 1})).await;
    assert_eq!(matching(db, UNITS, Filter::Eq("x".into(), Scalar::Null)).await, ["a", "b"]);
    assert_eq!(matching(db, UNITS, Filter::Eq("y.z".into(), Scalar::Null)).await, ["a", "b", "d"]);
    let both = Filter::In("x".into(), vec![Scalar::Null, 0.into()]);
    assert_eq!(matching(db, UNITS, both).await, ["a", "b", "c"]);
}

async fn lists_prefixes_and_combinations(db: &Db) {
    for id in ["a", "a%b", "a_1", "a_2", "ab", "b", "ä1", "ä2", "\u{10ffff}"] {
        put(db, UNITS, id, json!({"id": id})).await;
    }
    let all = matching(db, UNITS, Filter::All).await;
    assert_eq!(all.len(), 9);
    assert_eq!(matching(db, UNITS, Filter::And(vec![])).await, all);
    assert!(matching(db, UNITS, Filter::Or(vec![])).await.is_empty());
    assert!(matching(db, UNITS, Filter::Ids(vec![])).await.is_empty());
    let ids = |list: &[&str]| Filter::Ids(list.iter().map(|id| (*id).to_owned()).collect());
    assert_eq!(matching(db, UNITS, ids(&["b", "a", "a", "none", ""])).await, ["a", "b"]);
    let prefix = |text: &str| Filter::IdPrefix(text.to_owned());
    assert_eq!(matching(db, UNITS, prefix("")).await, all);
    assert_eq!(matching(db, UNITS, prefix("a_")).await, ["a_1", "a_2"]);
    assert_eq!(matching(db, UNITS, prefix("a%")).await, ["a%b"]);
    assert_eq!(matching(db, UNITS, prefix("ä")).await, ["ä1", "ä2"]);
    assert_eq!(matching(db, UNITS, prefix("\u{10ffff}")).await, ["\u{10ffff}"]);
    assert!(matching(db, UNITS, prefix("A")).await.is_empty());
    let either = Filter::Or(vec![ids(&["b"]), Filter::And(vec![prefix("a"), Filter::eq("id", "ab")])]);
    assert_eq!(matching(db, UNITS, either.clone()).await, ["ab", "b"]);
    assert_eq!(matching(db, UNITS, either.and(prefix("b"))).await, ["b"]);
    assert_eq!(matching(db, UNITS, Filter::Or(vec![Filter::All, prefix("a")])).await, all);
}

/// All pages of a query.
async fn paged(db: &Db, query: Query) -> Vec<String> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = db.find(query.clone().after(after)).await.unwrap();
        assert!(page.documents.len() <= query.limit);
        all.extend(page.documents.into_iter().map(|document| document.id));
        // Cursors travel as text.
        match page.next {
            Some(cursor) => {
                let text = serde_json::to_string(&cursor).unwrap();
                after = Some(serde_json::from_str::<Cursor>(&text).unwrap());
            }
            None => return all,
        }
    }
}

async fn sorts_break_ties_by_id(db: &Db) {
    for (id, at) in [("d", 2), ("a", 1), ("c", 1), ("b", 2), ("e", 1)] {
        put(db, UNITS, id, json!({"updated_at": at, "plain": at})).await;
    }
    for field in ["updated_at", "plain"] {
        for limit in [1, 2, 3, 4, 5, 6] {
            let query = |sort| Query::new(UNITS).sort(sort).limit(limit);
            assert_eq!(paged(db, query(Sort::Field(field.into()))).await, ["a", "c", "e", "b", "d"]);
            assert_eq!(
                paged(db, query(Sort::FieldDescending(field.into()))).await,
                ["d", "b", "e", "c", "a"]
            );
            assert_eq!(paged(db, query(Sort::Id)).await, ["a", "b", "c", "d", "e"]);
            assert_eq!(paged(db, query(Sort::IdDescending)).await, ["e", "d", "c", "b", "a"]);
        }
    }
    // A condition that can't hold, beside one on the field of the sort.
    for never in [
        Filter::Or(vec![]),
        Filter::In("updated_at".into(), vec![]),
        Filter::Lt("updated_at".into(), Scalar::Null),
    ] {
        let filter = Filter::Ge("updated_at".into(), 1.into()).and(never);
        assert!(
            ids(db, Query::new(UNITS).filter(filter).sort(Sort::Field("updated_at".into()))).await.is_empty()
        );
    }
    // A full last page has nothing behind it.
    assert_eq!(db.find(Query::new(UNITS).limit(5)).await.unwrap().next, None);
}

async fn sorts_put_missing_fields_first(db: &Db) {
    mixed(db).await;
    put(db, UNITS, "int1b", json!({"updated_at": 1, "plain": 1})).await;
    for field in ["updated_at", "plain"] {
        let up = paged(db, Query::new(UNITS).sort(Sort::Field(field.into()))).await;
        assert_eq!(up[..7], ["null", "without", "int-1", "int1", "int1b", "int9", "int10"]);
        let mut down = paged(db, Query::new(UNITS).sort(Sort::FieldDescending(field.into()))).await;
        down.reverse();
        assert_eq!(up, down);
        for limit in [1, 2, 3, 7] {
            let query = |sort| Query::new(UNITS).sort(sort).limit(limit);
            assert_eq!(paged(db, query(Sort::Field(field.into()))).await, up);
            let mut down = paged(db, query(Sort::FieldDescending(field.into()))).await;
            down.reverse();
            assert_eq!(down, up);
        }
        let some = Query::new(UNITS).sort(Sort::Field(field.into())).limit(2);
        let found = paged(db, some.filter(Filter::Ge(field.into(), 1.into()))).await;
        assert_eq!(found, ["int1", "int1b", "int9", "int10"]);
    }
}

async fn pages_skip_nothing_while_others_write(db: &Db) {
    for n in 0..100 {
        put(db, UNITS, &format!("old{n:03}"), json!({"updated_at": n / 10})).await;
    }
    for sort in [
        Sort::Id,
        Sort::IdDescending,
        Sort::Field("updated_at".into()),
        Sort::FieldDescending("updated_at".into()),
    ] {
        let mut seen = Vec::new();
        let mut after = None;
        for round in 0.. {
            let query = Query::new(UNITS).sort(sort.clone()).limit(7).after(after);
            let page = db.find(query).await.unwrap();
            seen.extend(page.documents.iter().map(|d| d.id.clone()).filter(|id| id.starts_with("old")));
            // Before, behind, and between what is there.
            let id = format!("n{sort:?}{round}");
            put(db, UNITS, &id, json!({"updated_at": round % 12})).await;
            put(db, UNITS, &format!("z{id}"), json!({})).await;
            after = page.next;
            if after.is_none() || round > 200 {
                break;
            }
        }
        let distinct: BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), distinct.len()), (100, 100), "{sort:?}");
    }
}

async fn odd_texts_survive(db: &Db) {
    let odd = "quote\" back\\slash \n nul\u{0} é 😀 ' -- ; %";
    put(db, JOBS, "it's \"odd\" ; -- 😀", json!({"dedup": odd, "a-b": {"c_d": odd}, "weird key.": 1})).await;
    let by_index = Filter::eq("dedup", odd);
    assert_eq!(matching(db, JOBS, by_index).await, ["it's \"odd\" ; -- 😀"]);
    assert_eq!(matching(db, JOBS, Filter::eq("a-b.c_d", odd)).await.len(), 1);
    exists_by(db.insert(JOBS, "b", json!({"dedup": odd}).to_string()).await, "by_dedup");
    let taken = db
        .claim(Claim {
            set: vec![("owner".into(), odd.into()), ("a-b.x".into(), true.into())],
            ..claim(Filter::All, 1)
        })
        .await
        .unwrap();
    assert_eq!(
        value(&taken[0]),
        json!({"dedup": odd, "a-b": {"c_d": odd, "x": true}, "weird key.": 1, "owner": odd, "lease_token": 1, "attempts": 1})
    );
}

async fn claims_change_and_return(db: &Db) {
    assert!(db.claim(claim(due(10), 10)).await.unwrap().is_empty());
    for (id, at) in [("a", 3), ("b", 1), ("c", 2), ("d", 1), ("e", 99)] {
        put(db, JOBS, id, json!({"due": at, "attempts": 4, "kind": "k"})).await;
    }
    put(db, JOBS, "f", json!({"due": null})).await;
    let taken = db.claim(claim(due(10), 3)).await.unwrap();
    let names: Vec<_> = taken.iter().map(|d| (d.id.as_str(), d.version)).collect();
    assert_eq!(names, [("b", 2), ("d", 2), ("c", 2)]);
    assert_eq!(
        value(&taken[0]),
        json!({"due": null, "attempts": 5, "kind": "k", "lease_owner": "me", "lease_token": 1})
    );
    for document in &taken {
        assert_eq!(db.get(JOBS, &document.id).await.unwrap().unwrap(), *document);
    }
    let rest = db.claim(claim(due(10), 3)).await.unwrap();
    assert_eq!(rest.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(db.claim(claim(due(10), 3)).await.unwrap().is_empty());
    assert_eq!(db.claim(claim(due(99), 3)).await.unwrap().len(), 1);
    // The indexes follow.
    assert_eq!(matching(db, JOBS, Filter::Eq("due".into(), Scalar::Null)).await.len(), 6);
    assert!(matching(db, JOBS, Filter::Ge("due".into(), 0.into())).await.is_empty());
    // A claim that sets nothing still takes.
    let bare = Claim { set: vec![], increment: vec![], ..claim(Filter::Ids(vec!["f".into()]), 1) };
    assert_eq!(db.claim(bare).await.unwrap()[0].version, 2);
}

async fn claims_are_refused_as_a_whole(db: &Db) {
    for (id, attempts) in [("a", json!(1)), ("b", json!("x")), ("c", json!(1))] {
        put(db, JOBS, id, json!({"due": 1, "attempts": attempts, "dedup": id})).await;
    }
    assert!(matches!(db.claim(claim(due(1), 3)).await, Err(DatabaseError::Invalid(_))));
    let same = Claim { set: vec![("dedup".into(), "same".into())], increment: vec![], ..claim(due(1), 3) };
    let error = db.claim(same).await.unwrap_err();
    assert!(matches!(&error, DatabaseError::AlreadyExists { index, .. } if index == "by_dedup"), "{error:?}");
    for id in ["a", "b", "c"] {
        let found = db.get(JOBS, id).await.unwrap().unwrap();
        assert_eq!((found.version, value(&found)["dedup"].as_str()), (1, Some(id)));
    }
    let full = Claim { increment: vec![("attempts".into(), i64::MAX)], ..claim(Filter::eq("dedup", "a"), 1) };
    assert!(matches!(db.claim(full).await, Err(DatabaseError::Invalid(_))));
    assert_eq!(db.claim(claim(Filter::eq("dedup", "a"), 1)).await.unwrap().len(), 1);
}

async fn claims_give_each_document_to_one_caller(db: &Db) {
    let mut all = Changeset::new();
    for n in 0..600 {
        all.writes.push(insert(JOBS, &format!("{n:04}"), json!({"due": n % 7})));
    }
    db.commit(all).await.unwrap();
    let claimers = (0..12).map(|_| {
        let db = Arc::clone(db);
        tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let taken = db.claim(claim(due(10), 17)).await.unwrap();
                if taken.is_empty() {
                    return mine;
                }
                mine.extend(taken.into_iter().map(|document| document.id));
            }
        })
    });
    let taken: Vec<String> = join_all(claimers).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(taken.len(), 600);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 600);
    assert_eq!(db.count(JOBS, Filter::eq("attempts", 1)).await.unwrap(), 600);
}

async fn concurrent_adds_never_pass_the_floor(db: &Db) {
    put(db, UNITS, "u", json!({"free": 100})).await;
    let takers = (0..60).map(|n| {
        let db = Arc::clone(db);
        tokio::spawn(async move {
            let mut changes = changes(vec![insert(JOBS, &format!("j{n}"), json!({}))]);
            changes.add(UNITS, "u", "free", -3, 0);
            db.commit(changes).await
        })
    });
    let results: Vec<_> = join_all(takers).await.into_iter().map(Result::unwrap).collect();
    let (good, bad): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (33, 27));
    assert!(bad.iter().all(|result| matches!(result, Err(DatabaseError::BelowFloor { .. }))));
    assert_eq!(body(db, UNITS, "u").await, json!({"free": 1}));
    // What came with a refused add did not happen either.
    assert_eq!(db.count(JOBS, Filter::All).await.unwrap(), 33);
}

async fn concurrent_changesets_are_all_or_none(db: &Db) {
    // Each wants a key of its own and one that others want, too, in either order.
    let writers = (0..80).map(|n| {
        let db = Arc::clone(db);
        tokio::spawn(async move {
            let mut writes = vec![
                insert(JOBS, &format!("own{n}"), json!({"dedup": format!("own{n}"), "due": n})),
                insert(JOBS, &format!("shared{n}"), json!({"dedup": format!("shared{}", n % 20)})),
            ];
            if n % 2 == 0 {
                writes.reverse();
            }
            db.commit(changes(writes)).await.is_ok().then_some(n)
        })
    });
    let won: Vec<i32> = join_all(writers).await.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(won.len(), 20);
    let mut wanted: Vec<String> =
        won.iter().flat_map(|n| [format!("own{n}"), format!("shared{n}")]).collect();
    wanted.sort();
    assert_eq!(matching(db, JOBS, Filter::All).await, wanted);
    assert_eq!(matching(db, JOBS, due(1_000)).await.len(), 20);
}

async fn concurrent_replaces_let_one_win(db: &Db) {
    put(db, UNITS, "u", json!({"by": null})).await;
    let writers = (0..30).map(|n| {
        let db = Arc::clone(db);
        tokio::spawn(async move { (n, db.update(UNITS, "u", 1, json!({"by": n}).to_string()).await) })
    });
    let results: Vec<_> = join_all(writers).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<_> = results.iter().filter(|(_, result)| result.is_ok()).map(|(n, _)| *n).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(body(db, UNITS, "u").await, json!({"by": winners[0]}));
}

async fn a_read_sees_what_was_acknowledged(db: &Db) {
    let writers = (0..4).map(|writer| {
        let db = Arc::clone(db);
        tokio::spawn(async move {
            for n in 0..25 {
                let id = format!("{writer}-{n:02}");
                db.insert(UNITS, &id, json!({"provider": writer}).to_string()).await.unwrap();
                assert!(db.get(UNITS, &id).await.unwrap().is_some());
                let mine = Filter::eq("provider", writer);
                assert_eq!(db.count(UNITS, mine.clone()).await.unwrap(), n + 1);
                assert_eq!(ids(&db, Query::new(UNITS).filter(mine)).await.last(), Some(&id));
            }
        })
    });
    join_all(writers).await.into_iter().for_each(Result::unwrap);
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
