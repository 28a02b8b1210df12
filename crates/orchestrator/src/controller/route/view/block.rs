//! Blocks, their records, and what no block could carry.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::common::{Money, Time, word};
use crate::{
    core::{
        madara::settlement::BlockProof,
        market::{
            block::Block,
            money::Amount,
            state::{Record, Step},
        },
    },
    service::{
        block::{ProofKind, Quarantined, RecordPage, Resumed},
        ledger::UnsealedMarker,
    },
};

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
    /// Root over its steps; in the first format, over its records.
    pub events_root: String,
    /// Root over the evidence that its verdicts rest on.
    pub evidence_root: String,
    /// Index of the last consumed deposit.
    pub last_deposit: u64,
    /// How many records it has.
    pub records: u32,
    /// Index that the next entry of the market tree takes; not in the first format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_market: Option<u32>,
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
            next_market: header.next_market,
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

/// The proof that a block follows from its parent.
#[derive(Debug, Serialize, ToSchema)]
pub struct BlockProofView {
    /// `reexecution`: the records were executed again, apart from the sealer, with the same roots.
    pub kind: String,
    /// State root before the block.
    pub pre_state: String,
    /// State root after it.
    pub post_state: String,
    /// Root over the steps; in the first format, over the records.
    pub events_root: String,
    /// The steps, in the order of execution; none in the first format.
    pub steps: Vec<StepView>,
}

/// Up to 48 records, and the state after them.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepView {
    /// Keccak-256 of the records' bytes, one after the other.
    pub cells: String,
    /// How many records.
    pub count: u32,
    /// The step state after them.
    pub state: String,
}

impl From<Step> for StepView {
    fn from(step: Step) -> Self {
        Self { cells: step.cells.to_string(), count: step.count, state: step.state.to_string() }
    }
}

impl From<BlockProof> for BlockProofView {
    fn from(proof: BlockProof) -> Self {
        let BlockProof::Reexecution { pre_state, post_state, events_root, steps, attestations: _ } = proof;
        Self {
            kind: word(&ProofKind::Reexecution),
            pre_state: pre_state.to_string(),
            post_state: post_state.to_string(),
            events_root: events_root.to_string(),
            steps: steps.into_iter().map(StepView::from).collect(),
        }
    }
}

/// A part of a block's records.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecordsView {
    /// Number of the first one within the block, from 0.
    pub from: usize,
    /// In the order of execution.
    pub items: Vec<RecordView>,
    /// Hand it back as `from` to go on; `null` at the end.
    pub next: Option<usize>,
}

/// One event record.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecordView {
    /// What it is: `open_account`, `transfer`, `deposit`, `market_open`, `market_set`, `verdict` or `verdict_evidence`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its fields.
    #[schema(value_type = Object)]
    pub data: Value,
    /// The bytes that the events root commits to, in hex.
    pub bytes: String,
}

impl From<RecordPage> for RecordsView {
    fn from(page: RecordPage) -> Self {
        Self {
            from: page.from,
            items: page.records.into_iter().map(RecordView::from).collect(),
            next: page.next,
        }
    }
}

impl From<Record> for RecordView {
    fn from(record: Record) -> Self {
        let (kind, data) = match record {
            Record::OpenAccount { key } => ("open_account", json!({ "key": hex::encode(key) })),
            Record::Transfer { kind, from, to, amount } => {
                ("transfer", json!({ "kind": kind, "from": from, "to": to, "amount": Amount(amount) }))
            }
            Record::Deposit { index, to, amount } => {
                ("deposit", json!({ "index": index, "to": to, "amount": Amount(amount) }))
            }
            Record::MarketOpen { key } => ("market_open", json!({ "key": hex::encode(key) })),
            Record::MarketSet { index, digest } => {
                ("market_set", json!({ "index": index, "digest": hex::encode(digest) }))
            }
            Record::Verdict { subject, status, credit, coverage } => (
                "verdict",
                json!({ "subject": hex::encode(subject), "status": status, "credit_ppm": credit, "coverage_ppm": coverage }),
            ),
            Record::VerdictEvidence { root } => ("verdict_evidence", json!({ "root": hex::encode(root) })),
        };
        Self { kind: kind.to_owned(), data, bytes: hex::encode(record.encode()) }
    }
}

/// Something that no block could carry.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuarantinedView {
    /// Id of the item.
    pub id: String,
    /// Its domain.
    pub domain: String,
    /// `transfer`, `verdict`, `unit`, `allocation` or `score`.
    pub kind: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Time,
}

impl From<Quarantined> for QuarantinedView {
    fn from(item: Quarantined) -> Self {
        Self {
            id: item.marker.id,
            domain: item.marker.domain.0,
            kind: word(&item.marker.kind),
            reason: item.reason,
            at: item.at.into(),
        }
    }
}

/// A quarantined item that waits for the next block again.
#[derive(Debug, Serialize, ToSchema)]
pub struct RetriedView {
    /// Id of the item.
    pub id: String,
    /// Its domain.
    pub domain: String,
    /// What it is.
    pub kind: String,
}

impl From<UnsealedMarker> for RetriedView {
    fn from(marker: UnsealedMarker) -> Self {
        Self { id: marker.id, domain: marker.domain.0, kind: word(&marker.kind) }
    }
}

/// Sealing that goes on.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResumedView {
    /// The domain.
    pub domain: String,
    /// Why it had stopped.
    pub reason: String,
}

impl From<Resumed> for ResumedView {
    fn from(resumed: Resumed) -> Self {
        Self { domain: resumed.id.0, reason: resumed.reason }
    }
}
