//! Takes an allocation out of use: keys become read-only, usage is read, the last partial period is judged and paid, the
//! rest of the escrow goes back, and the purge is scheduled for the end of the grace.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use super::{
    ProvisioningSettings,
    desk::{Desk, known},
};
use crate::{
    core::{
        client::{
            database::{Changeset, Stored},
            provider::AccessLevel,
        },
        job::{JobKind, NewJob},
        market::{
            allocation::{Allocation, AllocationState, Usage},
            quantity::Micros,
        },
    },
    error::Error,
    service::{
        allocation::{Counters, FinalSettlement, fund, record},
        job::{
            JobContext, JobError, JobHandler, Policy, Processed,
            step::{At, ReleaseStep},
        },
        ledger::LedgerDraft,
        outbox,
    },
};

/// The handler of `release`.
pub struct Release {
    desk: Desk,
    settlement: Arc<dyn FinalSettlement>,
    settings: ProvisioningSettings,
}

impl Release {
    /// A handler over the given ports.
    #[must_use]
    pub fn new(desk: Desk, settlement: Arc<dyn FinalSettlement>, settings: ProvisioningSettings) -> Self {
        Self { desk, settlement, settings }
    }

    /// Settles up to the reading, refunds, and schedules the purge.
    async fn settle(
        &self,
        context: &dyn JobContext,
        stored: Stored<Allocation>,
        usage: Usage,
    ) -> Result<Changeset, JobError> {
        let Stored { version, value: mut allocation } = stored;
        let work = &self.desk.work;
        let now = context.now();
        let mut changes = Changeset::new();
        let mut ledger = LedgerDraft::new(work.reader.as_ref(), &work.ids, allocation.domain.clone());
        allocation.usage = usage;
        let at = At::new(context, ReleaseStep::StoreEvidence);
        self.settlement.settle_final(at, &mut allocation, usage, &mut ledger, &mut changes).await?;
        fund::refund_into(&mut ledger, &allocation).await?;
        ledger.finish(&mut changes);
        let purge_at = now.plus(self.settings.grace);
        allocation.purge_at = Some(purge_at);
        allocation.updated_at = now;
        let mut purge = NewJob::now(JobKind::Purge, allocation.id, allocation.id, now);
        purge.run_at = purge_at;
        purge.trace_id.clone_from(&context.job().trace_id);
        purge.enqueue(&mut changes, &work.ids);
        record(&mut changes, &work.ids, version, &allocation, Counters::Unchanged, "allocation.settled");
        Ok(changes)
    }
}

/// Whether there is nothing left to settle.
fn is_settled(allocation: &Allocation) -> bool {
    allocation.state != AllocationState::Closing || allocation.purge_at.is_some()
}

#[async_trait]
impl JobHandler for Release {
    fn kind(&self) -> JobKind {
        JobKind::Release
    }

    fn policy(&self) -> Policy {
        Policy {
            mutates_subject: true,
            max_attempts: 20,
            max_delay: Micros::from_secs(300),
            ..Policy::default()
        }
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let stored = self.desk.allocation(context.job()).await?;
        if is_settled(&stored.value) {
            return Ok(Processed::Done(Changeset::new()));
        }
        let id = stored.value.id;
        let client = self.desk.client(stored.value.provider).await?;
        // Read-only first: what is written after the reading would never be paid. What the provider does not know any more
        // is settled by the last reading.
        let (generation, level) = (context.generation(), AccessLevel::ReadOnly);
        let step = ReleaseStep::Restrict;
        known(client.call(context, step, |client| client.restrict(id, generation, level)).await)?;
        let reading = client.call(context, ReleaseStep::ReadMeter, |client| client.usage(id)).await;
        let usage = known(reading)?.unwrap_or(stored.value.usage);
        Ok(Processed::Done(self.settle(context, stored, usage).await?))
    }

    /// A provider that can't be reached for so long does not keep the consumer's money: the last known reading counts.
    async fn on_failed(&self, context: &dyn JobContext, error: &Error) -> Result<Changeset, JobError> {
        let stored = self.desk.allocation(context.job()).await?;
        if is_settled(&stored.value) {
            return Ok(Changeset::new());
        }
        let (id, usage) = (stored.value.id, stored.value.usage);
        let mut changes = self.settle(context, stored, usage).await?;
        let subject = format!("{id} was settled by its last known usage");
        let body = json!({"allocation": id, "error": error.to_string()});
        outbox::alert(&mut changes, &self.desk.work.ids, subject, body);
        Ok(changes)
    }
}
