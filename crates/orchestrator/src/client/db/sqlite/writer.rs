//! The writer: one thread that owns the one connection that writes. It takes everything that waits, applies it in one
//! transaction, and has all of it acknowledged after one sync of the disk. While the disk syncs, it is at the next batch.

use std::{
    cell::Cell,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use parking_lot::RwLock;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{
    Options,
    apply::{self, Failure, Open, Prepared, PreparedClaim},
    checkpoint::{self, Checkpointer},
    closed, failure,
    layout::{self, LAYOUT, Layout},
    syncer::{Ended, Progress, Syncer},
};
use crate::core::client::{
    database::{DatabaseError, Document, Result},
    schema::CollectionSpec,
};

/// How many requests may wait before callers do.
const QUEUE: usize = 4_096;
/// A batch takes no further request beyond so many documents: those that are answered go on while the next batch is written, and
/// with much larger ones writer and callers wait for each other in turns.
const BATCH_WRITES: usize = 512;
/// The log grows to so many times the length at which it is moved; then the writer waits for the move.
const LONGEST_LOG: i32 = 8;
/// Statements that stay prepared.
const STATEMENTS: usize = 256;

thread_local! {
    /// How many pages this thread's write-ahead log holds, told by the hook after each commit.
    static LOG_PAGES: Cell<i32> = const { Cell::new(0) };
}

/// How busy the writer was.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Requests that were answered.
    pub(super) requests: AtomicU64,
    /// Transactions.
    pub(super) commits: AtomicU64,
    /// Syncs of the log.
    pub(super) syncs: AtomicU64,
    /// Passes of checkpoints, each of which syncs the log and the database.
    pub(super) checkpoints: AtomicU64,
}

/// What came of each changeset, and the changesets.
pub(super) type AnswersOfEach = (Vec<Result<()>>, Vec<Vec<Prepared>>);

/// What the writer is asked.
pub(super) enum Request {
    /// Make tables and indexes.
    Connect { schema: &'static [CollectionSpec], reply: oneshot::Sender<Result<()>> },
    /// Apply a changeset. It goes back with the answer, so that its texts are freed where they were made, and not by the
    /// one thread that all wait for.
    Commit { writes: Vec<Prepared>, reply: oneshot::Sender<Result<Vec<Prepared>>> },
    /// Apply each changeset by itself. They go back, too.
    Commits { all: Vec<Vec<Prepared>>, reply: oneshot::Sender<AnswersOfEach> },
    /// Claim documents.
    Claim { claim: Box<PreparedClaim>, reply: oneshot::Sender<Result<Vec<Document>>> },
    /// Answer when everything before is done.
    Ping { reply: oneshot::Sender<Result<()>> },
    /// Finish and close.
    Close { reply: oneshot::Sender<Result<()>> },
}

/// What came of a request, before its reply is sent.
enum Outcome {
    Done,
    Claimed(Vec<Document>),
    Each(Vec<Result<()>>),
    Refused(DatabaseError),
}

impl Request {
    /// How many documents it may write.
    fn weight(&self) -> usize {
        match self {
            Self::Commit { writes, .. } => writes.len(),
            Self::Commits { all, .. } => all.iter().map(Vec::len).sum(),
            Self::Claim { claim, .. } => claim.limit(),
            Self::Connect { .. } | Self::Ping { .. } | Self::Close { .. } => 0,
        }
    }

    /// How many changesets and claims it is.
    fn count(&self) -> usize {
        match self {
            Self::Commits { all, .. } => all.len(),
            _ => 1,
        }
    }

    fn batched(&self) -> bool {
        matches!(self, Self::Commit { .. } | Self::Commits { .. } | Self::Claim { .. })
    }

    /// Applies it; an error means that the transaction is lost.
    fn apply(&self, open: &Open<'_>) -> std::result::Result<Outcome, rusqlite::Error> {
        Ok(match self {
            Self::Commit { writes, .. } => match changeset(open, writes)? {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Refused(error),
            },
            Self::Commits { all, .. } => {
                let each = all.iter().map(|writes| changeset(open, writes));
                Outcome::Each(each.collect::<rusqlite::Result<_>>()?)
            }
            Self::Claim { claim, .. } => match apply::claim(open, claim) {
                Ok(documents) => Outcome::Claimed(documents),
                Err(Failure::Refused(error)) => Outcome::Refused(error),
                Err(Failure::Broken(error)) => return Err(error),
            },
            Self::Connect { .. } | Self::Ping { .. } | Self::Close { .. } => Outcome::Done,
        })
    }

