//! Copies of database files as they were at one instant, made while other processes write to them, and looks at such
//! copies that leave them as they are.

use std::{collections::BTreeMap, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, backup::Backup};

use super::{failure, layout::LAYOUT};
use crate::core::client::database::{DatabaseError, Result};

/// How long the one who writes is waited for; it holds the file for one commit at a time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pages that are copied between two looks at the clock.
const PAGES: i32 = 4_096;

/// Database files of which every read shows the same instant.
#[derive(Debug)]
pub struct Frozen {
    readers: Vec<Connection>,
}

impl Frozen {
    /// Opens the files. No commit to the first one falls between the instants that are shown of it and of the others: what
    /// it says is what a crash at that instant would have left of all of them. The writer waits no longer than it
    /// takes to begin these reads.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] when a file is missing, or held for ten seconds.
    pub fn at_one_instant(files: &[&Path]) -> Result<Self> {
        let Some(first) = files.first() else { return Ok(Self { readers: Vec::new() }) };
        let begun = open(first).and_then(|pause| {
            pause.execute_batch("BEGIN IMMEDIATE").map_err(failure)?;
            Ok(pause)
        });
        let pause = match begun {
            Ok(pause) => pause,
            // On a disk that can only be read nothing moves. A file that is in use has a log beside it.
            Err(_) if !has_log(first) => {
                let readers = files.iter().map(|file| open_still(file)).collect::<Result<Vec<_>>>()?;
                return Ok(Self { readers });
            }
            Err(error) => return Err(error),
        };
        let readers = files.iter().map(|file| open(file)).collect::<Result<Vec<_>>>()?;
        readers.iter().try_for_each(begin)?;
        pause.execute_batch("ROLLBACK").map_err(failure)?;
        Ok(Self { readers })
    }

    /// Copies the file of this place in the list into an empty file, durably and without a log beside it.
    ///
    /// # Errors
    /// [`DatabaseError::Full`]; [`DatabaseError::Unavailable`] when there is no such place, or the copy can't be written.
    pub fn copy(&self, which: usize, to: &Path) -> Result<()> {
        let Some(from) = self.readers.get(which) else {
            return Err(DatabaseError::Invalid(format!("there is no file {which}")));
        };
        let mut copy = Connection::open(to).map_err(failure)?;
        Backup::new(from, &mut copy)
            .and_then(|backup| backup.run_to_completion(PAGES, Duration::ZERO, None))
            .map_err(failure)?;
        // One file that can be read where nothing may be written.
        copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(failure)?;
        copy.close().map_err(|(_, error)| failure(error))
    }
}

/// A connection to a file that is there and may be in use.
fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failure)?;
    connection.busy_timeout(PATIENCE).map_err(failure)?;
    Ok(connection)
}

/// A connection to a file that nobody can write to.
fn open_still(path: &Path) -> Result<Connection> {
    let name = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection =
        Connection::open_with_flags(format!("file:{name}?immutable=1"), flags).map_err(failure)?;
    begin(&connection)?;
    Ok(connection)
}

/// Fixes what the connection reads from now on.
fn begin(connection: &Connection) -> Result<()> {
    connection
        .execute_batch("BEGIN")
        .and_then(|()| connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())))
        .map_err(failure)
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    Path::new(&log).exists()
}

/// A copy that nobody writes to.
#[derive(Debug)]
pub struct Copy {
    connection: Connection,
}

impl Copy {
    /// Opens it, for reading.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] when it is missing.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Ok(Self { connection: Connection::open_with_flags(path, flags).map_err(failure)? })
    }

    /// Reads every page, every index and every row.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] with what is damaged first; [`DatabaseError::Invalid`] when a newer program wrote it.
    pub fn check(&self) -> Result<()> {
        let found: String =
            self.connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failure)?;
        if found != "ok" {
            return Err(DatabaseError::Unavailable(format!("the file is damaged: {found}").into()));
        }
        let layout: i64 =
            self.connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failure)?;
        if layout > LAYOUT {
            return Err(DatabaseError::Invalid(format!(
                "it has layout {layout}, and this program knows layouts up to {LAYOUT}; use a newer program"
            )));
        }
        Ok(())
    }

    /// How many rows each table has.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] when it can't be read.
    pub fn rows(&self) -> Result<BTreeMap<String, u64>> {
        let count = || -> rusqlite::Result<BTreeMap<String, u64>> {
            let mut tables = self.connection.prepare(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
            )?;
            let names = tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
            let mut counts = BTreeMap::new();
            for name in names {
                let quoted = name.replace('"', "\"\"");
                let sql = format!("SELECT count(*) FROM \"{quoted}\"");
                let rows: i64 = self.connection.query_row(&sql, [], |row| row.get(0))?;
                counts.insert(name, rows.unsigned_abs());
            }
            Ok(counts)
        };
        count().map_err(failure)
    }

    /// The texts that the documents of a collection have in a field; those without are left out.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] when it can't be read, or there is no such collection.
    pub fn texts(&self, collection: &str, field: &str) -> Result<Vec<String>> {
        let sql = format!(
            "SELECT json_extract(body, ?1) FROM \"{}\" WHERE json_type(body, ?1) = 'text'",
            collection.replace('"', "\"\"")
        );
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut statement = self.connection.prepare(&sql)?;
            let rows = statement.query_map([format!("$.{field}")], |row| row.get(0))?;
            rows.collect()
        };
        read().map_err(failure)
    }
}
