//! The loops themselves: what wakes them, what they do unasked, and how they end.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use axum::{Json, Router, extract::State, routing::post};
use orchestrator::{
    client::{
        network::http::{HttpClient, HttpSettings},
        notification::{LocalNotifier, NotifierSettings},
    },
    controller::worker::{Driver, DriverSettings, Relay, RelayPorts, RelaySettings},
    core::{
        client::{
            clock::Clock,
            database::{Changeset, Committer, Filter, Reader, ReaderExt},
            notification::NotificationClient,
            schema,
        },
        job::{JobKind, JobState},
        market::{
            event::Audience,
            ids::JobId,
            quantity::{Micros, Timestamp},
        },
    },
    service::{
        job::{Engine, PurgeTrigger, Trigger, Wake, WakingCommitter, purge::PurgeSettings},
        outbox::{self, ALERT_TOPIC, OutboxRow},
        work::RequestRecord,
    },
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    harness::{Act, Mortal, World, bump, make_counter, scripted, turn},
    relay::{Outside, ports, put},
};

const KIND: JobKind = JobKind::Provision;

fn drive(engine: &Engine) -> (CancellationToken, JoinHandle<()>) {
    let shutdown = CancellationToken::new();
    let driver = Driver::new(engine.clone(), DriverSettings::default());
    (shutdown.clone(), tokio::spawn(driver.run(shutdown)))
}

async fn enqueue(world: &World, committer: &dyn Committer, key: &str, delay: Micros) -> JobId {
    let mut changes = Changeset::new();
    let mut job = world.new_job(KIND, "s", key);
    job.run_at = job.run_at.plus(delay);
    let id = job.enqueue(&mut changes, &world.ids);
    committer.commit(changes).await.unwrap();
    id
}

