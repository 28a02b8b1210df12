//! A settlement layer behind a breaker.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Guard, Symptom};
use crate::core::{
    madara::{
        attestation::EvidenceOracles,
        payout::{PayoutBatch, PayoutClient, Trial},
        settlement::{
            BlockProof, CallToSign, Deposit, Holdings, SettledBlock, SettlementClient, SettlementError,
            TransactionStatus, WithdrawalClaim,
        },
    },
    market::{
        account::AccountKey, address::Address, block::BlockHeader, money::Amount, quantity::Micros,
        state::ShortHash, terms::DomainId,
    },
};

impl Symptom for SettlementError {
    fn is_sick(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Refused(_)
            | Self::Overflow
            | Self::NotSupported(_)
            | Self::NoTransaction(_)
            | Self::Deferred(_) => false,
        }
    }

    fn deferred(after: Micros) -> Self {
        Self::Deferred(after)
    }
}

/// The layer behind its breaker.
pub struct GuardedSettlement {
    inner: Arc<dyn SettlementClient>,
    guard: Guard,
}

impl GuardedSettlement {
    /// Puts a layer behind a breaker.
    #[must_use]
    pub fn new(inner: Arc<dyn SettlementClient>, guard: Guard) -> Self {
        Self { inner, guard }
    }
}

#[async_trait]
impl SettlementClient for GuardedSettlement {
    fn domain(&self) -> &DomainId {
        self.inner.domain()
    }

    fn treasury(&self) -> Option<Address> {
        self.inner.treasury()
    }

    fn oracles(&self) -> Option<&dyn EvidenceOracles> {
        self.inner.oracles()
    }

    fn payouts(&self) -> Option<&dyn PayoutClient> {
        self.inner.payouts().map(|_| self as &dyn PayoutClient)
    }

    async fn holdings(&self) -> Result<Holdings, SettlementError> {
        self.guard.call(self.inner.holdings()).await
    }

    async fn register_proof(
        &self,
        key: &str,
        header: &BlockHeader,
        proof: &BlockProof,
        da_reference: &str,
    ) -> Result<String, SettlementError> {
        self.guard.call(self.inner.register_proof(key, header, proof, da_reference)).await
    }

    async fn update_state(&self, key: &str, header: &BlockHeader) -> Result<String, SettlementError> {
        self.guard.call(self.inner.update_state(key, header)).await
    }

    async fn transaction(&self, id: &str) -> Result<TransactionStatus, SettlementError> {
        self.guard.call(self.inner.transaction(id)).await
    }

    async fn last_settled(&self) -> Result<SettledBlock, SettlementError> {
        self.guard.call(self.inner.last_settled()).await
    }

    async fn block(&self, number: u64) -> Result<Option<(BlockHeader, String)>, SettlementError> {
        self.guard.call(self.inner.block(number)).await
    }

    async fn deposits(&self, after: u64, limit: usize) -> Result<Vec<Deposit>, SettlementError> {
        self.guard.call(self.inner.deposits(after, limit)).await
    }

    fn deposit_calls(&self, owner: Address, account: AccountKey, amount: Amount) -> Vec<CallToSign> {
        self.inner.deposit_calls(owner, account, amount)
    }

    async fn deposit(
        &self,
        key: &str,
        account: AccountKey,
        amount: Amount,
    ) -> Result<Deposit, SettlementError> {
        self.guard.call(self.inner.deposit(key, account, amount)).await
    }

    async fn withdraw(&self, claim: &WithdrawalClaim) -> Result<Amount, SettlementError> {
        self.guard.call(self.inner.withdraw(claim)).await
    }

    async fn tend(&self) -> Result<Vec<String>, SettlementError> {
        self.guard.call(self.inner.tend()).await
    }

    async fn nonce(&self) -> Result<u64, SettlementError> {
        self.guard.call(self.inner.nonce()).await
    }
}

impl GuardedSettlement {
    fn inner_payouts(&self) -> Result<&dyn PayoutClient, SettlementError> {
        self.inner.payouts().ok_or(SettlementError::NotSupported("paying out"))
    }
}

#[async_trait]
impl PayoutClient for GuardedSettlement {
    async fn paid(&self, accounts: &[ShortHash]) -> Result<Vec<Amount>, SettlementError> {
        self.guard.call(self.inner_payouts()?.paid(accounts)).await
    }

    async fn try_out(&self, batch: &PayoutBatch) -> Result<Trial, SettlementError> {
        self.guard.call(self.inner_payouts()?.try_out(batch)).await
    }

    async fn pay_out(&self, key: &str, batch: &PayoutBatch) -> Result<(), SettlementError> {
        self.guard.call(self.inner_payouts()?.pay_out(key, batch)).await
    }
}
