//! The embedded database: SQLite in WAL mode. One thread writes, in batches; another one syncs them, and answers; a third one
//! moves the log into the database; a few connections read beside them.

mod apply;
pub mod backup;
mod checkpoint;
mod layout;
mod query;
mod reader;
mod room;
mod syncer;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use rusqlite::{ErrorCode, OptionalExtension};
use tokio::sync::mpsc;

pub use self::layout::LAYOUT;
use self::{
    layout::{Layout, Table},
    reader::Readers,
    syncer::{Progress, SyncLog},
    writer::{Counters, Request, Writer},
};
use crate::{
    client::db::{asked, closed, value},
    core::client::{
        database::{
            Changeset, Claim, Claimer, Committer, DatabaseClient, DatabaseError, Document, Filter, Page,
            Query, Reader, Result,
        },
        schema::{Collection, CollectionSpec},
    },
};

/// How the database is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections that read.
    pub readers: usize,
    /// The writer's page cache, in KiB; taken as it fills.
    pub cache_kib: u32,
    /// The log is moved into the database when it has so many pages of 16 KiB.
    pub checkpoint_pages: i32,
    /// How long to wait for another process that writes.
    pub busy_timeout: Duration,
    /// Files up to so many bytes are checked at each start, which reads them whole. A larger one would make every start
    /// wait for minutes, for damage that SQLite mostly meets anyway when it reads the page: such a file is opened as it
    /// is, the log says so, and `PRAGMA quick_check` on a copy is the operator's to schedule.
    pub check_up_to: u64,
    /// The most pages of 16 KiB that the file may have; for tests of the full disk.
    pub max_pages: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            readers: 2,
            cache_kib: 16_384,
            checkpoint_pages: 1_024,
            busy_timeout: Duration::from_secs(5),
            check_up_to: 256 << 20,
            max_pages: None,
        }
    }
}

/// What the writer did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Changesets and claims that were answered.
    pub requests: u64,
    /// Transactions.
    pub commits: u64,
    /// Syncs of the log, each for all commits before it.
    pub log_syncs: u64,
    /// Passes of moving the log into the database, each synced twice.
    pub checkpoints: u64,
}

impl Stats {
    /// How often the disk was synced.
    #[must_use]
    pub const fn syncs(&self) -> u64 {
        self.log_syncs + 2 * self.checkpoints
    }
}

/// A database in one file. Dropping it ends its threads; what was acknowledged is on the disk.
pub struct SqliteDatabase {
    path: PathBuf,
    options: Options,
    running: RwLock<Option<Running>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    layout: Arc<RwLock<Arc<Layout>>>,
    counters: Arc<Counters>,
    log: OpenLog,
}

/// Opens the log beside a database file.
type OpenLog = Box<dyn Fn(&Path) -> Result<SyncLog> + Send + Sync>;

#[derive(Clone)]
struct Running {
    writer: mpsc::Sender<Request>,
    readers: Arc<Readers>,
}

impl SqliteDatabase {
    /// Opens the file, or makes it; [`DatabaseClient::connect`] must follow before anything else.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] when the file can't be opened or is no database.
    pub fn open(path: &Path, options: Options) -> Result<Arc<Self>> {
        Self::open_with(path, options, Box::new(syncer::of))
    }

    /// As [`Self::open`], with another way to sync the log.
    fn open_with(path: &Path, options: Options, log: OpenLog) -> Result<Arc<Self>> {
        let database = Self {
            path: path.to_owned(),
            options,
            running: RwLock::new(None),
            thread: Mutex::new(None),
            layout: Arc::default(),
            counters: Arc::default(),
            log,
        };
        database.start()?;
        Ok(Arc::new(database))
    }

    /// What the writer did so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            requests: self.counters.requests.load(Ordering::Relaxed),
            commits: self.counters.commits.load(Ordering::Relaxed),
            log_syncs: self.counters.syncs.load(Ordering::Relaxed),
            checkpoints: self.counters.checkpoints.load(Ordering::Relaxed),
        }
    }

    fn start(&self) -> Result<Running> {
        let mut running = self.running.write();
        if let Some(running) = &*running {
            return Ok(running.clone());
        }
        let connection = writer::open(&self.path, &self.options)?;
        let progress = Progress::new((self.log)(&self.path)?, Arc::clone(&self.counters));
        let readers = Arc::new(Readers::open(&self.path, &self.options, Arc::clone(&progress))?);
        let (layout, counters) = (Arc::clone(&self.layout), Arc::clone(&self.counters));
        let (writer, thread) =
            Writer::start(&self.path, connection, layout, counters, progress, self.options.clone())?;
        *self.thread.lock() = Some(thread);
        Ok(running.insert(Running { writer, readers }).clone())
    }

    fn running(&self) -> Result<Running> {
        self.running.read().clone().ok_or_else(closed)
    }

    fn layout(&self) -> Arc<Layout> {
        Arc::clone(&self.layout.read())
    }

    fn reading(&self, collection: Collection) -> Result<(Running, Arc<Table>)> {
        let running = self.running()?;
        let layout = self.layout();
        let table = layout
            .table(collection)
            .ok_or_else(|| DatabaseError::Invalid(format!("there is no collection {collection}")))?;
        Ok((running, Arc::clone(table)))
    }
}

