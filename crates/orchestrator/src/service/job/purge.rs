//! The purge trigger: removes records that nobody needs any more, in bounded batches. What it does not get to, it gets to
//! the next time.

use async_trait::async_trait;

use super::trigger::{Trigger, TriggerReport};
use crate::{
    core::{
        client::{
            database::{Changeset, DatabaseError, Document, Expect, Filter, Query, Sort},
            schema::{self, Collection},
        },
        job::JobState,
        market::quantity::Micros,
    },
    error::Result,
    service::work::Work,
};

/// What is kept for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeSettings {
    /// Sent rows of the outbox.
    pub sent_rows: Micros,
    /// Markers of requests that carried an idempotency key.
    pub request_markers: Micros,
    /// Completed jobs, counted from their completion. Their deduplication keys are free again afterwards.
    pub completed_jobs: Micros,
    /// Documents removed in one commit.
    pub batch: usize,
    /// Commits in one run, per sort of record.
    pub batches: usize,
}

impl Default for PurgeSettings {
    fn default() -> Self {
        Self {
            sent_rows: Micros::from_days(1),
            request_markers: Micros::from_days(1),
            completed_jobs: Micros::from_days(7),
            batch: 500,
            batches: 20,
        }
    }
}

/// The trigger.
pub struct PurgeTrigger {
    work: Work,
    settings: PurgeSettings,
}

impl PurgeTrigger {
    /// The trigger.
    #[must_use]
    pub const fn new(work: Work, settings: PurgeSettings) -> Self {
        Self { work, settings }
    }

    async fn purge(
        &self,
        collection: Collection,
        filter: Filter,
        sort: Sort,
        report: &mut TriggerReport,
    ) -> Result<()> {
        for _ in 0..self.settings.batches {
            let limit = self.settings.batch.clamp(1, 10_000);
            let query = Query::new(collection).filter(filter.clone()).sort(sort.clone()).limit(limit);
            let documents = self.work.reader.find(query).await?.documents;
            let (found, full) = (documents.len() as u64, documents.len() == limit);
            report.examined += found;
            match self.work.committer.commit(deletions(collection, documents)).await {
                Ok(()) => report.changed += found,
                // Another replica purges, too; it goes on.
                Err(DatabaseError::Conflict { .. } | DatabaseError::Missing { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if !full {
                return Ok(());
            }
        }
        report.note = Some("there is more to purge; the next run goes on".into());
        Ok(())
    }
}

fn deletions(collection: Collection, documents: Vec<Document>) -> Changeset {
    let mut changes = Changeset::new();
    for document in documents {
        changes.delete(collection, document.id, Expect::Version(document.version));
    }
    changes
}

#[async_trait]
impl Trigger for PurgeTrigger {
    fn name(&self) -> &'static str {
        "purge_records"
    }

    async fn fire(&self) -> Result<TriggerReport> {
        let mut report = TriggerReport::default();
        let now = self.work.now();
        let before = |field: &str, kept: Micros| {
            (Filter::Lt(field.into(), now.minus(kept).as_micros().into()), Sort::Field(field.into()))
        };
        let (old, sort) = before("sent_at", self.settings.sent_rows);
        self.purge(schema::OUTBOX, old, sort, &mut report).await?;
        let (old, sort) = before("created_at", self.settings.request_markers);
        self.purge(schema::REQUESTS, old, sort, &mut report).await?;
        let (old, _) = before("updated_at", self.settings.completed_jobs);
        let completed = Filter::eq("state", JobState::Completed.as_str()).and(old);
        self.purge(schema::JOBS, completed, Sort::Id, &mut report).await?;
        Ok(report)
    }
}
