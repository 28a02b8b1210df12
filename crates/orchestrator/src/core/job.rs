//! The job: a durable piece of work with phases, a lease and an effect journal. Its state machine is pure and lives in
//! [`transition`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    client::{
        database::{Changeset, Entity},
        schema::{self, Collection},
    },
    market::{
        ids::{IdGenerator, JobId},
        quantity::Timestamp,
    },
    payload::Payload,
};

/// Every kind of job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Make an allocation usable at its provider.
    Provision,
    /// Take an allocation down: usage, settlement, grace.
    Release,
    /// Replace a credential with an overlap.
    RotateCredential,
    /// Take a credential away.
    RevokeCredential,
    /// Bring an allocation's access at the provider in line with its access state.
    SyncAccess,
    /// Judge and pay one billing period.
    SlaCheck,
    /// Seal a block.
    SealBlock,
    /// Prove a sealed block.
    GenerateProof,
    /// Publish a block's records.
    PublishData,
    /// Register a block with the settlement layer.
    RegisterProof,
    /// Settle a block.
    UpdateState,
    /// Move an allocation to another unit.
    Migrate,
    /// Remove an allocation's data after its grace.
    Purge,
}

impl JobKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Provision,
        Self::Release,
        Self::RotateCredential,
        Self::RevokeCredential,
        Self::SyncAccess,
        Self::SlaCheck,
        Self::SealBlock,
        Self::GenerateProof,
        Self::PublishData,
        Self::RegisterProof,
        Self::UpdateState,
        Self::Migrate,
        Self::Purge,
    ];

    /// The name that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Release => "release",
            Self::RotateCredential => "rotate_credential",
            Self::RevokeCredential => "revoke_credential",
            Self::SyncAccess => "sync_access",
            Self::SlaCheck => "sla_check",
            Self::SealBlock => "seal_block",
            Self::GenerateProof => "generate_proof",
            Self::PublishData => "publish_data",
            Self::RegisterProof => "register_proof",
            Self::UpdateState => "update_state",
            Self::Migrate => "migrate",
            Self::Purge => "purge",
        }
    }
}

impl std::fmt::Display for JobKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two phases of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Do it.
    Process,
    /// Look whether it took hold.
    Verify,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its first attempt.
    Created,
    /// A worker processes it.
    Running,
    /// Processed; waits for verification.
    PendingVerification,
    /// A worker verifies it.
    Verifying,
    /// Done; terminal.
    Completed,
    /// Waits for another attempt.
    PendingRetry,
    /// Did not take hold; goes back to created, a bounded number of times.
    VerificationFailed,
    /// Given up; terminal until a person retries it.
    Failed,
    /// Called off by a person; terminal.
    Cancelled,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Created,
        Self::Running,
        Self::PendingVerification,
        Self::Verifying,
        Self::Completed,
        Self::PendingRetry,
        Self::VerificationFailed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::PendingVerification => "pending_verification",
            Self::Verifying => "verifying",
            Self::Completed => "completed",
            Self::PendingRetry => "pending_retry",
            Self::VerificationFailed => "verification_failed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing happens any more by itself.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl Phase {
    /// The name that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Verify => "verify",
        }
    }

    /// The states from which a job is claimed for this phase.
    #[must_use]
    pub const fn claimable(self) -> &'static [JobState] {
        match self {
            Self::Process => &[JobState::Created, JobState::PendingRetry, JobState::VerificationFailed],
            Self::Verify => &[JobState::PendingVerification],
        }
    }

    /// The state of a job while this phase runs.
    #[must_use]
    pub const fn active(self) -> JobState {
        match self {
            Self::Process => JobState::Running,
            Self::Verify => JobState::Verifying,
        }
    }
}

/// A journalled effect on the outside: written before it is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// What is intended: enough to look it up, and to try it again unchanged.
    pub intent: Value,
    /// What came of it, once known.
    pub outcome: Option<Value>,
    /// When it was journalled.
    pub at: Timestamp,
}

/// A failed attempt, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFailure {
    /// When.
    pub at: Timestamp,
    /// Which phase.
    pub phase: Phase,
    /// The chain of causes, outermost first.
    pub error: String,
    /// Whether it was worth another attempt.
    pub retryable: bool,
}

