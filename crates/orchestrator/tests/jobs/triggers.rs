//! From message to trigger: a firing is never lost, and a message that names nothing is kept.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use orchestrator::{
    client::{
        cron::LocalCron,
        queue::{DatabaseQueue, DatabaseQueueSettings},
    },
    controller::worker::{
        ScheduledTrigger, TriggerConsumer, TriggerRegistry, TriggerSettings, trigger::TRIGGER_QUEUE,
    },
    core::{
        client::{
            damaged::Damaged,
            database::{Filter, ReaderExt},
            queue::{NewMessage, QueueClient},
        },
        market::quantity::Micros,
    },
    error::{Error, ErrorCode, Result},
    service::job::{Trigger, TriggerReport},
};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::harness::{World, turn};

const VISIBILITY: Micros = Micros::from_secs(30);

/// Begins, and ends when there is a permit.
struct Gated {
    begun: AtomicU32,
    ended: AtomicU32,
    gate: Semaphore,
    fails: bool,
}

impl Gated {
    fn new(permits: usize, fails: bool) -> Arc<Self> {
        Arc::new(Self {
            begun: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            gate: Semaphore::new(permits),
            fails,
        })
    }

    fn counts(&self) -> (u32, u32) {
        (self.begun.load(Ordering::SeqCst), self.ended.load(Ordering::SeqCst))
    }
}

struct Firing(Arc<Gated>);

#[async_trait]
impl Trigger for Firing {
    fn name(&self) -> &'static str {
        "gated"
    }
    async fn fire(&self) -> Result<TriggerReport> {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        self.0.gate.acquire().await.unwrap().forget();
        self.0.ended.fetch_add(1, Ordering::SeqCst);
        if self.0.fails {
            return Err(Error::new(ErrorCode::Unavailable, "not today"));
        }
        Ok(TriggerReport::default())
    }
}

/// A process: its consumer, and the queue that all share.
fn process(world: &World, gated: &Arc<Gated>, seed: u64) -> (TriggerConsumer, Arc<DatabaseQueue>) {
    let clock = Arc::new(world.clock.clone());
    let entropy = Arc::new(orchestrator::client::clock::SeededEntropy::new(seed));
    let settings = DatabaseQueueSettings::default();
    let queue = Arc::new(DatabaseQueue::new(world.db.clone(), clock.clone(), entropy, settings));
    let cron = Arc::new(LocalCron::new(world.db.clone(), clock.clone(), Arc::new(Notify::new())));
    let scheduled = ScheduledTrigger::new(Arc::new(Firing(gated.clone())), Micros::from_days(1));
    let registry = TriggerRegistry::new(world.db.clone(), world.db.clone(), clock.clone(), vec![scheduled]);
    let settings =
        TriggerSettings { visibility: VISIBILITY, wait: Micros::ZERO, ..TriggerSettings::default() };
    (TriggerConsumer::new(Arc::new(registry), queue.clone(), cron, clock).with_settings(settings), queue)
}

async fn send(queue: &DatabaseQueue, bodies: &[&str]) {
    let message = |body: &&str| NewMessage { body: (*body).to_owned(), delay: Micros::ZERO };
    queue.send(TRIGGER_QUEUE, bodies.iter().map(message).collect()).await.unwrap();
}

#[tokio::test]
async fn a_firing_survives_the_crash_of_its_consumer() {
    let world = World::new(60);
    let gated = Gated::new(0, false);
    let (doomed, queue) = process(&world, &gated, 1);
    doomed.declare().await.unwrap();
    send(&queue, &["gated", "gated"]).await;
    let crashed = tokio::spawn(async move { doomed.step().await });
    turn().await;
    assert_eq!(gated.counts(), (1, 0));
    crashed.abort();
    assert!(crashed.await.unwrap_err().is_cancelled());
    assert_eq!(
        queue.depth(TRIGGER_QUEUE).await.unwrap(),
        2,
        "nothing was removed before the trigger had run"
    );

    let (next, queue) = process(&world, &gated, 2);
    next.declare().await.unwrap();
    assert_eq!(next.step().await.unwrap(), 0, "still hidden");
    world.clock.advance(VISIBILITY);
    gated.gate.add_permits(1);
    assert_eq!(next.step().await.unwrap(), 1, "both messages are one firing");
    assert_eq!(gated.counts(), (2, 1));
    assert_eq!(queue.depth(TRIGGER_QUEUE).await.unwrap(), 0);
}

