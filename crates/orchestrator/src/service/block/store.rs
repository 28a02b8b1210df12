//! Stored blocks and their records, and the states that follow from them.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::ChainTip;
use crate::{
    core::{
        client::{
            database::{Changeset, Reader, ReaderExt, Stored},
            storage::{StorageClient, StorageError},
        },
        job::{Job, JobKind, NewJob},
        madara::settlement::BlockProof,
        market::{
            block::{Block, BlockEvent, BlockFormat, BlockHeader, BlockState, Hash32, transition},
            ids::IdGenerator,
            money::Amount,
            state::{
                AccountProof, AccountsProof, LedgerState, MarketProof, Record, ShortHash, Step,
                decode_records, encode_records,
                hash::{Tag, keccak},
                header::genesis_root,
                ledger_state::Mark,
                registered_steps, steps_root,
            },
            terms::DomainId,
        },
    },
    error::{Error, Result},
    service::job::step::At,
};

/// The bucket that holds the records of blocks.
pub const BUCKET: &str = "blocks";
/// Distance of the blocks after which the state is stored.
const STATES_EVERY: u64 = 64;
/// How many of them are kept, and tried.
const STATES_KEPT: u64 = 3;
/// Blocks that are read side by side, while earlier ones are executed.
const READ_AHEAD: usize = 32;

/// A state in memory, after some block.
pub(super) struct CachedState {
    /// The block's number; 0 before the first.
    pub(super) number: u64,
    hash: Hash32,
    /// The state after it.
    pub(super) state: LedgerState,
}

/// Blocks in the database, their records in the storage, and now and then the state after one.
#[derive(Clone)]
pub struct BlockStore {
    reader: Arc<dyn Reader>,
    storage: Arc<dyn StorageClient>,
    /// The state after each block whose number is a multiple of this is stored.
    states_every: u64,
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
    let mut job = NewJob::now(kind, subject, key, ids.now()).input(input);
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
        Self { reader, storage, states_every: STATES_EVERY }
    }

    /// One that stores the state after each block whose number is a multiple of `every`, which is at least 1: who starts
    /// has about so many blocks to execute again.
    #[must_use]
    pub fn storing_states_every(self, every: u64) -> Self {
        Self { states_every: every.max(1), ..self }
    }

    /// The database behind it.
    #[must_use]
    pub fn reader(&self) -> &dyn Reader {
        self.reader.as_ref()
    }

    /// The block that a job is about; `None` when it was rejected since.
    pub(super) async fn of_job(&self, job: &Job) -> Result<Option<Stored<Block>>> {
        let input: BlockInput = job.input.read().map_err(Error::internal)?;
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
        let steps = self.steps(header).await?;
        Ok(BlockProof::Reexecution { pre_state, post_state, events_root, steps, attestations: Vec::new() })
    }

    /// The steps of a block; none in the first format.
    async fn steps(&self, header: &BlockHeader) -> Result<Vec<Step>> {
        if header.format() == BlockFormat::Records {
            return Ok(Vec::new());
        }
        let bytes = self.read(&steps_key(header)).await?;
        let steps = registered_steps(&bytes, header.records as usize)
            .filter(|it| steps_root(it) == header.events_root);
        steps.ok_or_else(|| {
            Error::internal(format!("the stored steps of block {} are damaged", header.number))
        })
    }

    async fn read(&self, key: &str) -> Result<Vec<u8>> {
        let stream = self.storage.get(BUCKET, key).await?;
        let chunks: Vec<bytes::Bytes> = stream.try_collect().await?;
        Ok(chunks.concat())
    }

    async fn write(&self, at: At<'_>, key: &str, bytes: Vec<u8>) -> Result<()> {
        let body = stream::once(async move { Ok(bytes::Bytes::from(bytes)) }).boxed();
        at.take(self.storage.put(BUCKET, key, body)).await?;
        Ok(())
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

    /// Stores the records of a block, and its steps, each under a hash of its own; the same again has no further effect.
    pub(super) async fn put(
        &self,
        at: At<'_>,
        header: &BlockHeader,
        records: &[Record],
        steps: &[Step],
    ) -> Result<String> {
        let data = encode_records(header.number, records);
        let key = format!("records/{}/{}", header.domain, hex::encode(keccak(Tag::Record, &[&data]).0));
        let steps = steps.iter().flat_map(Step::registered).collect::<Vec<u8>>();
        at.take(self.storage.create_bucket(BUCKET)).await?;
        self.write(at, &steps_key(header), steps).await?;
        self.write(at, &key, data).await?;
        Ok(key)
    }

    /// The bytes of a block's records.
    pub(super) async fn data(&self, block: &Block) -> Result<Vec<u8>> {
        self.read(&block.records_key).await
    }

    /// The records of a block.
    pub(super) async fn records(&self, block: &Block) -> Result<Vec<Record>> {
        decode_records(block.header.number, &self.data(block).await?).map_err(Error::internal)
    }

    async fn block(&self, domain: &DomainId, number: u64) -> Result<Block> {
        let found = self.reader.load::<Block>(&Block::id_of(domain, number)).await?;
        Ok(found.ok_or_else(|| Error::not_found("block", number))?.value)
    }

    /// Brings a cached state to the one after block `number`: forward by the records of the blocks between, or from a stored
    /// state or the start when the cached block is not (or no longer) an ancestor. Checks every header on the way.
    ///
    /// What is cached is a state after some block at every await, and keeps what was done so far when this fails or is
    /// dropped half-way: however long a chain and however short an attempt, the next one goes on from there.
    pub(super) async fn bring(
        &self,
        cached: &mut Option<CachedState>,
        domain: &DomainId,
        number: u64,
    ) -> Result<()> {
        let goes_on = match cached {
            Some(found) if found.number == 0 => number < self.states_every,
            Some(found) if found.number <= number => {
                self.block(domain, found.number).await.is_ok_and(|block| block.hash == found.hash)
            }
            _ => false,
        };
        if !goes_on {
            *cached = None;
            *cached = Some(self.nearest_state(domain, number).await?);
        }
        let from = cached.as_ref().map_or(0, |cached| cached.number);
        let mut ahead = stream::iter(from + 1..=number)
            .map(|number| async move {
                let block = self.block(domain, number).await?;
                let records = self.records(&block).await?;
                Ok::<_, Error>((block, records))
            })
            .buffered(READ_AHEAD);
        while let Some((block, records)) = ahead.try_next().await? {
            let Some(mut at) = cached.take() else { return Err(Error::internal("no state to bring on")) };
            at.follow(&block, &records)?;
            *cached = Some(at);
        }
        Ok(())
    }
}

