//! What MongoDB alone can get wrong: lost answers, transactions that meet, indexes that somebody changed, servers that are
//! not what they should be. Also the databases of the suites: each test has its own on one server, and drops it.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use ::mongodb::{
    Client, Database,
    bson::{Bson, DateTime, Document, doc},
};
use futures::future::join_all;
use orchestrator::{
    client::{
        clock::SystemClock,
        db::mongodb::{DriftKind, MongoDatabase, MongoSettings, Topology},
    },
    core::{
        client::{
            database::{
                Changeset, Claim, Claimer, Committer, DatabaseClient, DatabaseError, Expect, Filter, Query,
                Reader, Scalar, Sort,
            },
            schema::{self, CollectionSpec, EXPIRIES, IndexSpec, JOBS, OUTBOX, UNITS},
        },
        market::quantity::Micros,
    },
    service::job::purge::PurgeSettings,
    utils::random,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const VARIABLE: &str = "ORCHESTRATOR_TEST_MONGODB_URL";

fn url() -> String {
    std::env::var(VARIABLE)
        .unwrap_or_else(|_| panic!("{VARIABLE} is not set; `cargo xtask test` starts a server and sets it"))
}

/// Drops a database when the test that used it ends, however it ends.
pub struct Drops {
    name: String,
}

impl Drop for Drops {
    fn drop(&mut self) {
        let name = self.name.clone();
        // A thread of its own, because the test's runtime may be ending.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = Client::with_uri_str(url()).await.unwrap();
                client.database(&name).drop().await.unwrap();
            });
        });
        let _ = thread.join();
    }
}

/// Settings for a database of one's own. The clocks of the suites stand still in another year: nothing expires.
pub fn settings() -> (MongoSettings, Drops) {
    let name = format!("test-{}", random::hex(8));
    let settings =
        MongoSettings { app_name: name.clone(), expire: false, ..MongoSettings::new(url(), &name) };
    (settings, Drops { name })
}

/// A client of that database, with the schema.
pub async fn connect(settings: &MongoSettings) -> Arc<MongoDatabase> {
    let db = MongoDatabase::open(settings.clone()).await.unwrap();
    db.connect(schema::ALL).await.unwrap();
    db
}

/// An empty database with the whole schema.
pub async fn connected() -> (Arc<MongoDatabase>, Drops) {
    let (settings, drops) = settings();
    (connect(&settings).await, drops)
}

/// Two clients of one empty database.
pub async fn connected_twice() -> (Arc<MongoDatabase>, Arc<MongoDatabase>, Drops) {
    let (settings, drops) = settings();
    (connect(&settings).await, connect(&settings).await, drops)
}

async fn raw(settings: &MongoSettings) -> Database {
    Client::with_uri_str(&settings.url).await.unwrap().database(&settings.name)
}

/// A server has one such switch: those who use it take turns.
pub static FAULTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Makes the server fail commands of this test's clients, and of no others.
pub async fn fail(settings: &MongoSettings, times: i32, mut data: Document) {
    data.insert("appName", &settings.app_name);
    let command = doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data };
    Client::with_uri_str(&settings.url).await.unwrap().database("admin").run_command(command).await.unwrap();
}

async fn put(db: &MongoDatabase, id: &str, body: Value) {
    db.insert(JOBS, id, body.to_string()).await.unwrap();
}

async fn body(db: &MongoDatabase, id: &str) -> Value {
    serde_json::from_str(&db.get(JOBS, id).await.unwrap().unwrap().body).unwrap()
}

fn claim(limit: usize) -> Claim {
    Claim {
        collection: JOBS,
        filter: Filter::Le("due".into(), 10.into()),
        sort: Sort::Field("due".into()),
        limit,
        set: vec![("due".into(), Scalar::Null)],
        increment: vec![("attempts".into(), 1)],
    }
}

