//! Whether our own side is well, as our own canary says. While it is not, whatever looks broken may be our fault: nothing is
//! judged and nothing is torn down by itself, until the canary has been well for a while again.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::job::{JobContext, JobError, JobHandler, Policy, Processed, Trigger, TriggerReport, Verified};
use crate::{
    core::{
        client::{clock::Clock, database::Changeset},
        job::JobKind,
        market::{
            ids::Id,
            quantity::{Micros, Timestamp},
        },
    },
    error::{Error, Result},
};

/// What the canary said. Clones share it.
#[derive(Clone)]
pub struct OwnHealth {
    clock: Arc<dyn Clock>,
    calm: Micros,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    failing: bool,
    /// When it said last that something is wrong.
    failed_at: Option<Timestamp>,
}

impl OwnHealth {
    /// Well, until the canary says otherwise; after that it takes `calm` without a failure.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, calm: Micros) -> Self {
        Self { clock, calm, state: Arc::default() }
    }

    /// What the canary says now.
    pub fn report(&self, well: bool) {
        let mut state = self.state.lock();
        if well == state.failing {
            if well {
                tracing::info!("our own canary is well again");
            } else {
                tracing::error!(
                    "our own canary fails: nothing is judged or torn down until it is well again"
                );
            }
        }
        state.failing = !well;
        if !well {
            state.failed_at = Some(self.clock.now());
        }
        metrics::gauge!("orchestrator_canary_ok").set(if well { 1.0 } else { 0.0 });
    }

    /// Whether all has been well for long enough.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let state = self.state.lock();
        !state.failing && state.failed_at.is_none_or(|at| self.clock.now().since(at) >= self.calm)
    }

    /// A trigger that does nothing while our own side is not well.
    #[must_use]
    pub fn hold_trigger(&self, inner: Arc<dyn Trigger>) -> Arc<dyn Trigger> {
        Arc::new(WhileWell { inner, health: self.clone() })
    }

    /// A kind of job that waits while our own side is not well; no attempt is spent on that.
    #[must_use]
    pub fn hold_job(&self, inner: Arc<dyn JobHandler>) -> Arc<dyn JobHandler> {
        Arc::new(WhileWell { inner, health: self.clone() })
    }
}

/// What runs only while our own side is well.
struct WhileWell<T: ?Sized> {
    inner: Arc<T>,
    health: OwnHealth,
}

#[async_trait]
impl Trigger for WhileWell<dyn Trigger> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn fire(&self) -> Result<TriggerReport> {
        if self.health.is_well() {
            return self.inner.fire().await;
        }
        let note = "held back: our own canary fails, or did so a moment ago";
        Ok(TriggerReport { note: Some(note.into()), ..TriggerReport::default() })
    }
}

#[async_trait]
impl JobHandler for WhileWell<dyn JobHandler> {
    fn kind(&self) -> JobKind {
        self.inner.kind()
    }

    fn policy(&self) -> Policy {
        self.inner.policy()
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        if self.health.is_well() {
            return self.inner.process(context).await;
        }
        // By the job's own number, so that those that wait don't come back together.
        let spread = u64::try_from(context.job().id.uuid().as_u128() % 30_000_000).unwrap_or_default();
        Err(JobError::PollAgain(Micros(self.health.calm.get().saturating_add(spread))))
    }

    async fn verify(&self, context: &dyn JobContext) -> Result<Verified, JobError> {
        self.inner.verify(context).await
    }

    async fn on_failed(&self, context: &dyn JobContext, error: &Error) -> Result<Changeset, JobError> {
        self.inner.on_failed(context, error).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::{clock::ManualClock, db::memory::MemoryDatabase},
        core::{
            client::{
                clock::Entropy,
                database::{Committer, Filter, ReaderExt},
            },
            job::{Job, JobState, NewJob},
            market::ids::IdGenerator,
        },
        service::job::{Engine, EnginePorts, EngineSettings, Wake},
    };

    struct Once(Mutex<u32>);

    #[async_trait]
    impl Trigger for Once {
        fn name(&self) -> &'static str {
            "once"
        }

        async fn fire(&self) -> Result<TriggerReport> {
            *self.0.lock() += 1;
            Ok(TriggerReport { changed: 1, ..TriggerReport::default() })
        }
    }

    struct Removes;

    #[async_trait]
    impl JobHandler for Removes {
        fn kind(&self) -> JobKind {
            JobKind::Purge
        }

        async fn process(&self, _: &dyn JobContext) -> Result<Processed, JobError> {
            Ok(Processed::Done(Changeset::new()))
        }
    }

    fn health() -> (ManualClock, OwnHealth) {
        let clock = ManualClock::new(Timestamp(1_760_000_000_000_000));
        let health = OwnHealth::new(Arc::new(clock.clone()), Micros::from_secs(60));
        (clock, health)
    }

    #[tokio::test]
    async fn a_trigger_is_held_back_until_the_canary_was_well_for_a_while() {
        let (clock, health) = health();
        let once = Arc::new(Once(Mutex::default()));
        let held = health.hold_trigger(once.clone());
        assert_eq!(held.fire().await.unwrap().changed, 1);
        health.report(false);
        assert!(held.fire().await.unwrap().note.unwrap().contains("canary"));
        health.report(true);
        clock.advance(Micros::from_secs(59));
        assert_eq!(held.fire().await.unwrap().changed, 0, "not calm yet");
        clock.advance(Micros::from_secs(1));
        assert_eq!(held.fire().await.unwrap().changed, 1);
        assert_eq!(*once.0.lock(), 2);
    }

    #[tokio::test]
    async fn a_job_waits_and_spends_no_attempt() {
        let (clock, health) = health();
        let entropy = Arc::new(crate::client::clock::SeededEntropy::new(1));
        let db = MemoryDatabase::with_schema();
        let ids = IdGenerator::new(Arc::new(clock.clone()), entropy.clone());
        let ports = EnginePorts {
            reader: db.clone(),
            claimer: db.clone(),
            committer: db.clone(),
            ids: ids.clone(),
            clock: Arc::new(clock.clone()),
            entropy: entropy.clone() as Arc<dyn Entropy>,
            wake: Arc::new(Wake::default()),
        };
        let handler = health.hold_job(Arc::new(Removes));
        let engine = Engine::new(ports, EngineSettings::default(), vec![handler]);
        let mut changes = Changeset::new();
        NewJob::now(JobKind::Purge, "s", "k", ids.now()).enqueue(&mut changes, &ids);
        db.commit(changes).await.unwrap();
        let job = async || db.list_all::<Job>(Filter::All).await.unwrap().swap_remove(0).value;
        health.report(false);
        for _ in 0..20 {
            engine.tick().await.unwrap();
            engine.idle().await;
            clock.advance(Micros::from_secs(90));
        }
        let waiting = job().await;
        assert_eq!((waiting.state, waiting.attempts), (JobState::PendingRetry, 0));
        health.report(true);
        clock.advance(Micros::from_secs(90));
        engine.tick().await.unwrap();
        engine.idle().await;
        assert_eq!(job().await.state, JobState::Completed);
    }
}
