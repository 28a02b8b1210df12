//! Handlers in a mood: the real ones do their work, and then something else than their answer becomes of the attempt. So
//! every kind comes to every way in which an attempt can end, each time with its real effects behind it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use orchestrator::{
    core::{
        client::{
            clock::Clock,
            database::{Changeset, Expect},
            schema,
        },
        job::{JobKind, Phase},
        market::{ids::JobId, quantity::Micros},
    },
    error::{Error, ErrorCode},
    service::job::{JobContext, JobError, JobHandler, Policy, Processed, Verified},
};
use parking_lot::Mutex;

/// What becomes of attempts. Where it says "once", it is once for each job and phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// What the handler says.
    Plain,
    /// Fails once after it was done, as when the answer is lost.
    Fails,
    /// Was not so far yet, once.
    Waits,
    /// Verification says once that it did not take hold.
    Refutes,
    /// The database refuses once what is to be written.
    Illegal,
    /// Takes longer than a third of the lease, once.
    Slow,
    /// Jobs of this kind are given up until a person says otherwise, and the handler can't say at first what goes with it.
    Doomed(JobKind),
}

/// What outlives processes: who has had a mood already.
#[derive(Default)]
pub struct Moods {
    had: Mutex<BTreeSet<(JobId, &'static str)>>,
    forgiven: AtomicBool,
}

impl Moods {
    /// Nothing is given up any more.
    pub fn forgive(&self) {
        self.forgiven.store(true, Ordering::SeqCst);
    }
}

/// A handler in a mood.
pub struct Moody {
    pub inner: Arc<dyn JobHandler>,
    pub mood: Mood,
    pub moods: Arc<Moods>,
    pub clock: Arc<dyn Clock>,
}

fn transient() -> JobError {
    JobError::Transient(Error::new(ErrorCode::Unavailable, "the answer was lost"))
}

/// Changes that no database takes.
fn spoil(changes: &mut Changeset) {
    changes.delete(schema::BLOCKS, "no such block", Expect::Version(1));
}

impl Moody {
    fn once(&self, context: &dyn JobContext, what: &'static str) -> bool {
        self.moods.had.lock().insert((context.job().id, what))
    }

    /// What comes before the work, and what comes of it instead.
    async fn instead(&self, context: &dyn JobContext, phase: Phase) -> Option<JobError> {
        let name = match phase {
            Phase::Process => "process",
            Phase::Verify => "verify",
        };
        match self.mood {
            Mood::Plain | Mood::Refutes | Mood::Illegal => None,
            Mood::Fails => self.once(context, name).then(transient),
            Mood::Waits => self.once(context, name).then_some(JobError::PollAgain(Micros::from_secs(1))),
            Mood::Slow => {
                if self.once(context, name) {
                    self.clock.sleep(Micros::from_secs(12)).await;
                }
                None
            }
            Mood::Doomed(kind) => {
                let doomed = context.job().kind == kind && !self.moods.forgiven.load(Ordering::SeqCst);
                doomed.then(|| JobError::Permanent(Error::new(ErrorCode::InvalidState, "doomed")))
            }
        }
    }
}

#[async_trait]
impl JobHandler for Moody {
    fn kind(&self) -> JobKind {
        self.inner.kind()
    }

    fn policy(&self) -> Policy {
        self.inner.policy()
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let instead = self.instead(context, Phase::Process).await;
        let mut processed = self.inner.process(context).await;
        if self.mood == Mood::Illegal && processed.is_ok() && self.once(context, "process") {
            match &mut processed {
                Ok(Processed::Done(changes) | Processed::Verify { changes, .. }) => spoil(changes),
                Err(_) => {}
            }
        }
        instead.map_or(processed, Err)
    }

    async fn verify(&self, context: &dyn JobContext) -> Result<Verified, JobError> {
        let instead = self.instead(context, Phase::Verify).await;
        let mut verified = self.inner.verify(context).await;
        if let Ok(Verified::Confirmed(changes)) = &mut verified {
            if self.mood == Mood::Illegal && self.once(context, "verify") {
                spoil(changes);
            } else if self.mood == Mood::Refutes && self.once(context, "verify") {
                return Ok(Verified::Refuted("so it seemed".into()));
            }
        }
        instead.map_or(verified, Err)
    }

    async fn on_failed(&self, context: &dyn JobContext, error: &Error) -> Result<Changeset, JobError> {
        let last = self.inner.on_failed(context, error).await;
        if matches!(self.mood, Mood::Doomed(_)) && self.once(context, "on_failed") {
            return Err(transient());
        }
        last
    }
}