impl std::fmt::Debug for SqliteDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteDatabase").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for SqliteDatabase {
    fn drop(&mut self) {
        // Without its sender the writer ends after the batch that it is at; waiting for it means that whoever opens the
        // file next finds it free.
        if let Some(running) = self.running.get_mut().take() {
            running.readers.close();
        }
        if let Some(thread) = self.thread.get_mut().take() {
            let _ = thread.join();
        }
    }
}

/// What a fault of SQLite means to the caller.
fn failure(error: rusqlite::Error) -> DatabaseError {
    // A quota, or a limit on the size of files, is no full disk to SQLite, but a write that failed.
    if error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE) {
        return DatabaseError::Full;
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => DatabaseError::Full,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => DatabaseError::Unavailable(
            format!("the database file is damaged ({error}); keep a copy of it, and restore a backup").into(),
        ),
        Some(ErrorCode::ReadOnly) => {
            DatabaseError::Unavailable(format!("the database file can't be written ({error})").into())
        }
        Some(ErrorCode::TooBig) => DatabaseError::Invalid("the document is too large".to_owned()),
        _ => DatabaseError::Unavailable(error.into()),
    }
}

#[async_trait]
impl Reader for SqliteDatabase {
    async fn get(&self, collection: Collection, id: &str) -> Result<Option<Document>> {
        asked("read");
        let (running, table) = self.reading(collection)?;
        let lookup = |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare_cached(&table.get)?;
            let document = statement.query_row([id], |row| {
                let version: i64 = row.get(0)?;
                Ok(Document {
                    id: id.to_owned(),
                    version: version.unsigned_abs(),
                    body: room::text(row.get_ref(1)?.as_str()?).to_owned(),
                })
            });
            document.optional()
        };
        running.readers.at_once(lookup).await
    }

    async fn find(&self, query: Query) -> Result<Page> {
        asked("read");
        value::check_query(&query)?;
        let (running, table) = self.reading(query.collection)?;
        reader::on_thread(&running.readers, move |connection| query::find(connection, &table, &query)).await
    }

    async fn count(&self, collection: Collection, filter: Filter) -> Result<u64> {
        asked("read");
        value::check_filter(&filter)?;
        let (running, table) = self.reading(collection)?;
        reader::on_thread(&running.readers, move |connection| query::count(connection, &table, &filter)).await
    }
}

#[async_trait]
impl Claimer for SqliteDatabase {
    async fn claim(&self, claim: Claim) -> Result<Vec<Document>> {
        asked("claim");
        let running = self.running()?;
        let claim = Box::new(apply::prepare_claim(&self.layout(), claim)?);
        writer::ask(&running.writer, |reply| Request::Claim { claim, reply }).await?
    }
}

#[async_trait]
impl Committer for SqliteDatabase {
    async fn commit(&self, changeset: Changeset) -> Result<()> {
        asked("commit");
        let running = self.running()?;
        let writes = apply::prepare(&self.layout(), changeset)?;
        if writes.is_empty() {
            return Ok(());
        }
        writer::ask(&running.writer, |reply| Request::Commit { writes, reply }).await?.map(drop)
    }

    /// One request to the writer, with one answer.
    async fn commit_each(&self, changesets: Vec<Changeset>) -> Vec<Result<()>> {
        asked("commit");
        let layout = self.layout();
        let mut all = Vec::with_capacity(changesets.len());
        let mut answers: Vec<Option<Result<()>>> = Vec::with_capacity(changesets.len());
        for changeset in changesets {
            let prepared = apply::prepare(&layout, changeset);
            answers.push(match prepared {
                Ok(writes) if writes.is_empty() => Some(Ok(())),
                Ok(writes) => {
                    all.push(writes);
                    None
                }
                Err(error) => Some(Err(error)),
            });
        }
        let written = match self.running() {
            Ok(running) => writer::ask(&running.writer, |reply| Request::Commits { all, reply }).await,
            Err(error) => Err(error),
        };
        let mut written = written.map(|(each, _)| each).unwrap_or_default().into_iter();
        let mut rest = || written.next().unwrap_or_else(|| Err(closed()));
        answers.into_iter().map(|answer| answer.unwrap_or_else(&mut rest)).collect()
    }
}

#[async_trait]
impl DatabaseClient for SqliteDatabase {
    async fn connect(&self, schema: &'static [CollectionSpec]) -> Result<()> {
        let running = self.start()?;
        writer::ask(&running.writer, |reply| Request::Connect { schema, reply }).await?
    }

    async fn disconnect(&self) -> Result<()> {
        let Some(running) = self.running.write().take() else { return Ok(()) };
        running.readers.close();
        writer::ask(&running.writer, |reply| Request::Close { reply }).await?
    }

    async fn health(&self) -> Result<()> {
        let running = self.running()?;
        writer::ask(&running.writer, |reply| Request::Ping { reply }).await??;
        running.readers.at_once(|connection| connection.query_row("SELECT 1", [], |_| Ok(()))).await
    }
}

#[cfg(test)]
mod tests;
