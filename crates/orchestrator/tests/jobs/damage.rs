//! What can't be read is set aside with its bytes, and hides nothing.

use std::sync::Arc;

use orchestrator::{
    client::{
        clock::SeededEntropy,
        cron::{LocalCron, LocalScheduler, LocalSchedulerSettings},
        queue::{DatabaseQueue, DatabaseQueueSettings},
    },
    controller::worker::{Relay, RelaySettings},
    core::{
        client::{
            damaged::Damaged,
            database::{DatabaseClient, DatabaseError, Document, Filter, Query, Reader, ReaderExt},
            queue::{NewMessage, QueueClient},
            schema::{self, Collection},
        },
        job::{Job, JobKind, JobState, NewJob},
        madara::cron::{CronClient, CronTarget},
        market::quantity::Micros,
    },
    service::{
        damage,
        job::{JobService, admin::JobFilter},
        page::PageRequest,
        work::Call,
    },
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{
    harness::{Act, World, scripted, turn},
    relay::{Outside, ports, put},
};

const KIND: JobKind = JobKind::Release;

/// Changes one field of a document, past all types.
async fn wreck(world: &World, collection: Collection, id: &str, field: &str, value: Value) -> String {
    let Document { version, body, .. } = world.db.get(collection, id).await.unwrap().unwrap();
    let mut body: Value = serde_json::from_str(&body).unwrap();
    body[field] = value;
    world.db.update(collection, id, version, body.to_string()).await.unwrap();
    body.to_string()
}

async fn set_aside(world: &World) -> Vec<Damaged> {
    world.db.list_all::<Damaged>(Filter::All).await.unwrap().into_iter().map(|found| found.value).collect()
}

#[tokio::test]
async fn damaged_jobs_at_the_head_of_the_queue_hide_no_other() {
    let world = World::new(80);
    let mut bodies = Vec::new();
    for key in 0..70 {
        let id = world.enqueue(world.new_job(KIND, "s", &key.to_string())).await.to_string();
        // Some can be claimed and not read; some can't even be claimed.
        let (field, value) = if key % 2 == 0 { ("rounds", json!("x")) } else { ("lease_token", json!("x")) };
        bodies.push(wreck(&world, schema::JOBS, &id, field, value).await);
    }
    world.clock.advance(Micros::from_secs(1));
    let good = world.enqueue(world.new_job(KIND, "s", "good")).await;
    let engine = world.engine(vec![scripted(KIND, |_, _| Act::Done)]);
    for _ in 0..10 {
        world.settle_some(&engine).await;
    }
    assert_eq!(world.state(good).await, JobState::Completed);
    let kept = set_aside(&world).await;
    assert_eq!(kept.len(), 70);
    assert!(kept.iter().all(|found| found.collection == "jobs" && bodies.contains(&found.body)));
    assert_eq!(world.alerts().await, 70);
    assert_eq!(world.db.count(schema::JOBS, Filter::All).await.unwrap(), 1);
}

#[tokio::test]
async fn a_claim_that_meets_a_damaged_job_takes_the_others() {
    let world = World::new(81);
    let handler = scripted(KIND, |_, _| Act::Done).policy(|policy| policy.concurrency = 2);
    let engine = world.engine(vec![handler]);
    let mut ids = Vec::new();
    for key in 0..6 {
        ids.push(world.enqueue(world.new_job(KIND, "s", &key.to_string())).await);
        world.clock.advance(Micros(1));
    }
    // The lane is hot after a full claim: the next tick claims without a look.
    assert_eq!(engine.tick().await.unwrap().claimed, 2);
    engine.idle().await;
    wreck(&world, schema::JOBS, &ids[2].to_string(), "attempts", json!([])).await;
    wreck(&world, schema::JOBS, &ids[3].to_string(), "trace_id", json!(7)).await;
    for _ in 0..4 {
        world.settle_some(&engine).await;
    }
    for id in [ids[0], ids[1], ids[4], ids[5]] {
        assert_eq!(world.state(id).await, JobState::Completed);
    }
    assert_eq!(set_aside(&world).await.len(), 2);
}

#[tokio::test]
async fn a_damaged_job_under_a_lease_is_set_aside_when_the_lease_runs_out() {
    let world = World::new(82);
    let engine = world.engine(vec![scripted(KIND, |_, _| Act::Hang)]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    engine.tick().await.unwrap();
    turn().await;
    wreck(&world, schema::JOBS, &id.to_string(), "rounds", json!(-1)).await;
    assert_eq!(engine.reap().await.unwrap(), 0);
    assert_eq!(set_aside(&world).await.len(), 0, "its worker may still end it");
    world.clock.advance(Micros::from_secs(30));
    assert_eq!(world.engine(Vec::new()).reap().await.unwrap(), 0);
    assert_eq!(set_aside(&world).await.len(), 1);
}

#[tokio::test]
async fn the_descendants_of_a_damaged_job_do_not_start() {
    let world = World::new(83);
    let engine = world.engine(vec![scripted(KIND, |_, _| Act::Done)]);
    let purged = world.ids.next();
    let first = world.enqueue(world.new_job(JobKind::Purge, "s", "1")).await;
    let after = |key: &str, depends_on| NewJob { depends_on, ..world.new_job(KIND, "s", key) };
    let second = world.enqueue(after("2", vec![purged, first])).await;
    let free = world.enqueue(after("3", vec![purged])).await;
    wreck(&world, schema::JOBS, &first.to_string(), "input", json!({})).await;
    wreck(&world, schema::JOBS, &first.to_string(), "attempts", json!("many")).await;
    for _ in 0..100 {
        world.settle_some(&engine).await;
        world.clock.advance(Micros::from_secs(10));
    }
    assert_eq!(set_aside(&world).await.len(), 1);
    assert_eq!(world.state(free).await, JobState::Completed, "a dependency that was purged had completed");
    assert_eq!(world.job(second).await.attempts, 0);
    assert_ne!(world.state(second).await, JobState::Completed);
}

#[tokio::test]
async fn a_job_of_an_unknown_kind_is_left_to_those_who_know_it() {
    let world = World::new(84);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await.to_string();
    wreck(&world, schema::JOBS, &id, "kind", json!("teleport")).await;
    wreck(&world, schema::JOBS, &id, "lease_until", json!(1)).await;
    let engine = world.engine(vec![scripted(KIND, |_, _| Act::Done)]);
    world.settle_some(&engine).await;
    engine.reap().await.unwrap();
    engine.release_leases_of_previous_process().await.unwrap();
    assert_eq!(set_aside(&world).await.len(), 0);
    assert_eq!(world.db.count(schema::JOBS, Filter::All).await.unwrap(), 1);
}

#[tokio::test]
async fn a_job_of_a_newer_release_is_left_to_it_and_hides_no_other() {
    let world = World::new(91);
    let newer = world.enqueue(world.new_job(KIND, "s", "1")).await.to_string();
    wreck(&world, schema::JOBS, &newer, "v", json!(99)).await;
    world.clock.advance(Micros(1));
    let good = world.enqueue(world.new_job(KIND, "s", "2")).await;
    let engine = world.engine(vec![scripted(KIND, |_, _| Act::Done)]);
    world.settle_some(&engine).await;
    world.clock.advance(Micros::from_secs(60));
    engine.reap().await.unwrap();
    assert_eq!(world.state(good).await, JobState::Completed);
    assert_eq!(set_aside(&world).await.len(), 0);
    assert!(world.db.get(schema::JOBS, &newer).await.unwrap().is_some());
}

#[tokio::test]
async fn a_list_leaves_out_what_can_not_be_read() {
    let world = World::new(85);
    let damaged = world.enqueue(world.new_job(KIND, "s", "1")).await;
    let good = world.enqueue(world.new_job(KIND, "s", "2")).await;
    wreck(&world, schema::JOBS, &damaged.to_string(), "failures", json!(1)).await;
    let service = JobService::new(world.work());
    let jobs = service
        .list(&Call::system("test"), JobFilter::default(), PageRequest::default())
        .await
        .unwrap()
        .items;
    assert_eq!(jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [good]);
}

#[tokio::test]
async fn who_repairs_a_document_in_time_wins() {
    let world = World::new(86);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await.to_string();
    let good = world.db.get(schema::JOBS, &id).await.unwrap().unwrap();
    wreck(&world, schema::JOBS, &id, "rounds", json!("x")).await;
    let seen = world.db.get(schema::JOBS, &id).await.unwrap().unwrap();
    let error = seen.decode::<Job>().unwrap_err();
    assert!(matches!(error, DatabaseError::Damaged { .. }));
    world.db.update(schema::JOBS, &id, seen.version, good.body).await.unwrap();
    let db = world.db.as_ref();
    assert!(!damage::set_aside(db, &world.ids, schema::JOBS, &seen, &error).await.unwrap());
    assert_eq!((set_aside(&world).await.len(), world.alerts().await), (0, 0));
}

#[tokio::test]
async fn a_damaged_outbox_row_is_set_aside_with_an_alert_and_the_rest_is_sent() {
    let world = World::new(87);
    let outside = Arc::new(Outside::default());
    put(&world, &["one", "two", "three"]).await;
    let mut rows = world.db.find(Query::new(schema::OUTBOX)).await.unwrap().documents;
    let body = wreck(&world, schema::OUTBOX, &rows.remove(1).id, "outgoing", json!({"to": "nowhere"})).await;
    let relay = Relay::new(ports(&world, &outside), RelaySettings::default());
    relay.pass().await.unwrap();
    relay.pass().await.unwrap();
    let told = outside.told.lock().clone();
    assert_eq!(told[..2], ["event one", "event three"]);
    assert!(told[2].starts_with("alerts outbox/evt_"), "{told:?}");
    assert_eq!(set_aside(&world).await[0].body, body);
}

fn queue(world: &World) -> DatabaseQueue {
    let entropy = Arc::new(SeededEntropy::new(9));
    let clock = Arc::new(world.clock.clone());
    DatabaseQueue::new(world.db.clone(), clock, entropy, DatabaseQueueSettings::default())
}

#[tokio::test]
async fn a_damaged_message_does_not_stop_its_queue() {
    let world = World::new(88);
    let queue = queue(&world);
    queue.create("q").await.unwrap();
    for body in ["a", "b", "c"] {
        queue.send("q", vec![NewMessage { body: body.into(), delay: Micros::ZERO }]).await.unwrap();
        world.clock.advance(Micros(1));
    }
    let rows = world.db.find(Query::new(schema::QUEUE_MESSAGES)).await.unwrap().documents;
    wreck(&world, schema::QUEUE_MESSAGES, &rows[0].id, "body", json!(1)).await;
    wreck(&world, schema::QUEUE_MESSAGES, &rows[1].id, "deliveries", json!("x")).await;
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let messages = queue.receive("q", 1, Micros::from_secs(9), Micros::ZERO).await.unwrap();
        bodies.extend(messages.into_iter().map(|message| message.body));
    }
    assert_eq!(bodies, ["c"]);
    assert_eq!(set_aside(&world).await.len(), 2);
    assert_eq!(queue.depth("q").await.unwrap(), 1);
}

#[tokio::test]
async fn a_damaged_schedule_does_not_stop_the_others() {
    let world = World::new(89);
    let queue = Arc::new(queue(&world));
    queue.create("q").await.unwrap();
    let (clock, wake) = (Arc::new(world.clock.clone()), Arc::new(Notify::new()));
    let cron = LocalCron::new(world.db.clone(), clock.clone(), wake.clone());
    for name in ["bad", "good"] {
        cron.create(name, Micros::from_secs(1)).await.unwrap();
        cron.add_target(name, CronTarget { queue: "q".into(), body: name.into() }).await.unwrap();
    }
    wreck(&world, schema::SCHEDULES, "cron/bad", "schedule", json!({})).await;
    let settings = LocalSchedulerSettings::default();
    let scheduler = LocalScheduler::new(world.db.clone(), queue.clone(), clock, wake, "one", settings);
    scheduler.tick().await.unwrap();
    world.clock.advance(Micros::from_secs(1));
    assert_eq!(scheduler.tick().await.unwrap().fired, 1);
    let messages = queue.receive("q", 9, Micros::from_secs(9), Micros::ZERO).await.unwrap();
    assert_eq!(messages.iter().map(|message| message.body.as_str()).collect::<Vec<_>>(), ["good"]);
    assert_eq!(set_aside(&world).await[0].document, "cron/bad");
}
