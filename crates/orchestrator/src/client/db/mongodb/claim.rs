//! Claims: candidates are read in the claim's order, then taken by one command of statements, each of which changes its
//! document only if that still has the version that was read. So what a taken document looks like is known without
//! reading it again, and no document goes to two callers: of those who try the same version, the server lets one pass.
//!
//! **Without contending on one row.** Callers of this process leave each other's candidates alone as long as there are
//! others. When statements miss, callers of other processes are after the same documents: then more candidates are read,
//! and the batch begins at a random place among them; the more so the oftener it misses, and again in strict order once
//! nothing misses any more.
//!
//! **A document that an open transaction holds** makes a statement wait, and all behind it. The transaction may be that of a
//! process that was killed or stopped, which the server ends after a minute only. So the server is told to wait for seconds
//! only: what it waited for in vain is left alone for a while, and what comes behind it is claimed without it. It is always
//! the server that ends the wait: who hangs up does not know what is still carried out.
//!
//! **When the answer is lost**, the documents that carry the claim's id are ours. A claim that the server carries out
//! after we stopped asking leaves documents that nobody works on; that is what a worker leaves that dies right after its
//! claim, and leases and visibility cover it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ::mongodb::{
    ClientSession,
    bson::{Document as BsonDocument, doc, oid::ObjectId},
};
use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    Running, Table, commit,
    encode::{self, CLAIM, EXPIRES, VERSION},
    fault::{self, fault},
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

/// How long the server may take for a command: this, and so much for each of its statements.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(10));
/// How long what was waited for in vain is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// Commands of one claim that may wait in vain.
const IN_VAIN: u32 = 3;

