//! What SQLite alone can get wrong: files, full disks, newer programs, batches in which one request fails.

use std::{path::Path, sync::Arc};

use futures::future::join_all;
use orchestrator::{
    client::db::sqlite::{Options, SqliteDatabase},
    core::client::{
        database::{
            Changeset, Claim, Claimer, Committer, DatabaseClient, DatabaseError, Document, Expect, Filter,
            Reader, Scalar, Sort, Write, WriteOp,
        },
        schema::{self, CollectionSpec, IndexSpec, JOBS, UNITS},
    },
};
use serde_json::json;

async fn open(path: &Path) -> Arc<SqliteDatabase> {
    let db = SqliteDatabase::open(path, Options::default()).unwrap();
    db.connect(schema::ALL).await.unwrap();
    db
}

#[tokio::test]
async fn acknowledged_commits_survive_a_drop_without_disconnect() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    for round in 0..3_u64 {
        let db = open(&path).await;
        assert_eq!(db.count(JOBS, Filter::All).await.unwrap(), round * 20);
        for n in 0..20 {
            let body = json!({"dedup": format!("{round}-{n}"), "due": n}).to_string();
            db.insert(JOBS, &format!("{round}-{n}"), body).await.unwrap();
        }
        drop(db);
    }
    let db = open(&path).await;
    assert_eq!(db.count(JOBS, Filter::Le("due".into(), 1.into())).await.unwrap(), 6);
    let again = db.insert(JOBS, "x", json!({"dedup": "0-0"}).to_string()).await;
    assert!(matches!(again, Err(DatabaseError::AlreadyExists { .. })));
}

/// Claims the job `a`.
async fn claim(db: &SqliteDatabase) -> Document {
    let claim = Claim {
        collection: JOBS,
        filter: Filter::Ids(vec!["a".into()]),
        sort: Sort::Id,
        limit: 1,
        set: vec![("due".into(), Scalar::Null), ("state".into(), "running".into())],
        increment: vec![("lease_token".into(), 1)],
    };
    db.claim(claim).await.unwrap().remove(0)
}

fn replace(expect: Expect, body: &serde_json::Value) -> Changeset {
    let mut changes = Changeset::new();
    let op = WriteOp::Replace { expect, body: body.to_string() };
    changes.writes.push(Write::new(JOBS, "a", op));
    changes
}

fn token(token: i64) -> Expect {
    Expect::Field("lease_token".into(), token.into())
}

#[tokio::test]
async fn a_claimed_row_is_written_where_it_lies_and_every_index_follows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (db, other) = (open(&path).await, open(&path).await);
    let queued = json!({"dedup": "a", "subject": "s", "due": 1, "state": "created", "lease_token": 0});
    db.insert(JOBS, "a", queued.to_string()).await.unwrap();
    let ended = json!({"dedup": "a", "subject": "t", "due": 7, "state": "completed", "lease_token": 9});
    let refused = |answer| assert!(matches!(answer, Err(DatabaseError::Conflict { .. })), "{answer:?}");

    // Another token, another version, a field that the claim did not touch.
    claim(&db).await;
    refused(db.commit(replace(token(0), &ended)).await);
    let claimed = claim(&db).await;
    refused(db.commit(replace(Expect::Version(claimed.version - 1), &ended)).await);
    claim(&db).await;
    refused(db.commit(replace(Expect::Field("dedup".into(), "b".into()), &ended)).await);

    // Another process writes between the claim and the end.
    let claimed = claim(&db).await;
    other.commit(replace(Expect::Version(claimed.version), &queued)).await.unwrap();
    refused(db.commit(replace(token(4), &ended)).await);

    // The claim's own row is written a second time, and in a changeset of which another part is refused.
    let claimed = claim(&db).await;
    let mut changes = replace(token(1), &ended);
    changes.require(UNITS, "none", Expect::Version(1));
    assert!(matches!(db.commit(changes).await, Err(DatabaseError::Missing { .. })));
    assert_eq!(db.get(JOBS, "a").await.unwrap().unwrap(), claimed);
    db.commit(replace(token(1), &ended)).await.unwrap();
    refused(db.commit(replace(token(1), &ended)).await);
    let found = db.get(JOBS, "a").await.unwrap().unwrap();
    assert_eq!((found.version, found.body), (claimed.version + 1, ended.to_string()));

    // Every index has followed.
    for (field, before, after) in [("subject", "s", "t"), ("state", "running", "completed")] {
        assert_eq!(db.count(JOBS, Filter::eq(field, before)).await.unwrap(), 0, "{field}");
        assert_eq!(db.count(JOBS, Filter::eq(field, after)).await.unwrap(), 1, "{field}");
    }
    assert_eq!(db.count(JOBS, Filter::Ge("due".into(), 7.into())).await.unwrap(), 1);
    let claimed = claim(&db).await;
    db.delete(JOBS, "a", claimed.version).await.unwrap();
    assert_eq!(db.count(JOBS, Filter::All).await.unwrap(), 0);
}

