//! Blocks.

use serde::Serialize;
use utoipa::ToSchema;

use super::common::{Money, Time, word};
use crate::core::market::block::Block;

/// A block with its way to finality.
#[derive(Debug, Serialize, ToSchema)]
pub struct BlockView {
    /// Its domain.
    pub domain: String,
    /// Counted from 1.
    pub number: u64,
    /// Hash of its header.
    pub hash: String,
    /// Hash of the parent's header; zero for block 1.
    pub parent: String,
    /// State root after it.
    pub state_root: String,
    /// What deposits ever credited, after it.
    pub total: Money,
    /// Root over the ordered records.
    pub events_root: String,
    /// Root over the evidence that its verdicts rest on.
    pub evidence_root: String,
    /// Index of the last consumed deposit.
    pub last_deposit: u64,
    /// How many records it has.
    pub records: u32,
    /// `sealed`, `proven`, `published`, `registered`, `settled`, `final` or `rejected`.
    #[schema(example = "final")]
    pub state: String,
    /// Reference on the data-availability layer.
    pub da_reference: Option<String>,
    /// The transaction that registered it.
    pub register_transaction: Option<String>,
    /// The transaction that settled it.
    pub settle_transaction: Option<String>,
    /// Why it was rejected.
    pub rejection: Option<String>,
    /// When it was sealed.
    pub sealed_at: Time,
    /// When it became final.
    pub final_at: Option<Time>,
}

impl From<Block> for BlockView {
    fn from(block: Block) -> Self {
        let header = block.header;
        Self {
            domain: header.domain.0,
            number: header.number,
            hash: block.hash.to_string(),
            parent: header.parent.to_string(),
            state_root: header.state_root.to_string(),
            total: header.total.into(),
            events_root: header.events_root.to_string(),
            evidence_root: header.evidence_root.to_string(),
            last_deposit: header.last_deposit,
            records: header.records,
            state: word(&block.state),
            da_reference: block.da_reference,
            register_transaction: block.register_transaction,
            settle_transaction: block.settle_transaction,
            rejection: block.rejection,
            sealed_at: block.sealed_at.into(),
            final_at: block.final_at.map(Time),
        }
    }
}
