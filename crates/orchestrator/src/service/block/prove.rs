//! Proves a sealed block by executing its records again, from the parent's state and apart from the sealer.

use async_trait::async_trait;

use super::{
    BlockPorts,
    store::{States, advance, enqueue},
};
use crate::{
    core::{
        client::database::Changeset,
        job::JobKind,
        madara::settlement::BlockProof,
        market::{
            block::{Block, BlockEvent, BlockFormat, BlockHeader, Hash32},
            state::{
                LedgerState, Record, evidence_root, execute, header::header_hash, record::events_root,
                steps_root,
            },
        },
    },
    error::{Error, ErrorCode, Result},
    service::job::{JobContext, JobError, JobHandler, Processed},
};

/// The job kind `generate_proof`.
pub struct GenerateProof {
    ports: BlockPorts,
    states: States,
}

impl GenerateProof {
    /// A handler over these ports.
    #[must_use]
    pub fn new(ports: BlockPorts) -> Self {
        Self { ports, states: States::default() }
    }

    async fn check(&self, block: &Block) -> Result<BlockProof> {
        let store = &self.ports.store;
        let domain = &block.header.domain;
        let mut cached = self.states.lock(domain).await;
        store.bring(&mut cached, domain, block.header.number.saturating_sub(1)).await?;
        let Some(cached) = cached.as_mut() else { return Err(Error::internal("no state to prove from")) };
        let records = store.records(block).await?;
        let mark = cached.state.mark();
        let proof = reexecute(&mut cached.state, &block.header, &records);
        cached.state.rollback(mark);
        if header_hash(&block.header) != block.hash {
            return Err(mismatch("hash"));
        }
        proof
    }
}

fn mismatch(what: &str) -> Error {
    Error::new(ErrorCode::InvalidState, format!("the block's {what} does not follow from its records"))
}

/// Executes records on the parent's state and compares every commitment of the header.
///
/// # Errors
/// [`ErrorCode::InvalidState`], naming what differs.
pub fn reexecute(state: &mut LedgerState, header: &BlockHeader, records: &[Record]) -> Result<BlockProof> {
    let pre_state: Hash32 = state.root();
    let format = header.format();
    let steps = execute(state, format, records).map_err(|error| mismatch("execution").because(error))?;
    let post_state = state.root();
    let events_root = match format {
        BlockFormat::Records => events_root(records),
        BlockFormat::Steps => steps_root(&steps),
    };
    let next_market = (format == BlockFormat::Steps).then(|| state.next_market_index());
    let checks = [
        ("verdicts", state.is_complete()),
        ("balance", state.is_balanced()),
        ("state root", post_state == header.state_root),
        ("events root", events_root == header.events_root),
        ("evidence root", evidence_root(records) == header.evidence_root),
        ("total", state.total() == header.total),
        ("last deposit", state.last_deposit() == header.last_deposit),
        ("market index", next_market == header.next_market),
        ("number of records", u32::try_from(records.len()) == Ok(header.records)),
    ];
    match checks.iter().find(|(_, holds)| !holds) {
        Some((what, _)) => Err(mismatch(what)),
        None => Ok(BlockProof::Reexecution {
            pre_state,
            post_state,
            events_root,
            steps,
            attestations: Vec::new(),
        }),
    }
}

/// A succinct validity proof of a block.
///
/// # Errors
/// Always [`ErrorCode::NotSupported`]: blocks are proved by re-execution.
pub fn validity_proof(_header: &BlockHeader) -> Result<BlockProof> {
    Err(Error::new(
        ErrorCode::NotSupported,
        "validity proofs are not supported; blocks are proved by re-execution",
    ))
}

#[async_trait]
impl JobHandler for GenerateProof {
    fn kind(&self) -> JobKind {
        JobKind::GenerateProof
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let mut changes = Changeset::new();
        let Some(mut block) = self.ports.store.of_job(context.job()).await? else {
            return Ok(Processed::Done(changes));
        };
        self.check(&block.value).await?;
        advance(&mut block.value, BlockEvent::Prove)?;
        changes.replace(block.version, &block.value);
        let trace = &context.job().trace_id;
        enqueue(&mut changes, &self.ports.ids, JobKind::PublishData, &block.value, trace);
        Ok(Processed::Done(changes))
    }
}