    /// Tells the caller that the store has ended.
    fn refuse(self, ended: Ended) {
        if let Self::Commits { all, reply } = self {
            let each = all.iter().map(|_| Err(ended.into())).collect();
            let _ = reply.send((each, all));
        } else {
            self.answer(Outcome::Refused(ended.into()));
        }
    }

    /// Tells the caller; one that went away is not missed.
    fn answer(self, outcome: Outcome) {
        match self {
            Self::Claim { reply, .. } => {
                let _ = reply.send(match outcome {
                    Outcome::Claimed(documents) => Ok(documents),
                    Outcome::Done | Outcome::Each(_) => Ok(Vec::new()),
                    Outcome::Refused(error) => Err(error),
                });
            }
            Self::Commit { writes, reply } => {
                let _ = reply.send(match outcome {
                    Outcome::Refused(error) => Err(error),
                    Outcome::Done | Outcome::Claimed(_) | Outcome::Each(_) => Ok(writes),
                });
            }
            Self::Commits { all, reply } => {
                let answers = match outcome {
                    Outcome::Each(answers) => answers,
                    Outcome::Refused(error) => vec![Err(error)],
                    Outcome::Done | Outcome::Claimed(_) => Vec::new(),
                };
                let _ = reply.send((answers, all));
            }
            Self::Connect { reply, .. } | Self::Ping { reply } | Self::Close { reply } => {
                let _ = reply.send(match outcome {
                    Outcome::Refused(error) => Err(error),
                    Outcome::Done | Outcome::Claimed(_) | Outcome::Each(_) => Ok(()),
                });
            }
        }
    }
}

/// Applies a changeset; an error means that the transaction is lost.
fn changeset(open: &Open<'_>, writes: &[Prepared]) -> rusqlite::Result<Result<()>> {
    match apply::changeset(open, writes) {
        Ok(()) => Ok(Ok(())),
        Err(Failure::Refused(error)) => Ok(Err(error)),
        Err(Failure::Broken(error)) => Err(error),
    }
}

fn note_log_pages(_: &mut rusqlite::hooks::Wal, pages: i32) -> rusqlite::Result<()> {
    LOG_PAGES.set(pages);
    Ok(())
}

/// Opens the connection that writes.
pub(super) fn open(path: &Path, options: &Options) -> Result<Connection> {
    let mut connection = Connection::open(path).map_err(failure)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(options.busy_timeout).map_err(failure)?;
    // Of a new file. Jobs and their index entries come in order, in batches: larger pages are fewer calls for the same bytes.
    // An older file keeps its smaller ones.
    connection.pragma_update(None, "page_size", 16_384).map_err(failure)?;
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failure)?;
    if mode != "wal" {
        return Err(DatabaseError::Unavailable(format!("journal mode is {mode} and not wal").into()));
    }
    let cache = options.cache_kib;
    let limit = options.max_pages.map_or(String::new(), |pages| format!("PRAGMA max_page_count = {pages};"));
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; \
             PRAGMA cache_size = -{cache}; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 67108864; {limit}"
        ))
        .map_err(failure)?;
    connection.wal_hook(Some(note_log_pages)).map_err(failure)?;
    layout::add_functions(&connection).map_err(failure)?;
    // The first read makes the log.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(failure)?;
    // What a process before left in the log may never have reached the disk, and is not added to. When this fails, on a full disk
    // or while somebody reads, the log stays valid.
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    Ok(connection)
}

