//! A few connections that only read. Each statement sees every commit that was acknowledged before it began; what it saw beyond
//! that is told when it is on the disk.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::{Options, closed, failure, layout, syncer::Progress};
use crate::core::client::database::{DatabaseError, Result};

/// Statements that stay prepared on each connection.
const STATEMENTS: usize = 64;

/// The connections.
pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
    progress: Arc<Progress>,
}

impl Readers {
    /// Opens the connections; the file must be there.
    pub(super) fn open(path: &Path, options: &Options, progress: Arc<Progress>) -> Result<Self> {
        let count = options.readers.max(1);
        let idle = (0..count).map(|_| open(path, options)).collect::<Result<Vec<_>>>()?;
        Ok(Self { idle: Mutex::new(idle), permits: Semaphore::new(count), progress })
    }

    /// Closes the connections; those in use close when they come back.
    pub(super) fn close(&self) {
        self.permits.close();
        self.idle.lock().clear();
    }

    /// Runs a short read where it stands: looking up one document takes less than handing it to another thread would.
    pub(super) async fn at_once<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let result = {
            let _permit = self.permits.acquire().await.map_err(|_| closed())?;
            let connection = self.take()?;
            let result = work(&connection);
            self.put_back(connection);
            result
        };
        self.progress.durable().await?;
        result.map_err(failure)
    }

    fn take(&self) -> Result<Connection> {
        self.idle.lock().pop().ok_or_else(closed)
    }

    fn put_back(&self, connection: Connection) {
        if !self.permits.is_closed() {
            self.idle.lock().push(connection);
        }
    }
}

/// Runs a read of unknown length on a thread that may block.
pub(super) async fn on_thread<T: Send + 'static>(
    readers: &Arc<Readers>,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T> {
    let connection = {
        let permit = readers.permits.acquire().await.map_err(|_| closed())?;
        let connection = readers.take()?;
        // Given back by hand, when the connection is back: also when the caller has gone away.
        permit.forget();
        connection
    };
    let at_work = Arc::clone(readers);
    let result = tokio::task::spawn_blocking(move || {
        let result = work(&connection);
        at_work.put_back(connection);
        if !at_work.permits.is_closed() {
            at_work.permits.add_permits(1);
        }
        result
    })
    .await
    .map_err(|error| DatabaseError::Unavailable(error.into()))?;
    readers.progress.durable().await?;
    result.map_err(failure)
}

fn open(path: &Path, options: &Options) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failure)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(options.busy_timeout).map_err(failure)?;
    connection
        .execute_batch("PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -2048;")
        .map_err(failure)?;
    layout::add_functions(&connection).map_err(failure)?;
    Ok(connection)
}
