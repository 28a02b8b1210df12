//! The configuration: defaults → file → environment → flags. Unknown keys, wrong types and impossible combinations are
//! reported all at once, each with its place.

mod load;
mod masked;
pub mod section;
mod value;

use std::fmt;

pub use load::{Layers, load};
pub use masked::masked;
use serde::{Deserialize, Serialize};
pub use value::{HumanDuration, HumanSize};

use section::{
    Access, Api, Aws, Cache, Data, Database, Dependencies, Ethereum, Events, Jobs, Kafka, Log, Market,
    Notification, Pricing, Prober, Provider, Queue, Schedule, Settlement, Sla, Storage, Triggers,
};

/// The whole configuration. Every key has a default, so that the empty file is a valid one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where the daemon keeps its files.
    pub data: Data,
    /// The HTTP API.
    pub api: Api,
    /// The log.
    pub log: Log,
    /// The database.
    pub database: Database,
    /// Object storage for the daemon's own data.
    pub storage: Storage,
    /// The queue of triggers and events.
    pub queue: Queue,
    /// What fires the triggers.
    pub schedule: Schedule,
    /// The bus of domain events.
    pub events: Events,
    /// The cache.
    pub cache: Cache,
    /// Alerts to people.
    pub notification: Notification,
    /// What the back ends at AWS share.
    pub aws: Aws,
    /// Kafka.
    pub kafka: Kafka,
    /// Jobs and their queue.
    pub jobs: Jobs,
    /// How often the background tasks run.
    pub triggers: Triggers,
    /// How failing dependencies are dealt with.
    pub dependencies: Dependencies,
    /// The rules of the market.
    pub market: Market,
    /// Credentials.
    pub access: Access,
    /// Evidence and verdicts.
    pub sla: Sla,
    /// The built-in oracle.
    pub prober: Prober,
    /// The price advisor.
    pub pricing: Pricing,
    /// The built-in provider.
    pub provider: Provider,
    /// Blocks, settlement layer and data availability.
    pub settlement: Settlement,
    /// The chain behind it.
    pub ethereum: Ethereum,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where: `FILE:LINE`, `environment ORCHESTRATOR_…`, `--set SECTION.KEY`, or `default`.
    pub place: String,
    /// The key, dotted.
    pub key: String,
    /// What is wrong, and how to mend it.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.key, self.problem)
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// One or more, in the order of the file.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        write!(f, "the configuration has {count} fault{}", if count == 1 { "" } else { "s" })?;
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

/// Collects what `validate` finds: key and problem.
#[derive(Debug, Default)]
pub struct Problems(Vec<(String, String)>);

impl Problems {
    /// Adds a problem unless `holds`.
    pub fn require(&mut self, holds: bool, key: &str, problem: impl Into<String>) {
        if !holds {
            self.0.push((key.to_owned(), problem.into()));
        }
    }
}

impl Config {
    /// Whether other processes may work on the same database.
    #[must_use]
    pub const fn shared(&self) -> bool {
        !matches!(self.database.backend, section::DatabaseBackend::Sqlite)
    }

    /// Ranges, and combinations across sections.
    fn validate(&self) -> Problems {
        let mut problems = Problems::default();
        self.api.validate(&mut problems);
        section::backend::validate(self, &mut problems);
        self.jobs.validate(&mut problems);
        self.triggers.validate(&mut problems);
        self.dependencies.validate(&mut problems);
        self.market.validate(&mut problems);
        self.sla.validate(&mut problems);
        self.prober.validate(self, &mut problems);
        self.provider.validate(self, &mut problems);
        self.settlement.validate(self, &mut problems);
        self.ethereum.validate(self, &mut problems);
        problems
    }
}
