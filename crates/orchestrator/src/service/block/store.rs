//! Stored blocks and their records, and the states that follow from them.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::ChainTip;
use crate::{
    core::{
        client::{
            database::{Changeset, Reader, ReaderExt, Stored},
            storage::StorageClient,
        },
        job::{Job, JobKind, NewJob},
        madara::settlement::BlockProof,
        market::{
            block::{Block, BlockEvent, BlockState, Hash32, transition},
            ids::IdGenerator,
            state::{
                AccountProof, LedgerState, MarketProof, Record, ShortHash, decode_records, encode_records,
                hash::{Tag, keccak},
                header::genesis_root,
            },
            terms::DomainId,
        },
    },
    error::{Error, Result},
    service::job::step::At,
};

/// The bucket that holds the records of blocks.
pub const BUCKET: &str = "blocks";

/// A state in memory, after some block.
pub(super) struct CachedState {
    /// The block's number; 0 before the first.
    pub(super) number: u64,
    hash: Hash32,
    /// The state after it.
    pub(super) state: LedgerState,
}

/// Blocks in the database, their records in the storage.
#[derive(Clone)]
pub struct BlockStore {
    reader: Arc<dyn Reader>,
    storage: Arc<dyn StorageClient>,
}

/// What the jobs of a block are asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlockInput {
    pub(super) domain: DomainId,
    pub(super) number: u64,
    pub(super) hash: Hash32,
}

/// Enqueues the next step of a block.
pub(super) fn enqueue(changes: &mut Changeset, ids: &IdGenerator, kind: JobKind, block: &Block, trace: &str) {
    let input =
        BlockInput { domain: block.header.domain.clone(), number: block.header.number, hash: block.hash };
    let subject = Block::id_of(&input.domain, input.number);
    let key = format!("{subject}/{}.{}", input.hash, block.round);
    let mut job = NewJob::now(kind, subject, key, ids.now());
    job.input = serde_json::to_value(input).unwrap_or_default();
    job.trace_id = trace.to_owned();
    job.enqueue(changes, ids);
}

/// Moves a block on.
pub(super) fn advance(block: &mut Block, event: BlockEvent) -> Result<()> {
    block.state = transition(block.state, event).map_err(Error::internal)?;
    Ok(())
}