#[tokio::test]
async fn the_driver_follows_wake_ups_due_times_and_at_last_its_fallback() {
    let world = World::new(100);
    let engine = world.engine(vec![scripted(KIND, |_, _| Act::Done)]);
    let (shutdown, running) = drive(&engine);
    turn().await;
    let waking = WakingCommitter::new(world.db.clone(), engine.wake());
    let told = enqueue(&world, &waking, "1", Micros::ZERO).await;
    let later = enqueue(&world, &waking, "2", Micros::from_millis(4_321)).await;
    turn().await;
    assert_eq!(world.state(told).await, JobState::Completed, "while time stood still");
    world.clock.advance(Micros::from_millis(4_320));
    turn().await;
    assert_eq!(world.state(later).await, JobState::Created);
    world.clock.advance(Micros::from_millis(1));
    turn().await;
    assert_eq!(world.state(later).await, JobState::Completed, "at its due time");

    let untold = enqueue(&world, world.db.as_ref(), "3", Micros::ZERO).await;
    turn().await;
    assert_eq!(world.state(untold).await, JobState::Created);
    for _ in 0..5 {
        world.clock.advance(Micros::from_secs(1));
        turn().await;
    }
    assert_eq!(world.state(untold).await, JobState::Completed);
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn the_driver_renews_what_runs_long_and_reaps_what_the_dead_left() {
    let world = World::new(101);
    make_counter(&world.db, "done").await;
    let dead = world.engine(vec![scripted(KIND, |_, _| Act::Hang)]);
    let orphan = enqueue(&world, world.db.as_ref(), "orphan", Micros::ZERO).await;
    dead.tick().await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let act = move |job: &orchestrator::core::job::Job, _: u32| match job.dedup.ends_with("long") {
        true => Act::Gate(held.clone()),
        false => Act::Write(bump("done")),
    };
    let handler = scripted(KIND, act).policy(|policy| policy.timeout = Micros::from_days(1));
    let log = handler.log.clone();
    let engine = world.engine(vec![handler]);
    let (shutdown, running) = drive(&engine);
    turn().await;
    let long = enqueue(&world, world.db.as_ref(), "long", Micros::ZERO).await;
    for _ in 0..60 {
        world.clock.advance(Micros::from_secs(5));
        turn().await;
    }
    assert_eq!(world.state(orphan).await, JobState::Completed);
    assert_eq!(world.counter("done").await, 1);
    let job = world.job(long).await;
    assert_eq!(
        (job.state, job.attempts),
        (JobState::Running, 1),
        "five minutes on a lease of thirty seconds"
    );
    assert!(job.lease_until.unwrap() > world.clock.now().plus(Micros::from_secs(15)).as_micros());
    gate.add_permits(1);
    turn().await;
    assert_eq!((world.state(long).await, log.calls(long, "process")), (JobState::Completed, 1));
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_shutdown_waits_for_jobs_and_gives_back_those_that_take_too_long() {
    let world = World::new(102);
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let act = move |job: &orchestrator::core::job::Job, _: u32| match job.dedup.ends_with("quick") {
        true => Act::Gate(held.clone()),
        false => Act::Hang,
    };
    let engine =
        world.engine(vec![scripted(KIND, act).policy(|policy| policy.timeout = Micros::from_days(1))]);
    let quick = enqueue(&world, world.db.as_ref(), "quick", Micros::ZERO).await;
    let stuck = enqueue(&world, world.db.as_ref(), "stuck", Micros::ZERO).await;
    let (shutdown, running) = drive(&engine);
    turn().await;
    assert_eq!(engine.running(), 2);
    shutdown.cancel();
    turn().await;
    let late = enqueue(&world, world.db.as_ref(), "late", Micros::ZERO).await;
    gate.add_permits(1);
    turn().await;
    assert_eq!(world.state(quick).await, JobState::Completed);
    assert!(!running.is_finished());
    world.clock.advance(DriverSettings::default().drain);
    running.await.unwrap();
    let job = world.job(stuck).await;
    assert_eq!((job.state, job.attempts, job.lease_until), (JobState::PendingRetry, 0, None));
    assert_eq!(world.state(late).await, JobState::Created, "nothing is claimed after the shutdown began");
}

#[tokio::test]
async fn a_waking_committer_rings_the_bells_that_a_commit_calls_for() {
    let world = World::new(103);
    let wake = Arc::new(Wake::default());
    let committer = WakingCommitter::new(world.db.clone(), wake.clone());
    let rung = |bell: &tokio::sync::Notify| {
        use futures::FutureExt;
        bell.notified().now_or_never().is_some()
    };
    let mut other = Changeset::new();
    other.insert_json(schema::META, "x".into(), &json!({"count": 1}));
    committer.commit(other.clone()).await.unwrap();
    assert_eq!((rung(&wake.jobs), rung(&wake.outbox)), (false, false));
    enqueue(&world, &committer, "1", Micros::ZERO).await;
    assert_eq!((rung(&wake.jobs), rung(&wake.outbox)), (true, false));
    let mut event = Changeset::new();
    outbox::event(&mut event, &world.ids, "k", "s", Audience::Public, json!({}));
    let refused = {
        let mut all = event.clone();
        all.extend(other);
        all
    };
    assert!(committer.commit(refused).await.is_err());
    assert_eq!((rung(&wake.jobs), rung(&wake.outbox)), (false, false), "a commit that failed is no news");
    committer.commit(event).await.unwrap();
    assert_eq!((rung(&wake.jobs), rung(&wake.outbox)), (false, true));
}

fn relaying(ports: RelayPorts) -> (CancellationToken, JoinHandle<()>) {
    let shutdown = CancellationToken::new();
    let relay = Relay::new(ports, RelaySettings::default());
    let stop = shutdown.clone();
    (shutdown, tokio::spawn(async move { relay.run(stop).await }))
}

#[tokio::test]
async fn the_relay_follows_wake_ups_and_at_last_its_fallback() {
    let world = World::new(104);
    let outside = Arc::new(Outside::default());
    let ports = ports(&world, &outside);
    let waking = WakingCommitter::new(world.db.clone(), ports.wake.clone());
    let (shutdown, running) = relaying(ports);
    turn().await;
    let mut event = Changeset::new();
    outbox::event(&mut event, &world.ids, "told", "s", Audience::Public, json!({}));
    waking.commit(event).await.unwrap();
    turn().await;
    assert_eq!(*outside.told.lock(), ["event told"]);
    put(&world, &["untold"]).await;
    for _ in 0..5 {
        world.clock.advance(Micros::from_secs(1));
        turn().await;
    }
    assert_eq!(*outside.told.lock(), ["event told", "event untold"]);
    outside.bus_is_down.store(true, Ordering::SeqCst);
    put(&world, &["patient"]).await;
    for second in 0..60 {
        world.clock.advance(Micros::from_secs(1));
        turn().await;
        if second == 20 {
            outside.bus_is_down.store(false, Ordering::SeqCst);
        }
    }
    assert_eq!(*outside.told.lock(), ["event told", "event untold", "event patient"]);
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_crash_between_sending_and_marking_repeats_and_never_loses() {
    for applied in [false, true] {
        let world = World::new(105);
        let outside = Arc::new(Outside::default());
        put(&world, &["one", "two", "three"]).await;
        let mortal = Mortal::new(world.db.clone(), 0, applied);
        let doomed = Relay::new(
            RelayPorts { committer: mortal, ..ports(&world, &outside) },
            RelaySettings { batch: 2, ..RelaySettings::default() },
        );
        assert!(doomed.pass().await.is_err());
        assert_eq!(*outside.told.lock(), ["event one", "event two"]);
        let next = Relay::new(ports(&world, &outside), RelaySettings::default());
        next.pass().await.unwrap();
        next.pass().await.unwrap();
        let told = outside.told.lock().clone();
        let again: &[&str] =
            if applied { &["event three"] } else { &["event one", "event two", "event three"] };
        assert_eq!(told[2..], *again, "applied: {applied}");
        let unsent = Filter::eq("unsent", outbox::WAITING);
        assert_eq!(world.db.count(schema::OUTBOX, unsent).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn two_relays_mark_each_row_once() {
    let world = World::new(106);
    let outside = Arc::new(Outside::default());
    put(&world, &["one", "two", "three", "four"]).await;
    let relay = || Relay::new(ports(&world, &outside), RelaySettings::default());
    let (one, two) = (relay(), relay());
    let (a, b) = tokio::join!(one.pass(), two.pass());
    a.unwrap();
    b.unwrap();
    let rows = world.db.list_all::<OutboxRow>(Filter::All).await.unwrap();
    assert!(rows.iter().all(|row| row.value.unsent.is_none() && row.version == 2));
}

type Seen = Arc<Mutex<Vec<Value>>>;

/// A webhook that answers once there is a permit.
async fn webhook(gate: Arc<Semaphore>) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let answer = move |State(seen): State<Seen>, Json(body): Json<Value>| async move {
        seen.lock().push(body);
        gate.acquire().await.unwrap().forget();
    };
    let router = Router::new().route("/hook", post(answer)).with_state(seen.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, seen)
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("it did not come about");
}

#[tokio::test]
async fn an_alert_reaches_the_webhook_and_a_slow_webhook_holds_up_no_event() {
    let world = World::new(107);
    let gate = Arc::new(Semaphore::new(0));
    let (address, seen) = webhook(gate.clone()).await;
    let http = HttpClient::new(HttpSettings { allow_private: true, ..HttpSettings::default() }).unwrap();
    let clock = Arc::new(world.clock.clone());
    let notifier = Arc::new(LocalNotifier::new(world.db.clone(), http, clock, NotifierSettings::default()));
    notifier.create_topic(ALERT_TOPIC).await.unwrap();
    notifier.subscribe(ALERT_TOPIC, &format!("http://{address}/hook")).await.unwrap();
    let outside = Arc::new(Outside::default());
    let relay_ports = RelayPorts { notification: notifier, ..ports(&world, &outside) };
    let wake = relay_ports.wake.clone();
    let (shutdown, running) = relaying(relay_ports);

    // A job that is given up alerts people.
    let engine = world.engine(vec![scripted(KIND, |_, _| Act::Permanent)]);
    let id = enqueue(&world, world.db.as_ref(), "1", Micros::ZERO).await;
    world.settle_some(&engine).await;
    wake.outbox.notify_one();
    until(|| !seen.lock().is_empty()).await;
    put(&world, &["meanwhile"]).await;
    wake.outbox.notify_one();
    until(|| outside.told.lock().iter().any(|told| told == "event meanwhile")).await;
    gate.add_permits(9);
    for _ in 0..2_000 {
        let waiting = Filter::eq("unsent", outbox::WAITING);
        if world.db.count(schema::OUTBOX, waiting).await.unwrap() == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    shutdown.cancel();
    running.await.unwrap();
    let bodies = seen.lock().clone();
    assert_eq!(bodies.len(), 1, "in flight, it is not sent again");
    assert_eq!((&bodies[0]["topic"], &bodies[0]["body"]["job"]), (&json!("alerts"), &json!(id)));
    let rows = world.db.list_all::<OutboxRow>(Filter::All).await.unwrap();
    assert!(rows.iter().all(|row| row.value.unsent.is_none() && row.value.attempts == 0));
}

#[tokio::test]
async fn sent_rows_and_request_markers_are_purged_in_bounds_and_the_rest_stays() {
    let world = World::new(108);
    let outside = Arc::new(Outside::default());
    put(&world, &["1", "2", "3", "4", "5"]).await;
    Relay::new(ports(&world, &outside), RelaySettings::default()).pass().await.unwrap();
    let marker = |id: String, created_at: Timestamp| RequestRecord {
        id,
        fingerprint: String::new(),
        outcome: Value::Null,
        created_at,
    };
    let mut changes = Changeset::new();
    for n in 0..5 {
        changes.insert(&marker(format!("old{n}"), world.clock.now()));
    }
    world.db.commit(changes).await.unwrap();
    put(&world, &["waits"]).await;
    world.clock.advance(Micros::from_days(2));
    let mut changes = Changeset::new();
    changes.insert(&marker("young".into(), world.clock.now()));
    world.db.commit(changes).await.unwrap();

    let count = async || {
        let rows = world.db.count(schema::OUTBOX, Filter::All).await.unwrap();
        (rows, world.db.count(schema::REQUESTS, Filter::All).await.unwrap())
    };
    assert_eq!(count().await, (6, 6));
    let settings = PurgeSettings { batch: 2, batches: 1, ..PurgeSettings::default() };
    let purge = PurgeTrigger::new(world.work(), settings);
    assert_eq!(purge.fire().await.unwrap().changed, 4, "each sort is bounded by itself");
    assert_eq!(count().await, (4, 4));
    for _ in 0..3 {
        purge.fire().await.unwrap();
    }
    assert_eq!(count().await, (1, 1), "what was not sent yet, and what is young");
    assert_eq!(purge.fire().await.unwrap().changed, 0);
}
