//! A few connections that only read. Each statement sees every commit that was acknowledged before it began.

use std::path::Path;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::{Options, closed, failure, layout};
use crate::core::client::database::Result;

/// Statements that stay prepared on each connection.
const STATEMENTS: usize = 64;

/// The connections.
#[derive(Debug)]
pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Readers {
    /// Opens the connections; the file must be there.
    pub(super) fn open(path: &Path, options: &Options) -> Result<Self> {
        let count = options.readers.max(1);
        let idle = (0..count).map(|_| open(path, options)).collect::<Result<Vec<_>>>()?;
        Ok(Self { idle: Mutex::new(idle), permits: Semaphore::new(count) })
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
        let _permit = self.permits.acquire().await.map_err(|_| closed())?;
        let connection = self.take()?;
        let result = work(&connection);
        self.put_back(connection);
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
    readers: &std::sync::Arc<Readers>,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T> {
    let readers = std::sync::Arc::clone(readers);
    let task = async move {
        let connection = {
            let permit = readers.permits.acquire().await.map_err(|_| closed())?;
            let connection = readers.take()?;
            // Given back by hand, when the connection is back: also when the caller has gone away.
            permit.forget();
            connection
        };
        tokio::task::spawn_blocking(move || {
            let result = work(&connection);
            readers.put_back(connection);
            if !readers.permits.is_closed() {
                readers.permits.add_permits(1);
            }
            result.map_err(failure)
        })
        .await
        .map_err(|error| crate::core::client::database::DatabaseError::Unavailable(error.into()))?
    };
    task.await
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
