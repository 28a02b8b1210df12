//! What a handler sees of its job: the job as it was claimed, the subject's generation, and the effect journal, whose
//! writes are durable before they return and guarded by the fencing token.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::Mutex;

use super::{
    engine::Inner,
    gather::Gather,
    handler::{JobContext, JobError},
    step::{Boundaries, EngineStep},
};
use crate::{
    core::{
        client::{
            database::{Changeset, DatabaseError, Expect},
            provider::Generation,
            schema,
        },
        job::{Effect, Job},
        market::quantity::Timestamp,
    },
    error::{Error, ErrorCode},
};

/// The guard of every write of a worker: the job still has the token that the worker claimed.
pub(super) fn token_guard(token: i64) -> Expect {
    Expect::Field("lease_token".into(), token.into())
}

/// Whether a refused commit means that the job is no longer the worker's.
pub(super) fn is_lost(error: &DatabaseError, job: &Job) -> bool {
    match error {
        DatabaseError::Conflict { collection, id } | DatabaseError::Missing { collection, id } => {
            *collection == schema::JOBS && *id == job.id.to_string()
        }
        _ => false,
    }
}

fn not_journalled(key: &str) -> JobError {
    let text = format!("the effect `{key}` was not journalled before it was tried");
    JobError::Permanent(Error::new(ErrorCode::Internal, text))
}

/// The context of one attempt.
pub(super) struct Context {
    inner: Arc<Inner>,
    claimed: Job,
    effects: parking_lot::Mutex<BTreeMap<String, Effect>>,
    /// Held over a journal write, so that two of them don't overwrite one another.
    journal: Mutex<()>,
    lost: AtomicBool,
    /// What gathers the commits of those that share the task.
    others: Option<Arc<Gather>>,
}

impl Context {
    pub(super) fn new(inner: Arc<Inner>, claimed: Job, others: Option<Arc<Gather>>) -> Self {
        let effects = parking_lot::Mutex::new(claimed.effects.clone());
        Self { inner, claimed, effects, journal: Mutex::new(()), lost: AtomicBool::new(false), others }
    }

    /// Whether a journal write was refused because another worker has the job.
    pub(super) fn lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// The job as it was claimed, with the journal as it is now.
    pub(super) fn into_job(self) -> Job {
        Job { effects: self.effects.into_inner(), ..self.claimed }
    }

    async fn write(&self, step: EngineStep, key: &str, effect: Effect) -> Result<(), JobError> {
        let mut next = self.effects();
        next.insert(key.to_owned(), effect);
        let now = self.inner.clock.now();
        let mut job = self.claimed.clone();
        job.effects.clone_from(&next);
        job.updated_at = now;
        job.lease_until = Some(now.plus(self.inner.settings.lease).as_micros());
        let mut changes = Changeset::new();
        changes.replace_expecting(token_guard(job.lease_token), &job);
        let answer = self.inner.writes.commit_with(self.others.as_deref(), (step, &self.claimed), changes);
        match answer.await {
            Ok(()) => {
                *self.effects.lock() = next;
                Ok(())
            }
            Err(error) if is_lost(&error, &job) => {
                self.lost.store(true, Ordering::Release);
                let text = "the lease of this job was lost to another worker";
                Err(JobError::Transient(Error::new(ErrorCode::Conflict, text).because(error)))
            }
            Err(error) => Err(JobError::Transient(Error::from(error))),
        }
    }
}

#[async_trait]
impl JobContext for Context {
    fn job(&self) -> &Job {
        &self.claimed
    }

    fn generation(&self) -> Generation {
        Generation(self.claimed.generation)
    }

    fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    async fn intend(&self, key: &str, intent: Value) -> Result<Effect, JobError> {
        let _journal = self.journal.lock().await;
        if let Some(known) = self.effects.lock().get(key) {
            return Ok(known.clone());
        }
        let effect = Effect { intent, outcome: None, at: self.now() };
        self.write(EngineStep::Intended, key, effect.clone()).await?;
        Ok(effect)
    }

    async fn record(&self, key: &str, outcome: Value) -> Result<(), JobError> {
        let _journal = self.journal.lock().await;
        let Some(mut effect) = self.effects.lock().get(key).cloned() else {
            return Err(not_journalled(key));
        };
        effect.outcome = Some(outcome);
        self.write(EngineStep::Recorded, key, effect).await
    }

    async fn note(&self, key: &str, outcome: Value) -> Result<(), JobError> {
        let _journal = self.journal.lock().await;
        match self.effects.lock().get_mut(key) {
            Some(effect) => effect.outcome = Some(outcome),
            None => return Err(not_journalled(key)),
        }
        Ok(())
    }

    fn effects(&self) -> BTreeMap<String, Effect> {
        self.effects.lock().clone()
    }

    fn boundaries(&self) -> Option<&dyn Boundaries> {
        self.inner.writes.boundaries()
    }
}