#[tokio::test]
async fn faults_of_the_server_leave_a_changeset_done_once_or_not_at_all() {
    let _turn = FAULTS.lock().await;
    let (settings, _drops) = settings();
    let db = connect(&settings).await;
    put(&db, "counter", json!({"n": 0})).await;
    let transient = ["TransientTransactionError"].as_slice();
    let unknown = ["UnknownTransactionCommitResult"].as_slice();
    let faults = [
        (3, doc! { "failCommands": ["update"], "errorCode": 112, "errorLabels": transient.to_vec() }),
        (1, doc! { "failCommands": ["insert"], "closeConnection": true }),
        (2, doc! { "failCommands": ["commitTransaction"], "closeConnection": true }),
        (2, doc! { "failCommands": ["commitTransaction"], "errorCode": 91, "errorLabels": unknown.to_vec() }),
        (
            1,
            doc! { "failCommands": ["commitTransaction"], "errorCode": 251, "errorLabels": transient.to_vec() },
        ),
    ];
    for (round, (times, fault)) in (1_i64..).zip(faults) {
        fail(&settings, times, fault.clone()).await;
        let mut changes = Changeset::new();
        changes.insert_json(JOBS, format!("j{round}"), &json!({}));
        changes.add(JOBS, "counter", "n", 1, 0);
        db.commit(changes).await.unwrap_or_else(|error| panic!("{fault}: {error:?}"));
        assert_eq!(body(&db, "counter").await, json!({"n": round}), "{fault}");
        assert_eq!(db.count(JOBS, Filter::IdPrefix("j".into())).await.unwrap(), round.unsigned_abs());
    }
    // Single writes are repeated by the driver, and counted by the server.
    for fault in [
        doc! { "failCommands": ["update"], "closeConnection": true },
        doc! { "failCommands": ["update"], "errorCode": 10_107, "errorLabels": ["RetryableWriteError"] },
    ] {
        let before = db.get(JOBS, "counter").await.unwrap().unwrap();
        fail(&settings, 1, fault.clone()).await;
        let mut changes = Changeset::new();
        changes.add(JOBS, "counter", "n", 1, 0);
        db.commit(changes).await.unwrap_or_else(|error| panic!("{fault}: {error:?}"));
        assert_eq!(db.get(JOBS, "counter").await.unwrap().unwrap().version, before.version + 1, "{fault}");
    }
}

#[tokio::test]
async fn a_server_that_keeps_failing_is_unavailable_and_nothing_is_written() {
    let _turn = FAULTS.lock().await;
    let (settings, _drops) = settings();
    let settings = MongoSettings { timeout: Duration::from_secs(1), ..settings };
    let db = connect(&settings).await;
    for fault in [
        doc! { "failCommands": ["insert"], "errorCode": 112, "errorLabels": ["TransientTransactionError"] },
        doc! { "failCommands": ["insert"], "closeConnection": true },
    ] {
        fail(&settings, 100_000, fault.clone()).await;
        let mut changes = Changeset::new();
        changes.insert_json(JOBS, "a".to_owned(), &json!({}));
        changes.insert_json(UNITS, "b".to_owned(), &json!({}));
        let error = db.commit(changes).await.unwrap_err();
        assert!(matches!(error, DatabaseError::Unavailable(_)), "{fault}: {error:?}");
        let error = db.insert(JOBS, "a", "{}".into()).await.unwrap_err();
        assert!(matches!(error, DatabaseError::Unavailable(_)), "{fault}: {error:?}");
        assert_eq!(db.count(JOBS, Filter::All).await.unwrap(), 0, "{fault}");
        assert_eq!(db.count(UNITS, Filter::All).await.unwrap(), 0, "{fault}");
    }
}

