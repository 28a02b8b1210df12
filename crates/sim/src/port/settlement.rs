//! The settlement layer and the data-availability layer behind faults, with counts of their own of what took effect.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use orchestrator::{
    client::{da::LocalDa, settlement::LocalSettlement},
    core::{
        madara::{
            attestation::EvidenceOracles,
            da::{DaClient, DaError, DaLimits},
            payout::PayoutClient,
            settlement::{
                BlockProof, CallToSign, Deposit, Holdings, SettledBlock, SettlementClient, SettlementError,
                TransactionStatus, WithdrawalClaim,
            },
        },
        market::{
            account::AccountKey,
            address::Address,
            block::{BlockHeader, Hash32},
            money::Amount,
            terms::DomainId,
        },
    },
};
use parking_lot::Mutex;

use crate::{
    faults::{Faults, Injected, Port, through},
    sabotage::Sabotage,
};

type Result<T> = std::result::Result<T, SettlementError>;

/// How often each key took effect, as the layer itself counts.
pub type Effects = Arc<Mutex<BTreeMap<String, u64>>>;

/// The settlement layer as one process sees it.
#[derive(Clone)]
pub struct FaultySettlement {
    /// The layer.
    pub layer: LocalSettlement,
    /// What took effect.
    pub effects: Effects,
    /// The faults of the lane.
    pub faults: Faults,
    /// The bug of the run.
    pub sabotage: Sabotage,
}

fn away() -> SettlementError {
    SettlementError::Unavailable(Box::new(Injected))
}

impl FaultySettlement {
    /// Counts a transaction that was made, and not one that was found again.
    async fn counted<T>(&self, key: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let before = self.layer.nonce().await?;
        let answer = call.await;
        // Nobody else is in between: the layer is in memory, and no call of it waits.
        if self.layer.nonce().await? > before {
            *self.effects.lock().entry(key.to_owned()).or_default() += 1;
        }
        answer
    }

    fn key(&self, key: &str) -> String {
        match self.sabotage {
            Sabotage::NoKeys => format!("{key}#{}", self.faults.below(u64::MAX)),
            _ => key.to_owned(),
        }
    }
}

#[async_trait]
impl SettlementClient for FaultySettlement {
    fn domain(&self) -> &DomainId {
        self.layer.domain()
    }

    fn treasury(&self) -> Option<Address> {
        self.layer.treasury()
    }

    fn oracles(&self) -> Option<&dyn EvidenceOracles> {
        self.layer.oracles()
    }

    fn payouts(&self) -> Option<&dyn PayoutClient> {
        self.layer.payouts()
    }

    async fn holdings(&self) -> Result<Holdings> {
        through!(self.faults, Port::Settlement, self.layer.holdings(), away())
    }

    async fn register_proof(
        &self,
        key: &str,
        header: &BlockHeader,
        proof: &BlockProof,
        da_reference: &str,
    ) -> Result<String> {
        let name = self.key(key);
        let call = self.counted(key, self.layer.register_proof(&name, header, proof, da_reference));
        through!(self.faults, Port::Settlement, call, away())
    }

    async fn update_state(&self, key: &str, header: &BlockHeader) -> Result<String> {
        let name = self.key(key);
        let call = self.counted(key, self.layer.update_state(&name, header));
        through!(self.faults, Port::Settlement, call, away())
    }

    async fn transaction(&self, id: &str) -> Result<TransactionStatus> {
        through!(self.faults, Port::Settlement, self.layer.transaction(id), away())
    }

    async fn last_settled(&self) -> Result<SettledBlock> {
        through!(self.faults, Port::Settlement, self.layer.last_settled(), away())
    }

    async fn block(&self, number: u64) -> Result<Option<(BlockHeader, String)>> {
        through!(self.faults, Port::Settlement, self.layer.block(number), away())
    }

    async fn deposits(&self, after: u64, limit: usize) -> Result<Vec<Deposit>> {
        through!(self.faults, Port::Settlement, self.layer.deposits(after, limit), away())
    }

    fn deposit_calls(&self, owner: Address, account: AccountKey, amount: Amount) -> Vec<CallToSign> {
        self.layer.deposit_calls(owner, account, amount)
    }

    async fn deposit(&self, key: &str, account: AccountKey, amount: Amount) -> Result<Deposit> {
        let name = self.key(key);
        let call = self.counted(key, self.layer.deposit(&name, account, amount));
        through!(self.faults, Port::Settlement, call, away())
    }

    async fn withdraw(&self, claim: &WithdrawalClaim) -> Result<Amount> {
        through!(self.faults, Port::Settlement, self.layer.withdraw(claim), away())
    }

    async fn tend(&self) -> Result<Vec<String>> {
        self.layer.tend().await
    }

    async fn nonce(&self) -> Result<u64> {
        through!(self.faults, Port::Settlement, self.layer.nonce(), away())
    }
}

/// The data-availability layer as one process sees it.
pub struct FaultyDa(pub LocalDa, pub Faults);

fn unpublished() -> DaError {
    DaError::Unavailable(Box::new(Injected))
}

#[async_trait]
impl DaClient for FaultyDa {
    async fn publish_state_diff(
        &self,
        domain: &DomainId,
        block: u64,
        data: &[u8],
    ) -> std::result::Result<String, DaError> {
        through!(self.1, Port::Da, self.0.publish_state_diff(domain, block, data), unpublished())
    }

    async fn verify_inclusion(&self, reference: &str) -> std::result::Result<bool, DaError> {
        through!(self.1, Port::Da, self.0.verify_inclusion(reference), unpublished())
    }

    async fn validate(&self, reference: &str, data: &[u8]) -> std::result::Result<(), DaError> {
        through!(self.1, Port::Da, self.0.validate(reference, data), unpublished())
    }

    async fn fetch(&self, reference: &str) -> std::result::Result<Vec<u8>, DaError> {
        through!(self.1, Port::Da, self.0.fetch(reference), unpublished())
    }

    fn commitment(&self, reference: &str) -> std::result::Result<Hash32, DaError> {
        self.0.commitment(reference)
    }

    fn limits(&self) -> DaLimits {
        self.0.limits()
    }
}
