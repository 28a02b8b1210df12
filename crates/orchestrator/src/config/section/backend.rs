//! `[database]`, `[storage]` and `[notification]`: which back end serves a port.

use serde::{Deserialize, Serialize};

use super::section;

/// Databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseBackend {
    /// SQLite in the data directory: the embedded default.
    Sqlite,
}

section! {
    /// The database.
    Database {
        /// `sqlite`.
        backend: DatabaseBackend = DatabaseBackend::Sqlite;
    }
}

/// Object storages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageBackend {
    /// A directory inside the data directory: the embedded default.
    Filesystem,
}

section! {
    /// Object storage for the daemon's own data: block records, evidence.
    Storage {
        /// `filesystem`.
        backend: StorageBackend = StorageBackend::Filesystem;
    }
}

section! {
    /// Alerts to people.
    Notification {
        /// Addresses that get every alert as a JSON POST.
        webhooks: Vec<String> = Vec::new();
        /// Whether webhooks may go to loopback and private addresses.
        allow_private_addresses: bool = false;
    }
}

/// How workers learn of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dispatch {
    /// They claim from the database, woken in process: the embedded default.
    Database,
}
