//! What one block carries: the markers are read, what they point to is brought into causal order and executed on the state.
//! What can't be executed is set aside, with whatever follows from it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    BlockPorts, BlockStore,
    order::{Next, causal_order},
};
use crate::{
    core::{
        client::{
            database::{Document, Entity, Filter, Query, ReaderExt, Stored},
            schema,
        },
        market::{
            account::{AccountKey, Transfer, TransferKind},
            allocation::Allocation,
            money::Amount,
            score::Reputation,
            state::{
                LedgerState, Record,
                commitment::{Commitment, verdict_subject},
                hash::cut,
                ledger_state::ApplyError,
                market_key_hash,
            },
            terms::DomainId,
            unit::DataUnit,
            verdict::SlaVerdict,
        },
    },
    error::Result,
    service::ledger::{UnsealedKind, UnsealedMarker, deposits::booked_index, overflow},
};

type Marker = Stored<UnsealedMarker>;

/// What one seal gathered.
#[derive(Default)]
pub(super) struct Gathered {
    /// In the order of execution.
    pub(super) records: Vec<Record>,
    /// Markers that the block deals with.
    pub(super) sealed: Vec<Marker>,
    /// Markers that no block can carry, and why.
    pub(super) poisoned: Vec<(Marker, String)>,
    /// Sum and number of the transfers to `fees`.
    pub(super) fees: (Amount, u64),
    /// Sum and number of the deposits.
    pub(super) deposited: (Amount, u64),
}

/// Reads markers and applies what they ask for, page by page until something could be sealed. The state is left as it is
/// after the records: the caller rolls it back.
pub(super) async fn gather(
    ports: &BlockPorts,
    domain: &DomainId,
    state: &mut LedgerState,
) -> Result<Gathered> {
    let store = &ports.store;
    let mut markers = Vec::new();
    let mut after = None;
    loop {
        let query = Query::new(schema::UNSEALED)
            .filter(Filter::eq("domain", domain.as_str()))
            .limit(ports.settings.batch.clamp(1, 10_000))
            .after(after);
        let (page, next) = store.reader().list::<UnsealedMarker>(query).await?;
        markers.extend(page);
        let mut gathered = Gathered::default();
        let wanted = wanted_transfers(&markers);
        let transfers = load_transfers(store, &wanted, &mut gathered).await?;
        gathered.transfers(state, &wanted, transfers)?;
        for marker in &markers {
            gathered.market(store, domain, state, marker).await?;
        }
        // Only when all of them wait for others, which further pages may hold, is there a reason to go on.
        if next.is_none() || !gathered.sealed.is_empty() || !gathered.poisoned.is_empty() {
            return Ok(gathered);
        }
        after = next;
    }
}

/// The markers of transfers, by the transfer's id.
fn wanted_transfers(markers: &[Marker]) -> BTreeMap<&str, &Marker> {
    let transfers = markers.iter().filter(|marker| marker.value.kind == UnsealedKind::Transfer);
    transfers.map(|marker| (marker.value.id.as_str(), marker)).collect()
}

/// The transfers that are wanted, each with its index on the chain if it is a deposit. Missing and damaged ones are
/// poisoned.
async fn load_transfers(
    store: &BlockStore,
    wanted: &BTreeMap<&str, &Marker>,
    gathered: &mut Gathered,
) -> Result<Vec<(Transfer, Option<u64>)>> {
    let ids = wanted.keys().map(|id| (*id).to_owned()).collect();
    let mut seen = BTreeSet::new();
    let mut transfers = Vec::with_capacity(wanted.len());
    for document in documents::<Transfer>(store, ids).await? {
        match document.decode::<Transfer>() {
            Ok(found) => {
                let deposit = (found.value.kind == TransferKind::Deposit)
                    .then(|| booked_index(&found.value.idempotency_key).unwrap_or(0));
                transfers.push((found.value, deposit));
            }
            Err(error) => {
                if let Some(marker) = wanted.get(document.id.as_str()) {
                    gathered.poison(marker, &error.to_string());
                }
            }
        }
        seen.insert(document.id);
    }
    for (_, marker) in wanted.iter().filter(|(id, _)| !seen.contains(**id)) {
        gathered.poison(marker, "the transfer does not exist");
    }
    Ok(transfers)
}

/// The documents with these ids, each to be decoded or not.
async fn documents<T: Entity>(store: &BlockStore, ids: Vec<String>) -> Result<Vec<Document>> {
    let mut found = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(500) {
        let query = Query::new(T::COLLECTION).filter(Filter::Ids(chunk.to_vec())).limit(chunk.len());
        found.extend(store.reader().find(query).await?.documents);
    }
    Ok(found)
}

/// The entity; `None` when it is missing or damaged.
async fn load<T: Entity>(store: &BlockStore, id: &str) -> Result<Option<T>> {
    let found = store.reader().get(T::COLLECTION, id).await?;
    Ok(found.and_then(|document| document.decode::<T>().ok()).map(|stored| stored.value))
}

impl Gathered {
    /// Executes transfers in causal order. Whatever follows on an account of a poisoned transfer waits with it.
    fn transfers(
        &mut self,
        state: &mut LedgerState,
        wanted: &BTreeMap<&str, &Marker>,
        transfers: Vec<(Transfer, Option<u64>)>,
    ) -> Result<()> {
        let sequence = |key: &AccountKey| {
            let index = state.account_index(&state.account_key_hash(key));
            index.and_then(|index| state.account(index)).map_or(1, |leaf| leaf.sequence + 1)
        };
        let ordered = causal_order(transfers, Next { sequence, deposit: state.last_deposit() + 1 });
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
                    self.records.extend(records);
                    self.sealed.push((*marker).clone());
                    self.count(&transfer)?;
                }
                Err(error) => {
                    state.rollback(mark);
                    blocked.extend(sides.into_iter().filter(|side| !side.is_summed()));
                    self.poison(marker, &error.to_string());
                }
            }
        }
        Ok(())
    }

    /// Executes a verdict, terms or a score.
    async fn market(
        &mut self,
        store: &BlockStore,
        domain: &DomainId,
        state: &mut LedgerState,
        marker: &Marker,
    ) -> Result<()> {
        let id = marker.value.id.split('@').next().unwrap_or_default();
        let set = |state: &LedgerState, commitment: &Commitment| set(domain, state, commitment);
        let records = match marker.value.kind {
            UnsealedKind::Transfer => return Ok(()),
            UnsealedKind::Verdict => load::<SlaVerdict>(store, id).await?.map(|it| verdict_records(&it)),
            UnsealedKind::Unit => {
                load::<DataUnit>(store, id).await?.map(|it| set(state, &Commitment::unit(&it)))
            }
            UnsealedKind::Allocation => {
                load::<Allocation>(store, id).await?.map(|it| set(state, &Commitment::allocation(&it)))
            }
            UnsealedKind::Score => {
                load::<Reputation>(store, id).await?.map(|it| set(state, &Commitment::score(&it)))
            }
        };
        let Some(records) = records else {
            self.poison(marker, "what it points to does not exist or is damaged");
            return Ok(());
        };
        let mark = state.mark();
        match records.iter().try_for_each(|record| state.apply(record)) {
            Ok(()) => {
                self.records.extend(records);
                self.sealed.push(marker.clone());
            }
            Err(error) => {
                state.rollback(mark);
                self.poison(marker, &error.to_string());
            }
        }
        Ok(())
    }

    fn poison(&mut self, marker: &Marker, reason: &str) {
        self.poisoned.push((marker.clone(), reason.to_owned()));
    }

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
