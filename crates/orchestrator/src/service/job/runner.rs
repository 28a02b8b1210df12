//! One attempt of one claimed job: what comes before the handler (budget, dependencies, subject), the handler itself under its
//! time-out, and the one commit that ends the attempt.

mod conclude;

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    context::{Context, is_lost, token_guard},
    dependency,
    engine::{Inner, Kind},
    gather::Gather,
    handler::{JobContext, JobError, Processed, Verified},
    outcome,
    step::EngineStep,
    subject::{self, Hold},
    wake::Touched,
};
use crate::{
    core::{
        client::database::{Changeset, DatabaseError},
        job::{Job, Phase},
        market::quantity::Micros,
    },
    error::{self, Error, ErrorCode},
};

/// How often a phase is run anew because its commit met a version conflict, before that counts as a failure.
const MAX_RERUNS: u32 = 8;

/// How often a commit with an unknown result is tried again. The fencing token makes the second try harmless.
const COMMIT_TRIES: u32 = 3;

/// What a phase came to.
enum Ended {
    Processed(Processed),
    Verified(Verified),
    Failed(JobError),
    /// This process shuts down.
    Interrupted,
}

/// The job as it is to be written, and what is written with it.
struct Conclusion {
    job: Job,
    changes: Changeset,
    /// The step that ends the attempt: its outcome.
    end: EngineStep,
}

/// What the attempt is about.
struct Attempt<'a> {
    inner: &'a Arc<Inner>,
    kind: &'a Kind,
    phase: Phase,
    lost: &'a CancellationToken,
    /// What gathers the commits of those that share the task.
    others: Option<Arc<Gather>>,
}

/// Runs a claimed job through its phase, up to the commit that ends the attempt. When the lease is lost nothing is written.
/// Not an `async fn`, which would hold the attempt twice: bare, and in its span.
pub(super) fn run<'a>(
    inner: &'a Arc<Inner>,
    kind: &'a Kind,
    (job, phase): (Job, Phase),
    lost: &'a CancellationToken,
    others: Option<Arc<Gather>>,
) -> impl Future<Output = ()> + Send + 'a {
    let (attempt, _) = outcome::budget(&job, phase, &kind.policy);
    let span = tracing::info_span!(
        "job", id = %job.id, kind = job.kind.as_str(), subject = job.subject, phase = phase.as_str(), attempt
    );
    let (id, started) = (job.id, inner.clock.now());
    let attempt = Attempt { inner, kind, phase, lost, others };
    async move {
        let outcome = match attempt.run(job).await {
            Ok(outcome) => outcome,
            // The lease runs out and the reaper returns the job.
            Err(error) => {
                tracing::error!(
                    error = error::chain(&error),
                    "an attempt could not be ended; its lease will run out"
                );
                "abandoned"
            }
        };
        kind.meters.attempted(phase, outcome, inner.clock.now().since(started));
        if outcome == EngineStep::Completed.as_str() {
            dependency::call_waiters(inner, id).await;
        }
    }
    .instrument(span)
}

