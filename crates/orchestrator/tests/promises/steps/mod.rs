//! Promise 2, step by step: for every kind of job and every step of it, in a story in which the step happens, the process
//! dies right before it and right after it, another one takes over, and the end is that of the story without a death.
//!
//! The steps are listed by the code (`service/job/step.rs`). A new one has no story here, and this file does not compile.

mod mood;
pub mod process;
mod story;

use std::collections::BTreeSet;

use orchestrator::{
    core::job::JobKind,
    service::job::{
        EngineStep, Step,
        step::{
            ProvisionStep, PublishDataStep, PurgeStep, RegisterProofStep, ReleaseStep, RevokeCredentialStep,
            RotateCredentialStep, SealBlockStep, SlaCheckStep, SyncAccessStep, UpdateStateStep,
        },
    },
};

use self::{
    mood::Mood,
    process::Place,
    story::{Run, Story},
};
use super::world::Store;

const LIFE: Story = Story::Life(Mood::Plain);

/// The story in which a step of this kind of job is crash-tested. No wildcard: a new step needs an answer.
fn story_of(step: Step, kind: Option<JobKind>) -> Story {
    match step {
        Step::Engine(step) => story_of_engine(step, kind),
        Step::Provision(step) => match step {
            ProvisionStep::Allocate | ProvisionStep::ReissueKey | ProvisionStep::RemoveUnwanted => LIFE,
        },
        Step::Release(step) => match step {
            ReleaseStep::Restrict | ReleaseStep::ReadMeter | ReleaseStep::StoreEvidence => LIFE,
        },
        Step::RotateCredential(RotateCredentialStep::IssueKey)
        | Step::RevokeCredential(RevokeCredentialStep::RevokeKey)
        | Step::SyncAccess(SyncAccessStep::Restrict)
        | Step::SealBlock(SealBlockStep::StoreRecords | SealBlockStep::StoreState)
        | Step::Purge(PurgeStep::Deallocate) => LIFE,
        Step::SlaCheck(step) => match step {
            SlaCheckStep::ReadMeter | SlaCheckStep::StoreEvidence => LIFE,
        },
        Step::PublishData(step) => match step {
            PublishDataStep::Publish | PublishDataStep::VerifyInclusion => LIFE,
        },
        Step::RegisterProof(step) => match step {
            RegisterProofStep::Register | RegisterProofStep::LookAtTransaction => LIFE,
        },
        Step::UpdateState(step) => match step {
            UpdateStateStep::Settle | UpdateStateStep::LookAtTransaction => LIFE,
        },
        Step::GenerateProof(step) => match step {},
        Step::Migrate(step) => match step {},
    }
}

fn story_of_engine(step: EngineStep, kind: Option<JobKind>) -> Story {
    // It is always refused, so it is in no other story.
    if kind == Some(JobKind::Migrate) {
        return Story::Life(Mood::Doomed(JobKind::Migrate));
    }
    match step {
        EngineStep::Claimed
        | EngineStep::SubjectHeld
        | EngineStep::Intended
        | EngineStep::Recorded
        | EngineStep::SubjectBusy
        | EngineStep::Completed => LIFE,
        EngineStep::Processed if kind == Some(JobKind::Provision) => Story::SlowProvider,
        EngineStep::Processed => LIFE,
        EngineStep::Blocked | EngineStep::Called => Story::Dependence,
        EngineStep::Refuted => Story::Life(Mood::Refutes),
        EngineStep::Retried => Story::Life(Mood::Fails),
        EngineStep::Polled => Story::Life(Mood::Waits),
        EngineStep::Refused => Story::Life(Mood::Illegal),
        EngineStep::GivingUp | EngineStep::Failed => {
            Story::Life(Mood::Doomed(kind.unwrap_or(JobKind::Provision)))
        }
        EngineStep::Renewed => Story::Life(Mood::Slow),
        EngineStep::Interrupted => Story::Shutdown,
        EngineStep::Reaped => Story::LostLease,
        EngineStep::Booted | EngineStep::Freed => Story::NextBoot,
        EngineStep::SetAside => Story::Damage,
    }
}

/// Whether jobs of a kind have a second phase. No wildcard: a new kind needs an answer.
const fn verifies(kind: JobKind) -> bool {
    match kind {
        JobKind::Provision | JobKind::PublishData | JobKind::RegisterProof | JobKind::UpdateState => true,
        JobKind::Release
        | JobKind::RotateCredential
        | JobKind::RevokeCredential
        | JobKind::SyncAccess
        | JobKind::SlaCheck
        | JobKind::SealBlock
        | JobKind::GenerateProof
        | JobKind::Migrate
        | JobKind::Purge => false,
    }
}