/// The writer's thread.
pub(super) struct Writer {
    connection: Connection,
    requests: mpsc::Receiver<Request>,
    layout: Arc<RwLock<Arc<Layout>>>,
    counters: Arc<Counters>,
    options: Options,
    /// The log is moved into the database when it has so many pages.
    checkpoint_at: i32,
    checkpointer: Checkpointer,
    progress: Arc<Progress>,
    syncer: Syncer,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(
        path: &Path,
        connection: Connection,
        layout: Arc<RwLock<Arc<Layout>>>,
        counters: Arc<Counters>,
        progress: Arc<Progress>,
        options: Options,
    ) -> Result<(mpsc::Sender<Request>, JoinHandle<()>)> {
        let (sender, requests) = mpsc::channel(QUEUE);
        let (checkpoint_at, checkpointer) = (options.checkpoint_pages, Checkpointer::start(path)?);
        let syncer = Syncer::start(Arc::clone(&progress))?;
        let writer = Self {
            connection,
            requests,
            layout,
            counters,
            options,
            checkpoint_at,
            checkpointer,
            progress,
            syncer,
        };
        let thread = std::thread::Builder::new()
            .name("db-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| DatabaseError::Unavailable(error.into()))?;
        Ok((sender, thread))
    }

    fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(first) = self.requests.blocking_recv() {
            // What is no write ends the batch, and is done after it.
            let mut last = None;
            let mut weight = 0;
            let mut next = Some(first);
            while let Some(request) = next {
                if !request.batched() {
                    last = Some(request);
                    break;
                }
                weight += request.weight();
                batch.push(request);
                next = if weight < BATCH_WRITES { self.requests.try_recv().ok() } else { None };
            }
            self.write(std::mem::take(&mut batch));
            match last {
                Some(Request::Close { reply }) => {
                    let closed = self.close();
                    let _ = reply.send(closed);
                    return;
                }
                Some(request) => self.control(request),
                None => {}
            }
            self.checkpoint();
        }
        // Dropped without a disconnect: everything that was sent has been answered.
        let _ = self.close();
    }

    fn control(&self, request: Request) {
        let done = match &request {
            Request::Connect { schema, .. } => self.connect(schema),
            _ => {
                let looked = self.connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
                looked.map_err(failure)
            }
        };
        self.answer(vec![(request, done.map_or_else(Outcome::Refused, |()| Outcome::Done))]);
    }

    /// Tells the callers when the disk has what was committed for them, and what they may have seen.
    fn answer(&self, outcomes: Vec<(Request, Outcome)>) {
        let tell = move |synced: std::result::Result<(), Ended>| {
            for (request, outcome) in outcomes {
                match synced {
                    Ok(()) => request.answer(outcome),
                    Err(ended) => request.refuse(ended),
                }
            }
        };
        self.syncer.answer(!self.requests.is_empty(), Box::new(tell));
    }

    /// Applies a batch in one transaction. If the transaction is lost, each changeset and claim gets one of its own: so the one
    /// that does not fit the disk, say, fails alone.
    fn write(&self, batch: Vec<Request>) {
        if batch.is_empty() {
            return;
        }
        if let Some(ended) = self.progress.ended() {
            return batch.into_iter().for_each(|request| request.refuse(ended));
        }
        let all = |open: &Open<'_>| batch.iter().map(|request| request.apply(open)).collect();
        let refused = match self.transaction::<Vec<Outcome>>(all) {
            Ok(outcomes) => {
                let requests: usize = batch.iter().map(Request::count).sum();
                self.counters.requests.fetch_add(requests as u64, Ordering::Relaxed);
                return self.answer(batch.into_iter().zip(outcomes).collect());
            }
            Err(error) => error,
        };
        let alone = batch.len() == 1;
        if !alone {
            tracing::warn!(error = %refused, requests = batch.len(), "a batch of writes failed; trying them one by one");
        }
        for request in batch {
            match request {
                Request::Commits { all, reply } => {
                    let each = Outcome::Each(all.iter().map(|writes| self.write_alone(writes)).collect());
                    self.answer(vec![(Request::Commits { all, reply }, each)]);
                }
                request if alone => self.answer(vec![(request, Outcome::Refused(failure_of(&refused)))]),
                request => self.write(vec![request]),
            }
        }
    }

    /// Applies a changeset in a transaction of its own.
    fn write_alone(&self, writes: &[Prepared]) -> Result<()> {
        let answer = self.transaction(|open| changeset(open, writes));
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        answer.unwrap_or_else(|error| Err(failure_of(&error)))
    }

