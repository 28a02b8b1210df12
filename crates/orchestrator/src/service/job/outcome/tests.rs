//! The law of budgets: failures spend the attempts, losses spend the losses, and neither spends the other.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    client::clock::{ManualClock, SeededEntropy},
    core::{
        client::database::{Changeset, WriteOp},
        job::{JobKind, NewJob},
        market::ids::IdGenerator,
    },
};

const START: Timestamp = Timestamp(1_700_000_000_000_000);

fn fresh() -> Job {
    let clock = std::sync::Arc::new(ManualClock::new(START));
    let ids = IdGenerator::new(clock, std::sync::Arc::new(SeededEntropy::new(1)));
    let mut changes = Changeset::new();
    NewJob::now(JobKind::Release, "subject", "key", START).enqueue(&mut changes, &ids);
    let Some(WriteOp::Insert { body }) = changes.writes.pop().map(|write| write.op) else {
        panic!("a new job is one insertion");
    };
    let mut body: Value = serde_json::from_str(&body).unwrap();
    body.as_object_mut().unwrap().remove("v");
    serde_json::from_value(body).unwrap()
}

/// What a claim writes.
fn claim(job: &mut Job, phase: Phase) {
    job.state = phase.active();
    job.due = None;
    job.lease_token += 1;
    let (begun, _) = budget(job, phase, &Policy::default());
    set_attempts(job, phase, begun + 1);
}

fn in_phase(phase: Phase) -> Job {
    let mut job = fresh();
    if phase == Phase::Verify {
        job.state = JobState::PendingVerification;
    }
    job
}

fn failure() -> JobError {
    JobError::Transient(Error::new(ErrorCode::ProviderFailed, "it said no"))
}

/// How an attempt ends that is not the last.
#[derive(Debug, Clone, Copy)]
enum Ends {
    Lost,
    Failed,
    Postponed,
}

fn ends() -> impl Strategy<Value = Ends> {
    prop_oneof![Just(Ends::Lost), Just(Ends::Failed), Just(Ends::Postponed)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Whatever happens in whatever order, each end spends its own budget, and a job is given up when one is spent and not
    /// before.
    #[test]
    fn each_end_spends_its_own_budget(
        history in proptest::collection::vec(ends(), 0..120),
        verify: bool,
        max_attempts in 1_u32..12,
        max_losses in 1_u32..40,
        seed: u64,
    ) {
        let phase = if verify { Phase::Verify } else { Phase::Process };
        let policy =
            Policy { max_attempts, max_verify_attempts: max_attempts, max_losses, ..Policy::default() };
        let entropy = SeededEntropy::new(seed);
        let mut job = in_phase(phase);
        let (mut failures, mut losses) = (0, 0);
        for end in history {
            claim(&mut job, phase);
            let given_up = spent(&job, phase, &policy);
            prop_assert_eq!(given_up.is_some(), failures >= max_attempts || losses >= max_losses);
            if let Some(reason) = given_up {
                let by_losses = reason.to_string().contains("were lost");
                prop_assert_eq!(by_losses, losses >= max_losses, "{}", reason);
                return Ok(());
            }
            match end {
                Ends::Lost => {
                    lose_lease(&mut job, &policy, &entropy, START).unwrap();
                    losses += 1;
                }
                Ends::Failed => {
                    note(&mut job, phase, START, &failure());
                    back_off(&mut job, phase, &policy, &entropy, START).unwrap();
                    failures += 1;
                }
                Ends::Postponed => postpone(&mut job, phase, START, Micros::ZERO).unwrap(),
            }
            prop_assert_eq!((budget(&job, phase, &policy).0, job.losses), (failures, losses));
            prop_assert!(job.failures.len() <= REMEMBERED);
        }
    }
}

#[test]
fn the_first_losses_are_due_at_once_and_later_ones_within_bounds() {
    let policy = Policy { max_delay: Micros::from_days(1), ..Policy::default() };
    let now = START.plus(Micros::from_secs(60));
    for seed in 0..50 {
        let (entropy, mut job) = (SeededEntropy::new(seed), fresh());
        for loss in 1..=policy.max_losses {
            claim(&mut job, Phase::Process);
            lose_lease(&mut job, &policy, &entropy, now).unwrap();
            let due = Timestamp(job.due.unwrap());
            if loss <= AT_ONCE {
                assert_eq!(due, START, "in front of what was enqueued later");
                continue;
            }
            let longest = policy.base_delay.get() << (loss - AT_ONCE - 1).min(20);
            assert!(due >= now && due.since(now) <= Micros(longest).min(MAX_DELAY_AFTER_LOSS), "{loss}");
        }
    }
}

#[test]
fn losses_do_not_drive_out_what_failed() {
    let (policy, entropy, mut job) = (Policy::default(), SeededEntropy::new(1), fresh());
    for round in 0..10 {
        claim(&mut job, Phase::Process);
        if round == 1 {
            note(&mut job, Phase::Process, START, &failure());
            back_off(&mut job, Phase::Process, &policy, &entropy, START).unwrap();
        } else {
            lose_lease(&mut job, &policy, &entropy, START).unwrap();
        }
    }
    let remembered: Vec<&str> = job.failures.iter().map(|failure| failure.error.as_str()).collect();
    assert_eq!(remembered, [LOST, "it said no", LOST]);
}

#[test]
fn a_new_round_has_its_losses_back() {
    let (policy, entropy, mut job) = (Policy::default(), SeededEntropy::new(1), in_phase(Phase::Verify));
    claim(&mut job, Phase::Verify);
    lose_lease(&mut job, &policy, &entropy, START).unwrap();
    claim(&mut job, Phase::Verify);
    send_back(&mut job, &policy, &entropy, START).unwrap();
    assert_eq!((job.attempts, job.verify_attempts, job.losses, job.rounds), (0, 0, 0, 1));
}

#[test]
fn a_document_from_before_losses_were_counted_is_read() {
    let mut body = serde_json::to_value(fresh()).unwrap();
    assert!(body.get("losses").is_none(), "a job without losses is written as before");
    body["attempts"] = 3.into();
    let job: Job = serde_json::from_value(body).unwrap();
    assert_eq!((job.attempts, job.losses), (3, 0));
}
