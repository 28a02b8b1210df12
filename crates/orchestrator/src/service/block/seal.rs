//! Seals a block: takes what is unsealed, brings it into causal order, executes it, and commits block, entries and the
//! next job at once. What can't be executed is quarantined, and the rest is sealed.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{
    BlockPorts, ChainTip, Quarantined, SealedEntry,
    order::{Next, causal_order},
    store::{States, enqueue},
};
use crate::{
    core::{
        client::{
            database::{Changeset, Document, Entity, Expect, Filter, Query, ReaderExt, Stored},
            schema,
        },
        job::{JobKind, NewJob},
        market::{
            account::{Account, AccountKey, Transfer, TransferKind},
            allocation::Allocation,
            block::{Block, BlockHeader, BlockState, Hash32},
            event::Audience,
            money::Amount,
            score::Reputation,
            state::{
                LedgerState, Record,
                commitment::{Commitment, verdict_subject},
                evidence_root,
                hash::cut,
                header::header_hash,
                ledger_state::ApplyError,
                market_key_hash,
                record::events_root,
            },
            terms::DomainId,
            unit::DataUnit,
            verdict::SlaVerdict,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        job::{JobContext, JobError, JobHandler, Policy, Processed, Trigger, TriggerReport},
        ledger::{UnsealedKind, UnsealedMarker, deposits::booked_index},
        outbox,
        work::{Call, Draft, Work},
    },
};

/// The job kind `seal_block`; its subject is the domain.
pub struct SealBlock {
    ports: BlockPorts,
    states: States,
}

/// What one seal gathered.
#[derive(Default)]
struct Gathered {
    records: Vec<Record>,
    sealed: Vec<Stored<UnsealedMarker>>,
    poisoned: Vec<(Stored<UnsealedMarker>, String)>,
    fees: (Amount, u64),
    deposited: (Amount, u64),
}

impl SealBlock {
    /// A handler over these ports.
    #[must_use]
    pub fn new(ports: BlockPorts) -> Self {
        Self { ports, states: States::default() }
    }

    async fn seal(&self, domain: &DomainId, trace: &str) -> Result<Changeset> {
        let store = &self.ports.store;
        let tip = store.tip(domain).await?;
        let mut changes = Changeset::new();
        if tip.value.halted.is_some() {
            return Ok(changes);
        }
        let mut cached = self.states.lock(domain).await;
        store.bring(&mut cached, domain, tip.value.number).await?;
        let Some(cached) = cached.as_mut() else { return Err(Error::internal("no state to seal on")) };
        let state = &mut cached.state;
        let mark = state.mark();
        let gathered = self.gather(domain, state).await;
        let header =
            gathered.as_ref().ok().map(|gathered| header(domain, &tip.value, state, &gathered.records));
        // The block is not committed yet: the cached state stays at the tip, and the next use moves it on.
        state.rollback(mark);
        let (gathered, Some(header)) = (gathered?, header) else {
            return Err(Error::internal("a block without a header"));
        };
        self.write(&mut changes, tip, header, gathered, trace).await?;
        Ok(changes)
    }

    /// Reads markers and applies what they ask for, page by page until something could be sealed.
    async fn gather(&self, domain: &DomainId, state: &mut LedgerState) -> Result<Gathered> {
        let mut markers = Vec::new();
        let mut after = None;
        loop {
            let query = Query::new(schema::UNSEALED)
                .filter(Filter::eq("domain", domain.as_str()))
                .limit(self.ports.settings.batch.clamp(1, 10_000))
                .after(after);
            let (page, next) = self.ports.store.reader().list::<UnsealedMarker>(query).await?;
            markers.extend(page);
            let mut gathered = Gathered::default();
            self.transfers(state, &markers, &mut gathered).await?;
            self.market(domain, state, &markers, &mut gathered).await?;
            // Only when all of them wait for others, which further pages may hold, is there a reason to go on.
            if next.is_none() || !gathered.sealed.is_empty() || !gathered.poisoned.is_empty() {
                return Ok(gathered);
            }
            after = next;
        }
    }

    /// The documents that markers of these kinds point to, each decoded or not.
    async fn documents<T: Entity>(&self, ids: Vec<String>) -> Result<Vec<Document>> {
        let mut found = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(500) {
            let query = Query::new(T::COLLECTION).filter(Filter::Ids(chunk.to_vec())).limit(chunk.len());
            found.extend(self.ports.store.reader().find(query).await?.documents);
        }
        Ok(found)
    }

    async fn transfers(
        &self,
        state: &mut LedgerState,
        markers: &[Stored<UnsealedMarker>],
        gathered: &mut Gathered,
    ) -> Result<()> {
        let wanted: std::collections::HashMap<&str, &Stored<UnsealedMarker>> = markers
            .iter()
            .filter(|marker| marker.value.kind == UnsealedKind::Transfer)
            .map(|marker| (marker.value.id.as_str(), marker))
            .collect();
        let ids = wanted.keys().map(|id| (*id).to_owned()).collect();
        let mut seen = BTreeSet::new();
        let mut transfers = Vec::with_capacity(wanted.len());
        for document in self.documents::<Transfer>(ids).await? {
            seen.insert(document.id.clone());
            match document.decode::<Transfer>() {
                Ok(found) => {
                    let deposit = (found.value.kind == TransferKind::Deposit)
                        .then(|| booked_index(&found.value.idempotency_key).unwrap_or(0));
                    transfers.push((found.value, deposit));
                }
                Err(error) => poison(gathered, wanted.get(document.id.as_str()), &error.to_string()),
            }
        }
        for (_, marker) in wanted.iter().filter(|(id, _)| !seen.contains(**id)) {
            poison(gathered, Some(marker), "the transfer does not exist");
        }
        let sequence = |key: &AccountKey| {
            let index = state.account_index(&state.account_key_hash(key));
            index.and_then(|index| state.account(index)).map_or(1, |leaf| leaf.sequence + 1)
        };
        let ordered = causal_order(transfers, Next { sequence, deposit: state.last_deposit() + 1 });
        // Whatever follows on an account of a poisoned transfer waits with it.
        let mut blocked: BTreeSet<AccountKey> = BTreeSet::new();
        for transfer in ordered {
            let sides = [transfer.debit, transfer.credit];
            let Some(marker) = wanted.get(transfer.id.to_string().as_str()) else { continue };
            if sides.iter().any(|side| blocked.contains(side)) {
                blocked.extend(sides.into_iter().filter(|side| !side.is_summed()));
                continue;
            }
            let mark = state.mark();
            match apply_transfer(state, &transfer) {
                Ok(records) => {
                    gathered.records.extend(records);
                    gathered.sealed.push((*marker).clone());
                    gathered.count(&transfer)?;
                }
                Err(error) => {
                    state.rollback(mark);
                    blocked.extend(sides.into_iter().filter(|side| !side.is_summed()));
                    poison(gathered, Some(marker), &error.to_string());
                }
            }
        }
        Ok(())
    }

    /// Verdicts, terms and scores, in the order of kind and id.
    async fn market(
        &self,
        domain: &DomainId,
        state: &mut LedgerState,
        markers: &[Stored<UnsealedMarker>],
        gathered: &mut Gathered,
    ) -> Result<()> {
        for marker in markers {
            let id = marker.value.id.split('@').next().unwrap_or_default();
            let records = match marker.value.kind {
                UnsealedKind::Transfer => continue,
                UnsealedKind::Verdict => {
                    self.load::<SlaVerdict>(id).await?.map(|verdict| verdict_records(&verdict))
                }
                UnsealedKind::Unit => {
                    self.load::<DataUnit>(id).await?.map(|unit| set(domain, state, &Commitment::unit(&unit)))
                }
                UnsealedKind::Allocation => self
                    .load::<Allocation>(id)
                    .await?
                    .map(|allocation| set(domain, state, &Commitment::allocation(&allocation))),
                UnsealedKind::Score => self
                    .load::<Reputation>(id)
                    .await?
                    .map(|score| set(domain, state, &Commitment::score(&score))),
            };
            let Some(records) = records else {
                poison(gathered, Some(&marker), "what it points to does not exist or is damaged");
                continue;
            };
            let mark = state.mark();
            match records.iter().try_for_each(|record| state.apply(record)) {
                Ok(()) => {
                    gathered.records.extend(records);
                    gathered.sealed.push(marker.clone());
                }
                Err(error) => {
                    state.rollback(mark);
                    poison(gathered, Some(&marker), &error.to_string());
                }
            }
        }
        Ok(())
    }

    /// The entity; `None` when it is missing or damaged.
    async fn load<T: Entity>(&self, id: &str) -> Result<Option<T>> {
        let found = self.ports.store.reader().get(T::COLLECTION, id).await?;
        Ok(found.and_then(|document| document.decode::<T>().ok()).map(|stored| stored.value))
    }

    async fn write(
        &self,
        changes: &mut Changeset,
        tip: Stored<ChainTip>,
        header: BlockHeader,
        gathered: Gathered,
        trace: &str,
    ) -> Result<()> {
        let BlockPorts { store, ids, .. } = &self.ports;
        let Stored { version, value: mut tip } = tip;
        let domain = tip.domain.clone();
        tip.round += 1;
        if !gathered.records.is_empty() {
            let block = Block {
                hash: header_hash(&header),
                state: BlockState::Sealed,
                records_key: store.put(&domain, header.number, &gathered.records).await?,
                da_reference: None,
                register_transaction: None,
                settle_transaction: None,
                rejection: None,
                sealed_at: ids.now(),
                final_at: None,
                header,
            };
            (tip.number, tip.hash) = (block.header.number, block.hash);
            changes.insert(&block);
            enqueue(changes, ids, JobKind::GenerateProof, &block, trace);
            let data = serde_json::json!({ "number": tip.number, "hash": tip.hash, "state_root": block.header.state_root });
            outbox::event(
                changes,
                ids,
                "block.sealed",
                Block::id_of(&domain, tip.number),
                Audience::Public,
                data,
            );
        }
        // An item whose records change nothing is dealt with all the same.
        let block = Block::id_of(&domain, tip.number);
        for marker in gathered.sealed {
            let Stored { version, value: UnsealedMarker { id, domain, kind } } = marker;
            changes.delete(schema::UNSEALED, &id, Expect::Version(version));
            changes.insert(&SealedEntry { id, domain, block: block.clone(), kind });
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
        for (key, (amount, count)) in
            [(AccountKey::Fees, gathered.fees), (AccountKey::External, gathered.deposited)]
        {
            self.materialise(changes, &domain, key, amount, count).await?;
        }
        match version {
            0 => changes.insert(&tip),
            version => changes.replace(version, &tip),
        };
        Ok(())
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

impl Gathered {
    fn count(&mut self, transfer: &Transfer) -> Result<()> {
        let sums = [
            (transfer.credit == AccountKey::Fees, &mut self.fees),
            (transfer.debit == AccountKey::External, &mut self.deposited),
        ];
        for (_, sum) in sums.into_iter().filter(|(touched, _)| *touched) {
            *sum = (sum.0.checked_add(transfer.amount).ok_or_else(overflow)?, sum.1 + 1);
        }
        Ok(())
    }
}

fn overflow() -> Error {
    Error::new(ErrorCode::Overflow, "the sum does not fit 128 bits")
}

fn poison<M: std::borrow::Borrow<Stored<UnsealedMarker>>>(
    gathered: &mut Gathered,
    marker: Option<&M>,
    reason: &str,
) {
    if let Some(marker) = marker {
        gathered.poisoned.push((marker.borrow().clone(), reason.to_owned()));
    }
}

/// Applies a transfer, opening the accounts that it is the first to touch; on an error the caller rolls back.
fn apply_transfer(state: &mut LedgerState, transfer: &Transfer) -> Result<Vec<Record>, ApplyError> {
    let mut records = Vec::with_capacity(3);
    let mut index = |key: &AccountKey, state: &mut LedgerState| {
        let hash = state.account_key_hash(key);
        if let Some(index) = state.account_index(&hash) {
            return Ok(index);
        }
        let index = state.next_index();
        let record = Record::OpenAccount { key: hash };
        state.apply(&record)?;
        records.push(record);
        Ok(index)
    };
    let amount = transfer.amount.0;
    let record = if transfer.kind == TransferKind::Deposit {
        let to = index(&transfer.credit, state)?;
        let deposit = booked_index(&transfer.idempotency_key).unwrap_or(0);
        Record::Deposit { index: deposit, to, amount }
    } else {
        let from = index(&transfer.debit, state)?;
        let to = index(&transfer.credit, state)?;
        Record::Transfer { kind: transfer.kind as u8, from, to, amount }
    };
    state.apply(&record)?;
    records.push(record);
    Ok(records)
}

fn verdict_records(verdict: &SlaVerdict) -> Vec<Record> {
    vec![
        Record::Verdict {
            subject: verdict_subject(verdict),
            status: verdict.status,
            credit: verdict.credit.0,
            coverage: verdict.coverage.0,
        },
        Record::VerdictEvidence { root: cut(&verdict.evidence_root) },
    ]
}

/// The records that bring the market tree in line with a commitment; none when it is so already.
fn set(domain: &DomainId, state: &LedgerState, commitment: &Commitment) -> Vec<Record> {
    let key = market_key_hash(domain, &commitment.name);
    let digest = commitment.digest();
    match state.market_index(&key) {
        Some(index) if state.market_leaf(index).is_some_and(|leaf| leaf.digest == digest) => Vec::new(),
        Some(index) => vec![Record::MarketSet { index, digest }],
        None => {
            vec![Record::MarketOpen { key }, Record::MarketSet { index: state.next_market_index(), digest }]
        }
    }
}

/// The header of the block that these records lead to.
fn header(domain: &DomainId, tip: &ChainTip, state: &mut LedgerState, records: &[Record]) -> BlockHeader {
    BlockHeader {
        domain: domain.clone(),
        number: tip.number + 1,
        parent: if tip.number == 0 { Hash32::default() } else { tip.hash },
        state_root: state.root(),
        total: state.total(),
        events_root: events_root(records),
        evidence_root: evidence_root(records),
        last_deposit: state.last_deposit(),
        records: u32::try_from(records.len()).unwrap_or(u32::MAX),
    }
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
        let job = context.job();
        let changes = self.seal(&DomainId(job.subject.clone()), &job.trace_id).await?;
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

/// The trigger `seal_blocks`: enqueues a seal job for each domain that has something unsealed.
#[derive(Clone)]
pub struct SealTrigger {
    work: Work,
    ports: BlockPorts,
}

impl SealTrigger {
    /// A trigger over these ports.
    #[must_use]
    pub const fn new(work: Work, ports: BlockPorts) -> Self {
        Self { work, ports }
    }

    async fn enqueue(&self, domain: &DomainId) -> Result<bool> {
        let unsealed = Filter::eq("domain", domain.as_str());
        let tip = self.ports.store.tip(domain).await?.value;
        if tip.halted.is_some() || self.work.reader.count(schema::UNSEALED, unsealed).await? == 0 {
            return Ok(false);
        }
        let key = format!("{domain}/{}.{}", tip.number + 1, tip.round);
        let pending = Filter::eq("dedup", format!("{}:{key}", JobKind::SealBlock));
        if self.work.reader.count(schema::JOBS, pending).await? > 0 {
            return Ok(false);
        }
        let call = Call::system("seal_blocks");
        let done = self
            .work
            .run(&call, "block.seal", || async {
                let mut changes = Changeset::new();
                NewJob::now(JobKind::SealBlock, domain, &key, self.work.now())
                    .enqueue(&mut changes, &self.work.ids);
                Ok(Draft::new(changes, ()))
            })
            .await;
        match done {
            Ok(_) => Ok(true),
            // Another replica was faster: the unique index over the key refused the second job.
            Err(error) if already_there(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn already_there(error: &Error) -> bool {
    use crate::core::client::database::DatabaseError;
    let source = error.source.as_ref().and_then(|source| source.downcast_ref::<DatabaseError>());
    matches!(source, Some(DatabaseError::AlreadyExists { collection: schema::JOBS, .. }))
}

#[async_trait]
impl Trigger for SealTrigger {
    fn name(&self) -> &'static str {
        "seal_blocks"
    }

    async fn fire(&self) -> Result<TriggerReport> {
        let mut report = TriggerReport::default();
        let domains: Vec<DomainId> = self.ports.domains.domains().cloned().collect();
        for domain in domains {
            report.examined += 1;
            report.changed += u64::from(self.enqueue(&domain).await?);
        }
        Ok(report)
    }
}