/// What is known of states that are stored.
impl BlockStore {
    /// Whether the state after this block is stored.
    pub(super) const fn stores_state_after(&self, number: u64) -> bool {
        number > 0 && number.is_multiple_of(self.states_every)
    }

    /// Stores the state after a block, under the block's hash, and removes one that is too old to be of use. The same again
    /// has no further effect.
    pub(super) async fn put_state(&self, at: At<'_>, domain: &DomainId, cached: &CachedState) -> Result<()> {
        let Some(bytes) = cached.state.to_snapshot() else { return Ok(()) };
        let old = cached.number.saturating_sub(STATES_KEPT * self.states_every);
        let old = if old > 0 { self.block(domain, old).await.ok() } else { None };
        at.take(self.storage.create_bucket(BUCKET)).await?;
        self.write(at, &state_key(domain, &cached.hash), bytes).await?;
        if let Some(old) = old {
            let key = state_key(domain, &old.hash);
            at.take(self.storage.delete(BUCKET, &key)).await?;
        }
        Ok(())
    }

    /// The last stored state at or before block `number`, or the start.
    async fn nearest_state(&self, domain: &DomainId, number: u64) -> Result<CachedState> {
        let mut at = number - number % self.states_every;
        // The one after the last block is stored with the next block.
        for _ in 0..=STATES_KEPT {
            if at == 0 {
                break;
            }
            if let Some(found) = self.stored_state(domain, at).await? {
                return Ok(found);
            }
            at -= self.states_every;
        }
        Ok(start(domain))
    }

