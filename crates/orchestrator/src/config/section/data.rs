//! `[data]` and `[log]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::section;

section! {
    /// Where the daemon keeps its files.
    Data {
        /// The data directory: database, blocks, keys, the built-in provider's objects.
        dir: PathBuf = PathBuf::from("data");
        /// Holds the 256-bit key that seals secrets, as 64 hex digits, mode 0600; made at first start.
        /// `ORCHESTRATOR_VAULT_KEY` in the environment takes its place. Empty: `vault.key` in the data directory.
        vault_key_file: PathBuf = PathBuf::new();
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

section! {
    /// The log, on standard error.
    Log {
        /// How lines look: `text` or `json`.
        format: LogFormat = LogFormat::Text;
        /// What is logged, in the syntax of `tracing`'s filters: `info`, `warn,orchestrator=debug`, …
        filter: String = "info".into();
    }
}
