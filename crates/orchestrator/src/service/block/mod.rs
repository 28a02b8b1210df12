//! Blocks: seal → prove → publish → register → settle → final. Each step is a job kind in a file of its own; here are the
//! documents they share and the service that shows blocks.

pub mod attest;
mod desk;
mod order;
mod reject;
pub mod seal;
mod store;

pub mod prove;
pub mod publish;
pub mod register;
pub mod update;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::{
    attest::{AttestationService, Attested},
    desk::{BlockService, ProofKind, RecordPage, Resumed},
    seal::SealTrigger,
    store::{BUCKET as RECORDS_BUCKET, BlockStore, SharedStates},
};
use super::{
    job::{JobHandler, Outside, Policy},
    ledger::{UnsealedKind, UnsealedMarker},
    settlement::SettlementDomains,
};
use crate::core::{
    client::{
        database::Entity,
        schema::{self, Collection},
    },
    madara::{da::DaClient, settlement::SettlementClient},
    market::{
        block::{Block, Hash32},
        ids::IdGenerator,
        quantity::{Micros, Timestamp},
        terms::DomainId,
    },
};
use crate::error::Result;

/// How blocks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSettings {
    /// Markers that one block carries, at most.
    pub batch: usize,
    /// How long to wait before looking again whether a transaction has gone on.
    pub poll: Micros,
    /// Rejections in a row after which sealing stops until an operator has looked.
    pub max_rejections: u32,
}

impl Default for BlockSettings {
    fn default() -> Self {
        Self { batch: 5_000, poll: Micros::from_millis(200), max_rejections: 3 }
    }
}

/// The end of a domain's chain of blocks; kept in `meta`. Every seal replaces it, so two sealers can't both succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainTip {
    /// The domain.
    pub domain: DomainId,
    /// The last sealed block; 0 before the first.
    pub number: u64,
    /// Its hash; zero before the first.
    pub hash: Hash32,
    /// Seals tried so far: makes the next seal job's key new.
    pub round: u64,
    /// Rejections since the last final block.
    pub rejections: u32,
    /// Why sealing has stopped, if it has.
    pub halted: Option<String>,
}

impl ChainTip {
    /// The id of its document.
    #[must_use]
    pub fn id_of(domain: &DomainId) -> String {
        format!("chain/{domain}")
    }

    /// The end of a chain without blocks.
    #[must_use]
    pub fn genesis(domain: DomainId) -> Self {
        Self { domain, number: 0, hash: Hash32::default(), round: 0, rejections: 0, halted: None }
    }
}

impl Entity for ChainTip {
    const NAME: &'static str = "chain_tip";
    const COLLECTION: Collection = schema::META;
    fn document_id(&self) -> String {
        Self::id_of(&self.domain)
    }
}

/// Where something was sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedEntry {
    /// The id of the marker that asked for it.
    pub id: String,
    /// The domain.
    pub domain: DomainId,
    /// Id of the block's document.
    pub block: String,
    /// What it is.
    pub kind: UnsealedKind,
}

impl Entity for SealedEntry {
    const NAME: &'static str = "sealed_entry";
    const COLLECTION: Collection = schema::SEALED_ENTRIES;
    fn document_id(&self) -> String {
        self.id.clone()
    }
}

/// Something that no block could carry; what depends on it waits, the rest goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Its marker; put back, it is tried again.
    pub marker: UnsealedMarker,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl Entity for Quarantined {
    const NAME: &'static str = "quarantined";
    const COLLECTION: Collection = schema::QUARANTINED;
    fn document_id(&self) -> String {
        self.marker.id.clone()
    }
}

/// A block that the settlement layer refused, kept for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RejectedBlock(pub Block);

impl Entity for RejectedBlock {
    const NAME: &'static str = "rejected_block";
    const COLLECTION: Collection = schema::REJECTED_BLOCKS;
    fn document_id(&self) -> String {
        format!("{}.{}", self.0.hash, self.0.round)
    }
}

/// What the steps of a block share.
#[derive(Clone)]
pub struct BlockPorts {
    /// Blocks and their records.
    pub store: BlockStore,
    /// Ids and the present instant.
    pub ids: IdGenerator,
    /// Settlement layers.
    pub domains: SettlementDomains,
    /// The data-availability layer.
    pub da: Arc<dyn DaClient>,
    /// How.
    pub settings: BlockSettings,
}

impl BlockPorts {
    /// The data-availability layer, to be called step by step.
    fn da(&self) -> Outside<dyn DaClient> {
        Outside::new(Arc::clone(&self.da))
    }

    /// The settlement layer of a domain, to be called step by step.
    fn settlement(&self, domain: &DomainId) -> Result<Outside<dyn SettlementClient>> {
        Ok(Outside::new(Arc::clone(self.domains.get(domain)?)))
    }
}

/// How steps are run that wait for a chain: for other transactions, for oracles, for challenge windows of days. Looking again is no
/// failure; what takes longer than this calls a person.
fn patient() -> Policy {
    Policy { max_polling: Micros::from_days(30), max_verify_attempts: 10_000, ..Policy::default() }
}

/// The handlers of the five steps, for the job engine.
#[must_use]
pub fn handlers(ports: &BlockPorts) -> Vec<Arc<dyn JobHandler>> {
    vec![
        Arc::new(seal::SealBlock::new(ports.clone())),
        Arc::new(prove::GenerateProof::new(ports.clone())),
        Arc::new(publish::PublishData::new(ports.clone())),
        Arc::new(register::RegisterProof::new(ports.clone())),
        Arc::new(update::UpdateState::new(ports.clone())),
    ]
}

#[cfg(test)]
mod tests;