#[tokio::test]
async fn a_claim_finds_what_it_took_when_the_answer_is_lost() {
    let _turn = FAULTS.lock().await;
    let (settings, _drops) = settings();
    let db = connect(&settings).await;
    for id in ["a", "b", "c"] {
        put(&db, id, json!({"due": 1})).await;
    }
    // Never carried out: nothing is taken.
    fail(&settings, 1, doc! { "failCommands": ["update"], "closeConnection": true }).await;
    assert!(matches!(db.claim(claim(2)).await, Err(DatabaseError::Unavailable(_))));
    assert_eq!(db.count(JOBS, Filter::eq("due", 1)).await.unwrap(), 3);
    // Carried out, but the answer says that nobody knows whether it stays.
    let concern = doc! { "code": 91, "errmsg": "shutting down" };
    fail(&settings, 1, doc! { "failCommands": ["update"], "writeConcernError": concern }).await;
    let taken = db.claim(claim(2)).await.unwrap();
    assert_eq!(taken.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    for document in taken {
        assert_eq!(db.get(JOBS, &document.id).await.unwrap().unwrap(), document);
    }
    assert_eq!(db.claim(claim(5)).await.unwrap().len(), 1);
}

/// The stand-in goes on waiting whatever time it is given, so it is made to say what MongoDB says.
#[tokio::test]
async fn a_claim_goes_on_without_what_the_server_waited_for_in_vain() {
    let _turn = FAULTS.lock().await;
    let (settings, _drops) = settings();
    let db = connect(&settings).await;
    for id in ["a", "b", "c"] {
        put(&db, id, json!({"due": 1})).await;
    }
    let ids = |taken: Vec<orchestrator::core::client::database::Document>| -> Vec<String> {
        taken.into_iter().map(|document| document.id).collect()
    };
    // What the claim leaves alone, it leaves alone for so long; a machine that stood still may be past that.
    let past = |begun: Instant| begun.elapsed() >= Duration::from_secs(5);
    let begun = Instant::now();
    fail(&settings, 1, doc! { "failCommands": ["update"], "errorCode": 50 }).await;
    assert_eq!(ids(db.claim(claim(2)).await.unwrap()), ["b", "c"]);
    let later = crate::daemon::harness::wait_for("what was left alone", || async {
        Some(db.claim(claim(2)).await.unwrap()).filter(|taken| !taken.is_empty())
    });
    assert_eq!(ids(later.await), ["a"]);
    assert!(past(begun), "it was not left alone");
    // A server that says so again and again is not asked for ever.
    for id in ["d", "e", "f", "g"] {
        put(&db, id, json!({"due": 1})).await;
    }
    let begun = Instant::now();
    fail(&settings, 3, doc! { "failCommands": ["update"], "errorCode": 50 }).await;
    assert_eq!(ids(db.claim(claim(1)).await.unwrap()), [""; 0]);
    let next = ids(db.claim(claim(1)).await.unwrap());
    assert!(next == ["g"] || past(begun), "{next:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_share_a_backlog_take_each_document_once() {
    let (settings, _drops) = settings();
    let clients = join_all((0..3).map(|_| connect(&settings))).await;
    let mut all = Changeset::new();
    for n in 0..90 {
        all.insert_json(JOBS, format!("{n:03}"), &json!({"due": n % 5}));
    }
    clients[0].commit(all).await.unwrap();
    let claimers = (0..6).map(|n: usize| {
        let db = Arc::clone(&clients[n % 3]);
        tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let taken = db.claim(claim(7)).await.unwrap();
                if taken.is_empty() {
                    return mine;
                }
                mine.extend(taken.into_iter().map(|document| document.id));
            }
        })
    });
    let taken: Vec<String> = join_all(claimers).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(taken.len(), 90);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 90);
    assert_eq!(clients[0].count(JOBS, Filter::eq("attempts", 1)).await.unwrap(), 90);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_require_what_the_other_changes_do_not_both_pass() {
    let (settings, _drops) = settings();
    let (one, two) = (connect(&settings).await, connect(&settings).await);
    for round in 0..8 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        for id in [&a, &b] {
            put(&one, id, json!({"on": true})).await;
        }
        // Each switches one off, as long as the other is on.
        let off = |mine: &str, other: &str| {
            let mut changes = Changeset::new();
            changes.require(JOBS, other, Expect::Field("on".into(), true.into()));
            let write = orchestrator::core::client::database::WriteOp::Replace {
                expect: Expect::Version(1),
                body: json!({"on": false}).to_string(),
            };
            changes.writes.push(orchestrator::core::client::database::Write::new(JOBS, mine, write));
            changes
        };
        let (first, second) = tokio::join!(one.commit(off(&a, &b)), two.commit(off(&b, &a)));
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
        for refused in [first, second].into_iter().filter_map(Result::err) {
            assert!(matches!(refused, DatabaseError::Conflict { .. }), "{refused:?}");
        }
        let on = Filter::Ids(vec![a, b]).and(Filter::eq("on", true));
        assert_eq!(one.count(JOBS, on).await.unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_change_one_document_lose_nothing() {
    let (settings, _drops) = settings();
    let clients = [connect(&settings).await, connect(&settings).await];
    put(&clients[0], "counter", json!({"n": 100})).await;
    let commits = (0..24).map(|n: usize| {
        let db = Arc::clone(&clients[n % 2]);
        tokio::spawn(async move {
            let mut changes = Changeset::new();
            changes.insert_json(JOBS, format!("j{n:02}"), &json!({}));
            changes.add(JOBS, "counter", "n", -5, 0);
            db.commit(changes).await
        })
    });
    let results: Vec<_> = join_all(commits).await.into_iter().map(Result::unwrap).collect();
    let (good, bad): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (20, 4));
    assert!(bad.iter().all(|one| matches!(one, Err(DatabaseError::BelowFloor { .. }))), "{bad:?}");
    assert_eq!(body(&clients[1], "counter").await, json!({"n": 0}));
    assert_eq!(clients[1].count(JOBS, Filter::IdPrefix("j".into())).await.unwrap(), 20);
}

#[tokio::test]
async fn bodies_lie_as_values_and_odd_ones_come_back() {
    let (settings, _drops) = settings();
    let db = connect(&settings).await;
    let odd = json!({
        "$set": {"$ref": 1, "a.b": {"": {"\u{0}": "nul \u{0}"}}}, "": 0, "%": "[1]", "%24": "$", ".": [{"$x": [null]}],
        "amount": "340282366920938463463374607431768211456", "big": u64::MAX, "least": i64::MIN, "half": 0.5, "_id": 7,
    });
    db.insert(UNITS, "a", odd.to_string()).await.unwrap();
    let read =
        async || serde_json::from_str::<Value>(&db.get(UNITS, "a").await.unwrap().unwrap().body).unwrap();
    assert_eq!(read().await, odd);
    db.update(UNITS, "a", 1, odd.to_string()).await.unwrap();
    assert_eq!(read().await, odd);
    assert_eq!(db.count(UNITS, Filter::eq("least", i64::MIN)).await.unwrap(), 1);

    db.insert(UNITS, "b", json!({"in": {"n": 5}, "t": "x", "list": [5]}).to_string()).await.unwrap();
    let stored =
        raw(&settings).await.collection::<Document>("units").find_one(doc! { "_id": "b" }).await.unwrap();
    let stored = stored.unwrap();
    assert_eq!(stored.get("v"), Some(&Bson::Int64(1)));
    assert_eq!(
        stored.get_document("b").unwrap(),
        &doc! { "in": { "n": 5_i64 }, "list": { "%": "[5]" }, "t": "x" }
    );
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(16 << 20));
    assert!(matches!(db.insert(UNITS, "c", large).await, Err(DatabaseError::Invalid(_))));
}

