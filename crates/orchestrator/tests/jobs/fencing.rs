//! Leases, fencing tokens and generations: who may write, and who has lost the right to.

use std::sync::{Arc, atomic::Ordering};

use async_trait::async_trait;
use orchestrator::{
    core::{
        client::{clock::Clock, database::ReaderExt},
        job::{Job, JobKind, JobState},
        market::{ids::JobId, quantity::Micros},
    },
    service::{
        job::{JobContext, JobError, JobHandler, Policy, Processed, Subject},
        outbox::Outgoing,
    },
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Semaphore;

use super::harness::{Act, World, bump, make_counter, scripted, turn};

const KIND: JobKind = JobKind::Provision;

#[tokio::test]
async fn two_engines_on_one_database_never_run_one_job_at_once() {
    let world = World::new(20);
    make_counter(&world.db, "done").await;
    let first = scripted(KIND, |_, _| Act::Write(bump("done"))).policy(|policy| policy.concurrency = 7);
    let log = first.log.clone();
    let mut second = scripted(KIND, |_, _| Act::Write(bump("done"))).policy(|policy| policy.concurrency = 5);
    second.log = log.clone();
    let (one, two) = (world.engine(vec![first]), world.engine(vec![second]));
    for key in 0..200 {
        world.enqueue(world.new_job(KIND, "s", &key.to_string())).await;
    }
    for _ in 0..100 {
        let (a, b) = tokio::join!(one.tick(), two.tick());
        assert!(a.unwrap().claimed <= 7 && b.unwrap().claimed <= 5);
        turn().await;
    }
    one.idle().await;
    two.idle().await;
    assert!(!log.doubled.load(Ordering::SeqCst));
    assert_eq!(world.counter("done").await, 200);
}

#[tokio::test]
async fn one_mutating_job_per_subject_at_a_time_under_growing_generations() {
    let world = World::new(21);
    let handler = scripted(KIND, |_, _| Act::Done).policy(|policy| policy.mutates_subject = true);
    let log = handler.log.clone();
    let engine = world.engine(vec![handler]);
    for key in 0..10 {
        world.enqueue(world.new_job(KIND, "alloc", &key.to_string())).await;
    }
    world.settle(&[&engine]).await;
    assert_eq!(log.most_active.load(Ordering::SeqCst), 1);
    let generations: Vec<u64> = log.generations.lock().iter().map(|(_, generation)| *generation).collect();
    assert_eq!(generations, (1..=10).collect::<Vec<_>>());
    let subject = world.db.load::<Subject>("alloc").await.unwrap().unwrap().value;
    assert_eq!((subject.holder, subject.generation), (None, 10));
}

#[tokio::test]
async fn waiting_for_a_busy_subject_is_not_counted() {
    let world = World::new(22);
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let handler =
        scripted(
            KIND,
            move |job, _| {
                if job.dedup.ends_with(":first") { Act::Gate(held.clone()) } else { Act::Done }
            },
        )
        .policy(|policy| policy.mutates_subject = true);
    let engine = world.engine(vec![handler]);
    world.enqueue(world.new_job(KIND, "alloc", "first")).await;
    engine.tick().await.unwrap();
    turn().await;
    let second = world.enqueue(world.new_job(KIND, "alloc", "second")).await;
    for _ in 0..20 {
        engine.tick().await.unwrap();
        turn().await;
        world.clock.advance(Micros::from_millis(100));
    }
    let job = world.job(second).await;
    assert_eq!((job.state, job.attempts), (JobState::PendingRetry, 0));
    gate.add_permits(1);
    world.settle(&[&engine]).await;
    assert_eq!(world.job(second).await.attempts, 1);
    assert_eq!(world.state(second).await, JobState::Completed);
}

#[tokio::test]
async fn a_paused_worker_past_its_lease_loses() {
    let world = World::new(23);
    make_counter(&world.db, "done").await;
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let paused = scripted(KIND, move |_, _| Act::Gate(held.clone())).policy(|policy| {
        policy.mutates_subject = true;
        policy.timeout = Micros::from_days(1);
    });
    let stale = paused.log.clone();
    let fresh =
        scripted(KIND, |_, _| Act::Write(bump("done"))).policy(|policy| policy.mutates_subject = true);
    let current = fresh.log.clone();
    let (slow, quick) = (world.engine(vec![paused]), world.engine(vec![fresh]));
    let id = world.enqueue(world.new_job(KIND, "alloc", "1")).await;
    slow.tick().await.unwrap();
    turn().await;
    assert_eq!(quick.reap().await.unwrap(), 0, "the lease has not run out");
    world.clock.advance(Micros::from_secs(31));
    assert_eq!(quick.reap().await.unwrap(), 1);
    quick.tick().await.unwrap();
    quick.idle().await;
    assert_eq!(world.state(id).await, JobState::Completed);
    let done = world.job(id).await;
    gate.add_permits(1);
    slow.idle().await;
    assert_eq!(world.job(id).await, done, "the late write took no effect");
    assert_eq!(world.counter("done").await, 1);
    let (old, new) = (stale.generations.lock()[0].1, current.generations.lock()[0].1);
    assert!(new > old, "{new} > {old}");
}

#[tokio::test]
async fn a_heartbeat_keeps_a_long_job_and_does_not_disturb_its_last_write() {
    let world = World::new(24);
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let handler = scripted(KIND, move |_, _| Act::Gate(held.clone()))
        .policy(|policy| policy.timeout = Micros::from_days(1));
    let engine = world.engine(vec![handler]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    engine.tick().await.unwrap();
    turn().await;
    for _ in 0..20 {
        world.clock.advance(Micros::from_secs(10));
        assert_eq!(engine.renew().await.unwrap(), 1);
        assert_eq!(engine.renew().await.unwrap(), 0, "a fresh lease is left alone");
        assert_eq!(engine.reap().await.unwrap(), 0);
    }
    gate.add_permits(1);
    engine.idle().await;
    let job = world.job(id).await;
    assert_eq!((job.state, job.attempts), (JobState::Completed, 1));
}

#[tokio::test]
async fn a_heartbeat_that_finds_the_lease_gone_stops_the_work() {
    let world = World::new(25);
    let hang = || scripted(KIND, |_, _| Act::Hang).policy(|policy| policy.timeout = Micros::from_days(1));
    let (slow, other) = (world.engine(vec![hang()]), world.engine(vec![hang()]));
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    slow.tick().await.unwrap();
    turn().await;
    world.clock.advance(Micros::from_secs(31));
    other.reap().await.unwrap();
    other.tick().await.unwrap();
    turn().await;
    assert_eq!(slow.renew().await.unwrap(), 0);
    slow.idle().await;
    assert_eq!((slow.running(), other.running()), (0, 1));
    assert_eq!(world.job(id).await.lease_owner.as_deref(), Some(other.owner()));
}

/// One life of a process that dies while the job is in its hands, and the start of the next. Returns whether the job ran.
async fn live_and_die(world: &World, id: JobId) -> bool {
    let doomed = scripted(KIND, |_, _| Act::Hang).policy(|policy| policy.max_attempts = 2);
    let log = doomed.log.clone();
    let doomed = world.engine(vec![doomed]);
    if let Some(due) = world.job(id).await.due {
        let late = due.saturating_sub(world.clock.now().as_micros());
        world.clock.advance(Micros(u64::try_from(late).unwrap_or_default()));
    }
    doomed.tick().await.unwrap();
    turn().await;
    let next = world.engine(vec![]);
    next.release_leases_of_previous_process().await.unwrap();
    log.calls(id, "process") > 0
}

#[tokio::test]
async fn a_job_that_kills_its_worker_each_time_is_given_up() {
    let world = World::new(26);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    let begun = world.clock.now();
    let most = Policy::default().max_losses;
    for _ in 0..most {
        assert!(live_and_die(&world, id).await);
    }
    let took = world.clock.now().since(begun);
    assert!(took > Micros::from_secs(120), "{took:?}: losses in a row must not follow on each other's heels");
    assert_eq!((world.job(id).await.attempts, world.job(id).await.losses), (0, most));
    let handler = scripted(KIND, |_, _| Act::Done);
    let log = handler.log.clone();
    let engine = world.engine(vec![handler]);
    world.settle(&[&engine]).await;
    assert_eq!((world.state(id).await, log.calls(id, "process")), (JobState::Failed, 0));
    assert_eq!((world.dead_letters().await.len(), world.alerts().await), (1, 1));
    let outgoing = world.outgoing().await;
    let alert = outgoing.iter().find(|outgoing| matches!(outgoing, Outgoing::Alert { .. }));
    let told = serde_json::to_string(alert.unwrap()).unwrap();
    assert!(told.contains(&format!("{most} attempts were lost")), "{told}");
}

#[tokio::test]
async fn who_is_killed_again_and_again_keeps_the_attempts_for_failures() {
    let world = World::new(31);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    for _ in 0..20 {
        assert!(live_and_die(&world, id).await);
    }
    let job = world.job(id).await;
    assert_eq!((job.state, job.attempts, job.losses), (JobState::PendingRetry, 0, 20));
    // Two attempts are all that it has, and it needs both.
    let act = |_: &Job, call: u32| if call == 1 { Act::Transient } else { Act::Done };
    let engine = world.engine(vec![scripted(KIND, act).policy(|policy| policy.max_attempts = 2)]);
    world.settle(&[&engine]).await;
    let job = world.job(id).await;
    assert_eq!((job.state, job.attempts), (JobState::Completed, 2));
}

#[tokio::test]
async fn a_reaped_lease_is_a_loss_and_no_attempt() {
    let world = World::new(32);
    let dead = world.engine(vec![scripted(KIND, |_, _| Act::Hang)]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    dead.tick().await.unwrap();
    turn().await;
    assert_eq!((world.job(id).await.attempts, world.job(id).await.losses), (1, 0));
    world.clock.advance(Micros::from_secs(31));
    assert_eq!(world.engine(vec![]).reap().await.unwrap(), 1);
    assert_eq!((world.job(id).await.attempts, world.job(id).await.losses), (0, 1));
}

/// Journals an effect, carries it out, and dies in between the first time.
struct Journalling {
    effects: Arc<Mutex<Vec<String>>>,
    looked_up: Arc<Mutex<u32>>,
}

#[async_trait]
impl JobHandler for Journalling {
    fn kind(&self) -> JobKind {
        KIND
    }

    fn policy(&self) -> Policy {
        Policy { mutates_subject: true, ..Policy::default() }
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let key = format!("bytes-of-attempt-{}", context.job().attempts);
        let effect = context.intend("send", json!(key)).await?;
        if context.job().attempts > 1 {
            *self.looked_up.lock() += 1;
        }
        let bytes = effect.intent.as_str().unwrap().to_owned();
        {
            let mut effects = self.effects.lock();
            if !effects.contains(&bytes) {
                effects.push(bytes);
            }
        }
        if context.job().attempts == 1 {
            panic!("after the effect, before its outcome is written");
        }
        context.record("send", json!("sent")).await?;
        assert!(context.record("never intended", json!(1)).await.is_err());
        Ok(Processed::Done(orchestrator::core::client::database::Changeset::new()))
    }
}

#[tokio::test]
async fn an_effect_is_journalled_before_it_is_tried_and_tried_again_unchanged() {
    let world = World::new(27);
    let effects = Arc::new(Mutex::new(Vec::new()));
    let looked_up = Arc::new(Mutex::new(0));
    let handler = Journalling { effects: effects.clone(), looked_up: looked_up.clone() };
    let engine = world.engine_over(world.db.clone(), vec![Arc::new(handler)]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    world.settle(&[&engine]).await;
    assert_eq!(*effects.lock(), ["bytes-of-attempt-1"]);
    assert_eq!(*looked_up.lock(), 1);
    let job = world.job(id).await;
    assert_eq!(job.state, JobState::Completed);
    assert_eq!(job.effects["send"].outcome, Some(json!("sent")));
}

/// Notes the outcome of one effect and dies after it has journalled the next.
struct Noting {
    seen: Arc<Mutex<Vec<Option<serde_json::Value>>>>,
}

#[async_trait]
impl JobHandler for Noting {
    fn kind(&self) -> JobKind {
        KIND
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let first = context.intend("first", json!(1)).await?;
        self.seen.lock().push(first.outcome);
        context.note("first", json!("there")).await?;
        assert!(context.note("never intended", json!(1)).await.is_err());
        context.intend("second", json!(2)).await?;
        if context.job().attempts == 1 {
            panic!("after the next intent");
        }
        context.note("second", json!("there, too")).await?;
        Ok(Processed::Done(orchestrator::core::client::database::Changeset::new()))
    }
}

#[tokio::test]
async fn a_noted_outcome_is_written_with_the_next_intent_and_with_the_end() {
    let world = World::new(28);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let engine = world.engine_over(world.db.clone(), vec![Arc::new(Noting { seen: seen.clone() })]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    world.settle(&[&engine]).await;
    assert_eq!(*seen.lock(), [None, Some(json!("there"))]);
    let job = world.job(id).await;
    assert_eq!(job.state, JobState::Completed);
    assert_eq!(job.effects["second"].outcome, Some(json!("there, too")));
}

#[tokio::test]
async fn what_a_lost_lease_cut_short_comes_before_what_has_not_begun() {
    let world = World::new(29);
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let stuck = scripted(KIND, move |_, _| Act::Gate(held.clone()))
        .policy(|policy| policy.timeout = Micros::from_days(1));
    let slow = world.engine(vec![stuck]);
    let begun = world.enqueue(world.new_job(KIND, "a", "begun")).await;
    slow.tick().await.unwrap();
    turn().await;
    world.clock.advance(Micros::from_secs(1));
    let waiting = world.enqueue(world.new_job(KIND, "b", "waiting")).await;
    world.clock.advance(Micros::from_secs(31));
    let one_at_a_time = scripted(KIND, |_, _| Act::Done).policy(|policy| policy.concurrency = 1);
    let quick = world.engine(vec![one_at_a_time]);
    assert_eq!(quick.reap().await.unwrap(), 1);
    quick.tick().await.unwrap();
    quick.idle().await;
    assert_eq!(world.state(begun).await, JobState::Completed);
    assert_eq!(world.state(waiting).await, JobState::Created);
    gate.add_permits(1);
    slow.idle().await;
}
