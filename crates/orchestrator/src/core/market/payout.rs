//! Money on its way out: what an account released, on a layer where the daemon itself pays owners out.

use serde::{Deserialize, Serialize};

use super::{
    account::{Account, AccountKey},
    money::Amount,
    quantity::Timestamp,
    terms::DomainId,
};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PayoutState {
    /// Something is to be paid, as soon as a final block has it.
    Waiting,
    /// A transaction that pays it was made.
    Sent {
        /// The transaction's id at the settlement layer.
        transaction: String,
        /// What is paid in all once it took effect.
        upto: Amount,
    },
    /// All that was released is paid, for good.
    Paid,
    /// It can't be paid, and keeps nobody else waiting. The owner can still take it by itself.
    SetAside {
        /// Why.
        reason: String,
    },
}

impl PayoutState {
    /// Its name, as the field `state.kind` has it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sent { .. } => "sent",
            Self::Paid => "paid",
            Self::SetAside { .. } => "set_aside",
        }
    }
}

/// The payouts of one account; one document for each account that ever released money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payout {
    /// Its domain.
    pub domain: DomainId,
    /// Whose.
    pub account: AccountKey,
    /// What it ever released.
    pub released: Amount,
    /// What the layer ever paid, for good, as of the last look.
    pub paid: Amount,
    /// How far it is.
    pub state: PayoutState,
    /// Transactions in a row that should have paid it, and did not.
    pub attempts: u32,
    /// When it last changed.
    pub changed_at: Timestamp,
}

impl Payout {
    /// What an account has released by now is asked for: whatever was known before, it is tried anew.
    pub fn ask(&mut self, released: Amount, now: Timestamp) {
        self.released = released;
        self.changed_at = now;
        match self.state {
            // What it pays is known when it is there; the rest is asked for then.
            PayoutState::Sent { .. } => {}
            PayoutState::Waiting | PayoutState::Paid | PayoutState::SetAside { .. } => {
                self.state = if self.paid >= released { PayoutState::Paid } else { PayoutState::Waiting };
                self.attempts = 0;
            }
        }
    }

    /// The layer says what it paid for good. `unpaid` is what becomes of the payout when it is not all.
    pub fn look(&mut self, paid: Amount, unpaid: PayoutState, now: Timestamp) {
        self.paid = paid;
        self.changed_at = now;
        self.state = if paid >= self.released { PayoutState::Paid } else { unpaid };
        if self.state == PayoutState::Paid {
            self.attempts = 0;
        }
    }
}

impl Entity for Payout {
    const NAME: &'static str = "payout";
    const COLLECTION: Collection = schema::PAYOUTS;
    fn document_id(&self) -> String {
        Account::id_of(&self.domain, &self.account)
    }
}
