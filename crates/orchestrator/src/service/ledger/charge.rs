//! Posts a period's charge: payment and fee out of escrow, credits back to the consumer.

use super::{LedgerDraft, Posting};
use crate::{
    core::market::{
        account::{AccountKey, TransferKind},
        allocation::Allocation,
        billing::PeriodCharge,
    },
    error::Result,
};

/// Posts the movements of one billing period; `period_key` is unique per period (`<allocation>/<period>`), which makes
/// paying a period twice impossible.
///
/// # Errors
/// [`crate::error::ErrorCode::InsufficientFunds`] when the charge was computed from other balances than the present
/// ones; database errors.
pub async fn post_charge(
    draft: &mut LedgerDraft<'_>,
    allocation: &Allocation,
    period_key: &str,
    charge: &PeriodCharge,
) -> Result<()> {
    let escrow = AccountKey::Escrow(allocation.id);
    let provider = AccountKey::Provider(allocation.provider);
    let consumer = AccountKey::Consumer(allocation.consumer);
    let collateral = AccountKey::Collateral(allocation.provider);
    let movements = [
        (TransferKind::Payment, escrow, provider, charge.earned, "payment"),
        (TransferKind::Fee, escrow, AccountKey::Fees, charge.fee, "fee"),
        (TransferKind::Credit, provider, consumer, charge.credit_from_earnings, "credit"),
        (TransferKind::Slash, collateral, consumer, charge.credit_from_collateral, "slash"),
    ];
    for (kind, debit, credit, amount, what) in movements {
        draft
            .post(Posting {
                kind,
                debit,
                credit,
                amount,
                idempotency_key: format!("{what}:{period_key}"),
                subject: allocation.id.to_string(),
            })
            .await?;
    }
    Ok(())
}
