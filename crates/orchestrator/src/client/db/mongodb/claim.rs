//! Claims: candidates are read in the claim's order, then taken by one command of statements, each of which changes its
//! document only if that still has the version that was read. So what a taken document looks like is known without
//! reading it again, and no document goes to two callers: of those who try the same version, the server lets one pass.
//!
//! **Without contending on one row.** Callers of this process leave each other's candidates alone as long as there are
//! others. When statements miss, callers of other processes are after the same documents: then more candidates are read,
//! and the batch begins at a random place among them; the more so the oftener it misses, and again in strict order once
//! nothing misses any more.
//!
//! **When the answer is lost**, the documents that carry the claim's id are ours. A claim that the server carries out
//! after we stopped asking leaves documents that nobody works on; that is what a worker leaves that dies right after its
//! claim, and leases and visibility cover it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use ::mongodb::{
    ClientSession,
    bson::{Document as BsonDocument, doc, oid::ObjectId},
};
use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    Running, Table, commit,
    encode::{self, CLAIM, EXPIRES},
    fault::fault,
    filter, statement,
    transaction::{self, Stop, Work},
};
use crate::{
    client::db::{
        scan,
        value::{self, Key},
    },
    core::client::database::{Claim, DatabaseError, Document, Query, Result},
    utils::random,
};

/// Rounds of a claim that keeps missing: each miss is another caller's success.
const ROUNDS: u32 = 16;
/// The most candidates that are read beyond what is wanted.
const SPARE: usize = 1_000;
/// The most doublings of the part of the order from which a batch is taken.
const SPREAD: u32 = 5;

/// What is known of the claims on a collection.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    /// Claims of this process that are under way.
    here: AtomicUsize,
    /// What these are taking.
    taking: Mutex<HashSet<String>>,
    /// Grows when statements miss, shrinks when none do.
    elsewhere: AtomicU32,
}

/// A claim's share in [`Rivals`]; gives back what it holds when it is dropped.
struct Share<'a> {
    rivals: &'a Rivals,
    taking: Vec<String>,
}

impl<'a> Share<'a> {
    fn new(rivals: &'a Rivals) -> Self {
        rivals.here.fetch_add(1, Ordering::Relaxed);
        Self { rivals, taking: Vec::new() }
    }

    fn release(&mut self) {
        let mut taking = self.rivals.taking.lock();
        for id in self.taking.drain(..) {
            taking.remove(&id);
        }
    }

    /// Up to `want` of the candidates: those that nobody here is taking first, from a place that depends on how often
    /// others were faster.
    fn pick(&mut self, candidates: Vec<Document>, want: usize) -> Vec<Document> {
        let blocks = 1_usize << self.rivals.elsewhere.load(Ordering::Relaxed).min(SPREAD);
        let start = if blocks > 1 && candidates.len() > want { drawn(blocks) * want } else { 0 };
        let mut candidates = candidates;
        let start =
            if start + want > candidates.len() { candidates.len().saturating_sub(want) } else { start };
        candidates.rotate_left(start);
        let mut taking = self.rivals.taking.lock();
        let (mut free, busy): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|document| !taking.contains(&document.id));
        free.truncate(want);
        // Whoever holds these may only be renewing them; the version decides.
        let left = want - free.len();
        for document in &free {
            taking.insert(document.id.clone());
            self.taking.push(document.id.clone());
        }
        free.extend(busy.into_iter().take(left));
        free
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.release();
        self.rivals.here.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A number below `bound`.
fn drawn(bound: usize) -> usize {
    random::bytes(2).into_iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(byte)) % bound.max(1)
}

impl Rivals {
    fn learn(&self, missed: bool) {
        let step = |heat: u32| Some(if missed { (heat + 1).min(SPREAD) } else { heat.saturating_sub(1) });
        let _ = self.elsewhere.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }

    /// How many candidates to read beyond those wanted.
    fn spare(&self, want: usize) -> usize {
        let here = self.here.load(Ordering::Relaxed).saturating_sub(1);
        let elsewhere = (1_usize << self.elsewhere.load(Ordering::Relaxed).min(SPREAD)) - 1;
        want.saturating_mul(here + elsewhere).min(SPARE)
    }
}

/// Where a document stood in the claim's order before it was changed.
type Position = (Key, String);

fn position(claim: &Claim, document: &Document) -> Position {
    let key = value::sort_field(&claim.sort).map_or(Key::Null, |path| scan::key(&document.body, path));
    (key, document.id.clone())
}

