//! Money on its way to owners, and what the settlement layer has.

use serde::Serialize;
use utoipa::ToSchema;

use super::common::{Money, Time};
use crate::{
    core::market::payout::{Payout, PayoutState},
    service::ledger::audit::LayerAudit,
};

/// What an account has released, on its way to the owner.
#[derive(Debug, Serialize, ToSchema)]
pub struct PayoutView {
    /// The account's name.
    pub account: String,
    /// Its domain.
    pub domain: String,
    /// What it ever released.
    pub released: Money,
    /// What the chain ever paid of it, for good.
    pub paid: Money,
    /// `waiting`, `sent`, `paid` or `set_aside`.
    #[schema(example = "sent")]
    pub state: &'static str,
    /// The transaction that pays it, while it is on its way.
    pub transaction: Option<String>,
    /// Why it was set aside.
    pub reason: Option<String>,
    /// Transactions in a row that should have paid it, and did not.
    pub attempts: u32,
    /// When it last changed.
    pub changed_at: Time,
}

impl From<Payout> for PayoutView {
    fn from(payout: Payout) -> Self {
        let state = payout.state.name();
        let (transaction, reason) = match payout.state {
            PayoutState::Sent { transaction, .. } => (Some(transaction), None),
            PayoutState::SetAside { reason } => (None, Some(reason)),
            PayoutState::Waiting | PayoutState::Paid => (None, None),
        };
        Self {
            account: payout.account.to_string(),
            domain: payout.domain.0,
            released: payout.released.into(),
            paid: payout.paid.into(),
            state,
            transaction,
            reason,
            attempts: payout.attempts,
            changed_at: payout.changed_at.into(),
        }
    }
}

/// What the settlement layer has, beside what the ledger says.
#[derive(Debug, Serialize, ToSchema)]
pub struct LayerView {
    /// What it holds for accounts.
    pub held: Money,
    /// What it ever paid to owners.
    pub paid: Money,
    /// What accounts still have to get: liabilities less what was paid.
    pub owed: Money,
    /// Whether it holds what is owed. If not, money is missing.
    pub solvent: bool,
    /// What was released and is not paid yet. That is settlement lag: it passes by itself.
    pub lag: Money,
}

impl From<LayerAudit> for LayerView {
    fn from(audit: LayerAudit) -> Self {
        Self {
            held: audit.held.into(),
            paid: audit.paid.into(),
            owed: audit.owed.into(),
            solvent: audit.solvent,
            lag: audit.lag.into(),
        }
    }
}