#[tokio::test]
async fn what_may_expire_carries_a_date_behind_the_purge() {
    let purge = PurgeSettings::default();
    for expiry in EXPIRIES {
        let kept = if expiry.collection == OUTBOX { purge.sent_rows } else { purge.request_markers };
        assert!(expiry.after.get() >= 2 * kept.get(), "{}", expiry.collection);
    }
    let (settings, _drops) = settings();
    let settings = MongoSettings { expire: true, ..settings };
    let db = connect(&settings).await;
    let raw = raw(&settings).await;
    let date = async || {
        let found =
            raw.collection::<Document>("outbox").find_one(doc! { "_id": "a" }).await.unwrap().unwrap();
        found.get("x").cloned()
    };
    // Far ahead, so that the server leaves it alone meanwhile.
    let (sent, later) = (4_000_000_000_000_000_i64, Micros::from_days(7).as_millis() as i64);
    db.insert(OUTBOX, "a", json!({"unsent": 1, "sent_at": null}).to_string()).await.unwrap();
    assert_eq!(date().await, Some(Bson::Null));
    db.update(OUTBOX, "a", 1, json!({"sent_at": sent}).to_string()).await.unwrap();
    assert_eq!(date().await, Some(Bson::DateTime(DateTime::from_millis(sent / 1_000 + later))));
    let claim = Claim {
        collection: OUTBOX,
        set: vec![("sent_at".into(), (sent + 5_000).into())],
        increment: vec![],
        filter: Filter::All,
        ..claim(1)
    };
    db.claim(claim).await.unwrap();
    assert_eq!(date().await, Some(Bson::DateTime(DateTime::from_millis(sent / 1_000 + 5 + later))));
    let mut add = Changeset::new();
    add.add(OUTBOX, "a", "sent_at", 1, 0);
    db.commit(add).await.unwrap();
    assert_eq!(date().await, None, "rather never than too early");
    let indexes = raw.collection::<Document>("outbox").list_index_names().await.unwrap();
    assert!(indexes.contains(&"expires".to_owned()), "{indexes:?}");
}