#[tokio::test]
async fn a_long_run_keeps_its_message_hidden_from_others() {
    let world = World::new(61);
    let gated = Gated::new(0, false);
    let (slow, queue) = process(&world, &gated, 1);
    slow.declare().await.unwrap();
    send(&queue, &["gated"]).await;
    let running = tokio::spawn(async move { slow.step().await.unwrap() });
    turn().await;
    let (other, _) = process(&world, &gated, 2);
    other.declare().await.unwrap();
    for _ in 0..30 {
        world.clock.advance(Micros::from_secs(10));
        turn().await;
        assert_eq!(other.step().await.unwrap(), 0);
    }
    gated.gate.add_permits(1);
    assert_eq!(running.await.unwrap(), 1);
    assert_eq!(gated.counts(), (1, 1));
    assert_eq!(queue.depth(TRIGGER_QUEUE).await.unwrap(), 0);
}

#[tokio::test]
async fn a_failed_run_is_not_repeated_before_its_schedule() {
    let world = World::new(62);
    let gated = Gated::new(9, true);
    let (consumer, queue) = process(&world, &gated, 1);
    consumer.declare().await.unwrap();
    send(&queue, &["gated"]).await;
    assert_eq!(consumer.step().await.unwrap(), 1);
    world.clock.advance(VISIBILITY);
    assert_eq!(consumer.step().await.unwrap(), 0);
    assert_eq!(gated.counts(), (1, 1));
}

#[tokio::test]
async fn a_message_that_names_no_trigger_is_kept_with_its_bytes() {
    let world = World::new(63);
    let gated = Gated::new(9, false);
    let (consumer, queue) = process(&world, &gated, 1);
    consumer.declare().await.unwrap();
    send(&queue, &["\u{0}poison\"", "gated"]).await;
    assert_eq!(consumer.step().await.unwrap(), 1, "the one behind it is fired");
    let kept = world.db.list_all::<Damaged>(Filter::eq("collection", "queue_messages")).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].value.body, "\u{0}poison\"");
    assert_eq!(queue.depth(TRIGGER_QUEUE).await.unwrap(), 0);
}

#[tokio::test]
async fn the_loop_fires_side_by_side_and_its_shutdown_cuts_short_what_hangs() {
    let world = World::new(64);
    let gated = Gated::new(1, false);
    let (consumer, queue) = process(&world, &gated, 1);
    consumer.declare().await.unwrap();
    let settings = TriggerSettings { patience: Micros::from_secs(10), ..TriggerSettings::default() };
    let consumer = consumer.with_settings(settings);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { consumer.run(shutdown).await }
    });
    turn().await;
    send(&queue, &["gated"]).await;
    turn().await;
    assert_eq!(gated.counts(), (1, 1), "the message itself wakes the loop");
    assert_eq!(queue.depth(TRIGGER_QUEUE).await.unwrap(), 0);
    send(&queue, &["gated"]).await;
    turn().await;
    assert_eq!(gated.counts(), (2, 1));
    shutdown.cancel();
    turn().await;
    assert!(!running.is_finished(), "it waits for what runs");
    world.clock.advance(Micros::from_secs(10));
    running.await.unwrap();
    assert_eq!(gated.counts(), (2, 1));
    assert_eq!(queue.depth(TRIGGER_QUEUE).await.unwrap(), 1, "and what it cut short is fired again later");
}