/// What few attempts come to is boxed: each attempt would otherwise be as large as the largest of it, and thousands of them
/// are made and moved each second.
impl Attempt<'_> {
    async fn run(&self, mut job: Job) -> error::Result<&'static str> {
        if self.phase == Phase::Process
            && outcome::spent(&job, self.phase, &self.kind.policy).is_none()
            && !job.depends_on.is_empty()
            && let Some(delay) = Box::pin(dependency::wait(self.inner, &job)).await?
        {
            return Box::pin(self.give_back(job, delay, EngineStep::Blocked)).await;
        }
        if self.kind.policy.mutates_subject {
            match Box::pin(self.hold_subject(&mut job)).await? {
                Some(true) => {}
                Some(false) => {
                    let delay = self.inner.settings.subject_delay;
                    let delay = Micros(delay.get().saturating_add(self.inner.entropy.below(delay.get())));
                    return Box::pin(self.give_back(job, delay, EngineStep::SubjectBusy)).await;
                }
                None => return Ok("lost"),
            }
        }
        self.work(job).await
    }

    /// Takes hold of the subject: `Some(true)` when it is ours, `Some(false)` when it is busy, `None` when the lease is lost.
    async fn hold_subject(&self, job: &mut Job) -> error::Result<Option<bool>> {
        for _ in 0..MAX_RERUNS {
            let Hold::Take(changes) = subject::hold(self.inner.reader.as_ref(), job).await? else {
                return Ok(Some(false));
            };
            let now = self.inner.clock.now();
            job.lease_until = Some(now.plus(self.inner.settings.lease).as_micros());
            let mut all = Changeset::new();
            all.replace_expecting(token_guard(job.lease_token), &*job).extend(changes);
            match self.inner.writes.commit(EngineStep::SubjectHeld, Some(&*job), all).await {
                Ok(()) => return Ok(Some(true)),
                Err(error) if is_lost(&error, job) => return Ok(None),
                Err(DatabaseError::Conflict { .. } | DatabaseError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(false))
    }

    /// Gives a job back that was not begun.
    async fn give_back(&self, job: Job, delay: Micros, end: EngineStep) -> error::Result<&'static str> {
        let mut next = job.clone();
        outcome::postpone(&mut next, self.phase, self.inner.clock.now(), delay).map_err(Error::internal)?;
        let changes = || {
            let mut changes = Changeset::new();
            changes.replace_expecting(token_guard(job.lease_token), &next);
            changes
        };
        match self.commit(end, &job, changes).await {
            Ok(()) => {
                self.inner.wake.ring(Touched { jobs: self.is_due_soon(&next), outbox: false });
                Ok(end.as_str())
            }
            Err(error) if is_lost(&error, &job) => Ok("lost"),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the driver should look at the queue again for this job's sake.
    fn is_due_soon(&self, job: &Job) -> bool {
        let horizon = self.inner.clock.now().plus(self.inner.settings.look_ahead);
        job.due.is_some_and(|due| due <= horizon.as_micros())
    }

    /// Runs the handler and ends the attempt; runs it anew when somebody else changed what it read.
    async fn work(&self, job: Job) -> error::Result<&'static str> {
        let mut given_up = outcome::spent(&job, self.phase, &self.kind.policy);
        let mut job = job;
        let mut reruns = 0;
        loop {
            let context = Context::new(Arc::clone(self.inner), job, self.others.clone());
            let attempt = match &given_up {
                Some(reason) => Err(Box::pin(self.give_up(&context, context.job().clone(), reason)).await),
                None => Ok(self.call_phase(&context).await),
            };
            let lost = context.lost();
            job = context.into_job();
            if lost || self.lost.is_cancelled() {
                return Ok("lost");
            }
            let conclusion = match attempt {
                Err(given_up) => given_up,
                Ok(ended) => match self.conclude(&mut job, ended) {
                    Ok(conclusion) => conclusion,
                    Err(reason) => {
                        given_up = Some(reason);
                        continue;
                    }
                },
            };
            let Conclusion { job: next, changes, end } = conclusion.map_err(Error::internal)?;
            match self.commit_end(end, &job, &next, changes).await {
                Ok(()) => return Ok(end.as_str()),
                Err(error) if is_lost(&error, &job) => return Ok("lost"),
                // What the handler had read has changed, or what it had not found is there now, such as an account.
                Err(DatabaseError::Conflict { .. } | DatabaseError::AlreadyExists { .. })
                    if reruns < MAX_RERUNS =>
                {
                    reruns += 1;
                }
                Err(error) => return Box::pin(self.end_refused(job, Error::from(error))).await,
            }
        }
    }

    /// Calls the handler's phase under its time-out; a panic is a failure like another.
    async fn call_phase(&self, context: &Context) -> Ended {
        let handler = &self.kind.handler;
        match self.phase {
            Phase::Process => self.guarded(handler.process(context)).await.map(|r| r.map(Ended::Processed)),
            Phase::Verify => self.guarded(handler.verify(context)).await.map(|r| r.map(Ended::Verified)),
        }
        .map_or(Ended::Interrupted, |result| result.unwrap_or_else(Ended::Failed))
    }

    /// Awaits a call of the handler; `None` when the engine halts or the lease is lost.
    async fn guarded<T, F>(&self, call: F) -> Option<Result<T, JobError>>
    where
        F: Future<Output = Result<T, JobError>> + Send,
    {
        let timeout = self.kind.policy.timeout;
        tokio::select! {
            biased;
            answer = AssertUnwindSafe(call).catch_unwind() => Some(answer.unwrap_or_else(|panic| {
                let text = panic_text(panic.as_ref());
                tracing::error!(panic = text, "a handler panicked");
                Err(JobError::Transient(Error::new(ErrorCode::Internal, format!("the handler panicked: {text}"))))
            })),
            () = self.lost.cancelled() => None,
            () = self.inner.halt.cancelled() => None,
            () = self.inner.clock.sleep(timeout) => {
                let text = format!("the phase took longer than {} ms", timeout.as_millis());
                Some(Err(JobError::Transient(Error::new(ErrorCode::Unavailable, text))))
            }
        }
    }

    /// Ends an attempt whose own changes the database refused: counted as a failure that may pass.
    async fn end_refused(&self, mut job: Job, error: Error) -> error::Result<&'static str> {
        let text = error::chain(&error);
        let failure = Ended::Failed(JobError::Transient(error));
        let next = match self.conclude(&mut job, failure) {
            Ok(conclusion) => conclusion.map_err(Error::internal)?.job,
            // The last attempt: the job comes back once more, to be given up.
            Err(_) => {
                let mut next = job.clone();
                let (begun, most) = outcome::budget(&next, self.phase, &self.kind.policy);
                outcome::set_attempts(&mut next, self.phase, begun.max(most));
                let now = self.inner.clock.now();
                outcome::back_off(&mut next, self.phase, &self.kind.policy, self.inner.entropy.as_ref(), now)
                    .map_err(Error::internal)?;
                next
            }
        };
        match self.commit_end(EngineStep::Refused, &job, &next, Changeset::new()).await {
            Ok(()) => Ok(EngineStep::Refused.as_str()),
            Err(error) if is_lost(&error, &job) => Ok("lost"),
            Err(error) => Err(Error::internal(text).because(error)),
        }
    }

    /// The commit that ends the attempt. The job comes first, so that a lost lease is told from another conflict.
    async fn commit_end(
        &self,
        end: EngineStep,
        held: &Job,
        next: &Job,
        changes: Changeset,
    ) -> Result<(), DatabaseError> {
        let mut touched = Touched::by(&changes);
        touched.jobs |= self.is_due_soon(next);
        let all = || {
            let mut all = Changeset::new();
            all.replace_expecting(token_guard(held.lease_token), next);
            if self.kind.policy.mutates_subject {
                subject::release(&mut all, held);
            }
            all.extend(changes.clone());
            all
        };
        self.commit(end, held, all).await?;
        self.inner.wake.ring(touched);
        Ok(())
    }

    /// Commits; tries again when the result is unknown. The token has grown with the first success, so a repeat is refused
    /// as lost, and the job is in the state that it should have. `changes` makes the same changeset each time: that is rarely
    /// more than once, and cheaper than a copy of each.
    async fn commit(
        &self,
        end: EngineStep,
        job: &Job,
        changes: impl Fn() -> Changeset + Send,
    ) -> Result<(), DatabaseError> {
        let mut tries = 1;
        loop {
            let answer = self.inner.writes.commit_with(self.others.as_deref(), (end, job), changes());
            match answer.await {
                Err(error) if error.retryable() && tries < COMMIT_TRIES => {
                    tracing::warn!(error = error::chain(&error), "a commit failed; trying again");
                    self.inner.clock.sleep(Micros::from_millis(100 << tries)).await;
                    tries += 1;
                }
                result => return result,
            }
        }
    }
}

/// What a panic said.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