/// The ends of attempts that every kind of job can come to, and so must be tested with.
fn ends(kind: JobKind, holds_subject: bool) -> Vec<EngineStep> {
    let mut steps = vec![EngineStep::Claimed, EngineStep::GivingUp, EngineStep::Failed];
    if holds_subject {
        steps.push(EngineStep::SubjectHeld);
    }
    if kind != JobKind::Migrate {
        steps.extend([EngineStep::Completed, EngineStep::Retried, EngineStep::Polled, EngineStep::Refused]);
    }
    if verifies(kind) {
        steps.push(EngineStep::Processed);
        if kind != JobKind::Provision {
            steps.push(EngineStep::Refuted);
        }
    }
    steps
}

fn stories() -> Vec<Story> {
    let mut all = vec![LIFE];
    all.extend([Mood::Fails, Mood::Waits, Mood::Refutes, Mood::Illegal, Mood::Slow].map(Story::Life));
    all.extend(JobKind::ALL.map(|kind| Story::Life(Mood::Doomed(kind))));
    all.extend([Story::SlowProvider, Story::Dependence, Story::LostLease, Story::NextBoot]);
    all.extend([Story::Shutdown, Story::Damage]);
    all
}

/// The places of a story that are tested in it.
fn places(story: Story, seen: Vec<Place>) -> BTreeSet<Place> {
    seen.into_iter().filter(|place| story_of(place.step, place.kind) == story).collect()
}

/// Dies at every place of the story, one run each.
async fn die_everywhere(story: Story) {
    let (plain, watch) = Run::tell(story, None).await;
    assert_eq!(watch.left(), 0, "{story:?}: its own deaths");
    let places = places(story, watch.seen());
    assert!(!places.is_empty(), "{story:?} is told for nothing");
    for place in places {
        let (end, watch) = Run::tell(story, Some(place)).await;
        assert_eq!(watch.left(), 0, "{story:?}: nobody died at {place:?}");
        assert_eq!(end, plain, "{story:?}: died at {place:?}");
    }
}

#[tokio::test]
async fn every_step_of_every_kind_happens_in_its_story() {
    let mut seen = BTreeSet::new();
    for story in stories() {
        let (_, watch) = Run::tell(story, None).await;
        seen.extend(places(story, watch.seen()).into_iter().map(|place| (place.step, place.kind)));
    }
    let steps: BTreeSet<Step> = seen.iter().map(|(step, _)| *step).collect();
    let missing: Vec<_> = Step::all().into_iter().filter(|step| !steps.contains(step)).collect();
    assert!(missing.is_empty(), "in no story: {missing:?}");
    let policies = Store::new(1, 1).await.policies();
    assert_eq!(policies.len(), JobKind::ALL.len(), "a kind without a handler");
    for (kind, policy) in policies {
        let of_kind = Step::of(kind)
            .into_iter()
            .chain(ends(kind, policy.mutates_subject).into_iter().map(Step::Engine));
        let missing: Vec<_> = of_kind.filter(|step| !seen.contains(&(*step, Some(kind)))).collect();
        assert!(missing.is_empty(), "{kind}: in no story: {missing:?}");
    }
}

#[tokio::test]
async fn a_death_at_any_step_of_a_life_changes_nothing_of_its_end() {
    die_everywhere(LIFE).await;
}

#[tokio::test]
async fn a_death_while_attempts_fail_or_wait_changes_nothing() {
    for mood in [Mood::Fails, Mood::Waits] {
        die_everywhere(Story::Life(mood)).await;
    }
}

#[tokio::test]
async fn a_death_while_attempts_are_refused_refuted_or_slow_changes_nothing() {
    for mood in [Mood::Refutes, Mood::Illegal, Mood::Slow] {
        die_everywhere(Story::Life(mood)).await;
    }
}

#[tokio::test]
async fn a_death_while_a_job_is_given_up_changes_nothing() {
    for kind in JobKind::ALL {
        die_everywhere(Story::Life(Mood::Doomed(kind))).await;
    }
}

#[tokio::test]
async fn a_death_while_leases_and_queues_are_put_in_order_changes_nothing() {
    let rare = [Story::SlowProvider, Story::Dependence, Story::LostLease, Story::NextBoot];
    for story in rare.into_iter().chain([Story::Shutdown, Story::Damage]) {
        die_everywhere(story).await;
    }
}
