//! Syncing the log beside the writer. SQLite itself does not sync a commit here (`synchronous = NORMAL`): the writer hands what
//! it would answer to a thread that syncs the log first and answers then, and has the next batch in hand meanwhile. So
//! nobody is told of a commit that a power failure may undo; and a reader, who may have seen one, waits for its sync, too.
//!
//! The kernel may forget what it could not write, and call the next sync a success. So after one sync that failed
//! nothing is answered any more but that; the next start moves the log into the database before it adds to it.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{closed, writer::Counters};
use crate::core::client::database::{DatabaseError, Result};

/// How many batches may wait for the sync before the writer does.
const WAITING: usize = 4;

/// Brings to the disk all that was written to the log before.
pub(super) type SyncLog = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

/// Syncs the log that stands beside this database file. It must be there, and stays as long as a connection is open.
pub(super) fn of(database: &Path) -> Result<SyncLog> {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    // SQLite locks the database and the index of the log, never the log: to close this file drops no lock.
    let log = File::options().read(true).write(true).open(log);
    let log = log.map_err(|error| DatabaseError::Unavailable(error.into()))?;
    Ok(Box::new(move || log.sync_data()))
}

/// Why something will not be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The store was closed.
    Closed,
    /// A sync failed.
    Failed,
}

impl From<Ended> for DatabaseError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Closed => closed(),
            Ended::Failed => Self::Unavailable(
                "the log of the database could not be synced; see that the disk is well, and start anew"
                    .into(),
            ),
        }
    }
}

/// How far the disk has what was committed. Commits are counted from one.
pub(super) struct Progress {
    /// Commits that a reader may see.
    begun: AtomicU64,
    /// Commits that are in the log, or failed.
    written: AtomicU64,
    synced: watch::Sender<Synced>,
    /// One sync at a time: the kernel tells of a fault once, and of two who ask at the same time only one would learn of it.
    log: Mutex<SyncLog>,
    counters: Arc<Counters>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Synced {
    /// The commits up to this one are on the disk.
    through: u64,
    ended: Option<Ended>,
}

impl Progress {
    pub(super) fn new(log: SyncLog, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            begun: AtomicU64::new(0),
            written: AtomicU64::new(0),
            synced: watch::Sender::default(),
            log: Mutex::new(log),
            counters,
        })
    }

    /// Does a commit: readers may see it from its beginning on, and a sync brings it to the disk from its end on.
    pub(super) fn commit<T>(&self, commit: impl FnOnce() -> T) -> T {
        self.begun.fetch_add(1, Ordering::Release);
        let done = commit();
        self.written.fetch_add(1, Ordering::Release);
        done
    }

    /// Waits until all that could be read before this call is on the disk.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] when it will not be.
    pub(super) async fn durable(&self) -> Result<()> {
        let seen = self.begun.load(Ordering::Acquire);
        if self.synced.borrow().through >= seen {
            return Ok(());
        }
        let mut changes = self.synced.subscribe();
        let change = changes.wait_for(|synced| synced.through >= seen || synced.ended.is_some()).await;
        let synced = *change.map_err(|_| closed())?;
        if synced.through >= seen { Ok(()) } else { Err(synced.ended.unwrap_or(Ended::Closed).into()) }
    }

    /// Whether the store has ended, and why.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.synced.borrow().ended
    }

    /// Syncs all that was written so far, unless it is.
    pub(super) fn sync(&self) -> std::result::Result<(), Ended> {
        self.sync_with(&self.log.lock())
    }

    /// As [`Self::sync`]; nothing while another thread is at it.
    fn try_sync(&self) -> Option<std::result::Result<(), Ended>> {
        self.log.try_lock().map(|log| self.sync_with(&log))
    }

    fn sync_with(&self, log: &SyncLog) -> std::result::Result<(), Ended> {
        let written = self.written.load(Ordering::Acquire);
        let Synced { through, ended } = *self.synced.borrow();
        if let Some(ended) = ended {
            return Err(ended);
        }
        if through >= written {
            return Ok(());
        }
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        let result = log();
        self.synced.send_modify(|synced| match &result {
            Ok(()) => synced.through = written,
            Err(_) => synced.ended = Some(Ended::Failed),
        });
        result.map_err(|error| {
            tracing::error!(%error, "the log of the database could not be synced; the store answers nothing until the next start");
            Ended::Failed
        })
    }

    fn end(&self) {
        self.synced.send_modify(|synced| {
            synced.ended.get_or_insert(Ended::Closed);
        });
    }
}

/// What waits for the disk, and is told whether it is there.
pub(super) type Answer = Box<dyn FnOnce(std::result::Result<(), Ended>) + Send>;

/// The thread that syncs.
pub(super) struct Syncer {
    progress: Arc<Progress>,
    answers: Option<SyncSender<Answer>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts it.
    pub(super) fn start(progress: Arc<Progress>) -> Result<Self> {
        let (answers, waiting) = sync_channel(WAITING);
        let at_work = Arc::clone(&progress);
        let thread = std::thread::Builder::new()
            .name("db-sync".to_owned())
            .spawn(move || run(&at_work, &waiting))
            .map_err(|error| DatabaseError::Unavailable(error.into()))?;
        Ok(Self { progress, answers: Some(answers), thread: Some(thread) })
    }

    /// Answers after the next sync, which the caller does not wait for if it is `busy`, nor if one is under way.
    pub(super) fn answer(&self, busy: bool, answer: Answer) {
        if !busy && let Some(synced) = self.progress.try_sync() {
            // Here and now: handing over takes two changes of threads longer.
            return answer(synced);
        }
        let Some(answers) = &self.answers else { return answer(Err(Ended::Closed)) };
        if let Err(refused) = answers.send(answer) {
            (refused.0)(Err(Ended::Closed));
        }
    }
}

impl Drop for Syncer {
    /// What was handed over is answered first.
    fn drop(&mut self) {
        self.answers.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.progress.end();
    }
}

fn run(progress: &Progress, waiting: &Receiver<Answer>) {
    while let Ok(first) = waiting.recv() {
        let answers: Vec<Answer> = std::iter::once(first).chain(waiting.try_iter().take(WAITING)).collect();
        let synced = progress.sync();
        for answer in answers {
            answer(synced);
        }
    }
}
