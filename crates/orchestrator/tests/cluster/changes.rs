//! What replicas learn from each other's commits on a real MongoDB: offerings that changed, by change stream, over connections
//! that break and streams that can't be resumed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mongodb::bson::doc;
use orchestrator::{
    client::{
        clock::{ManualClock, SeededEntropy},
        db::mongodb::{MongoDatabase, MongoSettings},
    },
    controller::worker::ChangeFollower,
    core::{
        client::{
            database::{Changeset, Committer, DatabaseClient},
            schema,
        },
        market::{
            ids::IdGenerator,
            offering::OfferingFilter,
            quantity::{Micros, Timestamp},
            unit::DataUnit,
        },
    },
    service::{
        job::Wake,
        scoring::{ChangeFeed, OfferingService, OfferingSettings, OfferingSort},
        work::Call,
    },
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::servers::Proxy;
use crate::{
    contract::mongodb::{Drops, FAULTS, connect, fail, settings},
    daemon::harness::wait_for,
    sla::world::unit,
};

const STEP: Micros = Micros::from_millis(300);

/// A replica that follows changes. Its clock stands still unless the test moves it, and never comes to a refresh of its own.
struct Follower {
    clock: ManualClock,
    feed: ChangeFeed,
    offerings: OfferingService,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Follower {
    async fn start(settings: &MongoSettings) -> Self {
        let database = connect(settings).await;
        let clock = ManualClock::new(Timestamp(1_000_000_000_000_000));
        let feed = ChangeFeed::new();
        let ids = IdGenerator::new(Arc::new(clock.clone()), Arc::new(SeededEntropy::new(1)));
        let never =
            OfferingSettings { full_refresh: Micros::from_days(3_650), ..OfferingSettings::default() };
        let offerings = OfferingService::new(database.clone(), ids, feed.clone(), never);
        let wake = Arc::new(Wake::default());
        let follower = ChangeFollower::new(database, feed.clone(), wake, Arc::new(clock.clone()), true);
        let stop = CancellationToken::new();
        let task = tokio::spawn(follower.run(stop.clone()));
        Self { clock, feed, offerings, stop, task }
    }

    /// Waits until the stream is there and nothing is to be looked at: from now on only what it tells is looked at.
    async fn at_rest(&self) {
        wait_for("the stream to begin", async || self.feed.take_all().then_some(())).await;
        self.offerings.refresh().await.unwrap();
        assert!(!self.feed.is_dirty());
    }

    /// The free bytes of a unit, as offered now.
    async fn free(&self, number: u128) -> Option<u64> {
        self.clock.advance(STEP);
        let (call, filter) = (Call::system("t"), OfferingFilter::default());
        let page = self.offerings.list(&call, &filter, 100, None, OfferingSort::Score).await.unwrap();
        page.offerings.iter().find(|offering| offering.unit == unit(number).id).map(|o| o.free.get())
    }

    async fn until_free(&self, number: u128, free: u64) {
        let what = format!("unit {number} with {free} free");
        wait_for(&what, async || (self.free(number).await == Some(free)).then_some(())).await;
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn add(db: &MongoDatabase, number: u128) {
    let mut changes = Changeset::new();
    changes.insert(&unit(number));
    db.commit(changes).await.unwrap();
}

/// Another replica sells: by a guarded addition, which names no version.
async fn sell(db: &MongoDatabase, number: u128, bytes: i64) {
    let mut changes = Changeset::new();
    changes.add(schema::UNITS, unit(number).id.to_string(), "free", -bytes, 0);
    db.commit(changes).await.unwrap();
}

fn all() -> u64 {
    let DataUnit { free, .. } = unit(1);
    u64::try_from(free).unwrap()
}

/// A replica, another one's way to the database, and what to drop at the end.
async fn two() -> (MongoSettings, Follower, Arc<MongoDatabase>, Drops) {
    let (settings, drops) = settings();
    let other = connect(&settings).await;
    add(&other, 1).await;
    let replica = Follower::start(&settings).await;
    (settings, replica, other, drops)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_replica_commits_is_offered_here_by_the_stream_alone() {
    let (_settings, replica, other, _drops) = two().await;
    replica.at_rest().await;
    assert_eq!(replica.free(1).await, Some(all()));
    sell(&other, 1, 1).await;
    replica.until_free(1, all() - 1).await;
    add(&other, 2).await;
    replica.until_free(2, all()).await;
    // Nothing else had anything looked at: no change was ever counted as missed, and no refresh was due.
    assert!(!replica.feed.has_missed());
    // What is none of offerings' business is not told: the unit's own id is all that comes.
    other.insert(schema::ALLOCATIONS, "allocation", "{}".into()).await.unwrap();
    sell(&other, 2, 1).await;
    wait_for("a change", async || replica.feed.is_dirty().then_some(())).await;
    assert_eq!(replica.feed.take(), [unit(2).id.to_string()]);
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_is_made_anew_and_the_stream_goes_on_where_it_was() {
    let (settings, drops) = settings();
    let other = connect(&settings).await;
    for number in 1..=40 {
        add(&other, number).await;
    }
    let target = settings.url.trim_start_matches("mongodb://").split('/').next().unwrap().parse().unwrap();
    let proxy = Proxy::to(vec![target]).await;
    let url = settings.url.replace(&target.to_string(), &proxy.address.to_string());
    let replica = Follower::start(&MongoSettings { url, ..settings.clone() }).await;
    replica.at_rest().await;
    let before = proxy.connections();
    for round in 0..4 {
        let numbers = || round * 10 + 1..=round * 10 + 10;
        for number in numbers() {
            // All connections break: before some changes, after others, and with what tells of one. Once in a round, because the
            // driver resumes a stream once and not while it resumes it.
            if number % 10 == 5 {
                proxy.sever();
            }
            sell(&other, number, 1).await;
        }
        let told = Mutex::new(BTreeSet::new());
        wait_for("all changes", async || {
            let mut told = told.lock();
            told.extend(replica.feed.take());
            numbers().all(|number| told.contains(&unit(number).id.to_string())).then_some(())
        })
        .await;
    }
    assert!(proxy.connections() > before, "nothing broke");
    assert!(!replica.feed.has_missed(), "resumed, not begun anew");
    replica.end().await;
    drop(drops);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_stream_that_cannot_be_resumed_everything_is_looked_at_anew() {
    let _turn = FAULTS.lock().await;
    let (settings, replica, other, _drops) = two().await;
    replica.at_rest().await;
    // The server has forgotten where the stream was (ChangeStreamHistoryLost): told at the next look, which a change brings about.
    fail(&settings, 1, doc! { "failCommands": ["getMore"], "errorCode": 286 }).await;
    wait_for("the end of the stream", async || {
        sell(&other, 1, 1).await;
        replica.feed.has_missed().then_some(())
    })
    .await;
    assert!(replica.feed.take_all());
    let _ = replica.feed.take();
    // Nobody follows now, and the replica's clock stands still: this change is in no stream.
    add(&other, 2).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!replica.feed.is_dirty(), "nobody tells of it");
    replica.clock.advance(Micros::from_secs(1));
    replica.until_free(2, all()).await;
    // And on it goes.
    sell(&other, 2, 5).await;
    replica.until_free(2, all() - 5).await;
    replica.end().await;
}
