//! Jobs and triggers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::common::{Millis, Time, word};
use crate::{
    controller::worker::trigger::TriggerStatus,
    core::{
        job::{Job, JobFailure},
        market::quantity::Timestamp,
    },
    service::job::{
        TriggerReport,
        admin::JobCounts,
        redrive::{DeadLetters, Redriven},
    },
};

/// A failed attempt.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailureView {
    /// When.
    pub at: Time,
    /// `process` or `verify`.
    pub phase: String,
    /// The causes, outermost first.
    pub error: String,
    /// Whether it was worth another attempt.
    pub retryable: bool,
}

impl From<JobFailure> for FailureView {
    fn from(failure: JobFailure) -> Self {
        Self {
            at: failure.at.into(),
            phase: word(&failure.phase),
            error: failure.error,
            retryable: failure.retryable,
        }
    }
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobView {
    /// Its id.
    pub id: String,
    /// Its kind.
    #[schema(example = "provision")]
    pub kind: String,
    /// What it works on.
    pub subject: String,
    /// Where it stands.
    #[schema(example = "completed")]
    pub state: String,
    /// Jobs that must be completed first.
    pub depends_on: Vec<String>,
    /// When it may be claimed.
    pub due: Option<Time>,
    /// Process attempts begun, without those that were lost.
    pub attempts: u32,
    /// Verify attempts begun, without those that were lost.
    pub verify_attempts: u32,
    /// Attempts of the present phase that were lost with their process or their lease; a budget of their own bounds them.
    pub losses: u32,
    /// How often verification sent it back.
    pub rounds: u32,
    /// Who holds it.
    pub lease_owner: Option<String>,
    /// Until when.
    pub lease_until: Option<Time>,
    /// The last failures, newest last.
    pub failures: Vec<FailureView>,
    /// Ties it to logs and answers.
    pub trace_id: String,
    /// When it was enqueued.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        let time = |micros: i64| Time(Timestamp(micros));
        Self {
            id: job.id.to_string(),
            kind: job.kind.to_string(),
            subject: job.subject,
            state: word(&job.state),
            depends_on: job.depends_on.iter().map(ToString::to_string).collect(),
            due: job.due.map(time),
            attempts: job.attempts,
            verify_attempts: job.verify_attempts,
            losses: job.losses,
            rounds: job.rounds,
            lease_owner: job.lease_owner,
            lease_until: job.lease_until.map(time),
            failures: job.failures.into_iter().map(FailureView::from).collect(),
            trace_id: job.trace_id,
            created_at: job.created_at.into(),
            updated_at: job.updated_at.into(),
        }
    }
}

/// How many jobs there are.
#[derive(Debug, Serialize, ToSchema)]
pub struct CountsView {
    /// By state.
    pub by_state: BTreeMap<String, u64>,
    /// By kind, then by state, without completed jobs.
    pub by_kind: BTreeMap<String, BTreeMap<String, u64>>,
}

impl From<JobCounts> for CountsView {
    fn from(counts: JobCounts) -> Self {
        Self { by_state: counts.by_state, by_kind: counts.by_kind }
    }
}

/// What waits for a person.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLettersView {
    /// Dead letters: jobs that were given up.
    pub waiting: u64,
    /// Documents and messages that could not be read and were set aside with their bytes.
    pub damaged: u64,
}

impl From<DeadLetters> for DeadLettersView {
    fn from(letters: DeadLetters) -> Self {
        Self { waiting: letters.waiting, damaged: letters.damaged }
    }
}

/// How many dead letters to send back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RedriveBody {
    /// At most so many, 1 to 1,000.
    #[serde(default = "hundred")]
    #[schema(default = 100)]
    pub max: u32,
}

const fn hundred() -> u32 {
    100
}

/// What a redrive came to.
#[derive(Debug, Serialize, ToSchema)]
pub struct RedrivenView {
    /// Letters that were taken.
    pub letters: u64,
    /// Jobs that have their attempts back and are due.
    pub retried: Vec<String>,
    /// Letters whose job had not failed any more, or is gone.
    pub outdated: u64,
    /// Letters that name no job; their bytes are kept.
    pub unreadable: u64,
}

impl From<Redriven> for RedrivenView {
    fn from(report: Redriven) -> Self {
        let retried = report.retried.iter().map(ToString::to_string).collect();
        Self { letters: report.letters, retried, outdated: report.outdated, unreadable: report.unreadable }
    }
}

/// What a run of a trigger did.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReportView {
    /// Things looked at.
    pub examined: u64,
    /// Things changed.
    pub changed: u64,
    /// Things that could not be dealt with.
    pub failed: u64,
    /// More, for people.
    pub note: Option<String>,
}

impl From<TriggerReport> for ReportView {
    fn from(report: TriggerReport) -> Self {
        let TriggerReport { examined, changed, failed, note } = report;
        Self { examined, changed, failed, note }
    }
}

/// A trigger and what it did.
#[derive(Debug, Serialize, ToSchema)]
pub struct TriggerView {
    /// Its name.
    pub name: String,
    /// Time from one firing to the next.
    pub every_ms: Millis,
    /// Whether it runs in this process just now.
    pub running: bool,
    /// Runs that ended.
    pub runs: u64,
    /// Failed runs in a row.
    pub failures_in_a_row: u32,
    /// When the last run began.
    pub last_run: Option<Time>,
    /// How long it took.
    pub last_duration_ms: Option<Millis>,
    /// What it did.
    pub last_report: Option<ReportView>,
    /// Why the last run failed, if it did.
    pub last_error: Option<String>,
}

impl From<TriggerStatus> for TriggerView {
    fn from(status: TriggerStatus) -> Self {
        Self {
            name: status.name,
            every_ms: status.every.into(),
            running: status.running,
            runs: status.runs,
            failures_in_a_row: status.failures_in_a_row,
            last_run: status.last_run.map(Time),
            last_duration_ms: status.last_duration.map(Millis),
            last_report: status.last_report.map(ReportView::from),
            last_error: status.last_error,
        }
    }
}
