//! What one block carries: the markers are read, what they point to is brought into causal order and executed on the state.
//! What can't be executed is set aside, with whatever follows from it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    BlockPorts, BlockStore,
    order::{Group, Next, causal_order, grouped, parts_of, period_of},
};
use crate::{
    core::{
        client::{
            database::{Document, Entity, Filter, Query, ReaderExt, Scalar, Stored},
            schema,
        },
        market::{
            account::{AccountKey, Transfer, TransferKind},
            allocation::Allocation,
            money::Amount,
            score::Reputation,
            state::{
                LedgerState, Record, ShortHash,
                commitment::{Commitment, verdict_subject},
                hash::cut,
                market_key_hash,
            },
            terms::DomainId,
            unit::DataUnit,
            verdict::SlaVerdict,
        },
    },
    error::Result,
    service::ledger::{Owners, UnsealedKind, UnsealedMarker, deposits::booked_index, overflow},
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
        let mut wanted = wanted_transfers(&markers);
        let mut transfers = load_transfers(store, &wanted, &mut gathered).await?;
        // The page may have cut a charge in two.
        let rest =
            if next.is_some() { rest_of_charges(store, domain, &transfers).await? } else { Vec::new() };
        let more: Vec<Marker> =
            rest.into_iter().filter(|it| !wanted.contains_key(it.value.id.as_str())).collect();
        if !more.is_empty() {
            let more = wanted_transfers(&more);
            transfers.extend(load_transfers(store, &more, &mut gathered).await?);
            wanted.extend(more);
        }
        let groups = grouped(transfers);
        let touched =
            groups.iter().flat_map(Group::accounts).filter(|key| *key != AccountKey::External).collect();
        let treasury = ports.domains.treasury(domain)?;
        let names = Owners::new(store.reader(), domain, treasury).names(&touched).await?;
        gathered.transfers(state, &wanted, &names, groups)?;
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

/// Markers of transfers which belong to a charge that one of these is a part of.
async fn rest_of_charges(
    store: &BlockStore,
    domain: &DomainId,
    transfers: &[(Transfer, Option<u64>)],
) -> Result<Vec<Marker>> {
    let here: BTreeSet<&str> = transfers.iter().map(|(it, _)| it.idempotency_key.as_str()).collect();
    let periods: BTreeSet<&str> = transfers.iter().filter_map(|(it, _)| period_of(it)).collect();
    let missing: Vec<String> =
        periods.into_iter().flat_map(parts_of).filter(|key| !here.contains(key.as_str())).collect();
    let mut rest = Vec::new();
    for keys in missing.chunks(500) {
        let keys = keys.iter().map(|key| Scalar::from(key.as_str())).collect();
        let filter =
            Filter::eq("domain", domain.as_str()).and(Filter::In("idempotency_key".to_owned(), keys));
        let found = store.reader().list_all::<Transfer>(filter).await?;
        let ids = found.into_iter().map(|it| it.value.id.to_string()).collect();
        rest.extend(store.reader().list_all::<UnsealedMarker>(Filter::Ids(ids)).await?);
    }
    Ok(rest)
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
        names: &BTreeMap<AccountKey, ShortHash>,
        groups: Vec<Group>,
    ) -> Result<()> {
        let sequence = |key: &AccountKey| {
            let index = names.get(key).and_then(|name| state.account_index(name));
            index.and_then(|index| state.account(index)).map_or(1, |leaf| leaf.sequence + 1)
        };
        let ordered = causal_order(groups, Next { sequence, deposit: state.last_deposit() + 1 });
        let mut blocked: BTreeSet<AccountKey> = BTreeSet::new();
        for group in ordered {
            let touched = || group.accounts().filter(|key| !key.is_summed());
            if touched().any(|key| blocked.contains(&key)) {
                blocked.extend(touched());
                continue;
            }
            let markers = group.transfers.iter().map(|it| wanted.get(it.id.to_string().as_str()).copied());
            let Some(markers) = markers.collect::<Option<Vec<&Marker>>>() else { continue };
            let mark = state.mark();
            match apply_group(state, names, &group) {
                Ok(records) => {
                    self.records.extend(records);
                    self.sealed.extend(markers.into_iter().cloned());
                    group.transfers.iter().try_for_each(|transfer| self.count(transfer))?;
                }
                Err(reason) => {
                    state.rollback(mark);
                    blocked.extend(touched());
                    markers.into_iter().for_each(|marker| self.poison(marker, &reason));
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

/// Applies the transfers of a group, opening the accounts that they are the first to touch: all before the first transfer,
/// because a payment and its credits stand together. On an error, which says why, the caller rolls back.
fn apply_group(
    state: &mut LedgerState,
    names: &BTreeMap<AccountKey, ShortHash>,
    group: &Group,
) -> Result<Vec<Record>, String> {
    let mut records = Vec::with_capacity(3 * group.transfers.len());
    let mut apply = |state: &mut LedgerState, record: Record| {
        state.apply(&record).map_err(|error| error.to_string())?;
        records.push(record);
        Ok::<_, String>(())
    };
    let name = |key: &AccountKey| {
        let name = names.get(key).copied();
        name.ok_or_else(|| format!("the owner of `{key}` has no address on the chain"))
    };
    for key in group.accounts().filter(|key| *key != AccountKey::External) {
        let name = name(&key)?;
        if state.account_index(&name).is_none() {
            apply(state, Record::OpenAccount { key: name })?;
        }
    }
    for transfer in &group.transfers {
        let index = |state: &LedgerState, key: &AccountKey| {
            let index = state.account_index(&name(key)?);
            index.ok_or_else(|| format!("`{key}` was not opened"))
        };
        let (to, amount) = (index(state, &transfer.credit)?, transfer.amount.0);
        let record = if transfer.kind == TransferKind::Deposit {
            let deposit = booked_index(&transfer.idempotency_key).unwrap_or(0);
            Record::Deposit { index: deposit, to, amount }
        } else {
            let from = index(state, &transfer.debit)?;
            Record::Transfer { kind: record_kind(transfer) as u8, from, to, amount }
        };
        apply(state, record)?;
    }
    Ok(records)
}

/// As which kind a transfer is sealed. What repeated breaches cost was posted as a slash before it had a kind of its own.
fn record_kind(transfer: &Transfer) -> TransferKind {
    match transfer.kind {
        TransferKind::Slash if period_of(transfer).is_none() => TransferKind::Penalty,
        kind => kind,
    }
}

fn verdict_records(verdict: &SlaVerdict) -> Vec<Record> {
    vec![
        Record::Verdict {
            subject: verdict_subject(verdict.unit, &verdict.period_key),
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