/// A candidate as it will be, and the statement that makes it so.
struct Change {
    position: Position,
    after: Document,
    statement: BsonDocument,
}

impl Change {
    fn new(table: &Table, claim: &Claim, id: ObjectId, before: &Document) -> Result<Self> {
        let text = value::change(&before.body, &claim.set, &claim.increment)?;
        let whole = encode::encode(&text);
        let body = encode::canonical(&whole)?;
        let fields =
            claim.set.iter().map(|(path, _)| path).chain(claim.increment.iter().map(|(path, _)| path));
        let mut set = BsonDocument::new();
        for path in fields {
            match encode::plain(&scan::key(&text, path)).filter(|_| !path.contains('.')) {
                Some(value) => {
                    set.insert(encode::field(path), value);
                }
                // Objects on the way may have to be made: the whole body is simpler to get right.
                None => {
                    set = doc! { encode::BODY: whole };
                    break;
                }
            }
        }
        if let Some(expiry) = statement::expiry(table, &text) {
            set.insert(EXPIRES, expiry);
        }
        set.insert(CLAIM, id);
        let statement = doc! {
            "q": statement::at_version(&before.id, before.version),
            "u": { "$set": set, "$inc": statement::next_version() },
        };
        let after = Document { id: before.id.clone(), version: before.version + 1, body };
        Ok(Self { position: position(claim, before), after, statement })
    }
}

/// Claims documents.
pub(super) async fn claim(running: &Running, table: &Arc<Table>, claim: Claim) -> Result<Vec<Document>> {
    if may_collide(table, &claim) {
        return transaction::transact(running, &mut Whole { running, table, claim }).await;
    }
    let mut taken: BTreeMap<Position, Document> = BTreeMap::new();
    let mut share = Share::new(&table.rivals);
    for _ in 0..ROUNDS {
        let want = claim.limit - taken.len();
        // Those that were taken may still match.
        let candidates = candidates(table, &claim, want + taken.len() + table.rivals.spare(want)).await?;
        let ours: HashSet<&str> = taken.values().map(|document| document.id.as_str()).collect();
        let mut fresh = candidates;
        fresh.retain(|document| !ours.contains(document.id.as_str()));
        if taken.is_empty() {
            refuse_unchangeable(&claim, fresh.iter().take(want))?;
        }
        fresh.retain(|document| value::change(&document.body, &claim.set, &claim.increment).is_ok());
        let more = fresh.len() > want;
        let picked = share.pick(fresh, want);
        if picked.is_empty() {
            break;
        }
        let asked = picked.len();
        let id = ObjectId::new();
        let changes: Vec<Change> =
            picked.iter().map(|before| Change::new(table, &claim, id, before)).collect::<Result<_>>()?;
        let mine = take(running, table, id, changes).await?;
        share.release();
        let missed = mine.len() < asked;
        taken.extend(mine);
        table.rivals.learn(missed);
        if taken.len() >= claim.limit || (!missed && !more) {
            break;
        }
    }
    let documents = taken.into_values();
    Ok(if value::descending(&claim.sort) { documents.rev().collect() } else { documents.collect() })
}

/// A claim is refused as a whole when one of the documents that come first can't be changed as it asks.
fn refuse_unchangeable<'a>(claim: &Claim, mut first: impl Iterator<Item = &'a Document>) -> Result<()> {
    first.try_for_each(|document| value::change(&document.body, &claim.set, &claim.increment).map(drop))
}

fn query(claim: &Claim, limit: usize) -> Query {
    let Claim { collection, filter, sort, .. } = claim.clone();
    Query { collection, filter, sort, limit, after: None }
}

async fn candidates(table: &Table, claim: &Claim, limit: usize) -> Result<Vec<Document>> {
    Ok(filter::page(table, &query(claim, limit), limit, None).await?)
}

fn command(table: &Table, changes: &[Change], ordered: bool) -> BsonDocument {
    let statements: Vec<_> = changes.iter().map(|change| change.statement.clone()).collect();
    doc! { "update": table.spec.collection.0, "updates": statements, "ordered": ordered }
}

/// Carries the changes out; those that met their document, by its place in the order.
async fn take(
    running: &Running,
    table: &Table,
    id: ObjectId,
    changes: Vec<Change>,
) -> Result<Vec<(Position, Document)>> {
    let mut mine = Vec::with_capacity(changes.len());
    let mut changes = changes;
    while !changes.is_empty() {
        let rest = changes.split_off(batch(&changes));
        let ids = take_batch(running, table, id, &changes).await?;
        let met = |change: &Change| ids.as_ref().is_none_or(|ids| ids.contains(&change.after.id));
        mine.extend(changes.into_iter().filter(met).map(|change| (change.position, change.after)));
        changes = rest;
    }
    Ok(mine)
}

