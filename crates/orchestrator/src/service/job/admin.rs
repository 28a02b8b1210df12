//! What operators may do with jobs: look, retry, call off, verify now. Every change is guarded by the version that it was
//! decided on, and is refused where the lifecycle does not know it.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    core::{
        client::{
            database::{Changeset, Document, Filter, Query, ReaderExt, Sort, Stored},
            schema,
        },
        job::{Job, JobEvent, JobKind, JobState, transition},
        madara::job_queue::JobQueueClient,
        market::{ids::JobId, quantity::Timestamp},
    },
    error::{self, Error, ErrorCode, Result},
    service::{
        page::{Listing, PageRequest},
        work::{Call, Draft, Work},
    },
};

/// What operators alone may do with jobs.
pub(super) const JOBS: &str = "see jobs and decide about them";

/// Longest page of a list.
const MAX_PAGE: usize = 1_000;

/// Which jobs to list; what is left out does not filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Of this kind.
    pub kind: Option<JobKind>,
    /// In this state.
    pub state: Option<JobState>,
    /// About this subject.
    pub subject: Option<String>,
}

/// How many jobs there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCounts {
    /// By state; states without jobs are left out.
    pub by_state: BTreeMap<String, u64>,
    /// By kind, then by state, without `completed`; what is zero is left out.
    pub by_kind: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Jobs, for operators.
#[derive(Clone)]
pub struct JobService {
    pub(super) work: Work,
    pub(super) letters: Option<Arc<dyn JobQueueClient>>,
}

impl JobService {
    /// The service. `work` must commit through the waking committer, so that a retried job starts at once.
    #[must_use]
    pub const fn new(work: Work) -> Self {
        Self { work, letters: None }
    }

    /// With the queues that hold the dead letters.
    #[must_use]
    pub fn with_dead_letters(self, letters: Arc<dyn JobQueueClient>) -> Self {
        Self { letters: Some(letters), ..self }
    }

