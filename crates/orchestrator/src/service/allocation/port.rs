//! What the allocation service needs of its neighbours: the choice of an offering, and the last settlement.

use async_trait::async_trait;

use crate::{
    core::{
        client::database::Changeset,
        market::{
            allocation::{Allocation, Usage},
            ids::UnitId,
            offering::OfferingFilter,
        },
    },
    error::Result,
    service::{job::step::At, ledger::LedgerDraft},
};

/// Ranks offerings.
#[async_trait]
pub trait OfferingPicker: Send + Sync + 'static {
    /// Units that match, best first, at most `limit`. The answer may be a second old: the reservation checks again.
    ///
    /// # Errors
    /// `NoMatchingOffering`, with what each filter removed, when nothing matches.
    async fn pick(&self, filter: &OfferingFilter, limit: usize) -> Result<Vec<UnitId>>;
}

/// Judges and pays the last, partial period of an allocation that closes.
#[async_trait]
pub trait FinalSettlement: Send + Sync + 'static {
    /// Posts payment, fee and credits up to `usage.read_at` into `ledger`, brings the settled fields of `allocation` up to
    /// date, and adds what else belongs to it (the verdict) to `changes`. The caller refunds what the escrow still holds
    /// through the same ledger, writes the allocation and commits. What is stored outside the database is stored as the
    /// step `at`. Usage that was paid before is not paid again.
    ///
    /// # Errors
    /// Database errors; what the ledger refuses.
    async fn settle_final(
        &self,
        at: At<'_>,
        allocation: &mut Allocation,
        usage: Usage,
        ledger: &mut LedgerDraft<'_>,
        changes: &mut Changeset,
    ) -> Result<()>;
}
