//! A crash at every commit: the engine dies with its n-th commit, applied or not, and another takes over. Whatever n is, each
//! job completes, and its effect takes hold once.

use std::sync::Arc;

use orchestrator::core::{
    job::{JobKind, JobState},
    market::quantity::Micros,
};

use super::harness::{Act, Mortal, Scripted, World, bump, make_counter, scripted, turn};

const KIND: JobKind = JobKind::Release;

fn handler() -> Scripted {
    scripted(KIND, |job, call| if job.subject == "flaky" && call == 1 { Act::Transient } else { Act::Verify })
        .verify(|job, _| Act::Write(bump(&job.subject)))
        .policy(|policy| {
            policy.mutates_subject = true;
            policy.max_attempts = 5;
        })
}

async fn crash_at(commit: i64, applied: bool, epoch: bool) -> bool {
    let world = World::new(30);
    let mut jobs = Vec::new();
    for subject in ["plain", "flaky"] {
        make_counter(&world.db, subject).await;
        jobs.push(world.enqueue(world.new_job(KIND, subject, subject)).await);
    }
    let mortal = Mortal::new(world.db.clone(), commit, applied);
    let doomed = world.engine_over(mortal.clone(), vec![Arc::new(handler())]);
    for _ in 0..20 {
        let _ = doomed.tick().await;
        turn().await;
        world.clock.advance(Micros::from_millis(250));
        turn().await;
        if mortal.is_dead() {
            break;
        }
    }
    let died = mortal.is_dead();
    let survivor = world.engine(vec![handler()]);
    if epoch {
        survivor.release_leases_of_previous_process().await.unwrap();
    }
    world.settle(&[&survivor]).await;
    for (id, subject) in jobs.into_iter().zip(["plain", "flaky"]) {
        assert_eq!(world.state(id).await, JobState::Completed, "{subject} at {commit}, applied: {applied}");
        assert_eq!(world.counter(subject).await, 1, "{subject} at {commit}, applied: {applied}");
    }
    assert_eq!(world.dead_letters().await.len(), 0);
    died
}

#[tokio::test]
async fn a_crash_at_any_commit_completes_each_job_exactly_once() {
    for applied in [false, true] {
        for epoch in [false, true] {
            let mut commit = 0;
            while crash_at(commit, applied, epoch).await {
                commit += 1;
            }
            assert!(commit >= 8, "only {commit} commits were reached");
        }
    }
}
