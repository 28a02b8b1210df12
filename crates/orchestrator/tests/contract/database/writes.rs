//! Changesets: what each write expects, and all or none.

use super::*;

pub(super) async fn an_inserted_document_is_read_back(db: &Db) {
    assert_eq!(db.get(UNITS, "a").await.unwrap(), None);
    put(db, UNITS, "a", json!({"x": 1})).await;
    let found = db.get(UNITS, "a").await.unwrap().unwrap();
    assert_eq!((found.id.as_str(), found.version, value(&found)), ("a", 1, json!({"x": 1})));
    // Ids are a collection's own.
    assert_eq!(db.get(JOBS, "a").await.unwrap(), None);
    assert_eq!(db.count(UNITS, Filter::All).await.unwrap(), 1);
    db.health().await.unwrap();
}

pub(super) async fn a_second_insert_is_refused(db: &Db) {
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

pub(super) async fn replaces_and_deletes_expect_a_version(db: &Db) {
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

pub(super) async fn writes_may_expect_a_field(db: &Db) {
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

pub(super) async fn require_changes_nothing(db: &Db) {
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

pub(super) async fn adds_stop_at_their_floor(db: &Db) {
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

pub(super) async fn a_changeset_happens_as_a_whole(db: &Db) {
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

pub(super) async fn changesets_given_together_stand_alone(db: &Db) {
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

pub(super) async fn an_empty_changeset_does_nothing(db: &Db) {
    db.commit(Changeset::new()).await.unwrap();
    assert_eq!(db.count(META, Filter::All).await.unwrap(), 0);
}

pub(super) fn exists_by(result: Result<(), DatabaseError>, wanted: &str) {
    let error = result.unwrap_err();
    assert!(matches!(&error, DatabaseError::AlreadyExists { index, .. } if index == wanted), "{error:?}");
}

pub(super) async fn unique_indexes_name_themselves(db: &Db) {
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

pub(super) async fn unique_indexes_take_null_for_a_value_behind_the_first_field(db: &Db) {
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

pub(super) async fn a_unique_key_is_free_again(db: &Db) {
    put(db, JOBS, "a", json!({"dedup": "k"})).await;
    db.update(JOBS, "a", 1, json!({"dedup": "l"}).to_string()).await.unwrap();
    put(db, JOBS, "b", json!({"dedup": "k"})).await;
    db.delete(JOBS, "b", 1).await.unwrap();
    put(db, JOBS, "c", json!({"dedup": "k"})).await;
}

pub(super) async fn bodies_must_be_objects(db: &Db) {
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

pub(super) async fn bad_requests_are_refused(db: &Db) {
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