#[tokio::test]
async fn a_copy_of_the_files_taken_without_closing_holds_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("db")).await;
    for n in 0..50 {
        db.insert(UNITS, &n.to_string(), json!({"updated_at": n}).to_string()).await.unwrap();
    }
    // What a killed process leaves: the database and its log, as they are on the disk now.
    let copy = tempfile::tempdir().unwrap();
    for name in ["db", "db-wal"] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let after = open(&copy.path().join("db")).await;
    assert_eq!(after.count(UNITS, Filter::All).await.unwrap(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { max_pages: Some(400), ..Options::default() };
    let db = SqliteDatabase::open(&dir.path().join("db"), options).unwrap();
    db.connect(schema::ALL).await.unwrap();
    let pad = "x".repeat(40_000);
    // Many at once, so that they share batches: each has two documents or none.
    let writers = (0..200).map(|n| {
        let (db, pad) = (Arc::clone(&db), pad.clone());
        tokio::spawn(async move {
            let mut changes = Changeset::new();
            changes.insert_json(JOBS, format!("small{n}"), &json!({"due": 1, "dedup": n}));
            changes.insert_json(UNITS, format!("large{n}"), &json!({"pad": pad}));
            (n, db.commit(changes).await)
        })
    });
    let results: Vec<_> = join_all(writers).await.into_iter().map(Result::unwrap).collect();
    let (good, bad): (Vec<_>, Vec<_>) = results.into_iter().partition(|(_, result)| result.is_ok());
    assert!(!good.is_empty() && !bad.is_empty(), "{} and {}", good.len(), bad.len());
    for (_, result) in &bad {
        assert!(matches!(result, Err(DatabaseError::Full)), "{result:?}");
    }
    let kept = good.len() as u64;
    assert_eq!(db.count(JOBS, Filter::All).await.unwrap(), kept);
    assert_eq!(db.count(JOBS, Filter::Le("due".into(), 1.into())).await.unwrap(), kept);
    assert_eq!(db.count(UNITS, Filter::All).await.unwrap(), kept);
    // Reading goes on, and so does writing once there is room.
    let again = |n: i32| {
        let mut changes = Changeset::new();
        changes.insert_json(JOBS, format!("small{n}"), &json!({"due": 1, "dedup": n}));
        changes.insert_json(UNITS, format!("large{n}"), &json!({"pad": pad}));
        changes
    };
    let lost = bad[0].0;
    assert!(matches!(db.commit(again(lost)).await, Err(DatabaseError::Full)));
    // Two make room for one: the small document may be the first on a page of its own.
    let mut delete = Changeset::new();
    for (found, _) in &good[..2] {
        delete.delete(UNITS, format!("large{found}"), Expect::Version(1));
    }
    db.commit(delete).await.unwrap();
    db.commit(again(lost)).await.unwrap();
    assert_eq!(db.count(UNITS, Filter::All).await.unwrap(), kept - 1);
}

#[tokio::test]
async fn of_changesets_given_together_the_one_that_does_not_fit_the_disk_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { max_pages: Some(400), ..Options::default() };
    let db = SqliteDatabase::open(&dir.path().join("db"), options).unwrap();
    db.connect(schema::ALL).await.unwrap();
    let unit = |id: &str, bytes: usize| {
        let mut changes = Changeset::new();
        changes.insert_json(UNITS, id.to_owned(), &json!({"pad": "x".repeat(bytes)}));
        changes
    };
    let answers = db.commit_each(vec![unit("a", 10), unit("b", 8_000_000), unit("c", 10)]).await;
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(matches!(answers[1], Err(DatabaseError::Full)), "{answers:?}");
    assert_eq!(db.count(UNITS, Filter::All).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_moved_while_others_write_and_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let options = Options { checkpoint_pages: 200, ..Options::default() };
    let db = SqliteDatabase::open(&path, options).unwrap();
    db.connect(schema::ALL).await.unwrap();
    let writers = (0..4).map(|writer| {
        let db = Arc::clone(&db);
        tokio::spawn(async move {
            for n in 0..400 {
                let mut changes = Changeset::new();
                for part in 0..10 {
                    let body = json!({"updated_at": n, "pad": "x".repeat(700)});
                    changes.insert_json(UNITS, format!("{writer}-{n}-{part}"), &body);
                }
                db.commit(changes).await.unwrap();
            }
        })
    });
    join_all(writers).await.into_iter().for_each(|ended| ended.unwrap());
    assert!(db.stats().checkpoints > 0, "{:?}", db.stats());
    // More than twice as much was written.
    let log = std::fs::metadata(dir.path().join("db-wal")).unwrap().len();
    assert!(log < 9 * 200 * 16_408, "{log} bytes");
    drop(db);
    let db = open(&path).await;
    assert_eq!(db.count(UNITS, Filter::All).await.unwrap(), 16_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_spares_the_rest_of_its_batch() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("db")).await;
    let before = db.stats();
    let writers = (0..300_i64).map(|n| {
        let db = Arc::clone(&db);
        tokio::spawn(async move {
            let mut changes = Changeset::new();
            changes.insert_json(JOBS, format!("a{n}"), &json!({"due": n}));
            changes.insert_json(UNITS, format!("b{n}"), &json!({"n": n}));
            if n % 3 == 0 {
                changes.require(UNITS, "none", Expect::Field("x".into(), Scalar::Null));
            }
            db.commit(changes).await.is_ok()
        })
    });
    let good = join_all(writers).await.into_iter().filter(|result| *result.as_ref().unwrap()).count();
    assert_eq!(good, 200);
    assert_eq!(db.count(JOBS, Filter::All).await.unwrap(), 200);
    assert_eq!(db.count(UNITS, Filter::All).await.unwrap(), 200);
    // They did share syncs.
    let after = db.stats();
    assert_eq!(after.requests - before.requests, 300);
    assert!(after.commits - before.commits < 300, "{after:?}");
}

#[tokio::test]
async fn a_newer_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    open(&path).await.disconnect().await.unwrap();
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    let db = SqliteDatabase::open(&path, Options::default()).unwrap();
    let error = db.connect(schema::ALL).await.unwrap_err();
    assert!(matches!(&error, DatabaseError::Invalid(text) if text.contains("99")), "{error:?}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let text = "this is no database, and it must not be overwritten".repeat(200);
    std::fs::write(&path, &text).unwrap();
    let error = SqliteDatabase::open(&path, Options::default()).err().unwrap();
    assert!(matches!(error, DatabaseError::Unavailable(_)), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = open(&path).await;
    for n in 0..400 {
        let body = json!({"dedup": n, "due": n, "pad": "x".repeat(300)}).to_string();
        db.insert(JOBS, &format!("{n:04}"), body).await.unwrap();
    }
    db.disconnect().await.unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let (from, to) = (bytes.len() / 2, bytes.len() / 2 + 16_384);
    bytes[from..to].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    // Where the damage lies decides how early it shows.
    let error = match SqliteDatabase::open(&path, Options::default()) {
        Ok(db) => db.connect(schema::ALL).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, DatabaseError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn a_new_index_covers_what_is_there() {
    const BEFORE: &[CollectionSpec] = &[CollectionSpec { collection: JOBS, indexes: &[] }];
    const AFTER: &[CollectionSpec] = &[CollectionSpec {
        collection: JOBS,
        indexes: &[
            IndexSpec { name: "by_side", fields: &["in.side"], unique: true, passing: &[] },
            IndexSpec { name: "by_due", fields: &["due"], unique: false, passing: &[] },
        ],
    }];
    const CHANGED: &[CollectionSpec] = &[CollectionSpec {
        collection: JOBS,
        indexes: &[IndexSpec { name: "by_side", fields: &["in.side"], unique: false, passing: &[] }],
    }];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = SqliteDatabase::open(&path, Options::default()).unwrap();
    db.connect(BEFORE).await.unwrap();
    for n in 0..10 {
        db.insert(JOBS, &n.to_string(), json!({"in": {"side": n}, "due": n}).to_string()).await.unwrap();
    }
    db.connect(AFTER).await.unwrap();
    let error = db.insert(JOBS, "x", json!({"in": {"side": 3}}).to_string()).await.unwrap_err();
    assert!(matches!(&error, DatabaseError::AlreadyExists { index, .. } if index == "by_side"), "{error:?}");
    assert_eq!(db.count(JOBS, Filter::Ge("due".into(), 5.into())).await.unwrap(), 5);
    db.connect(CHANGED).await.unwrap();
    db.insert(JOBS, "x", json!({"in": {"side": 3}}).to_string()).await.unwrap();
    assert_eq!(db.count(JOBS, Filter::eq("in.side", 3)).await.unwrap(), 2);
}
