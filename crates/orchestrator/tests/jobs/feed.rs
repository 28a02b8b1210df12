//! Events that another replica's relay has sent come out here: each once, in the order of sending, across clocks that differ;
//! and nothing is asked of the database while nobody listens.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use async_trait::async_trait;
use orchestrator::{
    client::{
        clock::{ManualClock, SeededEntropy},
        db::memory::MemoryDatabase,
    },
    controller::worker::OutboxFeed,
    core::{
        client::{
            clock::Clock,
            database::{
                Changeset, Committer, DatabaseError, Document, Filter, Page, Query, Reader, ReaderExt, Result,
            },
            event_bus::EventFeed,
            schema::Collection,
        },
        market::{
            event::{Audience, DomainEvent},
            ids::{EventId, IdGenerator},
            quantity::{Micros, Timestamp},
        },
    },
    service::outbox::{self, OutboxRow, Outgoing},
};
use serde_json::json;
use tokio::{sync::broadcast::Receiver, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::harness::turn;

const LOOK: Micros = Micros::from_millis(500);

/// A way to the database that counts, and can be cut.
struct Wire {
    inner: Arc<MemoryDatabase>,
    asked: AtomicU64,
    cut: AtomicBool,
}

#[async_trait]
impl Reader for Wire {
    async fn get(&self, _: Collection, _: &str) -> Result<Option<Document>> {
        unreachable!("a feed finds")
    }
    async fn find(&self, query: Query) -> Result<Page> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.cut.load(Ordering::SeqCst) {
            true => Err(DatabaseError::Unavailable("cut".into())),
            false => self.inner.find(query).await,
        }
    }
    async fn count(&self, _: Collection, _: Filter) -> Result<u64> {
        unreachable!("a feed finds")
    }
}

