//! What a settlement layer does that pays owners by transactions of the daemon, several at once by one proof.

use async_trait::async_trait;

use super::settlement::SettlementError;
use crate::core::market::{
    account::AccountKey,
    address::Address,
    money::Amount,
    state::{AccountsProof, ShortHash},
};

/// Claims that are made together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayoutBatch {
    /// The final block whose state the proof is of.
    pub block: u64,
    /// The accounts with their owners, in the order of the proof's leaves.
    pub accounts: Vec<(AccountKey, Option<Address>)>,
    /// What they hold there.
    pub proof: AccountsProof,
}

/// What would come of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// Every one of its accounts would be paid.
    Works,
    /// It is too much for one transaction.
    TooLarge,
    /// At least one of its accounts can't be paid, and this is why.
    Fails(String),
}

/// Pays accounts out. What is paid is cumulative: an account that is in two batches gets its money once.
#[async_trait]
pub trait PayoutClient: Send + Sync {
    /// What the layer ever paid of each account, for good, in the order of their names; zero for accounts that it does not
    /// know.
    async fn paid(&self, accounts: &[ShortHash]) -> Result<Vec<Amount>, SettlementError>;

    /// What would come of a batch now; nothing is sent. An error says nothing about any of its accounts.
    async fn try_out(&self, batch: &PayoutBatch) -> Result<Trial, SettlementError>;

    /// Pays a batch. The key is the id of the transaction, too; the same key again has no further effect. An account that can't
    /// be paid after all is left out by the layer, and the others are paid.
    async fn pay_out(&self, key: &str, batch: &PayoutBatch) -> Result<(), SettlementError>;
}
