//! One engine: success, failure and everything in between.

use std::sync::{Arc, atomic::Ordering};

use orchestrator::core::{
    client::{
        database::{Changeset, Committer, DatabaseError, ReaderExt},
        schema,
    },
    job::{JobKind, JobState},
    market::quantity::Micros,
};
use serde_json::json;
use tokio::sync::Semaphore;

use super::harness::{Act, World, bump, make_counter, scripted, turn};

const KIND: JobKind = JobKind::SyncAccess;

#[tokio::test]
async fn a_job_is_processed_verified_and_completed_with_its_changes() {
    let world = World::new(1);
    make_counter(&world.db, "effect").await;
    let handler = scripted(KIND, |_, _| Act::Verify).verify(|job, _| {
        assert_eq!(job.output["processed"], true);
        Act::Write(bump("effect"))
    });
    let engine = world.engine(vec![handler]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    assert_eq!(engine.tick().await.unwrap().claimed, 1);
    engine.idle().await;
    assert_eq!(world.state(id).await, JobState::PendingVerification);
    world.settle(&[&engine]).await;
    let job = world.job(id).await;
    assert_eq!((job.state, job.attempts, job.verify_attempts), (JobState::Completed, 1, 1));
    assert_eq!((job.lease_owner, job.lease_until, job.due), (None, None, None));
    assert_eq!(world.counter("effect").await, 1);
}

#[tokio::test]
async fn a_job_that_is_not_due_is_left_alone_and_announced() {
    let world = World::new(1);
    let engine = world.engine(vec![scripted(KIND, |_, _| Act::Done)]);
    let mut job = world.new_job(KIND, "s", "1");
    job.run_at = job.run_at.plus(Micros::from_millis(300));
    let (run_at, id) = (job.run_at, world.enqueue(job).await);
    let tick = engine.tick().await.unwrap();
    assert_eq!((tick.claimed, tick.next_due), (0, Some(run_at)));
    world.settle(&[&engine]).await;
    assert_eq!(world.state(id).await, JobState::Completed);
}

#[tokio::test]
async fn transient_failures_spend_the_attempts_then_it_fails_with_letter_alert_and_last_writes() {
    let world = World::new(2);
    make_counter(&world.db, "refund").await;
    let handler = scripted(KIND, |_, _| Act::Transient).on_failed(|_, _| Act::Write(bump("refund")));
    let log = handler.log.clone();
    let engine = world.engine(vec![handler]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    world.settle(&[&engine]).await;
    let job = world.job(id).await;
    assert_eq!((job.state, job.attempts, job.failures.len()), (JobState::Failed, 3, 3));
    assert_eq!((log.calls(id, "process"), log.calls(id, "on_failed")), (3, 1));
    assert_eq!(world.dead_letters().await, [id.to_string()]);
    assert_eq!((world.alerts().await, world.counter("refund").await), (1, 1));
}

#[tokio::test]
async fn what_somebody_else_made_first_is_looked_at_again_and_no_attempt_is_spent() {
    let world = World::new(2);
    make_counter(&world.db, "account").await;
    let make = || {
        let mut changes = Changeset::new();
        changes.insert_json(schema::META, "account".to_owned(), &json!({ "count": 1 }));
        changes
    };
    let handler = scripted(KIND, move |job, call| match (job.subject.as_str(), call) {
        ("stubborn", _) | (_, 1) => Act::Write(make()),
        _ => Act::Write(bump("account")),
    });
    let log = handler.log.clone();
    let engine = world.engine(vec![handler]);
    let looks = world.enqueue(world.new_job(KIND, "looks", "1")).await;
    let stubborn = world.enqueue(world.new_job(KIND, "stubborn", "2")).await;
    world.settle(&[&engine]).await;
    let job = world.job(looks).await;
    assert_eq!((job.state, job.attempts, job.failures.len()), (JobState::Completed, 1, 0));
    assert_eq!((log.calls(looks, "process"), world.counter("account").await), (2, 1));
    // One that never learns ends nevertheless.
    let job = world.job(stubborn).await;
    assert_eq!((job.state, job.attempts, job.failures.len()), (JobState::Failed, 3, 3));
    assert!(job.failures[0].error.contains("already exists"), "{:?}", job.failures);
}

#[tokio::test]
async fn a_permanent_failure_gives_up_at_once() {
    let world = World::new(3);
    let handler = scripted(KIND, |_, _| Act::Permanent);
    let log = handler.log.clone();
    let engine = world.engine(vec![handler]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    world.settle(&[&engine]).await;
    assert_eq!((world.state(id).await, log.calls(id, "process")), (JobState::Failed, 1));
    assert!(!world.job(id).await.failures[0].retryable);
}

#[tokio::test]
async fn last_writes_that_can_not_be_said_are_asked_for_again_without_processing_again() {
    let world = World::new(3);
    make_counter(&world.db, "refund").await;
    let handler = scripted(KIND, |_, _| Act::Permanent)
        .on_failed(|_, call| if call < 4 { Act::Transient } else { Act::Write(bump("refund")) });
    let log = handler.log.clone();
    let engine = world.engine(vec![handler]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    world.settle(&[&engine]).await;
    assert_eq!((log.calls(id, "process"), log.calls(id, "on_failed")), (1, 4));
    assert_eq!((world.state(id).await, world.counter("refund").await), (JobState::Failed, 1));
    assert_eq!(world.dead_letters().await.len(), 1);
}

#[tokio::test]
async fn a_panic_is_a_transient_failure_and_harms_no_other_job() {
    let world = World::new(4);
    let handler =
        scripted(KIND, |job, call| if job.subject == "bad" && call < 3 { Act::Panic } else { Act::Done });
    let engine = world.engine(vec![handler]);
    let bad = world.enqueue(world.new_job(KIND, "bad", "1")).await;
    let good = world.enqueue(world.new_job(KIND, "good", "2")).await;
    world.settle(&[&engine]).await;
    let job = world.job(bad).await;
    assert_eq!((job.state, job.attempts), (JobState::Completed, 3));
    assert!(job.failures[0].error.contains("scripted panic"), "{:?}", job.failures);
    assert_eq!(world.state(good).await, JobState::Completed);
}

#[tokio::test]
async fn polling_is_not_counted_but_ends() {
    let world = World::new(5);
    let second = Micros::from_secs(1);
    let patient = scripted(KIND, move |_, call| if call <= 50 { Act::Poll(second) } else { Act::Done });
    let endless = scripted(JobKind::Purge, move |_, _| Act::Poll(second))
        .policy(|policy| policy.max_polling = Micros::from_secs(10));
    let log = endless.log.clone();
    let engine = world.engine(vec![patient, endless]);
    let done = world.enqueue(world.new_job(KIND, "s", "1")).await;
    let never = world.enqueue(world.new_job(JobKind::Purge, "s", "1")).await;
    world.settle(&[&engine]).await;
    let job = world.job(done).await;
    assert_eq!((job.state, job.attempts, job.failures.len()), (JobState::Completed, 1, 0));
    assert_eq!(world.state(never).await, JobState::Failed);
    assert!((30..=40).contains(&log.calls(never, "process")), "{}", log.calls(never, "process"));
}

#[tokio::test]
async fn a_phase_that_hangs_is_ended_by_its_time_out() {
    let world = World::new(6);
    let handler = scripted(KIND, |_, call| if call == 1 { Act::Hang } else { Act::Done });
    let engine = world.engine(vec![handler]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    engine.tick().await.unwrap();
    turn().await;
    assert_eq!(engine.running(), 1);
    world.clock.advance(Micros::from_secs(30));
    engine.idle().await;
    let job = world.job(id).await;
    assert_eq!(job.state, JobState::PendingRetry);
    assert!(job.failures[0].error.contains("longer than"), "{:?}", job.failures);
    world.settle(&[&engine]).await;
    assert_eq!(world.state(id).await, JobState::Completed);
}

#[tokio::test]
async fn a_refuted_verification_sends_it_back_a_bounded_number_of_times() {
    let world = World::new(7);
    let handler = scripted(KIND, |_, _| Act::Verify)
        .verify(|job, call| if job.subject == "slow" && call == 2 { Act::Done } else { Act::Refute });
    let log = handler.log.clone();
    let engine = world.engine(vec![handler]);
    let slow = world.enqueue(world.new_job(KIND, "slow", "1")).await;
    let never = world.enqueue(world.new_job(KIND, "never", "2")).await;
    world.settle(&[&engine]).await;
    assert_eq!((world.state(slow).await, world.job(slow).await.rounds), (JobState::Completed, 1));
    assert_eq!((world.state(never).await, log.calls(never, "process")), (JobState::Failed, 3));
}

#[tokio::test]
async fn dependants_wait_uncounted_and_a_failed_job_blocks_its_descendants_only() {
    let world = World::new(8);
    let handler = scripted(
        KIND,
        |job, call| {
            if job.subject == "bad" && call <= 3 { Act::Transient } else { Act::Done }
        },
    );
    let engine = world.engine(vec![handler]);
    let first = world.enqueue(world.new_job(KIND, "bad", "1")).await;
    let mut second = world.new_job(KIND, "child", "2");
    second.depends_on = vec![first];
    let second = world.enqueue(second).await;
    let mut third = world.new_job(KIND, "grandchild", "3");
    third.depends_on = vec![second];
    let third = world.enqueue(third).await;
    let other = world.enqueue(world.new_job(KIND, "other", "4")).await;
    for _ in 0..200 {
        engine.tick().await.unwrap();
        engine.idle().await;
        world.clock.advance(Micros::from_secs(1));
    }
    assert_eq!(world.state(first).await, JobState::Failed);
    assert_eq!(world.state(other).await, JobState::Completed);
    for waiting in [second, third] {
        let job = world.job(waiting).await;
        assert_eq!((job.state, job.attempts), (JobState::PendingRetry, 0));
    }
    super::admin::retry(&world, first).await.unwrap();
    world.settle(&[&engine]).await;
    for id in [first, second, third] {
        assert_eq!(world.state(id).await, JobState::Completed);
    }
}

#[tokio::test]
async fn a_completed_job_calls_those_that_wait_for_it() {
    let world = World::new(8);
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let handler = scripted(
        KIND,
        move |job, _| if job.subject == "first" { Act::Gate(held.clone()) } else { Act::Done },
    );
    let engine = world.engine(vec![handler]);
    let first = world.enqueue(world.new_job(KIND, "first", "1")).await;
    let mut second = world.new_job(KIND, "second", "2");
    second.depends_on = vec![first];
    let second = world.enqueue(second).await;
    engine.tick().await.unwrap();
    turn().await;
    assert!(world.job(second).await.due.unwrap() > world.job(second).await.created_at.as_micros());
    gate.add_permits(1);
    engine.idle().await;
    // No time has passed.
    engine.tick().await.unwrap();
    engine.idle().await;
    assert_eq!(world.state(second).await, JobState::Completed);
}

#[tokio::test]
async fn a_whole_claim_is_asked_for_ahead_of_two_at_most() {
    let world = World::new(10);
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let handler =
        scripted(KIND, move |_, _| Act::Gate(held.clone())).policy(|policy| policy.concurrency = 4_096);
    let engine = world.engine(vec![handler]);
    for key in 0..2_100 {
        world.enqueue(world.new_job(KIND, &format!("s{key}"), &key.to_string())).await;
    }
    let mut ticks = Vec::new();
    for _ in 0..5 {
        let tick = engine.tick().await.unwrap();
        ticks.push((tick.claimed, tick.claim_ahead));
    }
    // A third one would be in hand; and then there is no more.
    assert_eq!(ticks, [(512, true), (512, true), (512, false), (512, false), (52, false)]);
    gate.add_permits(2_100);
    engine.idle().await;
}

#[tokio::test]
async fn a_kind_runs_no_more_at_once_than_it_may() {
    let world = World::new(9);
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let handler = scripted(KIND, move |_, _| Act::Gate(held.clone())).policy(|policy| policy.concurrency = 3);
    let log = handler.log.clone();
    let engine = world.engine(vec![handler]);
    for key in 0..10 {
        world.enqueue(world.new_job(KIND, "s", &key.to_string())).await;
    }
    assert_eq!(engine.tick().await.unwrap().claimed, 3);
    turn().await;
    assert_eq!((engine.tick().await.unwrap().claimed, engine.running()), (0, 3));
    gate.add_permits(10);
    world.settle(&[&engine]).await;
    assert_eq!(log.most_active.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_version_conflict_runs_the_phase_again_without_counting() {
    let world = World::new(10);
    make_counter(&world.db, "contended").await;
    let (db, late) = (world.db.clone(), Arc::new(parking_lot::Mutex::new(Vec::new())));
    let seen = late.clone();
    let handler = scripted(KIND, move |_, call| {
        let mut changes = Changeset::new();
        // The first two calls have read a version that is not there (any more).
        let version = if call <= 2 { 99 } else { 1 };
        let expect = orchestrator::core::client::database::Expect::Version(version);
        changes.require(orchestrator::core::client::schema::META, "contended", expect);
        changes.extend(bump("contended"));
        seen.lock().push(call);
        Act::Write(changes)
    });
    let engine = world.engine(vec![handler]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    engine.tick().await.unwrap();
    engine.idle().await;
    let job = world.job(id).await;
    assert_eq!((job.state, job.attempts, job.failures.len()), (JobState::Completed, 1, 0));
    assert_eq!(*late.lock(), [1, 2, 3]);
    assert_eq!(world.counter("contended").await, 1);
    drop(db);
}

#[tokio::test]
async fn changes_that_the_database_always_refuses_spend_the_attempts() {
    let world = World::new(11);
    let handler = scripted(KIND, |_, _| Act::Write(bump("no such document")));
    let engine = world.engine(vec![handler]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    world.settle(&[&engine]).await;
    assert_eq!(world.state(id).await, JobState::Failed);
    assert_eq!(world.dead_letters().await.len(), 1);
}

#[tokio::test]
async fn a_drained_engine_claims_no_more_and_gives_back_what_still_runs() {
    let world = World::new(12);
    let engine = world.engine(vec![scripted(KIND, |_, _| Act::Hang)]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    engine.tick().await.unwrap();
    turn().await;
    let (clock, stopping) = (world.clock.clone(), engine.clone());
    let drain = tokio::spawn(async move { stopping.drain(Micros::from_secs(5)).await });
    turn().await;
    clock.advance(Micros::from_secs(5));
    assert_eq!(drain.await.unwrap(), 1);
    let job = world.job(id).await;
    assert_eq!((job.state, job.attempts, job.lease_owner), (JobState::PendingRetry, 0, None));
    assert_eq!(job.due, Some(clock_now(&world)));
    assert_eq!(engine.tick().await.unwrap().claimed, 0);
}

fn clock_now(world: &World) -> i64 {
    use orchestrator::core::client::clock::Clock;
    world.clock.now().as_micros()
}

#[tokio::test]
async fn the_same_key_is_enqueued_once() {
    let world = World::new(13);
    let id = world.enqueue(world.new_job(KIND, "s", "same")).await;
    let mut changes = Changeset::new();
    world.new_job(KIND, "s", "same").enqueue(&mut changes, &world.ids);
    let refused = world.db.commit(changes).await;
    assert!(matches!(refused, Err(DatabaseError::AlreadyExists { .. })), "{refused:?}");
    assert_eq!(
        world
            .db
            .list_all::<orchestrator::core::job::Job>(orchestrator::core::client::database::Filter::All)
            .await
            .unwrap()[0]
            .value
            .id,
        id
    );
}

#[tokio::test]
async fn a_thousand_jobs_with_random_failures_all_end() {
    use orchestrator::core::client::clock::Entropy;
    for seed in 0..4 {
        let world = World::new(seed);
        make_counter(&world.db, "done").await;
        let dice = Arc::new(orchestrator::client::clock::SeededEntropy::new(seed + 100));
        let (first, second, third) = (dice.clone(), dice.clone(), dice);
        let handler = scripted(KIND, move |_, _| match first.below(8) {
            0 => Act::Transient,
            1 => Act::Panic,
            2 => Act::Poll(Micros::from_millis(700)),
            3 if first.below(4) == 0 => Act::Permanent,
            4 => Act::Write(bump("done")),
            _ => Act::Verify,
        })
        .verify(move |_, _| match second.below(5) {
            0 => Act::Refute,
            1 => Act::Transient,
            _ => Act::Write(bump("done")),
        })
        .on_failed(move |_, _| if third.below(3) == 0 { Act::Transient } else { Act::Done })
        .policy(|policy| {
            policy.concurrency = 64;
            policy.mutates_subject = seed % 2 == 1;
        });
        let engine = world.engine(vec![handler]);
        let other = world.engine(vec![]);
        for key in 0..250 {
            world.enqueue(world.new_job(KIND, &format!("s{}", key % 100), &key.to_string())).await;
        }
        world.settle(&[&engine, &other]).await;
        let jobs = world
            .db
            .list_all::<orchestrator::core::job::Job>(orchestrator::core::client::database::Filter::All)
            .await
            .unwrap();
        assert!(jobs.iter().all(|job| job.value.state.is_terminal()));
        let completed = jobs.iter().filter(|job| job.value.state == JobState::Completed).count();
        let failed = jobs.len() - completed;
        assert!(completed > 100 && failed > 0, "{completed} {failed}");
        assert_eq!(world.counter("done").await, i64::try_from(completed).unwrap());
        assert_eq!(world.dead_letters().await.len(), failed);
    }
}