/// What is known of the claims on a collection.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    /// Claims of this process that are under way.
    here: AtomicUsize,
    /// What these are taking.
    taking: Mutex<HashSet<String>>,
    /// Grows when statements miss, shrinks when none do.
    elsewhere: AtomicU32,
    /// What was waited for in vain, and until when it is left alone.
    held: Mutex<HashMap<String, Instant>>,
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

    /// What is left alone for now.
    fn held(&self) -> HashSet<String> {
        let mut held = self.held.lock();
        let now = Instant::now();
        held.retain(|_, until| *until > now);
        held.keys().cloned().collect()
    }

    fn leave_alone(&self, id: String) {
        self.held.lock().insert(id, Instant::now() + LEFT_ALONE);
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
    let mut in_vain = 0;
    for _ in 0..ROUNDS {
        let want = claim.limit - taken.len();
        let held = table.rivals.held();
        // Those that were taken may still match.
        let enough = want + taken.len() + held.len() + table.rivals.spare(want);
        let candidates = candidates(table, &claim, enough).await?;
        let ours: HashSet<&str> = taken.values().map(|document| document.id.as_str()).collect();
        let mut fresh = candidates;
        fresh.retain(|document| !ours.contains(document.id.as_str()) && !held.contains(&document.id));
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
        let Taken { mine, held } = take(running, table, id, changes).await?;
        share.release();
        let missed = mine.len() < asked;
        taken.extend(mine);
        match held {
            Some(id) => {
                tracing::warn!(collection = %table.spec.collection, id, "a claim goes on without what a transaction holds");
                table.rivals.leave_alone(id);
                in_vain += 1;
            }
            None => table.rivals.learn(missed),
        }
        if taken.len() >= claim.limit || (!missed && !more) || in_vain >= IN_VAIN {
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

/// What came of the commands of a claim.
struct Taken {
    /// Those that met their document, by its place in the order.
    mine: Vec<(Position, Document)>,
    /// What the last command waited for in vain; commands behind it were not sent.
    held: Option<String>,
}

/// Carries the changes out.
async fn take(running: &Running, table: &Table, id: ObjectId, changes: Vec<Change>) -> Result<Taken> {
    let mut taken = Taken { mine: Vec::with_capacity(changes.len()), held: None };
    let mut changes = changes;
    while !changes.is_empty() && taken.held.is_none() {
        let rest = changes.split_off(batch(&changes));
        let Met { ids, held } = take_batch(running, table, id, &changes).await?;
        let met = |change: &Change| ids.as_ref().is_none_or(|ids| ids.contains(&change.after.id));
        taken.mine.extend(changes.into_iter().filter(met).map(|change| (change.position, change.after)));
        taken.held = held;
        changes = rest;
    }
    Ok(taken)
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

/// What one command came to.
struct Met {
    /// The documents that are ours now; `None` when all are.
    ids: Option<HashSet<String>>,
    /// What it waited for in vain.
    held: Option<String>,
}

/// Carries one command out.
async fn take_batch(running: &Running, table: &Table, id: ObjectId, changes: &[Change]) -> Result<Met> {
    let statements = u32::try_from(changes.len()).unwrap_or(u32::MAX);
    let patience = PATIENCE.0.saturating_add(PATIENCE.1.saturating_mul(statements)).min(running.timeout);
    let mut command = command(table, changes, false);
    command.insert("writeConcern", doc! { "w": "majority", "j": true });
    command.insert("maxTimeMS", i64::try_from(patience.as_millis()).unwrap_or(i64::MAX));
    let reply = running.database.run_command(command).await;
    if let Ok(reply) = &reply {
        let good = !reply.contains_key("writeConcernError") && !reply.contains_key("writeErrors");
        if good && commit::number(reply, "n") == i64::try_from(changes.len()).unwrap_or(i64::MAX) {
            return Ok(Met { ids: None, held: None });
        }
        if good && commit::number(reply, "n") == 0 {
            return Ok(Met { ids: Some(HashSet::new()), held: None });
        }
    }
    // Some missed, or nobody knows: what a majority has under the claim's id is ours.
    let (ids, unchanged) = look(table, id, changes).await?;
    let too_long = match &reply {
        Err(error) => fault::code(error).is_some_and(fault::took_too_long),
        Ok(reply) => commit::first_error(reply).is_some_and(|(_, error)| fault::took_too_long(error.code)),
    };
    if too_long {
        // Statements are carried out one after the other. When nothing is as it was, others were faster everywhere.
        return Ok(Met { ids: Some(ids), held: unchanged });
    }
    match reply {
        Err(error) if ids.is_empty() => Err(fault(error)),
        Ok(reply) if ids.is_empty() => match commit::first_error(&reply) {
            Some((_, error)) => Err(fault::statement_fault(error.code, &error.message)),
            None => Ok(Met { ids: Some(ids), held: None }),
        },
        _ => Ok(Met { ids: Some(ids), held: None }),
    }
}

/// Which documents carry the claim's id, and the first one that is still as it was read.
async fn look(table: &Table, id: ObjectId, changes: &[Change]) -> Result<(HashSet<String>, Option<String>)> {
    let wanted: Vec<&str> = changes.iter().map(|change| change.after.id.as_str()).collect();
    let find = table.documents.find(doc! { "_id": { "$in": wanted } });
    let find = find.projection(doc! { "_id": 1, VERSION: 1, CLAIM: 1 });
    let mut cursor = find.max_time(table.timeout).await.map_err(fault)?;
    let (mut ids, mut versions) = (HashSet::new(), HashMap::new());
    while cursor.advance().await.map_err(fault)? {
        let found = cursor.deserialize_current().map_err(fault)?;
        let Ok(name) = found.get_str("_id") else { continue };
        if found.get_object_id(CLAIM).is_ok_and(|claim| claim == id) {
            ids.insert(name.to_owned());
        } else {
            versions.insert(name.to_owned(), commit::number(&found, VERSION));
        }
    }
    let as_it_was = |change: &&Change| {
        let version = versions.get(&change.after.id);
        version.is_some_and(|&version| u64::try_from(version).is_ok_and(|it| it + 1 == change.after.version))
    };
    let unchanged = changes.iter().find(as_it_was).map(|change| change.after.id.clone());
    Ok((ids, unchanged))
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
        // One by one, so that it is known whose key is taken.
        for change in &changes {
            let command = command(table, std::slice::from_ref(change), true);
            let reply = running.database.run_command(command).session(&mut *session).await;
            let reply = commit::error_as_statement(reply)?;
            if let Some((_, error)) = commit::first_error(&reply) {
                return Err(commit::refused(table, &change.after.id, error));
            }
        }
        Ok(changes.into_iter().map(|change| change.after).collect())
    }
}
