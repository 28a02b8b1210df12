//! The trigger that closes billing periods: one `sla_check` job per ended period, each exactly once.

use async_trait::async_trait;

use super::{check::PeriodInput, settings::SlaSettings};
use crate::{
    core::{
        client::database::{Changeset, DatabaseError, Entity, Filter, Query, ReaderExt},
        job::{Job, JobKind, NewJob},
        market::{allocation::Allocation, quantity::Micros},
    },
    error::Result,
    service::{
        job::{Trigger, TriggerReport},
        work::Work,
    },
};

/// Enqueues the judgement of periods that have ended.
pub struct CloseSlaWindows {
    work: Work,
    settings: SlaSettings,
}

impl CloseSlaWindows {
    /// The trigger.
    #[must_use]
    pub const fn new(work: Work, settings: SlaSettings) -> Self {
        Self { work, settings }
    }

    /// Enqueues the first open period of an allocation when it has ended; the next follows when that one is settled, so
    /// that periods are paid in order. Answers whether it did.
    async fn close(&self, allocation: &Allocation) -> Result<bool> {
        let Some(activated) = allocation.activated_at else { return Ok(false) };
        let period = allocation.periods_settled;
        let length = self.settings.billing_period.get();
        let end = activated.plus(Micros(length.saturating_mul(u64::from(period).saturating_add(1))));
        if end.plus(self.settings.lateness) > self.work.now() {
            return Ok(false);
        }
        let key = format!("{}/{period}", allocation.id);
        let dedup = format!("{}:{key}", JobKind::SlaCheck);
        if self.work.reader.count(Job::COLLECTION, Filter::eq("dedup", dedup)).await? > 0 {
            return Ok(false);
        }
        let mut changes = Changeset::new();
        NewJob::now(JobKind::SlaCheck, allocation.id, key, self.work.now())
            .input(PeriodInput { allocation: allocation.id, period })
            .enqueue(&mut changes, &self.work.ids);
        match self.work.committer.commit(changes).await {
            Ok(()) => Ok(true),
            // Another replica was faster.
            Err(DatabaseError::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[async_trait]
impl Trigger for CloseSlaWindows {
    fn name(&self) -> &'static str {
        "close_sla_windows"
    }

    async fn fire(&self) -> Result<TriggerReport> {
        let mut report = TriggerReport::default();
        let mut after = None;
        loop {
            let query = Query::new(Allocation::COLLECTION)
                .filter(Filter::In("state".into(), vec!["active".into(), "restricted".into()]))
                .limit(1_000)
                .after(after);
            let (page, next) = self.work.reader.list::<Allocation>(query).await?;
            for stored in page {
                report.examined += 1;
                match self.close(&stored.value).await {
                    Ok(true) => report.changed += 1,
                    Ok(false) => {}
                    Err(error) => {
                        report.failed += 1;
                        tracing::warn!(allocation = %stored.value.id, error = %crate::error::chain(&error), "a billing period could not be closed");
                    }
                }
            }
            match next {
                Some(cursor) => after = Some(cursor),
                None => return Ok(report),
            }
        }
    }
}
