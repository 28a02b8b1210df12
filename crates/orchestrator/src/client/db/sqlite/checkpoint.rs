//! Moving the log into the database while the writer goes on. A move of 16 MB takes tens of milliseconds and two syncs: done
//! by the writer, it is what every hundredth commit would wait for. A thread of its own with a connection of its own does it,
//! and leaves to the writer only the last pages, which were written meanwhile: when those are moved, too, the log begins anew.

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use rusqlite::Connection;

use super::failure;
use crate::core::client::database::{DatabaseError, Result};

/// What the writer may be left with, in pages: it takes about as long as a commit.
const REST: i64 = 64;
/// How often the thread goes after what was written while it moved the rest.
const PASSES: usize = 4;

/// What a move came to, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    /// In the log.
    pub(super) log: i64,
    /// Of those, in the database.
    pub(super) moved: i64,
}

impl Moved {
    /// Whether the log may begin anew.
    pub(super) const fn whole(self) -> bool {
        self.log >= 0 && self.log == self.moved
    }
}

/// Moves what no reader needs in the log. Nobody waits for it, and it waits for nobody.
pub(super) fn pass(connection: &Connection) -> rusqlite::Result<Moved> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        // Both are -1 while another one is at it.
        Ok(Moved { log: row.get(1)?, moved: row.get(2)? })
    })
}

/// The thread.
#[derive(Debug)]
pub(super) struct Checkpointer {
    begin: Option<SyncSender<()>>,
    ended: Receiver<u64>,
    under_way: bool,
    thread: Option<JoinHandle<()>>,
    file: Arc<File>,
}

/// The database's file, opened once more. To close it drops every lock that this process has on the file, as POSIX wants
/// it: so it must outlive the writer's connection.
#[must_use = "it must outlive the writer's connection"]
pub(super) struct KeptOpen(#[expect(dead_code, reason = "held, not used")] Arc<File>);

impl Checkpointer {
    /// Starts it.
    pub(super) fn start(path: &Path) -> Result<Self> {
        let connection = Connection::open(path).map_err(failure)?;
        connection
            .execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;")
            .map_err(failure)?;
        let file = Arc::new(File::open(path).map_err(|error| DatabaseError::Unavailable(error.into()))?);
        let synced = Arc::clone(&file);
        let (begin, begun) = sync_channel(1);
        let (end, ended) = sync_channel(1);
        let work = move || {
            while begun.recv().is_ok() {
                let passes = move_most(&connection);
                // Otherwise the pass that moves the rest, and the writer with it, would wait for all that was moved here. A
                // failure is the writer's to meet: its own pass syncs, too.
                let _ = synced.sync_data();
                if end.send(passes).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("db-checkpoint".to_owned())
            .spawn(work)
            .map_err(|error| DatabaseError::Unavailable(error.into()))?;
        Ok(Self { begin: Some(begin), ended, under_way: false, thread: Some(thread), file })
    }

    /// Ends the thread.
    pub(super) fn stop(self) -> KeptOpen {
        KeptOpen(Arc::clone(&self.file))
    }

    /// Whether a move is under way whose end was not taken note of.
    pub(super) const fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// Begins a move.
    pub(super) fn begin(&mut self) {
        self.under_way = self.begin.as_ref().is_some_and(|begin| begin.try_send(()).is_ok());
    }

    /// Takes note of the end of a move, if it has ended, and says how many passes it took; waits for it if `patient`.
    pub(super) fn ended(&mut self, patient: bool) -> Option<u64> {
        if !self.under_way {
            return None;
        }
        let passes = if patient { self.ended.recv().ok() } else { self.ended.try_recv().ok() };
        // A thread that has gone will not end anything: the writer does it all, then.
        let passes = if patient { Some(passes.unwrap_or(0)) } else { passes };
        self.under_way = passes.is_none();
        passes
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.begin.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Moves the log, and what came in meanwhile, until that is little; says how many passes it took.
fn move_most(connection: &Connection) -> u64 {
    let mut passes = 0;
    for _ in 0..PASSES {
        passes += 1;
        match pass(connection) {
            Ok(Moved { log, moved }) if log - moved > REST => {}
            // A full disk, say: the writer finds out, too.
            Ok(_) | Err(_) => break,
        }
    }
    passes
}