    fn transaction<T>(
        &self,
        work: impl FnOnce(&Open<'_>) -> rusqlite::Result<T>,
    ) -> std::result::Result<T, Lost> {
        let run = |sql: &str| self.connection.prepare_cached(sql)?.execute([]);
        let worked = run("BEGIN IMMEDIATE").and_then(|_| work(&Open::new(&self.connection)));
        match worked.and_then(|answer| self.progress.commit(|| run("COMMIT")).map(|_| answer)) {
            Ok(answer) => {
                self.counters.commits.fetch_add(1, Ordering::Relaxed);
                Ok(answer)
            }
            Err(error) => {
                // Some errors have rolled back already.
                if !self.connection.is_autocommit() {
                    let _ = run("ROLLBACK");
                }
                Err(error)
            }
        }
    }

    fn connect(&self, schema: &'static [CollectionSpec]) -> Result<()> {
        let found = self.check_version()?;
        self.check_integrity()?;
        let layout = Layout::new(schema);
        let create = || -> rusqlite::Result<()> {
            // At once as a writer, so that it waits for another process instead of failing half-way.
            let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
            layout.create(&transaction)?;
            layout::migrate(&transaction, found)?;
            self.progress.commit(|| transaction.commit())
        };
        create().map_err(failure)?;
        *self.layout.write() = Arc::new(layout);
        Ok(())
    }

    fn check_version(&self) -> Result<i64> {
        let found: i64 =
            self.connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failure)?;
        if found > LAYOUT {
            return Err(DatabaseError::Invalid(format!(
                "the database has layout {found}, and this program knows layouts up to {LAYOUT}; use a newer program"
            )));
        }
        Ok(found)
    }

    fn check_integrity(&self) -> Result<()> {
        let size: i64 = self
            .connection
            .query_row("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", [], |row| {
                row.get(0)
            })
            .map_err(failure)?;
        if size.unsigned_abs() > self.options.check_up_to {
            tracing::info!(bytes = size, "the database is too large to be checked at each start");
            return Ok(());
        }
        let found: Option<String> = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .optional()
            .map_err(failure)?;
        match found.as_deref() {
            None | Some("ok") => Ok(()),
            Some(fault) => {
                Err(DatabaseError::Unavailable(format!("the database file is damaged: {fault}").into()))
            }
        }
    }

    /// Has the log moved into the database when it has grown long, and moves the rest.
    fn checkpoint(&mut self) {
        let pages = LOG_PAGES.get();
        if !self.checkpointer.is_under_way() {
            if pages >= self.checkpoint_at {
                self.checkpointer.begin();
                // Nobody is there to do it.
                if !self.checkpointer.is_under_way() {
                    self.finish_checkpoint(pages);
                }
            }
            return;
        }
        // A disk that moves pages slower than they come would have the log grow for ever.
        let patient = pages >= self.checkpoint_at.saturating_mul(LONGEST_LOG);
        if let Some(passes) = self.checkpointer.ended(patient) {
            self.counters.checkpoints.fetch_add(passes, Ordering::Relaxed);
            // When nobody wrote for a while all was moved, and the log began anew by itself.
            if pages >= self.checkpoint_at {
                self.finish_checkpoint(pages);
            }
        }
    }

    /// Moves what is left of the log: the writer alone can, because nothing is added meanwhile.
    fn finish_checkpoint(&mut self, pages: i32) {
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        // A reader may have kept a part of the log, or the disk may be full: then not again with each commit.
        let done = checkpoint::pass(&self.connection).is_ok_and(checkpoint::Moved::whole);
        self.checkpoint_at = if done { self.options.checkpoint_pages } else { pages.saturating_mul(2) };
        if done {
            LOG_PAGES.set(0);
        }
    }

    fn close(self) -> Result<()> {
        let Self { connection, checkpointer, syncer, progress, .. } = self;
        drop(syncer);
        let kept_open = checkpointer.stop();
        // A failed checkpoint loses nothing: the log is read at the next start.
        let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        connection.flush_prepared_statement_cache();
        let closed = connection.close().map_err(|(_, error)| failure(error));
        drop(kept_open);
        match progress.ended() {
            Some(failed @ Ended::Failed) => Err(failed.into()),
            _ => closed,
        }
    }
}

type Lost = rusqlite::Error;

/// As [`failure`], for an error that is not given away.
fn failure_of(error: &Lost) -> DatabaseError {
    match error {
        rusqlite::Error::SqliteFailure(code, text) => {
            failure(rusqlite::Error::SqliteFailure(*code, text.clone()))
        }
        other => DatabaseError::Unavailable(other.to_string().into()),
    }
}

/// Waits for the answer to a request.
pub(super) async fn ask<T>(
    writer: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    writer.send(request(reply)).await.map_err(|_| closed())?;
    answer.await.map_err(|_| closed())
}
