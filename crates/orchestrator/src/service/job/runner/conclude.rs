//! What becomes of a job when its phase has ended: done, sent on, sent back, tried again, or given up for good.

use serde_json::json;

use super::{Attempt, Conclusion, Ended};
use crate::{
    core::{
        client::database::Changeset,
        job::{InvalidJobTransition, Job, JobEvent, Phase},
        market::quantity::{Micros, Timestamp},
    },
    error::{self, Error, ErrorCode},
    service::{
        job::{
            context::Context,
            handler::{JobContext, JobError, Processed, Verified},
            outcome,
            step::EngineStep,
        },
        outbox::{self, Outgoing},
    },
};

/// How often what a handler wants written with the failure is asked for, before the job is given up without it.
const GIVE_UP_TRIES: u32 = 10;

/// What is written with the job, and what its end is called.
type Ending = Result<(Changeset, EngineStep), InvalidJobTransition>;

/// What a handler wants written when its job is given up.
enum LastWords {
    /// This; with the error, if it could not say.
    Write(Changeset, Option<String>),
    /// It can't say now; the job comes back to be asked again.
    Later(EngineStep),
}

impl Attempt<'_> {
    /// What becomes of the job; an error is the reason to give it up for good.
    pub(super) fn conclude(
        &self,
        job: &mut Job,
        ended: Ended,
    ) -> Result<Result<Conclusion, InvalidJobTransition>, Error> {
        let now = self.inner.clock.now();
        let mut next = job.clone();
        let ending = match ended {
            Ended::Processed(Processed::Done(changes)) | Ended::Verified(Verified::Confirmed(changes)) => {
                Ok(self.completed(&mut next, changes, now))
            }
            Ended::Processed(Processed::Verify { changes, output, delay }) => {
                next.polling_since = None;
                next.output = output;
                next.verify_attempts = 0;
                next.losses = 0;
                let due = Some(now.plus(delay));
                Ok(outcome::end(&mut next, JobEvent::Processed, now, due)
                    .map(|()| (changes, EngineStep::Processed)))
            }
            Ended::Verified(Verified::Refuted(reason)) => self.refuted(&mut next, &reason, now),
            Ended::Interrupted => Ok(outcome::postpone(&mut next, self.phase, now, Micros::ZERO)
                .map(|()| (Changeset::new(), EngineStep::Interrupted))),
            Ended::Failed(failure) => self.failed(&mut next, failure, now),
        };
        match ending {
            Ok(ending) => Ok(ending.map(|(changes, end)| Conclusion { job: next, changes, end })),
            Err(reason) => {
                job.failures.clone_from(&next.failures);
                Err(reason)
            }
        }
    }

    fn completed(&self, next: &mut Job, changes: Changeset, now: Timestamp) -> Ending {
        next.polling_since = None;
        let event = match self.phase {
            Phase::Process => JobEvent::Completed,
            Phase::Verify => JobEvent::Verified,
        };
        outcome::end(next, event, now, None).map(|()| (changes, EngineStep::Completed))
    }

    /// Verification found that it did not take hold: back to the process phase, so many times.
    fn refuted(&self, next: &mut Job, reason: &str, now: Timestamp) -> Result<Ending, Error> {
        let policy = &self.kind.policy;
        let error = || Error::new(ErrorCode::Internal, format!("it did not take hold: {reason}"));
        tracing::warn!(reason, "verification refuted a job");
        outcome::note(next, self.phase, now, &JobError::Transient(error()));
        if next.rounds >= policy.max_rounds {
            return Err(error());
        }
        let sent = outcome::send_back(next, policy, self.inner.entropy.as_ref(), now);
        Ok(sent.map(|()| (Changeset::new(), EngineStep::Refuted)))
    }

    /// Another attempt, another look, or the end.
    fn failed(&self, next: &mut Job, failure: JobError, now: Timestamp) -> Result<Ending, Error> {
        let policy = &self.kind.policy;
        let failure = outcome::bound_polling(next, policy, now, failure);
        outcome::note(next, self.phase, now, &failure);
        let (begun, most) = outcome::budget(next, self.phase, policy);
        match failure {
            JobError::PollAgain(delay) => Ok(outcome::postpone(next, self.phase, now, delay)
                .map(|()| (Changeset::new(), EngineStep::Polled))),
            JobError::Transient(error) if begun < most => {
                tracing::warn!(error = error::chain(&error), "an attempt failed");
                let entropy = self.inner.entropy.as_ref();
                Ok(outcome::back_off(next, self.phase, policy, entropy, now)
                    .map(|()| (Changeset::new(), EngineStep::Retried)))
            }
            JobError::Transient(error) | JobError::Permanent(error) => Err(error),
        }
    }

    /// Gives the job up for good: the handler's last writes, the dead letter and the alert are one commit with the state.
    /// While the handler can't say what is to be written, the job comes back for another try at that alone.
    pub(super) async fn give_up(
        &self,
        context: &Context,
        mut next: Job,
        reason: &Error,
    ) -> Result<Conclusion, InvalidJobTransition> {
        let now = self.inner.clock.now();
        let (begun, most) = outcome::budget(&next, self.phase, &self.kind.policy);
        let (mut changes, undone) = match self.last_words(context, &mut next, reason, now).await? {
            LastWords::Write(changes, undone) => (changes, undone),
            LastWords::Later(end) => {
                return Ok(Conclusion { job: next, changes: Changeset::new(), end });
            }
        };
        outcome::set_attempts(&mut next, self.phase, begun.min(most));
        next.polling_since = None;
        outcome::end(&mut next, JobEvent::Fail, now, None)?;
        let text = error::chain(reason);
        tracing::error!(error = text, undone, "a job was given up");
        let letter = Outgoing::DeadLetter { kind: next.kind, body: next.id.to_string() };
        outbox::send(&mut changes, &self.inner.ids, letter);
        let headline = format!("job {} ({}) was given up", next.id, next.kind);
        let body = json!({
            "job": next.id, "kind": next.kind, "subject": next.subject, "phase": self.phase, "error": text,
            "cleanup_error": undone, "trace_id": next.trace_id,
        });
        outbox::alert(&mut changes, &self.inner.ids, headline, body);
        Ok(Conclusion { job: next, changes, end: EngineStep::Failed })
    }

    /// Asks the handler what is to be written with the failure.
    async fn last_words(
        &self,
        context: &Context,
        next: &mut Job,
        reason: &Error,
        now: Timestamp,
    ) -> Result<LastWords, InvalidJobTransition> {
        let policy = &self.kind.policy;
        let (begun, most) = outcome::budget(next, self.phase, policy);
        let answer = self.guarded(self.kind.handler.on_failed(context, reason)).await;
        next.effects = context.effects();
        match answer {
            Some(Ok(changes)) => Ok(LastWords::Write(changes, None)),
            Some(Err(failure @ (JobError::Transient(_) | JobError::PollAgain(_))))
                if begun < most.saturating_add(GIVE_UP_TRIES) =>
            {
                outcome::note(next, self.phase, now, &failure);
                // Spent from now on, so that the next claim leads straight back to here.
                outcome::set_attempts(next, self.phase, begun.max(most));
                outcome::back_off(next, self.phase, policy, self.inner.entropy.as_ref(), now)?;
                Ok(LastWords::Later(EngineStep::GivingUp))
            }
            Some(Err(failure)) => {
                outcome::note(next, self.phase, now, &failure);
                let undone = next.failures.last().map(|failure| failure.error.clone());
                Ok(LastWords::Write(Changeset::new(), undone))
            }
            None => {
                outcome::set_attempts(next, self.phase, begun.max(most));
                outcome::end(next, JobEvent::Postpone, now, Some(now))?;
                Ok(LastWords::Later(EngineStep::Interrupted))
            }
        }
    }
}
