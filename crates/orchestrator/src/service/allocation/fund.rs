//! Money in: funding starts provisioning, cancelling gives everything back, renewal buys more time.

use super::{AllocationService, Counters, RenewRequest, record};
use crate::{
    core::{
        client::database::{Changeset, Stored},
        job::{JobKind, NewJob},
        market::{
            account::{AccountKey, TransferKind},
            allocation::{Allocation, AllocationEvent, AllocationState, RestrictReason, Span},
            ids::AllocationId,
            money::Amount,
            quantity::{Bytes, Micros},
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        ledger::{LedgerDraft, Posting},
        work::{Answer, Call, Draft, Work},
    },
};

impl AllocationService {
    /// Moves the escrow from the consumer's balance and enqueues provisioning.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `InvalidState`, `ReservationExpired`, `InsufficientFunds`.
    pub async fn fund(&self, call: &Call, id: AllocationId) -> Result<Answer<Allocation>> {
        let compute = || async {
            let Stored { version, value: mut allocation } = self.own(call, id).await?;
            let now = self.work.now();
            let late = allocation.state == AllocationState::Reserved && allocation.reserved_until <= now;
            if late || allocation.state == AllocationState::Expired {
                return Err(Error::new(
                    ErrorCode::ReservationExpired,
                    format!("the reservation ran out at {}; reserve again", allocation.reserved_until),
                ));
            }
            allocation.apply(AllocationEvent::Fund, now)?;
            let mut changes = Changeset::new();
            let required = allocation.escrow_required;
            draw(&self.work, &mut changes, &allocation, required, format!("fund:{id}")).await?;
            let mut job = NewJob::now(JobKind::Provision, id, id, now);
            job.trace_id.clone_from(&call.trace_id);
            job.enqueue(&mut changes, &self.work.ids);
            record(
                &mut changes,
                &self.work.ids,
                version,
                &allocation,
                Counters::Unchanged,
                "allocation.funded",
            );
            Ok(Draft::new(changes, allocation))
        };
        self.work.run(call, "allocation.fund", compute).await
    }

    /// Gives up what is not provisioned yet: capacity is freed, escrow comes back in full. What the provider may have
    /// begun, the provision job removes when it finds the allocation cancelled.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `InvalidState`.
    pub async fn cancel(&self, call: &Call, id: AllocationId) -> Result<Answer<Allocation>> {
        let compute = || async {
            let Stored { version, value: mut allocation } = self.own(call, id).await?;
            allocation.apply(AllocationEvent::Cancel, self.work.now())?;
            let mut changes = Changeset::new();
            refund(&self.work, &mut changes, &allocation).await?;
            record(
                &mut changes,
                &self.work.ids,
                version,
                &allocation,
                Counters::Freed,
                "allocation.cancelled",
            );
            Ok(Draft::new(changes, allocation))
        };
        self.work.run(call, "allocation.cancel", compute).await
    }

    /// Buys more time, and egress, at the frozen price. An exhausted escrow is no reason to restrict any more.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `InvalidField`, `InvalidState`, `InsufficientFunds`.
    pub async fn renew(
        &self,
        call: &Call,
        id: AllocationId,
        request: RenewRequest,
    ) -> Result<Answer<Allocation>> {
        let compute = || async {
            let Stored { version, value: mut allocation } = self.own(call, id).await?;
            let now = self.work.now();
            let ends_at = match allocation.ends_at {
                Some(ends_at) if allocation.state.is_in_use() => ends_at,
                _ => {
                    return Err(Error::new(
                        ErrorCode::InvalidState,
                        format!(
                            "only what is active or restricted can be renewed, this is {}",
                            allocation.state.as_str()
                        ),
                    ));
                }
            };
            allocation.earlier.push(Span {
                egress_allowance: allocation.egress_allowance,
                period: allocation.period,
                ends_at: allocation.ends_at,
            });
            let cost = self.extend(&mut allocation, request)?;
            let mut changes = Changeset::new();
            draw(&self.work, &mut changes, &allocation, cost, format!("renew:{id}:{version}")).await?;
            allocation.ends_at = Some(ends_at.plus(request.period));
            allocation.updated_at = now;
            super::restrict::lift(
                &mut changes,
                &self.work.ids,
                &mut allocation,
                version,
                RestrictReason::EscrowExhausted,
            )?;
            record(
                &mut changes,
                &self.work.ids,
                version,
                &allocation,
                Counters::Unchanged,
                "allocation.renewed",
            );
            Ok(Draft::new(changes, allocation))
        };
        self.work.run(call, "allocation.renew", compute).await
    }

    /// Extends period and allowance; answers what that costs.
    fn extend(&self, allocation: &mut Allocation, request: RenewRequest) -> Result<Amount> {
        let longest = self.settings.longest_period;
        let period = Micros(allocation.period.0.saturating_add(request.period.0));
        if request.period < self.settings.shortest_period || period > longest {
            return Err(Error::field(
                "period",
                format!(
                    "a renewal is at least {} seconds long, and all periods together at most {}",
                    self.settings.shortest_period.as_secs(),
                    longest.as_secs()
                ),
            ));
        }
        let egress = Bytes(allocation.egress_allowance.0.saturating_add(request.egress_allowance.0));
        if egress > Bytes::MAX {
            return Err(Error::field(
                "egress_allowance",
                format!("all allowances together are at most {} bytes", Bytes::MAX.0),
            ));
        }
        let too_large = || Error::new(ErrorCode::Overflow, "the price of this renewal does not fit");
        let cost = allocation
            .price
            .ceiling(allocation.bytes, request.period, request.egress_allowance)
            .ok_or_else(too_large)?;
        allocation.escrow_required = allocation.escrow_required.checked_add(cost).ok_or_else(too_large)?;
        allocation.period = period;
        allocation.egress_allowance = egress;
        Ok(cost)
    }
}

/// Moves money from the consumer into the allocation's escrow.
async fn draw(
    work: &Work,
    changes: &mut Changeset,
    allocation: &Allocation,
    amount: Amount,
    key: String,
) -> Result<()> {
    let mut ledger = LedgerDraft::new(work.reader.as_ref(), &work.ids, allocation.domain.clone());
    ledger
        .post(Posting {
            kind: TransferKind::Fund,
            debit: AccountKey::Consumer(allocation.consumer),
            credit: AccountKey::Escrow(allocation.id),
            amount,
            idempotency_key: key,
            subject: allocation.id.to_string(),
        })
        .await?;
    ledger.finish(changes);
    Ok(())
}

/// Gives the whole escrow back.
pub(in crate::service) async fn refund(
    work: &Work,
    changes: &mut Changeset,
    allocation: &Allocation,
) -> Result<()> {
    let mut ledger = LedgerDraft::new(work.reader.as_ref(), &work.ids, allocation.domain.clone());
    refund_into(&mut ledger, allocation).await?;
    ledger.finish(changes);
    Ok(())
}

/// Gives back what the escrow holds after the ledger's other postings. An allocation is refunded once, at its end.
pub(in crate::service) async fn refund_into(
    ledger: &mut LedgerDraft<'_>,
    allocation: &Allocation,
) -> Result<()> {
    let left = ledger.balance(AccountKey::Escrow(allocation.id)).await?;
    ledger
        .post(Posting {
            kind: TransferKind::Refund,
            debit: AccountKey::Escrow(allocation.id),
            credit: AccountKey::Consumer(allocation.consumer),
            amount: left,
            idempotency_key: format!("refund:{}", allocation.id),
            subject: allocation.id.to_string(),
        })
        .await
}
