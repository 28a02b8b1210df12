//! What is told before the disk has it: nothing.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use serde_json::json;

use super::{Options, SqliteDatabase, syncer::Progress, writer::Counters};
use crate::core::client::{
    database::{Changeset, Committer, DatabaseClient, DatabaseError, Reader},
    schema::{self, UNITS},
};

/// A disk whose syncs can be held up.
struct Disk {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// How many syncs may end.
    allowed: usize,
    /// Syncs that began.
    begun: usize,
}

impl Disk {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { allowed: usize::MAX, begun: 0 }), changed: Condvar::new() })
    }

    fn sync(&self) {
        let mut state = self.state.lock();
        state.begun += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.allowed == 0);
        state.allowed -= 1;
    }

    /// Lets so many syncs end from now on.
    fn allow(&self, syncs: usize) {
        self.state.lock().allowed = syncs;
        self.changed.notify_all();
    }

    /// Waits for a sync to begin that is not among the first `known`.
    fn another(&self, known: usize) {
        self.changed.wait_while(&mut self.state.lock(), |state| state.begun <= known);
    }

    fn begun(&self) -> usize {
        self.state.lock().begun
    }
}

/// Lets everything go, so that a test that fails ends.
struct Release(Arc<Disk>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.allow(usize::MAX);
    }
}

fn units(prefix: &str, count: usize) -> Changeset {
    let mut changes = Changeset::new();
    for number in 0..count {
        changes.insert_json(UNITS, format!("{prefix}{number}"), &json!({ "n": number }));
    }
    changes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_learns_of_a_commit_before_the_disk_has_it_and_the_writer_goes_on_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let log = {
        let disk = Arc::clone(&disk);
        move |_: &std::path::Path| {
            let disk = Arc::clone(&disk);
            Ok::<super::SyncLog, _>(Box::new(move || {
                disk.sync();
                Ok(())
            }))
        }
    };
    let db =
        SqliteDatabase::open_with(&directory.path().join("db"), Options::default(), Box::new(log)).unwrap();
    let _release = Release(Arc::clone(&disk));
    db.connect(schema::ALL).await.unwrap();
    let (known, before) = (disk.begun(), db.stats());
    disk.allow(0);

    // The first one is synced by the writer, which has nothing else to do. Two more come meanwhile, of which the first fills
    // a batch.
    let commit = |changes: Changeset| {
        let db = Arc::clone(&db);
        tokio::spawn(async move { db.commit(changes).await })
    };
    let first = commit(units("a", 1));
    disk.another(known);
    let mut second = Box::pin(db.commit(units("b", 512)));
    assert!(futures::poll!(&mut second).is_pending());
    let mut third = Box::pin(db.commit(units("c", 1)));
    assert!(futures::poll!(&mut third).is_pending());
    let mut read = db.get(UNITS, "a0");
    assert!(futures::poll!(&mut read).is_pending(), "it may have seen what is not on the disk");
    assert!(!first.is_finished());
    disk.allow(usize::MAX);
    first.await.unwrap().unwrap();
    assert!(read.await.unwrap().is_some());
    second.await.unwrap();
    third.await.unwrap();

    // While a sync is under way and more waits, the writer applies it.
    let known = disk.begun();
    disk.allow(0);
    let first = commit(units("d", 1));
    disk.another(known);
    let [mut second, mut third, mut fourth] =
        [("e", 512), ("f", 512), ("g", 1)].map(|(prefix, count)| Box::pin(db.commit(units(prefix, count))));
    assert!(futures::poll!(&mut second).is_pending());
    assert!(futures::poll!(&mut third).is_pending());
    assert!(futures::poll!(&mut fourth).is_pending());
    disk.allow(1);
    first.await.unwrap().unwrap();
    let all_applied = async {
        while db.stats().commits - before.commits < 7 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all_applied).await.expect("the writer waits for the disk");
    assert!(futures::poll!(&mut second).is_pending());
    disk.allow(usize::MAX);
    for rest in [second, third, fourth] {
        rest.await.unwrap();
    }
    assert!(db.stats().log_syncs - before.log_syncs < 7, "{:?}", db.stats());
    db.disconnect().await.unwrap();
}

#[tokio::test]
async fn a_commit_counts_as_on_the_disk_only_by_a_sync_after_its_end() {
    let progress = Progress::new(Box::new(|| Ok(())), Arc::new(Counters::default()));
    progress.commit(|| progress.sync()).unwrap();
    let mut durable = Box::pin(progress.durable());
    assert!(futures::poll!(&mut durable).is_pending());
    progress.sync().unwrap();
    durable.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_sync_nothing_is_believed_until_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let broken = Arc::new(AtomicBool::new(false));
    let log = {
        let broken = Arc::clone(&broken);
        move |path: &std::path::Path| {
            let (broken, sync) = (Arc::clone(&broken), super::syncer::of(path)?);
            Ok::<super::SyncLog, _>(Box::new(move || {
                if broken.load(Ordering::Relaxed) { Err(io::Error::other("no disk")) } else { sync() }
            }))
        }
    };
    let db = SqliteDatabase::open_with(&path, Options::default(), Box::new(log)).unwrap();
    db.connect(schema::ALL).await.unwrap();
    db.commit(units("a", 1)).await.unwrap();
    broken.store(true, Ordering::Relaxed);
    let told = |result: Result<(), DatabaseError>| match result {
        Err(DatabaseError::Unavailable(error)) => assert!(error.to_string().contains("synced"), "{error}"),
        other => panic!("{other:?}"),
    };
    told(db.commit(units("b", 1)).await);
    // The next sync might work, and prove nothing.
    broken.store(false, Ordering::Relaxed);
    told(db.commit(units("c", 1)).await);
    for answer in db.commit_each(vec![units("d", 1), units("e", 1)]).await {
        told(answer);
    }
    told(db.get(UNITS, "b0").await.map(drop));
    told(db.health().await);
    told(db.disconnect().await);
    // What was acknowledged is there; of what was refused nobody knows.
    db.connect(schema::ALL).await.unwrap();
    assert!(db.get(UNITS, "a0").await.unwrap().is_some());
    assert!(db.get(UNITS, "c0").await.unwrap().is_none());
    db.commit(units("f", 1)).await.unwrap();
}
