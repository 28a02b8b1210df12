//! What a kind of job is: one type that implements [`JobHandler`], in one file.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;

use super::step::Boundaries;
use crate::{
    core::{
        client::{database::Changeset, provider::Generation},
        job::{Effect, Job, JobKind},
        market::quantity::{Micros, Timestamp},
    },
    error::Error,
};

/// Losses that a phase is given. Generous, because a job is hardly ever the reason why its process died: with the delays
/// between them so many take six minutes or so, in which no process lived for as long as the phase takes. And bounded, because
/// a job that does kill its process takes everybody else's work with it each time.
const MAX_LOSSES: u32 = 32;

/// How a kind of job is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Process attempts before it is given up.
    pub max_attempts: u32,
    /// Verify attempts per round before it is given up.
    pub max_verify_attempts: u32,
    /// Attempts of one phase that may be lost with their process or their lease before it is given up. Not taken from the
    /// attempts above: who is killed has not failed.
    pub max_losses: u32,
    /// How often a refuted verification may send it back.
    pub max_rounds: u32,
    /// First delay before another attempt; doubles each time, with full jitter.
    pub base_delay: Micros,
    /// Longest such delay.
    pub max_delay: Micros,
    /// Longest run of one phase.
    pub timeout: Micros,
    /// How long [`JobError::PollAgain`] may go on in one phase before it counts as a failed attempt.
    pub max_polling: Micros,
    /// How many run at once in this process.
    pub concurrency: usize,
    /// Whether it changes its subject at a provider: then one at a time per subject, under a generation of its own.
    pub mutates_subject: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_attempts: 8,
            max_verify_attempts: 20,
            max_losses: MAX_LOSSES,
            max_rounds: 3,
            base_delay: Micros::from_millis(200),
            max_delay: Micros::from_secs(60),
            timeout: Micros::from_secs(30),
            max_polling: Micros::from_secs(3_600),
            concurrency: 16,
            mutates_subject: false,
        }
    }
}

/// Why a phase did not come through.
#[derive(Debug)]
pub enum JobError {
    /// Another attempt may do: counted, with backoff.
    Transient(Error),
    /// No attempt will do.
    Permanent(Error),
    /// Nothing is wrong, it just is not so far: not counted as a failure, called again after the delay.
    PollAgain(Micros),
}

impl From<Error> for JobError {
    fn from(error: Error) -> Self {
        match error.retry_after {
            // Nothing was tried, so no attempt is spent.
            Some(after) => Self::PollAgain(after),
            None if error.retryable() => Self::Transient(error),
            None => Self::Permanent(error),
        }
    }
}

impl From<crate::core::client::database::DatabaseError> for JobError {
    fn from(error: crate::core::client::database::DatabaseError) -> Self {
        Error::from(error).into()
    }
}

/// What the process phase came to. The changes are committed together with the job's own change of state, guarded by
/// its fencing token; when that commit meets a version conflict, the phase is run again.
#[derive(Debug)]
pub enum Processed {
    /// Done, nothing to verify.
    Done(Changeset),
    /// Done; `output` goes to the verify phase, which is due after `delay`.
    Verify {
        /// What is to be written.
        changes: Changeset,
        /// What verification needs to know.
        output: Value,
        /// Not before.
        delay: Micros,
    },
}

/// What the verify phase found.
#[derive(Debug)]
pub enum Verified {
    /// It took hold; these changes complete the job.
    Confirmed(Changeset),
    /// It did not; process again.
    Refuted(String),
}

/// A claimed job in the hands of a worker.
#[async_trait]
pub trait JobContext: Send + Sync {
    /// The job as it was claimed.
    fn job(&self) -> &Job;

    /// The subject's generation that this attempt holds; for kinds that mutate their subject.
    fn generation(&self) -> Generation;

    /// The present instant.
    fn now(&self) -> Timestamp;

    /// Journals the intent of an effect before it is tried, durably. When the key was journalled by an earlier attempt, that
    /// record is returned, and the caller looks the effect up before it tries again.
    async fn intend(&self, key: &str, intent: Value) -> Result<Effect, JobError>;

    /// Records what came of a journalled effect, durably.
    async fn record(&self, key: &str, outcome: Value) -> Result<(), JobError>;

    /// As [`JobContext::record`], but written only with the job's next write: the next intent, or the end of the attempt,
    /// whatever that is. For effects that recovery looks up by their key anyway: a crash before that write costs the look,
    /// and never a second effect.
    async fn note(&self, key: &str, outcome: Value) -> Result<(), JobError> {
        self.record(key, outcome).await
    }

    /// The journal.
    fn effects(&self) -> BTreeMap<String, Effect>;

    /// Who is told of the steps that the attempt takes; nobody but in tests of crashes.
    fn boundaries(&self) -> Option<&dyn Boundaries> {
        None
    }
}

/// A kind of job.
#[async_trait]
pub trait JobHandler: Send + Sync + 'static {
    /// Which kind.
    fn kind(&self) -> JobKind;

    /// How it is run.
    fn policy(&self) -> Policy {
        Policy::default()
    }

    /// Does it. May be called again after any failure, at any line: every effect outside is idempotent or journalled.
    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError>;

    /// Looks whether it took hold. Kinds that never answer [`Processed::Verify`] keep this default.
    async fn verify(&self, _context: &dyn JobContext) -> Result<Verified, JobError> {
        Ok(Verified::Confirmed(Changeset::new()))
    }

    /// What else must be written when the job is given up for good, in the same commit: refunds, states. Called once the
    /// decision is made; called again if the commit meets a conflict.
    async fn on_failed(&self, _context: &dyn JobContext, _error: &Error) -> Result<Changeset, JobError> {
        Ok(Changeset::new())
    }
}
