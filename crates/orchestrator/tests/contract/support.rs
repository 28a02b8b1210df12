//! What the suites share: how time passes on a back end; for ports over a database a database of each kind, a manual clock,
//! seeded entropy.

use std::sync::Arc;

use orchestrator::{
    client::{
        clock::{ManualClock, SeededEntropy, SystemClock},
        db::{
            memory::MemoryDatabase,
            sqlite::{Options, SqliteDatabase},
        },
        queue::{DatabaseQueue, DatabaseQueueSettings},
    },
    core::{
        client::{clock::Clock, database::DatabaseClient, schema},
        market::quantity::{Micros, Timestamp},
    },
};

/// How time passes for an implementation: by hand, or by waiting for it.
#[derive(Clone)]
pub enum Time {
    /// Stands still until it is moved.
    Manual(ManualClock),
    /// A service elsewhere has a clock of its own, which counts whole seconds.
    #[cfg_attr(
        not(any(feature = "eventbridge", feature = "sns", feature = "sqs")),
        allow(dead_code, reason = "only back ends elsewhere have one")
    )]
    Real(SystemClock),
}

impl Time {
    /// The clock of this process.
    pub fn clock(&self) -> Arc<dyn Clock> {
        match self {
            Self::Manual(clock) => Arc::new(clock.clone()),
            Self::Real(clock) => Arc::new(*clock),
        }
    }

    /// Lets `duration` pass.
    pub async fn pass(&self, duration: Micros) {
        match self {
            Self::Manual(clock) => clock.advance(duration),
            Self::Real(clock) => clock.sleep(duration).await,
        }
    }

    /// Lets time pass, but not quite `duration`.
    pub async fn pass_almost(&self, duration: Micros) {
        match self {
            Self::Manual(clock) => clock.advance(Micros(duration.get() - 1)),
            Self::Real(_) => self.pass(Micros(duration.get() / 2)).await,
        }
    }

    /// Lets pass what [`Time::pass_almost`] left.
    pub async fn pass_rest(&self, duration: Micros) {
        match self {
            Self::Manual(clock) => clock.advance(Micros(1)),
            Self::Real(_) => self.pass(Micros(duration.get() / 2)).await,
        }
    }

    /// `seconds`, where they cost nothing; two seconds where they must be waited for.
    pub fn short(&self, seconds: u64) -> Micros {
        match self {
            Self::Manual(_) => Micros::from_secs(seconds),
            Self::Real(_) => Micros::from_secs(seconds.min(2)),
        }
    }

    /// How long to wait at most for what is due by now: other clocks tick when they tick.
    pub const fn patience(&self) -> Micros {
        match self {
            Self::Manual(_) => Micros::ZERO,
            Self::Real(_) => Micros::from_secs(10),
        }
    }
}

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

    /// How time passes.
    pub fn time(&self) -> Time {
        Time::Manual(self.clock.clone())
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
