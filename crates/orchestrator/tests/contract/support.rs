//! What the suites of ports over a database share: a database of each kind, a manual clock, seeded entropy.

use std::sync::Arc;

use orchestrator::{
    client::{
        clock::{ManualClock, SeededEntropy},
        db::{
            memory::MemoryDatabase,
            sqlite::{Options, SqliteDatabase},
        },
        queue::{DatabaseQueue, DatabaseQueueSettings},
    },
    core::{
        client::{database::DatabaseClient, schema},
        market::quantity::Timestamp,
    },
};

/// What must live as long as a database does.
pub type Keep = Option<Box<dyn std::any::Any + Send + Sync>>;

/// A database with the schema, and a clock.
pub struct Bed {
    /// Empty.
    pub database: Arc<dyn DatabaseClient>,
    /// Stands still.
    pub clock: ManualClock,
    _keep: Keep,
}

impl Bed {
    fn over(database: Arc<dyn DatabaseClient>, keep: Keep) -> Self {
        let clock = ManualClock::new(Timestamp(1_000_000_000_000_000));
        Self { database, clock, _keep: keep }
    }

    /// In memory.
    pub async fn memory() -> Self {
        Self::over(MemoryDatabase::with_schema(), None)
    }

    /// In a file.
    pub async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = SqliteDatabase::open(&directory.path().join("db"), Options::default()).unwrap();
        database.connect(schema::ALL).await.unwrap();
        Self::over(database, Some(Box::new(directory)))
    }

    /// On a server.
    #[cfg(feature = "mongodb")]
    pub async fn mongodb() -> Self {
        let (database, keep) = super::mongodb::connected().await;
        Self::over(database, Some(Box::new(keep)))
    }

    /// A queue service over the database; each has its own entropy, as each process has.
    pub fn queue(&self, seed: u64) -> Arc<DatabaseQueue> {
        let entropy = Arc::new(SeededEntropy::new(seed));
        let settings = DatabaseQueueSettings::default();
        Arc::new(DatabaseQueue::new(self.database.clone(), Arc::new(self.clock.clone()), entropy, settings))
    }
}