    /// The stored state after a block, if it is there and is what the block's header says.
    async fn stored_state(&self, domain: &DomainId, number: u64) -> Result<Option<CachedState>> {
        let block = self.block(domain, number).await?;
        let chunks = match self.storage.get(BUCKET, &state_key(domain, &block.hash)).await {
            Ok(stream) => stream.try_collect::<Vec<bytes::Bytes>>().await?,
            Err(StorageError::NoObject(_) | StorageError::NoBucket(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let state = LedgerState::from_snapshot(domain.clone(), &chunks.concat());
        let header = &block.header;
        let state = state.and_then(|mut state| {
            let same = state.root() == header.state_root
                && (state.total(), state.last_deposit()) == (header.total, header.last_deposit);
            same.then_some(state)
        });
        if state.is_none() {
            tracing::error!(%domain, number, "a stored state is damaged; the chain is executed from before it");
        }
        Ok(state.map(|state| CachedState { number, hash: block.hash, state }))
    }
}

fn steps_key(header: &BlockHeader) -> String {
    format!("steps/{}/{}", header.domain, hex::encode(header.events_root.0))
}

fn state_key(domain: &DomainId, hash: &Hash32) -> String {
    format!("states/{domain}/{}", hex::encode(hash.0))
}

impl CachedState {
    /// Moves on by the next block. After an error it is in no state to be used.
    fn follow(&mut self, block: &Block, records: &[Record]) -> Result<()> {
        self.state.apply_block(block.header.format(), records).map_err(Error::internal)?;
        self.state.settle();
        let number = self.number + 1;
        let follows = block.header.parent == self.hash && block.header.number == number;
        if !follows || self.state.root() != block.header.state_root {
            return Err(Error::internal(format!("block {number} does not follow from its records")));
        }
        (self.number, self.hash) = (number, block.hash);
        Ok(())
    }
}

/// A cached state in the hands of one who changes it for a while. When that ends, in order or by being dropped at an await (an
/// attempt is, by its time-out or the loss of its lease), the state is back at its block: what was left half executed is
/// never built on, and nothing has to be executed again. A state that does not come back as it was, after a panic, is
/// forgotten.
pub(super) struct Lent<'a> {
    cached: &'a mut Option<CachedState>,
    mark: Mark,
    root: Hash32,
}

impl<'a> Lent<'a> {
    /// Lends what is cached, if there is something.
    pub(super) fn new(cached: &'a mut Option<CachedState>) -> Option<Self> {
        let state = &mut cached.as_mut()?.state;
        let (mark, root) = (state.mark(), state.root());
        Some(Self { cached, mark, root })
    }

    /// Takes back what was done to it.
    pub(super) fn rewind(&mut self) {
        if let Some(cached) = self.cached.as_mut() {
            cached.state.rollback(self.mark);
        }
    }

    /// The state, to be changed.
    pub(super) fn state(&mut self) -> Result<&mut LedgerState> {
        let cached = self.cached.as_mut().ok_or_else(|| Error::internal("the state is gone"))?;
        Ok(&mut cached.state)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Some(cached) = self.cached else { return };
        cached.state.rollback(self.mark);
        if cached.state.root() != self.root {
            *self.cached = None;
        }
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

    /// One inclusion proof of several accounts in the state after block `number`; `None` when one has no leaf there.
    ///
    /// # Errors
    /// Database and storage errors.
    pub async fn prove_many(
        &self,
        store: &BlockStore,
        domain: &DomainId,
        number: u64,
        keys: &[ShortHash],
    ) -> Result<Option<AccountsProof>> {
        let mut cached = self.states.lock(domain).await;
        store.bring(&mut cached, domain, number).await?;
        Ok(cached.as_mut().and_then(|cached| cached.state.prove_accounts(keys)))
    }

    /// What accounts had ever released for withdrawal after block `number`, in the order of their names; `None` for those without
    /// a leaf there.
    ///
    /// # Errors
    /// Database and storage errors.
    pub async fn released(
        &self,
        store: &BlockStore,
        domain: &DomainId,
        number: u64,
        keys: &[ShortHash],
    ) -> Result<Vec<Option<Amount>>> {
        let mut cached = self.states.lock(domain).await;
        store.bring(&mut cached, domain, number).await?;
        let state = cached.as_ref().map(|cached| &cached.state);
        let leaf = |key: &ShortHash| state.and_then(|state| state.account(state.account_index(key)?));
        Ok(keys.iter().map(|key| leaf(key).map(|leaf| Amount(leaf.withdrawable))).collect())
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
