//! Seals a block: takes what is unsealed, brings it into causal order, executes it, and commits block, entries and the
//! next job at once. What can't be executed is quarantined, and the rest is sealed.

mod gather;
mod trigger;

use async_trait::async_trait;

use self::gather::{Gathered, gather};
pub use self::trigger::SealTrigger;
use super::{
    BlockPorts, ChainTip, Quarantined, SealedEntry,
    store::{CachedState, Lent, States, enqueue},
};
use crate::{
    core::{
        client::{
            database::{Changeset, Expect, ReaderExt, Stored},
            schema,
        },
        job::JobKind,
        market::{
            account::{Account, AccountKey},
            block::{Block, BlockFormat, BlockHeader, BlockState, Hash32},
            event::Audience,
            money::Amount,
            state::{LedgerState, Record, Step, evidence_root, execute, header::header_hash, steps_root},
            terms::DomainId,
        },
    },
    error::{Error, Result},
    service::{
        job::{
            JobContext, JobError, JobHandler, Policy, Processed,
            step::{At, SealBlockStep},
        },
        ledger::{UnsealedMarker, overflow},
        outbox,
    },
};

/// The job kind `seal_block`; its subject is the domain.
pub struct SealBlock {
    ports: BlockPorts,
    states: States,
}

impl SealBlock {
    /// A handler over these ports.
    #[must_use]
    pub fn new(ports: BlockPorts) -> Self {
        Self { ports, states: States::default() }
    }

    async fn seal(&self, context: &dyn JobContext, domain: &DomainId) -> Result<Changeset> {
        let store = &self.ports.store;
        let tip = store.tip(domain).await?;
        let mut changes = Changeset::new();
        if tip.value.halted.is_some() {
            return Ok(changes);
        }
        let mut cached = self.states.lock(domain).await;
        store.bring(&mut cached, domain, tip.value.number).await?;
        self.keep(context, domain, cached.as_ref()).await;
        // The block is not committed yet: the cached state goes back to the tip, and the next use moves it on.
        let Some(mut lent) = Lent::new(&mut cached) else {
            return Err(Error::internal("no state to seal on"));
        };
        let gathered = gather(&self.ports, domain, lent.state()?).await?;
        lent.rewind();
        let (header, steps) = header(domain, &tip.value, lent.state()?, &gathered.records)?;
        drop(lent);
        self.write(context, &mut changes, tip, (header, steps), gathered).await?;
        Ok(changes)
    }

    /// Stores the state now and then, for those who start later. One that could not be stored costs them time, and nothing
    /// else.
    async fn keep(&self, context: &dyn JobContext, domain: &DomainId, state: Option<&CachedState>) {
        let store = &self.ports.store;
        let Some(state) = state.filter(|state| store.stores_state_after(state.number)) else { return };
        let at = At::new(context, SealBlockStep::StoreState);
        if let Err(error) = store.put_state(at, domain, state).await {
            let error = crate::error::chain(&error);
            tracing::warn!(%domain, number = state.number, error, "a state was not stored; starts take longer");
        }
    }

    async fn write(
        &self,
        context: &dyn JobContext,
        changes: &mut Changeset,
        tip: Stored<ChainTip>,
        (header, steps): (BlockHeader, Vec<Step>),
        gathered: Gathered,
    ) -> Result<()> {
        let Stored { version, value: mut tip } = tip;
        let domain = tip.domain.clone();
        tip.round += 1;
        if !gathered.records.is_empty() {
            self.add_block(context, changes, &mut tip, header, (&gathered.records, &steps)).await?;
        }
        let sums = [(AccountKey::Fees, gathered.fees), (AccountKey::External, gathered.deposited)];
        self.deal_with(changes, &Block::id_of(&domain, tip.number), gathered);
        for (key, (amount, count)) in sums {
            self.materialise(changes, &domain, key, amount, count).await?;
        }
        match version {
            0 => changes.insert(&tip),
            version => changes.replace(version, &tip),
        };
        Ok(())
    }