impl BlockStore {
    /// A store over these ports.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>, storage: Arc<dyn StorageClient>) -> Self {
        Self { reader, storage }
    }

    /// The database behind it.
    #[must_use]
    pub fn reader(&self) -> &dyn Reader {
        self.reader.as_ref()
    }

    /// The block that a job is about; `None` when it was rejected since.
    pub(super) async fn of_job(&self, job: &Job) -> Result<Option<Stored<Block>>> {
        let input: BlockInput = serde_json::from_value(job.input.clone()).map_err(Error::internal)?;
        let found = self.reader.load::<Block>(&Block::id_of(&input.domain, input.number)).await?;
        Ok(found.filter(|block| block.value.hash == input.hash))
    }

    /// The proof that the block follows from its parent, which must be there.
    pub(super) async fn proof(&self, block: &Block) -> Result<BlockProof> {
        let header = &block.header;
        let pre_state = if header.number <= 1 {
            genesis_root(&header.domain)
        } else {
            let id = Block::id_of(&header.domain, header.number - 1);
            let parent = self.reader.load::<Block>(&id).await?;
            parent.ok_or_else(|| Error::not_found("block", id))?.value.header.state_root
        };
        let (post_state, events_root) = (header.state_root, header.events_root);
        Ok(BlockProof::Reexecution { pre_state, post_state, events_root })
    }

    /// Whether the block before this one is at least that far.
    pub(super) async fn parent_is(&self, block: &Block, least: BlockState) -> Result<bool> {
        if block.header.number <= 1 {
            return Ok(true);
        }
        let id = Block::id_of(&block.header.domain, block.header.number - 1);
        let parent = self.reader.load::<Block>(&id).await?;
        Ok(parent
            .is_some_and(|parent| parent.value.state >= least && parent.value.state <= BlockState::Final))
    }

    /// The end of a domain's chain.
    pub(super) async fn tip(&self, domain: &DomainId) -> Result<Stored<ChainTip>> {
        let found = self.reader.load::<ChainTip>(&ChainTip::id_of(domain)).await?;
        Ok(found.unwrap_or_else(|| Stored { version: 0, value: ChainTip::genesis(domain.clone()) }))
    }

    /// Stores records under their own hash; the same again has no further effect.
    pub(super) async fn put(
        &self,
        at: At<'_>,
        domain: &DomainId,
        number: u64,
        records: &[Record],
    ) -> Result<String> {
        let data = encode_records(number, records);
        let key = format!("records/{domain}/{}", hex::encode(keccak(Tag::Record, &[&data]).0));
        at.take(async {
            self.storage.create_bucket(BUCKET).await?;
            let body = futures::stream::once(async move { Ok(bytes::Bytes::from(data)) }).boxed();
            self.storage.put(BUCKET, &key, body).await
        })
        .await?;
        Ok(key)
    }

    /// The bytes of a block's records.
    pub(super) async fn data(&self, block: &Block) -> Result<Vec<u8>> {
        let stream = self.storage.get(BUCKET, &block.records_key).await?;
        let chunks: Vec<bytes::Bytes> = stream.try_collect().await?;
        Ok(chunks.concat())
    }

    /// The records of a block.
    pub(super) async fn records(&self, block: &Block) -> Result<Vec<Record>> {
        decode_records(block.header.number, &self.data(block).await?).map_err(Error::internal)
    }

    async fn block(&self, domain: &DomainId, number: u64) -> Result<Block> {
        let found = self.reader.load::<Block>(&Block::id_of(domain, number)).await?;
        Ok(found.ok_or_else(|| Error::not_found("block", number))?.value)
    }

    /// Brings a cached state to the one after block `number`: forward by the records of the blocks between, or from the
    /// start when the cached block is not (or no longer) an ancestor. Checks every header on the way.
    pub(super) async fn bring(
        &self,
        cached: &mut Option<CachedState>,
        domain: &DomainId,
        number: u64,
    ) -> Result<()> {
        let mut at = match cached.take() {
            Some(cached) if cached.number == 0 => cached,
            Some(found) if found.number <= number => {
                let same = self.block(domain, found.number).await.is_ok_and(|block| block.hash == found.hash);
                if same { found } else { start(domain) }
            }
            _ => start(domain),
        };
        while at.number < number {
            let block = self.block(domain, at.number + 1).await?;
            for record in self.records(&block).await? {
                at.state.apply(&record).map_err(Error::internal)?;
            }
            at.state.settle();
            if at.state.root() != block.header.state_root || block.header.parent != at.hash {
                return Err(Error::internal(format!(
                    "block {} does not follow from its records",
                    at.number + 1
                )));
            }
            at.number += 1;
            at.hash = block.hash;
        }
        *cached = Some(at);
        Ok(())
    }
}

fn start(domain: &DomainId) -> CachedState {
    CachedState { number: 0, hash: Hash32::default(), state: LedgerState::new(domain.clone()) }
}

/// One domain's cached state, locked while it is used.
type Slot = Arc<Mutex<Option<CachedState>>>;

/// States by domain, each used by one at a time.
#[derive(Clone, Default)]
pub(super) struct States {
    domains: Arc<parking_lot::Mutex<BTreeMap<DomainId, Slot>>>,
}

impl States {
    /// The state of a domain, locked.
    pub(super) async fn lock(&self, domain: &DomainId) -> OwnedMutexGuard<Option<CachedState>> {
        let slot = Arc::clone(self.domains.lock().entry(domain.clone()).or_default());
        slot.lock_owned().await
    }
}

/// States for those who only prove accounts.
#[derive(Clone, Default)]
pub struct SharedStates {
    states: States,
}

impl SharedStates {
    /// The inclusion proof of what the market tree holds under a name after block `number`; `None` when there is nothing.
    ///
    /// # Errors
    /// Database and storage errors.
    pub async fn prove_market(
        &self,
        store: &BlockStore,
        domain: &DomainId,
        number: u64,
        name: &str,
    ) -> Result<Option<MarketProof>> {
        let mut cached = self.states.lock(domain).await;
        store.bring(&mut cached, domain, number).await?;
        Ok(cached.as_mut().and_then(|cached| cached.state.prove_market(name)))
    }

    /// The inclusion proof of an account in the state after block `number`; `None` when it has no leaf there.
    ///
    /// # Errors
    /// Database and storage errors.
    pub async fn prove(
        &self,
        store: &BlockStore,
        domain: &DomainId,
        number: u64,
        key: &ShortHash,
    ) -> Result<Option<AccountProof>> {
        let mut cached = self.states.lock(domain).await;
        store.bring(&mut cached, domain, number).await?;
        Ok(cached.as_mut().and_then(|cached| cached.state.prove_account(key)))
    }
}