    /// A page of jobs, newest first, at most `limit` (1 to 1,000), and where to go on.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; [`ErrorCode::InvalidField`] on a limit out of range; database errors.
    pub async fn list(&self, call: &Call, filter: JobFilter, page: PageRequest) -> Result<Listing<Job>> {
        call.operators_only(JOBS)?;
        let PageRequest { limit, after } = page;
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::field("limit", format!("give a limit from 1 to {MAX_PAGE}")));
        }
        let conditions = [
            filter.subject.map(|subject| Filter::eq("subject", subject)),
            filter.state.map(in_state),
            filter.kind.map(|kind| Filter::eq("kind", kind.as_str())),
        ];
        let filter = Filter::And(conditions.into_iter().flatten().collect());
        let query =
            Query::new(schema::JOBS).filter(filter).sort(Sort::IdDescending).limit(limit).after(after);
        let page = self.work.reader.find(query).await?;
        let read = |document: Document| match document.decode::<Job>() {
            Ok(job) => Some(job.value),
            Err(error) => {
                tracing::error!(job = document.id, error = error::chain(&error), "a job can't be listed");
                None
            }
        };
        Ok(Listing { items: page.documents.into_iter().filter_map(read).collect(), next: page.next })
    }

    /// One job.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`], [`ErrorCode::NotFound`], database errors.
    pub async fn show(&self, call: &Call, id: JobId) -> Result<Job> {
        call.operators_only(JOBS)?;
        Ok(self.load(id).await?.value)
    }

    /// Gives a failed job its attempts back; it is due at once.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`], [`ErrorCode::NotFound`], [`ErrorCode::InvalidState`] unless it failed; database errors.
    pub async fn retry(&self, call: &Call, id: JobId) -> Result<Job> {
        self.change(call, id, "job.retry", start_again).await
    }

    /// Calls a job off that no worker holds. Those that depend on it stay where they are.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`], [`ErrorCode::NotFound`], [`ErrorCode::InvalidState`] while it runs and when it is over;
    /// database errors.
    pub async fn cancel(&self, call: &Call, id: JobId) -> Result<Job> {
        self.change(call, id, "job.cancel", |job, _| {
            job.state = move_on(job, JobEvent::Cancel)?;
            job.due = None;
            Ok(())
        })
        .await
    }

    /// Makes a job that waits for its verification due at once.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`], [`ErrorCode::NotFound`], [`ErrorCode::InvalidState`] unless it waits for verification;
    /// database errors.
    pub async fn verify_now(&self, call: &Call, id: JobId) -> Result<Job> {
        self.change(call, id, "job.verify", |job, now| {
            if job.state != JobState::PendingVerification {
                let text = format!("a job that is `{}` has nothing to verify", job.state.as_str());
                return Err(Error::new(ErrorCode::InvalidState, text));
            }
            job.due = Some(now.as_micros());
            Ok(())
        })
        .await
    }

    /// How many jobs there are in each state, and of each kind in each state but `completed`: nearly all jobs are completed,
    /// and an index of them would cost more than their end itself.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`], database errors.
    pub async fn counts(&self, call: &Call) -> Result<JobCounts> {
        call.operators_only(JOBS)?;
        let mut counts = JobCounts::default();
        let mut others = 0_u64;
        for state in JobState::ALL.into_iter().filter(|state| *state != JobState::Completed) {
            let in_state = in_state(state);
            let total = self.work.reader.count(schema::JOBS, in_state.clone()).await?;
            if total == 0 {
                continue;
            }
            others = others.saturating_add(total);
            counts.by_state.insert(state.as_str().into(), total);
            for kind in JobKind::ALL {
                let filter = in_state.clone().and(Filter::eq("kind", kind.as_str()));
                let count = self.work.reader.count(schema::JOBS, filter).await?;
                if count > 0 {
                    let of_kind = counts.by_kind.entry(kind.as_str().into()).or_default();
                    of_kind.insert(state.as_str().into(), count);
                }
            }
        }
        // Counted last: what ended meanwhile is counted once too often rather than missed.
        let completed = self.work.reader.count(schema::JOBS, Filter::All).await?.saturating_sub(others);
        if completed > 0 {
            counts.by_state.insert(JobState::Completed.as_str().into(), completed);
        }
        Ok(counts)
    }

    async fn load(&self, id: JobId) -> Result<Stored<Job>> {
        let found = self.work.reader.load::<Job>(&id.to_string()).await?;
        found.ok_or_else(|| Error::not_found("job", id))
    }

    async fn change<F>(&self, call: &Call, id: JobId, action: &str, change: F) -> Result<Job>
    where
        F: Fn(&mut Job, Timestamp) -> Result<()> + Send + Sync,
    {
        call.operators_only(JOBS)?;
        let compute = || async {
            let Stored { version, value: mut job } = self.load(id).await?;
            let now = self.work.now();
            change(&mut job, now)?;
            job.updated_at = now;
            let mut changes = Changeset::new();
            changes.replace(version, &job);
            Ok(Draft::new(changes, job))
        };
        Ok(self.work.run(call, action, compute).await?.value)
    }
}

/// The jobs in a state. The states that every job passes through or ends in are left out of the index by state: a job that
/// was just enqueued is due some time, a held one has a lease, and both have an index of their own; and completed ones are
/// most of all jobs.
fn in_state(state: JobState) -> Filter {
    let filter = Filter::eq("state", state.as_str());
    let has = |field: &str| Filter::Ge(field.into(), i64::MIN.into());
    match state {
        JobState::Created => filter.and(has("due")),
        JobState::Running | JobState::Verifying => filter.and(has("lease_until")),
        _ => filter,
    }
}

/// Gives a failed job its attempts back.
pub(super) fn start_again(job: &mut Job, now: Timestamp) -> Result<()> {
    job.state = move_on(job, JobEvent::Retry)?;
    job.due = Some(now.as_micros());
    (job.attempts, job.verify_attempts, job.losses, job.rounds) = (0, 0, 0, 0);
    job.polling_since = None;
    job.updated_at = now;
    Ok(())
}

fn move_on(job: &Job, event: JobEvent) -> Result<JobState> {
    transition(job.state, event).map_err(|refused| {
        let text = format!("a job that is `{}` can't take this step", job.state.as_str());
        Error::new(ErrorCode::InvalidState, text).because(refused)
    })
}
