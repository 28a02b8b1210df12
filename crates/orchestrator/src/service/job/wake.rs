//! Wake-ups within the process: whoever commits new work tells those who wait for it, so that nobody polls fast. A missed
//! wake-up costs the fallback interval of the waiting loop, never the work.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::{
    core::client::{
        database::{Changeset, Committer, Result},
        schema,
    },
    service::work,
};

/// The bells of this process.
#[derive(Debug, Default)]
pub struct Wake {
    /// Rung when a job may be due, or a slot is free again.
    pub jobs: Notify,
    /// Rung when a row was added to the outbox.
    pub outbox: Notify,
}

impl Wake {
    /// Rings what a committed changeset calls for.
    pub(super) fn ring(&self, touched: Touched) {
        if touched.jobs {
            self.jobs.notify_one();
        }
        if touched.outbox {
            self.outbox.notify_one();
        }
    }
}

/// What a changeset touches.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Touched {
    pub(super) jobs: bool,
    pub(super) outbox: bool,
}

impl Touched {
    pub(super) fn by(changes: &Changeset) -> Self {
        Self {
            jobs: work::touches_jobs(changes),
            outbox: changes.writes.iter().any(|write| write.collection == schema::OUTBOX),
        }
    }
}

/// A committer that rings the bells after each commit that calls for it. Every service commits through it.
pub struct WakingCommitter {
    inner: Arc<dyn Committer>,
    wake: Arc<Wake>,
    jobs: bool,
}

impl WakingCommitter {
    /// Decorates a committer.
    #[must_use]
    pub fn new(inner: Arc<dyn Committer>, wake: Arc<Wake>) -> Self {
        Self { inner, wake, jobs: true }
    }

    /// The same, but rings for the outbox only: where hints go to the workers of all replicas, none of them, not even this
    /// one, is called by name.
    #[must_use]
    pub fn outbox_only(self) -> Self {
        Self { jobs: false, ..self }
    }
}

#[async_trait]
impl Committer for WakingCommitter {
    async fn commit(&self, changeset: Changeset) -> Result<()> {
        let mut touched = Touched::by(&changeset);
        touched.jobs &= self.jobs;
        self.inner.commit(changeset).await?;
        self.wake.ring(touched);
        Ok(())
    }
}