#[tokio::test]
async fn changed_indexes_are_told_and_mended() {
    const SMALL: &[CollectionSpec] = &[CollectionSpec {
        collection: JOBS,
        indexes: &[
            IndexSpec { name: "by_due", fields: &["due"], unique: false, passing: &[] },
            IndexSpec { name: "by_dedup", fields: &["dedup"], unique: true, passing: &[] },
        ],
    }];
    let (settings, _drops) = settings();
    let db = MongoDatabase::open(settings.clone()).await.unwrap();
    let clock = SystemClock::new();
    let told = async || {
        let found = db.inspect(SMALL, &clock).await.unwrap().drift;
        found.into_iter().map(|one| (one.index, one.kind)).collect::<Vec<_>>()
    };
    let missing = |name: &str| (Some(name.to_owned()), DriftKind::Missing);
    assert_eq!(told().await, [(None, DriftKind::Missing), missing("by_due"), missing("by_dedup")]);
    db.connect(SMALL).await.unwrap();
    assert_eq!(told().await, []);
    let raw = raw(&settings).await;
    for index in ["by_due", "by_dedup"] {
        raw.collection::<Document>("jobs").drop_index(index).await.unwrap();
    }
    let others = vec![
        doc! { "name": "by_dedup", "key": { "b.dedup": 1 } },
        doc! { "name": "of_somebody_else", "key": { "b.other": 1 } },
    ];
    raw.run_command(doc! { "createIndexes": "jobs", "indexes": others }).await.unwrap();
    assert_eq!(told().await, [missing("by_due"), (Some("by_dedup".to_owned()), DriftKind::Different)]);
    put(&db, "a", json!({"dedup": "k"})).await;
    put(&db, "b", json!({"dedup": "k"})).await;
    let error = db.connect(SMALL).await.unwrap_err();
    assert!(matches!(&error, DatabaseError::Invalid(text) if text.contains("share a key")), "{error:?}");
    db.delete(JOBS, "b", 1).await.unwrap();
    db.connect(SMALL).await.unwrap();
    assert_eq!(told().await, []);
    let again = db.insert(JOBS, "b", json!({"dedup": "k"}).to_string()).await;
    assert!(
        matches!(&again, Err(DatabaseError::AlreadyExists { index, .. }) if index == "by_dedup"),
        "{again:?}"
    );
    let names = raw.collection::<Document>("jobs").list_index_names().await.unwrap();
    assert!(names.contains(&"of_somebody_else".to_owned()), "{names:?}");
}

