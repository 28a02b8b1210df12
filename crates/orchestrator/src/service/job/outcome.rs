//! What becomes of a job when an attempt has ended: pure functions from a job and an outcome to the job as it is to be
//! written. Each ends the lease and grows the fencing token, so that no write of the attempt takes hold twice, not even
//! one whose first try had an unknown result.

use super::{
    backoff,
    handler::{JobError, Policy},
};
use crate::{
    core::{
        client::clock::Entropy,
        job::{InvalidJobTransition, Job, JobEvent, JobFailure, JobState, Phase, transition},
        market::quantity::{Micros, Timestamp},
    },
    error::{self, Error, ErrorCode},
};

/// What is remembered of an attempt that was lost.
const LOST: &str = "the process that held the job ended, or did not renew its lease";

/// How many failures a job remembers.
const REMEMBERED: usize = 5;

/// Ends the attempt with `event`; the job is due again at `due`.
pub(super) fn end(
    job: &mut Job,
    event: JobEvent,
    now: Timestamp,
    due: Option<Timestamp>,
) -> Result<(), InvalidJobTransition> {
    job.state = transition(job.state, event)?;
    job.due = due.map(Timestamp::as_micros);
    job.lease_owner = None;
    job.lease_until = None;
    job.lease_token = job.lease_token.saturating_add(1);
    job.updated_at = now;
    Ok(())
}

/// A job is due at once after so many losses; after that it backs off.
const AT_ONCE: u32 = 2;
/// Longest delay after a loss: what was cut short through no fault of its own must not wait long once processes live again.
const MAX_DELAY_AFTER_LOSS: Micros = Micros::from_secs(30);

/// Attempts of the phase that were begun, and how many there may be.
pub(super) const fn budget(job: &Job, phase: Phase, policy: &Policy) -> (u32, u32) {
    match phase {
        Phase::Process => (job.attempts, policy.max_attempts),
        Phase::Verify => (job.verify_attempts, policy.max_verify_attempts),
    }
}

/// Sets the count of the phase's attempts.
pub(super) const fn set_attempts(job: &mut Job, phase: Phase, attempts: u32) {
    match phase {
        Phase::Process => job.attempts = attempts,
        Phase::Verify => job.verify_attempts = attempts,
    }
}

/// Gives the job back for later, as if it had not been claimed.
pub(super) fn postpone(
    job: &mut Job,
    phase: Phase,
    now: Timestamp,
    delay: Micros,
) -> Result<(), InvalidJobTransition> {
    let begun = match phase {
        Phase::Process => job.attempts,
        Phase::Verify => job.verify_attempts,
    };
    set_attempts(job, phase, begun.saturating_sub(1));
    end(job, JobEvent::Postpone, now, Some(now.plus(delay)))
}

/// Gives the job back after a failed attempt, counted, with backoff.
pub(super) fn back_off(
    job: &mut Job,
    phase: Phase,
    policy: &Policy,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<(), InvalidJobTransition> {
    let (begun, _) = budget(job, phase, policy);
    let delay = backoff::full_jitter(entropy, policy.base_delay, policy.max_delay, begun);
    end(job, JobEvent::Postpone, now, Some(now.plus(delay)))
}

/// Sends the job back to its process phase, because verification found that it did not take hold.
pub(super) fn send_back(
    job: &mut Job,
    policy: &Policy,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<(), InvalidJobTransition> {
    job.rounds = job.rounds.saturating_add(1);
    job.attempts = 0;
    job.verify_attempts = 0;
    job.losses = 0;
    job.polling_since = None;
    let delay = backoff::full_jitter(entropy, policy.base_delay, policy.max_delay, job.rounds);
    end(job, JobEvent::Refuted, now, Some(now.plus(delay)))
}

/// Why the job may not be begun once more, if one of its budgets is spent; asked at the claim, which has counted the attempt.
pub(super) fn spent(job: &Job, phase: Phase, policy: &Policy) -> Option<Error> {
    let (begun, most) = budget(job, phase, policy);
    let text = if job.losses >= policy.max_losses {
        format!(
            "{} attempts were lost with their process or their lease, and no more may be: does the job kill its process?",
            job.losses
        )
    } else if begun > most {
        let last = job.failures.iter().rfind(|failure| failure.error != LOST);
        let last = last.map_or_else(String::new, |failure| format!(": {}", failure.error));
        format!("the attempts are spent{last}")
    } else {
        return None;
    };
    Some(Error::new(ErrorCode::Internal, text))
}

/// Puts an expired or orphaned lease back. The attempt is no longer counted among the attempts, which are there for failures,
/// but among the losses. A job with a spent budget goes back as well, and is given up by whoever claims it next, under a
/// lease of its own.
pub(super) fn lose_lease(
    job: &mut Job,
    policy: &Policy,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<(), InvalidJobTransition> {
    let phase = if job.state == JobState::Verifying { Phase::Verify } else { Phase::Process };
    let (begun, _) = budget(job, phase, policy);
    let losses = job.losses.saturating_add(1);
    let due = due_after_loss(job, losses, policy, entropy, now);
    end(job, JobEvent::LeaseLost, now, Some(due))?;
    set_attempts(job, phase, begun.saturating_sub(1));
    job.losses = losses;
    // Of losses in a row only the last is remembered, so that they don't drive out what failed.
    if job.failures.last().is_some_and(|last| last.error == LOST && last.phase == phase) {
        job.failures.pop();
    }
    remember(job, phase, now, LOST.to_owned(), true);
    Ok(())
}

/// When a job whose lease was lost comes back: at once, unless that has happened again and again, by this job or with it.
fn due_after_loss(
    job: &Job,
    losses: u32,
    policy: &Policy,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Timestamp {
    match losses.saturating_sub(AT_ONCE) {
        // In front of what has not begun: the queue is in the order of `due`, and a backlog must not keep what was cut short
        // from its end.
        0 => job.created_at.min(now),
        again => {
            let longest = policy.max_delay.min(MAX_DELAY_AFTER_LOSS);
            now.plus(backoff::full_jitter(entropy, policy.base_delay, longest, again))
        }
    }
}

/// Notes a failure for people.
pub(super) fn note(job: &mut Job, phase: Phase, now: Timestamp, failure: &JobError) {
    match failure {
        JobError::Transient(error) => remember(job, phase, now, error::chain(error), true),
        JobError::Permanent(error) => remember(job, phase, now, error::chain(error), false),
        JobError::PollAgain(_) => {}
    }
}

fn remember(job: &mut Job, phase: Phase, at: Timestamp, error: String, retryable: bool) {
    job.failures.push(JobFailure { at, phase, error, retryable });
    let surplus = job.failures.len().saturating_sub(REMEMBERED);
    job.failures.drain(..surplus);
}

/// Turns a polling that has gone on for too long into a failure; notes when it began.
pub(super) fn bound_polling(job: &mut Job, policy: &Policy, now: Timestamp, failure: JobError) -> JobError {
    match failure {
        JobError::PollAgain(_) => {
            let since = *job.polling_since.get_or_insert(now);
            if now.since(since) <= policy.max_polling {
                return failure;
            }
            job.polling_since = None;
            let text =
                format!("what was waited for did not come about within {} s", policy.max_polling.as_secs());
            JobError::Transient(Error::new(ErrorCode::Unavailable, text))
        }
        JobError::Transient(_) | JobError::Permanent(_) => failure,
    }
}

#[cfg(test)]
mod tests;
