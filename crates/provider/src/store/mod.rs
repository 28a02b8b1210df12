//! What the provider knows, in one SQLite file: allocations, keys, generations, tombstones, meters, object metadata and
//! multipart state. One connection behind a lock, every change one durable transaction. The calls block: callers run
//! them off the event loop.

mod allocations;
mod objects;
mod uploads;

use std::{collections::HashSet, path::Path};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

pub use self::{
    allocations::{Allocated, AllocationRow, KeyRow},
    objects::{Listed, Meta, NewObject, Object, Page, Precondition, Segment},
    uploads::{NewPart, PartRow, UploadRow},
};
use crate::blobs::BlobId;

const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE allocations (
  id TEXT PRIMARY KEY, bucket TEXT NOT NULL UNIQUE, generation INTEGER NOT NULL, quota INTEGER NOT NULL,
  level TEXT NOT NULL, gone INTEGER NOT NULL, created_at INTEGER NOT NULL, ready_at INTEGER NOT NULL,
  used INTEGER NOT NULL, byte_micros TEXT NOT NULL, metered_at INTEGER NOT NULL, egress INTEGER NOT NULL
) STRICT;
CREATE TABLE keys (
  id TEXT PRIMARY KEY, allocation TEXT NOT NULL, secret TEXT NOT NULL, permissions TEXT NOT NULL
) STRICT;
CREATE INDEX keys_by_allocation ON keys (allocation);
CREATE TABLE effects (
  allocation TEXT NOT NULL, operation TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (allocation, operation)
) STRICT, WITHOUT ROWID;
CREATE TABLE files (id TEXT PRIMARY KEY, allocation TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX files_by_allocation ON files (allocation);
CREATE TABLE objects (
  allocation TEXT NOT NULL, key BLOB NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL, modified INTEGER NOT NULL,
  segments TEXT NOT NULL, meta TEXT NOT NULL, PRIMARY KEY (allocation, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE uploads (
  id TEXT PRIMARY KEY, allocation TEXT NOT NULL, key BLOB NOT NULL, meta TEXT NOT NULL, created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX uploads_by_key ON uploads (allocation, key, id);
CREATE TABLE parts (
  upload TEXT NOT NULL, number INTEGER NOT NULL, file TEXT NOT NULL, size INTEGER NOT NULL, md5 TEXT NOT NULL,
  checksums TEXT NOT NULL, modified INTEGER NOT NULL, PRIMARY KEY (upload, number)
) STRICT, WITHOUT ROWID;
";

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A higher generation was seen.
    #[error("generation {seen} was seen already")]
    Stale {
        /// The highest so far.
        seen: u64,
    },
    /// The allocation was deallocated.
    #[error("the allocation was deallocated")]
    Gone,
    /// There is no such allocation.
    #[error("there is no such allocation")]
    Unknown,
    /// The allocation is still being made.
    #[error("the allocation is still being made")]
    NotReady,
    /// It exists, with other properties.
    #[error("{0}")]
    Mismatch(&'static str),
    /// Too little room in the whole provider.
    #[error("too little free capacity")]
    NoCapacity,
    /// More than the allocation's quota.
    #[error("the quota of the allocation would be exceeded")]
    Quota,
    /// A condition on the present object does not hold.
    #[error("a precondition does not hold")]
    Precondition,
    /// There is no such upload, or not any more.
    #[error("there is no such upload")]
    NoUpload,
    /// The parts named do not fit those that were uploaded.
    #[error("{0}")]
    Part(&'static str),
    /// The disk is full, or takes no more.
    #[error("the disk is full")]
    Full,
    /// SQLite failed.
    #[error("the store failed")]
    Sqlite(#[source] rusqlite::Error),
    /// A row does not read back.
    #[error("a stored row is damaged")]
    Damaged(#[source] serde_json::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        // A quota, or a limit on the size of files, is no full disk to SQLite, but a write that failed.
        if error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE)
        {
            return Self::Full;
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Sqlite(error),
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Damaged(error)
    }
}

/// The store's result.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The store.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens the file, and makes the schema when it is new.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`]; [`StoreError::Mismatch`] when a newer version made the file.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_secs(1))?;
        // Exclusive: a second server over the same directory fails instead of sharing it.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            0 => {
                let schema =
                    format!("BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;");
                connection.execute_batch(&schema)?;
            }
            SCHEMA_VERSION => connection.execute_batch("BEGIN IMMEDIATE; COMMIT;")?,
            _ => return Err(StoreError::Mismatch("provider.db was made by another version")),
        }
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// The names of every file that is in use.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn files(&self) -> Result<HashSet<BlobId>> {
        let connection = self.connection.lock();
        let mut statement = connection.prepare("SELECT id FROM files")?;
        let ids = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(ids)
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        read(&self.connection.lock())
    }

    fn write<T>(&self, write: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = write(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }
}

/// SQLite's integers are signed; every size here is far below the limit, and one that is not saturates.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