/// How many changes fit into one command.
fn batch(changes: &[Change]) -> usize {
    let mut bytes = 0;
    let fits = |change: &&Change| {
        bytes += change.after.body.len();
        bytes <= commit::BATCH.1
    };
    changes.iter().take(commit::BATCH.0).take_while(fits).count().max(1)
}

/// Carries one command out. The ids of the documents that are ours now; `None` when all are.
async fn take_batch(
    running: &Running,
    table: &Table,
    id: ObjectId,
    changes: &[Change],
) -> Result<Option<HashSet<String>>> {
    let mut command = command(table, changes, false);
    command.insert("writeConcern", doc! { "w": "majority", "j": true });
    command.insert("maxTimeMS", i64::try_from(running.timeout.as_millis()).unwrap_or(i64::MAX));
    let reply = running.database.run_command(command).await;
    if let Ok(reply) = &reply {
        let good = !reply.contains_key("writeConcernError") && !reply.contains_key("writeErrors");
        if good && commit::number(reply, "n") == i64::try_from(changes.len()).unwrap_or(i64::MAX) {
            return Ok(None);
        }
        if good && commit::number(reply, "n") == 0 {
            return Ok(Some(HashSet::new()));
        }
    }
    // Some missed, or nobody knows: what a majority has under the claim's id is ours.
    let wanted: Vec<&str> = changes.iter().map(|change| change.after.id.as_str()).collect();
    let find =
        table.documents.find(doc! { "_id": { "$in": wanted }, CLAIM: id }).projection(doc! { "_id": 1 });
    let mut cursor = find.max_time(table.timeout).await.map_err(fault)?;
    let mut ids = HashSet::new();
    while cursor.advance().await.map_err(fault)? {
        ids.extend(cursor.current().get_str("_id").ok().map(str::to_owned));
    }
    match reply {
        Err(error) if ids.is_empty() => Err(fault(error)),
        Ok(reply) if ids.is_empty() => match commit::first_error(&reply) {
            Some((_, error)) => Err(super::fault::statement_fault(error.code, &error.message)),
            None => Ok(Some(ids)),
        },
        _ => Ok(Some(ids)),
    }
}

/// Whether the claim changes a field of a unique index, and so may be refused half-way.
fn may_collide(table: &Table, claim: &Claim) -> bool {
    let root = |path: &str| path.split('.').next().map(str::to_owned);
    let touched = |field: &&str| {
        let mut paths =
            claim.set.iter().map(|(path, _)| path).chain(claim.increment.iter().map(|(path, _)| path));
        // A dotted path may lead into a field, or be led into.
        paths.any(|path| root(path) == root(field))
    };
    table.spec.indexes.iter().filter(|index| index.unique).flat_map(|index| index.fields).any(touched)
}

/// A claim in a transaction: as a whole or not at all.
struct Whole<'a> {
    running: &'a Running,
    table: &'a Table,
    claim: Claim,
}

#[async_trait]
impl Work for Whole<'_> {
    type Output = Vec<Document>;

    fn documents(&self) -> Vec<(&'static str, String)> {
        // Which they are is not known; such claims are rare.
        vec![(self.table.spec.collection.0, String::new())]
    }

    async fn run(&mut self, session: &mut ClientSession) -> std::result::Result<Self::Output, Stop> {
        let Self { running, table, claim } = self;
        let query = query(claim, claim.limit);
        let found = filter::page(table, &query, claim.limit, Some(session)).await?;
        let refused = |error: DatabaseError| Stop::Refused { error, written: false };
        let id = ObjectId::new();
        let changes: Vec<Change> = found
            .iter()
            .map(|before| {
                let change = Change::new(table, claim, id, before)?;
                statement::check_keys(table, &change.after.body)?;
                Ok(change)
            })
            .collect::<Result<_>>()
            .map_err(refused)?;
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let reply =
            running.database.run_command(command(table, &changes, true)).session(&mut *session).await?;
        if let Some((place, error)) = commit::first_error(&reply) {
            let id = changes.get(place).map_or("?", |change| change.after.id.as_str());
            return Err(commit::refused(table, id, error));
        }
        Ok(changes.into_iter().map(|change| change.after).collect())
    }
}
