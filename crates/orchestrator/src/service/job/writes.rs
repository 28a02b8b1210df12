//! The engine's write side of the database: every claim and every commit of the engine is a step, so that a new one without
//! a name, and so without a crash test, does not compile.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    gather::Gather,
    step::{Boundaries, Crossing, EngineStep, Side, reached},
};
use crate::core::{
    client::database::{Changeset, Claim, Claimer, Committer, Document, Result},
    job::{Job, JobKind},
};

/// Claims and commits, each as a step.
#[derive(Clone)]
pub(super) struct Writes {
    claimer: Arc<dyn Claimer>,
    committer: Arc<dyn Committer>,
    boundaries: Option<Arc<dyn Boundaries>>,
}

impl Writes {
    pub(super) const fn new(
        claimer: Arc<dyn Claimer>,
        committer: Arc<dyn Committer>,
        boundaries: Option<Arc<dyn Boundaries>>,
    ) -> Self {
        Self { claimer, committer, boundaries }
    }

    /// Who is told of boundaries.
    pub(super) fn boundaries(&self) -> Option<&dyn Boundaries> {
        self.boundaries.as_deref()
    }

    /// Commits what is about one job, or about none.
    pub(super) async fn commit(&self, step: EngineStep, job: Option<&Job>, changes: Changeset) -> Result<()> {
        reached(self.boundaries(), step.into(), Side::Before, job).await;
        let answer = self.committer.commit(changes).await;
        reached(self.boundaries(), step.into(), Side::After, job).await;
        answer
    }

    /// The commit of an attempt, given to the database with those of others that share its task, if it shares one.
    pub(super) async fn commit_with(
        &self,
        others: Option<&Gather>,
        (step, job): (EngineStep, &Job),
        changes: Changeset,
    ) -> Result<()> {
        let Some(gather) = others else { return self.commit(step, Some(job), changes).await };
        reached(self.boundaries(), step.into(), Side::Before, Some(job)).await;
        let answer = gather.commit(changes).await;
        reached(self.boundaries(), step.into(), Side::After, Some(job)).await;
        answer
    }

    /// What gathers the commits of attempts that share a task.
    pub(super) fn gather(&self) -> Arc<Gather> {
        Gather::new(Arc::clone(&self.committer))
    }

    /// Claims.
    pub(super) async fn claim(
        &self,
        step: EngineStep,
        kind: Option<JobKind>,
        claim: Claim,
    ) -> Result<Vec<Document>> {
        self.at_claim(step, Side::Before, kind).await;
        let answer = self.claimer.claim(claim).await;
        self.at_claim(step, Side::After, kind).await;
        answer
    }

    /// The committer of one step, for what is written elsewhere.
    pub(super) fn at(&self, step: EngineStep) -> At {
        At { writes: self.clone(), step }
    }

    async fn at_claim(&self, step: EngineStep, side: Side, kind: Option<JobKind>) {
        if let Some(boundaries) = self.boundaries() {
            let step = step.into();
            boundaries.reached(Crossing { step, side, kind, phase: None, job: None }).await;
        }
    }
}

/// A committer whose every commit is the same step.
pub(super) struct At {
    writes: Writes,
    step: EngineStep,
}

#[async_trait]
impl Committer for At {
    async fn commit(&self, changeset: Changeset) -> Result<()> {
        self.writes.commit(self.step, None, changeset).await
    }
}