struct Bed {
    database: Arc<MemoryDatabase>,
    clock: ManualClock,
    ids: IdGenerator,
    wire: Arc<Wire>,
    feed: Arc<OutboxFeed>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Bed {
    fn new() -> Self {
        let database = MemoryDatabase::with_schema();
        let clock = ManualClock::new(Timestamp(1_700_000_000_000_000));
        let ids = IdGenerator::new(Arc::new(clock.clone()), Arc::new(SeededEntropy::new(1)));
        let wire = Wire { inner: database.clone(), asked: AtomicU64::new(0), cut: AtomicBool::new(false) };
        let wire = Arc::new(wire);
        let feed = OutboxFeed::new(wire.clone(), Arc::new(clock.clone()), 4_096);
        let stop = CancellationToken::new();
        let task = tokio::spawn(feed.clone().run(stop.clone()));
        Self { database, clock, ids, wire, feed, stop, task }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A row as some replica commits it, marked as sent by the relay at some instant of its clock, or waiting.
    fn row(&self, number: u64, sent_at: Option<Timestamp>) -> OutboxRow {
        let id: EventId = self.ids.next();
        let event = DomainEvent {
            id,
            kind: "test".into(),
            subject: number.to_string(),
            audience: Audience::Public,
            data: json!({}),
            at: self.now(),
        };
        OutboxRow {
            id,
            unsent: if sent_at.is_some() { None } else { Some(outbox::WAITING) },
            sent_at: sent_at.map(Timestamp::as_micros),
            attempts: 0,
            outgoing: Outgoing::Event(event),
            created_at: self.now(),
        }
    }

    async fn commit(&self, rows: &[OutboxRow]) {
        let mut changes = Changeset::new();
        for row in rows {
            changes.insert(row);
        }
        self.database.commit(changes).await.unwrap();
    }

    async fn sent(&self, number: u64, at: Timestamp) {
        self.commit(&[self.row(number, Some(at))]).await;
    }

    async fn pass(&self, looks: u64) {
        turn().await;
        for _ in 0..looks {
            self.clock.advance(LOOK);
            turn().await;
        }
    }

    fn asked(&self) -> u64 {
        self.wire.asked.load(Ordering::SeqCst)
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// What has come, by number.
fn come(receiver: &mut Receiver<DomainEvent>) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Ok(event) = receiver.try_recv() {
        numbers.push(event.subject.parse().unwrap());
    }
    numbers
}

#[tokio::test]
async fn what_another_replica_sent_comes_out_here_once_and_in_order() {
    let bed = Bed::new();
    let mut listener = bed.feed.subscribe();
    bed.pass(1).await;
    assert_eq!(come(&mut listener), [0_u64; 0]);
    let now = bed.now();
    // Committed in another order than they are sent in; what waits, and what is no event, does not come.
    let message = OutboxRow {
        outgoing: Outgoing::Message { queue: "q".into(), body: "b".into() },
        ..bed.row(9, Some(now))
    };
    let waiting = bed.row(3, None);
    let rows = [
        bed.row(2, Some(now.plus(Micros(2)))),
        message,
        waiting.clone(),
        bed.row(1, Some(now.plus(Micros(1)))),
    ];
    bed.commit(&rows).await;
    bed.pass(1).await;
    assert_eq!(come(&mut listener), [1, 2]);
    bed.pass(30).await;
    assert_eq!(come(&mut listener), [0_u64; 0], "each once, however often it is looked at");
    // The relay marks the row.
    let stored = bed.database.load::<OutboxRow>(&waiting.id.to_string()).await.unwrap().unwrap();
    let mut changes = Changeset::new();
    let sent = OutboxRow { unsent: None, sent_at: Some(bed.now().as_micros()), ..waiting };
    changes.replace(stored.version, &sent);
    bed.database.commit(changes).await.unwrap();
    bed.pass(1).await;
    assert_eq!(come(&mut listener), [3]);
    bed.end().await;
}

#[tokio::test]
async fn clocks_of_relays_may_differ_by_seconds() {
    let bed = Bed::new();
    let mut listener = bed.feed.subscribe();
    bed.pass(1).await;
    let second = Micros::from_secs(1);
    // The relay's clock is ahead; then another one leads whose clock is behind.
    bed.sent(1, bed.now().plus(second)).await;
    bed.pass(1).await;
    assert_eq!(come(&mut listener), [1]);
    bed.sent(2, bed.now().minus(Micros::from_secs(3))).await;
    bed.pass(1).await;
    assert_eq!(come(&mut listener), [2]);
    bed.sent(3, bed.now().minus(second)).await;
    bed.pass(1).await;
    bed.sent(4, bed.now().minus(Micros::from_secs(2))).await;
    bed.pass(20).await;
    assert_eq!(come(&mut listener), [3, 4], "none is lost, none comes twice");
    bed.end().await;
}

#[tokio::test]
async fn more_than_a_page_and_a_database_that_fails_in_between_lose_and_double_nothing() {
    let bed = Bed::new();
    let mut listener = bed.feed.subscribe();
    bed.pass(1).await;
    let now = bed.now();
    let rows: Vec<OutboxRow> = (0..1_200).map(|n| bed.row(n, Some(now.plus(Micros(n / 3))))).collect();
    bed.wire.cut.store(true, Ordering::SeqCst);
    bed.commit(&rows).await;
    bed.pass(3).await;
    assert_eq!(come(&mut listener), [0_u64; 0]);
    bed.wire.cut.store(false, Ordering::SeqCst);
    bed.pass(3).await;
    let mut found = come(&mut listener);
    assert!(found.is_sorted_by_key(|n| n / 3), "in the order of sending");
    found.sort_unstable();
    assert_eq!(found, (0..1_200).collect::<Vec<_>>());
    bed.end().await;
}

#[tokio::test]
async fn nothing_is_asked_while_nobody_listens() {
    let bed = Bed::new();
    bed.sent(1, bed.now()).await;
    bed.pass(20).await;
    assert_eq!(bed.asked(), 0);
    let (first, second) = (bed.feed.subscribe(), bed.feed.subscribe());
    bed.pass(4).await;
    assert!(bed.asked() >= 4);
    // Comes while another one listens, so that the bell was rung for nothing.
    let third = bed.feed.subscribe();
    drop((first, second, third));
    // The look that was begun for them.
    bed.pass(1).await;
    let asked = bed.asked();
    bed.pass(20).await;
    assert_eq!(bed.asked(), asked);
    // Came and went before the feed had its turn.
    drop(bed.feed.subscribe());
    bed.pass(20).await;
    assert_eq!(bed.asked(), asked);
    // What was sent meanwhile is for those who come with a last event; the newest comes.
    bed.sent(2, bed.now().minus(Micros::from_secs(60))).await;
    let mut listener = bed.feed.subscribe();
    bed.pass(1).await;
    bed.sent(3, bed.now()).await;
    bed.pass(1).await;
    assert_eq!(come(&mut listener), [3]);
    bed.end().await;
}
