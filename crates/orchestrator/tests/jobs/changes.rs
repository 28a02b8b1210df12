//! What a replica does with what it is told of others' commits, and when it can't be told.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt as _;
use orchestrator::{
    client::clock::ManualClock,
    controller::worker::ChangeFollower,
    core::{
        client::{
            changes::{Change, ChangeSource, Told},
            database::{DatabaseError, Result},
            schema::{self, Collection},
        },
        market::quantity::{Micros, Timestamp},
    },
    service::{job::Wake, scoring::ChangeFeed},
};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::harness::turn;

/// A source that tells what the test does; `None` breaks the stream off.
struct Scripted {
    script: Mutex<mpsc::UnboundedReceiver<Option<Told>>>,
    followed: mpsc::UnboundedSender<Vec<Collection>>,
}

#[async_trait]
impl ChangeSource for Scripted {
    async fn follow(&self, collections: &[Collection], changes: mpsc::Sender<Told>) -> Result<()> {
        self.followed.send(collections.to_vec()).unwrap();
        while let Some(Some(told)) = self.script.lock().await.recv().await {
            if changes.send(told).await.is_err() {
                return Ok(());
            }
        }
        Err(DatabaseError::Unavailable("broken off".into()))
    }
}

struct Bed {
    clock: ManualClock,
    feed: ChangeFeed,
    wake: Arc<Wake>,
    tell: mpsc::UnboundedSender<Option<Told>>,
    followed: mpsc::UnboundedReceiver<Vec<Collection>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Bed {
    fn new(hinted: bool) -> Self {
        let clock = ManualClock::new(Timestamp(1_000_000));
        let (feed, wake) = (ChangeFeed::new(), Arc::new(Wake::default()));
        let (tell, script) = mpsc::unbounded_channel();
        let (asked, followed) = mpsc::unbounded_channel();
        let source = Arc::new(Scripted { script: Mutex::new(script), followed: asked });
        let follower =
            ChangeFollower::new(source, feed.clone(), wake.clone(), Arc::new(clock.clone()), hinted);
        let stop = CancellationToken::new();
        let task = tokio::spawn(follower.run(stop.clone()));
        Self { clock, feed, wake, tell, followed, stop, task }
    }

    async fn told(&self, told: Option<Told>) {
        self.tell.send(told).unwrap();
        turn().await;
    }

    async fn changed(&self, collection: Collection, inserted: bool) {
        self.told(Some(Told::Changed(Change { collection, id: "a".into(), inserted }))).await;
    }

    /// Which bells were rung since the last look: jobs, outbox.
    fn rung(&self) -> (bool, bool) {
        let rung = |bell: &tokio::sync::Notify| bell.notified().now_or_never().is_some();
        (rung(&self.wake.jobs), rung(&self.wake.outbox))
    }
}

#[tokio::test]
async fn changes_reach_whom_they_concern() {
    for hinted in [false, true] {
        let mut bed = Bed::new(hinted);
        let followed = bed.followed.recv().await.unwrap();
        assert_eq!(followed.contains(&schema::JOBS), !hinted, "hints tell of jobs");
        assert!(!bed.feed.is_dirty() && bed.rung() == (false, false));
        bed.told(Some(Told::Following)).await;
        assert!(bed.feed.take_all(), "what was written before is in no stream");
        assert_eq!(bed.rung(), (!hinted, true));
        let _ = bed.feed.take();

        bed.changed(schema::UNITS, false).await;
        assert_eq!(bed.feed.take(), ["a"]);
        bed.changed(schema::REPUTATIONS, true).await;
        assert_eq!(bed.feed.take(), ["a"]);
        assert_eq!(bed.rung(), (false, false));
        bed.changed(schema::OUTBOX, true).await;
        assert_eq!(bed.rung(), (false, true));
        bed.changed(schema::JOBS, true).await;
        assert_eq!(bed.rung(), (true, false));
        for collection in [schema::OUTBOX, schema::JOBS] {
            bed.changed(collection, false).await;
        }
        assert_eq!(bed.rung(), (false, false), "what is only changed is in work already");
        assert!(!bed.feed.is_dirty());
        bed.stop.cancel();
        bed.task.await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_counts_as_missed_changes_at_once_and_again_once_it_is_back() {
    let mut bed = Bed::new(false);
    bed.followed.recv().await.unwrap();
    bed.told(Some(Told::Following)).await;
    for _ in 0..3 {
        assert!(bed.feed.take_all());
        let (_, _) = (bed.feed.take(), bed.rung());
        // Told before the end, and taken in spite of it.
        bed.tell
            .send(Some(Told::Changed(Change { collection: schema::UNITS, id: "a".into(), inserted: false })))
            .unwrap();
        bed.told(None).await;
        assert!(bed.feed.take_all() && bed.feed.take() == ["a"]);
        assert_eq!(bed.rung(), (true, true), "work and messages may have been missed, too");
        assert!(bed.followed.try_recv().is_err(), "after a pause");
        bed.clock.advance(Micros::from_secs(1));
        bed.followed.recv().await.unwrap();
        turn().await;
        assert!(!bed.feed.is_dirty(), "not there yet");
        bed.told(Some(Told::Following)).await;
    }
    bed.stop.cancel();
    bed.task.await.unwrap();
}