/// A job. The fields `due` and `lease_until` are what claims and the reaper search for. Fields at their defaults are left
/// out of the stored document: a job is written at least three times, and most of them stay as they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its kind.
    pub kind: JobKind,
    /// The id of what it works on.
    pub subject: String,
    /// Unique over all jobs: `<kind>:<key>`.
    pub dedup: String,
    /// Jobs that must be completed before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<JobId>,
    /// Where it stands.
    pub state: JobState,
    /// When it may be claimed, in microseconds; `None` while it is leased or terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<i64>,
    /// Process attempts begun, counted at the claim; those that were lost are not among them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attempts: u32,
    /// Verify attempts begun, counted at the claim; those that were lost are not among them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub verify_attempts: u32,
    /// Attempts of the present phase that were lost with their process or their lease. A budget of their own bounds them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub losses: u32,
    /// How often verification sent it back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rounds: u32,
    /// Who holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_owner: Option<String>,
    /// The fencing token: grows with every claim, never shrinks.
    pub lease_token: i64,
    /// Until when, in microseconds; `None` while nobody holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_until: Option<i64>,
    /// The subject's generation that the running attempt holds; 0 for kinds that don't mutate.
    #[serde(default, skip_serializing_if = "is_default")]
    pub generation: u64,
    /// Since when the phase answers "not so far", if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polling_since: Option<Timestamp>,
    /// What it was asked.
    #[serde(default, skip_serializing_if = "Payload::is_null")]
    pub input: Payload,
    /// What the process phase left for verification, and the result.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// Effects, by deterministic key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub effects: BTreeMap<String, Effect>,
    /// The last failures, newest last, at most five.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<JobFailure>,
    /// Ties logs of one operation together.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Entity for Job {
    const NAME: &'static str = "job";
    const COLLECTION: Collection = schema::JOBS;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
    /// Version 1 had every field; older programs can't read a job that lacks some.
    fn upgrade(_: u32, body: Value) -> Result<Value, serde_json::Error> {
        Ok(body)
    }
}

/// A job to enqueue.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Its kind.
    pub kind: JobKind,
    /// The id of what it works on.
    pub subject: String,
    /// Unique per kind; enqueuing a second job with the same key makes the commit fail with `AlreadyExists`.
    pub key: String,
    /// What it is asked.
    pub input: Payload,
    /// Not before.
    pub run_at: Timestamp,
    /// Only after these are completed.
    pub depends_on: Vec<JobId>,
    /// Ties logs together.
    pub trace_id: String,
}

impl NewJob {
    /// A job that is due now and depends on nothing.
    #[must_use]
    pub fn now(kind: JobKind, subject: impl ToString, key: impl ToString, now: Timestamp) -> Self {
        Self {
            kind,
            subject: subject.to_string(),
            key: key.to_string(),
            input: Payload::default(),
            run_at: now,
            depends_on: Vec::new(),
            trace_id: String::new(),
        }
    }

    /// With this input, which is plain data: what can't be written as JSON counts as nothing.
    #[must_use]
    pub fn input(mut self, input: impl Serialize) -> Self {
        self.input = Payload::of(&input).unwrap_or_default();
        self
    }

    /// Adds the job to a changeset and returns its id.
    pub fn enqueue(self, changes: &mut Changeset, ids: &IdGenerator) -> JobId {
        let id = ids.next();
        let now = ids.now();
        changes.insert(&Job {
            id,
            kind: self.kind,
            subject: self.subject,
            dedup: format!("{}:{}", self.kind, self.key),
            depends_on: self.depends_on,
            state: JobState::Created,
            due: Some(self.run_at.as_micros()),
            attempts: 0,
            verify_attempts: 0,
            losses: 0,
            rounds: 0,
            lease_owner: None,
            lease_token: 0,
            lease_until: None,
            generation: 0,
            polling_since: None,
            input: self.input,
            output: Value::Null,
            effects: BTreeMap::new(),
            failures: Vec::new(),
            trace_id: self.trace_id,
            created_at: now,
            updated_at: now,
        });
        id
    }
}

/// What happens to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobEvent {
    /// A worker claims it.
    Claim,
    /// The process phase is done; verification is wanted.
    Processed,
    /// The process phase is done, and that is all.
    Completed,
    /// Verification confirmed it.
    Verified,
    /// Verification found that it did not take hold, and it may be tried again.
    Refuted,
    /// The phase wants to be called again later, or failed in a way worth another attempt.
    Postpone,
    /// The phase failed for good.
    Fail,
    /// The lease ran out.
    LeaseLost,
    /// A person retries it.
    Retry,
    /// A person calls it off.
    Cancel,
}

/// A move that the lifecycle does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {from:?} job can't take {event:?}")]
pub struct InvalidJobTransition {
    /// The state.
    pub from: JobState,
    /// The event.
    pub event: JobEvent,
}

/// The lifecycle of jobs.
///
/// # Errors
/// [`InvalidJobTransition`] for every pair that is not listed.
pub const fn transition(from: JobState, event: JobEvent) -> Result<JobState, InvalidJobTransition> {
    use JobEvent as E;
    use JobState as S;
    Ok(match (from, event) {
        (S::Created | S::PendingRetry | S::VerificationFailed, E::Claim) => S::Running,
        (S::PendingVerification, E::Claim) => S::Verifying,
        (S::Running, E::Processed) => S::PendingVerification,
        (S::Running, E::Completed) | (S::Verifying, E::Verified) => S::Completed,
        (S::Verifying, E::Refuted) => S::VerificationFailed,
        (S::Running, E::Postpone | E::LeaseLost) => S::PendingRetry,
        (S::Verifying, E::Postpone | E::LeaseLost) => S::PendingVerification,
        (S::Running | S::Verifying, E::Fail) => S::Failed,
        (S::Failed, E::Retry) => S::PendingRetry,
        (
            S::Created | S::PendingRetry | S::VerificationFailed | S::PendingVerification | S::Failed,
            E::Cancel,
        ) => S::Cancelled,
        _ => return Err(InvalidJobTransition { from, event }),
    })
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
