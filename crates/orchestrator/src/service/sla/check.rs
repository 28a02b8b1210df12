//! The `sla_check` job: judges and pays one whole billing period of one allocation, and restricts it when its escrow is
//! used up.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::period::PeriodSettlement;
use crate::{
    core::{
        client::{
            database::{Changeset, ReaderExt},
            provider::{ProviderDirectory, ProviderError},
        },
        job::JobKind,
        market::{
            account::AccountKey,
            allocation::{Allocation, RestrictReason, Usage},
            ids::AllocationId,
            money::Amount,
            party::Provider,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        allocation::{Counters, impose, record},
        job::{
            JobContext, JobError, JobHandler, Outside, Policy, Processed,
            step::{At, SlaCheckStep},
        },
        ledger::LedgerDraft,
    },
};

/// What an `sla_check` job is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeriodInput {
    /// The allocation.
    pub allocation: AllocationId,
    /// Which period, counted from 0 at activation.
    pub period: u32,
}

/// The `sla_check` job: judges and pays one whole period.
pub struct SlaCheck {
    settlement: PeriodSettlement,
    providers: Arc<dyn ProviderDirectory>,
}

impl SlaCheck {
    /// The handler.
    #[must_use]
    pub fn new(settlement: PeriodSettlement, providers: Arc<dyn ProviderDirectory>) -> Self {
        Self { settlement, providers }
    }

    /// The provider's meter; of an allocation that is gone there, the last reading stands.
    async fn read_meter(&self, context: &dyn JobContext, allocation: &Allocation) -> Result<Usage> {
        let reader = &self.settlement.work.reader;
        let found = reader.load::<Provider>(&allocation.provider.to_string()).await?;
        let provider = found.ok_or_else(|| Error::not_found("provider", allocation.provider))?.value;
        let failed = |error: ProviderError| match error {
            ProviderError::Deferred(after) => Error::deferred("the provider", after).because(error),
            error => {
                Error::new(ErrorCode::ProviderFailed, "the provider's meter can't be read").because(error)
            }
        };
        let client = Outside::new(self.providers.client(&provider).await.map_err(failed)?);
        let id = allocation.id;
        match client.call(context, SlaCheckStep::ReadMeter, |client| client.usage(id)).await {
            Ok(usage) => Ok(usage),
            Err(ProviderError::Unknown(_)) => {
                Ok(Usage { read_at: self.settlement.work.now(), ..allocation.usage })
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn draft(&self, context: &dyn JobContext, input: PeriodInput) -> Result<Changeset> {
        let work = &self.settlement.work;
        let mut changes = Changeset::new();
        let found = work.reader.load::<Allocation>(&input.allocation.to_string()).await?;
        let mut stored = found.ok_or_else(|| Error::not_found("allocation", input.allocation))?;
        let allocation = &mut stored.value;
        // Paid already, or taken over by the release job, which pays everything that is open.
        if !allocation.state.is_in_use() || allocation.periods_settled > input.period {
            return Ok(changes);
        }
        if allocation.periods_settled < input.period {
            return Err(Error::new(ErrorCode::Conflict, "an earlier period is not settled yet"));
        }
        let window = self
            .settlement
            .window(allocation, input.period)
            .ok_or_else(|| Error::new(ErrorCode::InvalidState, "the allocation was never active"))?;
        let usage = self.read_meter(context, allocation).await?;
        let mut ledger = LedgerDraft::new(work.reader.as_ref(), &work.ids, allocation.domain.clone());
        let at = At::new(context, SlaCheckStep::StoreEvidence);
        self.settlement
            .settle(at, allocation, input.period, window, usage, &mut ledger, &mut changes)
            .await?;
        let left = ledger.balance(AccountKey::Escrow(allocation.id)).await?;
        let exhausted = left.is_zero()
            && allocation.escrow_required > Amount::ZERO
            && impose(&mut changes, &work.ids, allocation, stored.version, RestrictReason::EscrowExhausted)?;
        allocation.updated_at = work.now();
        ledger.finish(&mut changes);
        if exhausted {
            let kind = "allocation.restricted";
            record(&mut changes, &work.ids, stored.version, allocation, Counters::Unchanged, kind);
        } else {
            changes.replace(stored.version, &stored.value);
        }
        Ok(changes)
    }
}

#[async_trait]
impl JobHandler for SlaCheck {
    fn kind(&self) -> JobKind {
        JobKind::SlaCheck
    }

    fn policy(&self) -> Policy {
        Policy { max_attempts: 20, ..Policy::default() }
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let input: PeriodInput =
            context.job().input.read().map_err(|error| JobError::Permanent(Error::internal(error)))?;
        Ok(Processed::Done(self.draft(context, input).await?))
    }
}