    /// The block with its first job, as the new end of the chain.
    async fn add_block(
        &self,
        context: &dyn JobContext,
        changes: &mut Changeset,
        tip: &mut ChainTip,
        header: BlockHeader,
        (records, steps): (&[Record], &[Step]),
    ) -> Result<()> {
        let BlockPorts { store, ids, .. } = &self.ports;
        let at = At::new(context, SealBlockStep::StoreRecords);
        let block = Block {
            hash: header_hash(&header),
            state: BlockState::Sealed,
            records_key: store.put(at, &header, records, steps).await?,
            da_reference: None,
            register_transaction: None,
            settle_transaction: None,
            rejection: None,
            round: tip.round,
            sealed_at: ids.now(),
            final_at: None,
            header,
        };
        (tip.number, tip.hash) = (block.header.number, block.hash);
        changes.insert(&block);
        enqueue(changes, ids, JobKind::GenerateProof, &block, &context.job().trace_id);
        let data = serde_json::json!({
            "number": tip.number, "hash": tip.hash, "state_root": block.header.state_root,
        });
        let id = Block::id_of(&tip.domain, tip.number);
        outbox::event(changes, ids, "block.sealed", id, Audience::Public, data);
        Ok(())
    }

    /// Moves the markers to where they belong: into the block, or into quarantine. An item whose records change nothing is
    /// dealt with all the same.
    fn deal_with(&self, changes: &mut Changeset, block: &str, gathered: Gathered) {
        let ids = &self.ports.ids;
        for marker in gathered.sealed {
            let Stored { version, value: UnsealedMarker { id, domain, kind } } = marker;
            changes.delete(schema::UNSEALED, &id, Expect::Version(version));
            changes.insert(&SealedEntry { id, domain, block: block.to_owned(), kind });
        }
        for (marker, reason) in gathered.poisoned {
            tracing::error!(
                marker = marker.value.id,
                reason,
                "an item could not be sealed and is quarantined"
            );
            changes.delete(schema::UNSEALED, &marker.value.id, Expect::Version(marker.version));
            let title = format!("`{}` could not be sealed", marker.value.id);
            outbox::alert(changes, ids, title, serde_json::json!({ "reason": reason }));
            changes.insert(&Quarantined { marker: marker.value, reason, at: ids.now() });
        }
    }

    /// Adds what the block carries to the stored balance of a summed account.
    async fn materialise(
        &self,
        changes: &mut Changeset,
        domain: &DomainId,
        key: AccountKey,
        amount: Amount,
        count: u64,
    ) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let found = self.ports.store.reader().load::<Account>(&Account::id_of(domain, &key)).await?;
        let Stored { version, value: mut account } =
            found.unwrap_or_else(|| Stored { version: 0, value: Account::empty(domain.clone(), key) });
        account.balance = account.balance.checked_add(amount).ok_or_else(overflow)?;
        account.sequence += count;
        match version {
            0 => changes.insert(&account),
            version => changes.replace(version, &account),
        };
        Ok(())
    }
}

/// The header of the block that these records lead to from this state, and its steps.
fn header(
    domain: &DomainId,
    tip: &ChainTip,
    state: &mut LedgerState,
    records: &[Record],
) -> Result<(BlockHeader, Vec<Step>)> {
    let steps = execute(state, BlockFormat::Steps, records).map_err(Error::internal)?;
    let header = BlockHeader {
        domain: domain.clone(),
        number: tip.number + 1,
        parent: if tip.number == 0 { Hash32::default() } else { tip.hash },
        state_root: state.root(),
        total: state.total(),
        events_root: steps_root(&steps),
        evidence_root: evidence_root(records),
        last_deposit: state.last_deposit(),
        records: u32::try_from(records.len()).unwrap_or(u32::MAX),
        next_market: Some(state.next_market_index()),
    };
    Ok((header, steps))
}

#[async_trait]
impl JobHandler for SealBlock {
    fn kind(&self) -> JobKind {
        JobKind::SealBlock
    }

    fn policy(&self) -> Policy {
        Policy { mutates_subject: true, concurrency: 1, ..Policy::default() }
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let changes = self.seal(context, &DomainId(context.job().subject.clone())).await?;
        Ok(Processed::Done(changes))
    }

    async fn on_failed(&self, context: &dyn JobContext, _error: &Error) -> Result<Changeset, JobError> {
        // The next round gets a job of its own.
        let mut tip = self.ports.store.tip(&DomainId(context.job().subject.clone())).await?;
        tip.value.round += 1;
        let mut changes = Changeset::new();
        match tip.version {
            0 => changes.insert(&tip.value),
            version => changes.replace(version, &tip.value),
        };
        Ok(changes)
    }
}