#[tokio::test]
async fn inspecting_tells_what_the_server_is() {
    let (settings, _drops) = settings();
    let db = connect(&settings).await;
    let found = db.inspect(schema::ALL, &SystemClock::new()).await.unwrap();
    assert!(found.version.starts_with(|c: char| c.is_ascii_digit()), "{found:?}");
    assert!(matches!(&found.topology, Topology::ReplicaSet(name) if !name.is_empty()), "{found:?}");
    assert_eq!(found.unusable, None);
    assert_eq!(found.drift, []);
    assert_eq!(found.missing_permissions, Vec::<&str>::new());
    assert!(found.round_trip > Duration::ZERO && found.round_trip < Duration::from_secs(30), "{found:?}");
    assert!(found.clock_skew < Micros::from_secs(30), "the server is on this machine: {found:?}");
}

#[tokio::test]
async fn a_newer_layout_is_refused() {
    let (settings, _drops) = settings();
    connect(&settings).await.disconnect().await.unwrap();
    let layout = raw(&settings).await.collection::<Document>("_layout");
    layout.update_one(doc! { "_id": "layout" }, doc! { "$set": { "n": 99 } }).await.unwrap();
    let db = MongoDatabase::open(settings).await.unwrap();
    let error = db.connect(schema::ALL).await.unwrap_err();
    assert!(matches!(&error, DatabaseError::Invalid(text) if text.contains("99")), "{error:?}");
}

#[tokio::test]
async fn addresses_that_lead_nowhere_are_named() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut settings = MongoSettings::new(format!("mongodb://{closed}/?directConnection=true"), "none");
    settings.connect_timeout = Duration::from_millis(200);
    let db = MongoDatabase::open(settings.clone()).await.unwrap();
    assert!(matches!(db.connect(schema::ALL).await, Err(DatabaseError::Unavailable(_))));
    assert!(matches!(db.inspect(schema::ALL, &SystemClock::new()).await, Err(DatabaseError::Unavailable(_))));
    assert!(matches!(db.find(Query::new(JOBS)).await, Err(DatabaseError::Unavailable(_))));
    for url in ["", "mongodb://", "http://127.0.0.1/", "mongodb://127.0.0.1/?w=x&readPreference=none"] {
        let bad = MongoSettings { url: url.to_owned(), ..settings.clone() };
        assert!(matches!(MongoDatabase::open(bad).await, Err(DatabaseError::Invalid(_))), "{url}");
    }
    let secret = MongoSettings::new("mongodb://user:hidden@127.0.0.1/", "none");
    assert!(!format!("{secret:?}").contains("hidden"));
}

/// A server alone says so in its greeting; nothing else is asked of it.
#[tokio::test]
async fn a_server_alone_is_refused_with_the_fix() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let greeter = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(greet(stream));
        }
    });
    let url = format!("mongodb://{address}/?directConnection=true");
    let db = MongoDatabase::open(MongoSettings::new(url, "none")).await.unwrap();
    let error = db.connect(schema::ALL).await.unwrap_err();
    assert!(matches!(&error, DatabaseError::Invalid(text) if text.contains("--replSet")), "{error:?}");
    greeter.abort();
}

/// Answers everything as a server alone answers a greeting, in the form in which it was asked.
async fn greet(mut stream: tokio::net::TcpStream) -> std::io::Result<()> {
    let greeting = doc! {
        "ok": 1, "isWritablePrimary": true, "ismaster": true, "minWireVersion": 0, "maxWireVersion": 21,
        "maxBsonObjectSize": 16 << 20, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
        "localTime": DateTime::now(), "logicalSessionTimeoutMinutes": 30, "readOnly": false, "connectionId": 1,
    };
    let greeting = greeting.to_vec().unwrap();
    loop {
        let mut header = [0; 16];
        stream.read_exact(&mut header).await?;
        let number = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        stream.read_exact(&mut vec![0; number(0) as usize - 16]).await?;
        let (kind, start) = match number(12) {
            2_004 => (1, [[8, 0, 0, 0].as_slice(), &[0; 12], &[1, 0, 0, 0]].concat()),
            kind => (kind, vec![0; 5]),
        };
        let length = (16 + start.len() + greeting.len()) as i32;
        let mut reply = Vec::new();
        for part in [length, 1, number(4), kind] {
            reply.extend(part.to_le_bytes());
        }
        reply.extend(start);
        reply.extend(&greeting);
        stream.write_all(&reply).await?;
    }
}
