//! The settlement port: a chain, or what stands in for one, that takes blocks, holds deposits and pays withdrawals.

use async_trait::async_trait;

use super::{attestation::EvidenceOracles, payout::PayoutClient};
use crate::core::market::{
    account::AccountKey,
    address::Address,
    block::{BlockHeader, Hash32},
    money::Amount,
    quantity::{Micros, Timestamp},
    state::Step,
    terms::DomainId,
};

/// What a settlement layer answers when it can't do as asked.
#[derive(Debug, thiserror::Error)]
pub enum SettlementError {
    /// The layer's rules refuse the call; retrying does not help.
    #[error("the settlement layer refused: {0}")]
    Refused(String),
    /// With this deposit, the sum of all deposits would not fit 128 bits; nothing was paid in.
    #[error("the sum of all deposits does not fit 128 bits")]
    Overflow,
    /// The layer does not do this.
    #[error("{0} is not supported by this settlement layer")]
    NotSupported(&'static str),
    /// No such transaction.
    #[error("transaction `{0}` is not known to the settlement layer")]
    NoTransaction(String),
    /// It can't be reached; a transaction may or may not have been taken: look it up by its key.
    #[error("the settlement layer is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is left alone for now, because it failed too often; it was not asked. Come again after so long.
    #[error("the settlement layer is left alone for {} ms", .0.as_millis())]
    Deferred(Micros),
}

impl SettlementError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Deferred(_) => true,
            Self::Refused(_) | Self::Overflow | Self::NotSupported(_) | Self::NoTransaction(_) => false,
        }
    }
}

/// How far a transaction is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Taken, not yet executed.
    Pending,
    /// Executed, and may still be undone.
    Included,
    /// Executed for good.
    Final,
    /// Refused, with the layer's reason.
    Rejected(String),
}

/// The proof that a block follows from its parent.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BlockProof {
    /// The records were executed again, independently, with the same roots; whoever doubts it does the same.
    Reexecution {
        /// State root before.
        pre_state: Hash32,
        /// State root after.
        post_state: Hash32,
        /// Root over the steps; in the first format, over the records.
        events_root: Hash32,
        /// The steps that the events root is over; none in the first format.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        steps: Vec<Step>,
        /// What oracles signed of the evidence root, for layers that ask for it: 65 bytes each in hex, by ascending signer.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        attestations: Vec<String>,
    },
}

/// A deposit that the layer has seen.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Deposit {
    /// Counted from 1 per domain, without gaps.
    pub index: u64,
    /// Whom it credits. A name on the chain that is no account's name is [`AccountKey::Unclaimed`].
    pub account: AccountKey,
    /// The owner that it was made for, on layers whose accounts have owners. An account of the market is meant only if it
    /// is its owner's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Address>,
    /// How much.
    pub amount: Amount,
    /// Whether enough confirmations have passed.
    pub confirmed: bool,
    /// When.
    pub at: Timestamp,
}

/// A call of a contract that an owner signs and sends by itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CallToSign {
    /// What it does, for people.
    pub what: String,
    /// The chain.
    pub chain_id: u64,
    /// The contract's address.
    pub to: String,
    /// The call data, in hex.
    pub data: String,
}

/// A claim on withdrawable money.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WithdrawalClaim {
    /// Whose.
    pub account: AccountKey,
    /// The owner, whom the layer pays; `None` on layers whose accounts have no owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Address>,
    /// The block whose state the proof is of; it must be final.
    pub block: u64,
    /// What the leaf says: money that can be moved.
    pub balance: Amount,
    /// What the leaf says: money released ever.
    pub cumulative: Amount,
    /// Index of the leaf.
    pub index: u32,
    /// Sibling hashes in the accounts tree, from the leaf upwards.
    pub siblings: Vec<Hash32>,
    /// Root of the market tree of that block.
    pub market_root: Hash32,
    /// Number of leaves of the accounts tree at that block.
    pub next_index: u32,
    /// What deposits had ever credited at that block.
    pub total: Amount,
}

/// What a layer has of everybody's money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings {
    /// What it holds for accounts. On a chain this is the contract's balance of the token less the operator's bond; bonds of
    /// former operators and rewards that nobody has taken yet are in it.
    pub held: Amount,
    /// What it ever paid to owners.
    pub paid: Amount,
}

/// What the layer has settled last.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SettledBlock {
    /// Its number; 0 before the first.
    pub number: u64,
    /// Hash of its header; zero before the first.
    pub hash: Hash32,
    /// Its state root.
    pub state_root: Hash32,
    /// Whether it is final.
    pub is_final: bool,
}

/// A settlement layer of one domain. `key` makes calls idempotent: the same key again gives the transaction of the
/// first call and has no further effect.
#[async_trait]
pub trait SettlementClient: Send + Sync + 'static {
    /// The domain that this client settles.
    fn domain(&self) -> &DomainId;

    /// Who owns the fees, on a layer that pays owners by their addresses. `None`: accounts of this domain have no owners.
    fn treasury(&self) -> Option<Address>;

    /// Who vouches for evidence; `None` on a layer that asks nobody.
    fn oracles(&self) -> Option<&dyn EvidenceOracles>;

    /// How this daemon pays owners out; `None` where owners claim by themselves.
    fn payouts(&self) -> Option<&dyn PayoutClient>;

    /// What the layer holds for all accounts together, and what it ever paid them, as of one instant.
    async fn holdings(&self) -> Result<Holdings, SettlementError>;

    /// Registers a block with its proof and its data reference; returns the transaction.
    async fn register_proof(
        &self,
        key: &str,
        header: &BlockHeader,
        proof: &BlockProof,
        da_reference: &str,
    ) -> Result<String, SettlementError>;

    /// Makes the registered block the current state; returns the transaction.
    async fn update_state(&self, key: &str, header: &BlockHeader) -> Result<String, SettlementError>;

    /// How far a transaction is.
    async fn transaction(&self, id: &str) -> Result<TransactionStatus, SettlementError>;

    /// The last settled block.
    async fn last_settled(&self) -> Result<SettledBlock, SettlementError>;

    /// Header and data reference of a settled block, for whoever rebuilds the ledger.
    async fn block(&self, number: u64) -> Result<Option<(BlockHeader, String)>, SettlementError>;

    /// Up to `limit` deposits after the one with index `after`.
    async fn deposits(&self, after: u64, limit: usize) -> Result<Vec<Deposit>, SettlementError>;

    /// The calls by which an owner pays so much in to its account, in their order; none on layers that take no calls.
    fn deposit_calls(&self, owner: Address, account: AccountKey, amount: Amount) -> Vec<CallToSign>;

    /// Puts money in, as a user's own transaction would; only layers that stand in for a chain do it.
    async fn deposit(
        &self,
        key: &str,
        account: AccountKey,
        amount: Amount,
    ) -> Result<Deposit, SettlementError>;

    /// Pays what a claim proves beyond what was paid before; returns what was paid now.
    async fn withdraw(&self, claim: &WithdrawalClaim) -> Result<Amount, SettlementError>;

    /// Looks after transactions that were sent and are not there for good yet: what was dropped is sent again, what waits is offered
    /// more. Answers what goes on only when a person has looked, one text each. To be called again and again.
    async fn tend(&self) -> Result<Vec<String>, SettlementError>;

    /// The next nonce of this daemon's signer.
    async fn nonce(&self) -> Result<u64, SettlementError>;
}
