//! `[settlement]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    DatabaseBackend,
    backend::{Feature, backends},
    section,
};
use crate::config::{Config, HumanDuration, Problems};

backends! {
    /// Settlement layers, each with its data availability.
    SettlementBackend {
        /// A stand-in for a chain inside the data directory: the embedded default.
        Local = "local",
        /// The contract on Ethereum, and blobs.
        Ethereum = "ethereum" needs "ethereum",
    }
}

section! {
    /// Blocks, settlement layer and data availability.
    Settlement {
        /// `local` or `ethereum`.
        backend: SettlementBackend = SettlementBackend::Local;
        /// Directory of the local layer, which the replicas of one machine share. Empty: `chain` in the data directory.
        dir: PathBuf = PathBuf::new();
        /// Time from settling a block to its finality on the local layer.
        finality: HumanDuration = HumanDuration::secs(5);
        /// Transfers and other entries in one block, at most. On Ethereum never more than 20,000, so that nodes take its registration.
        max_block_entries: u32 = 50_000;
    }
}

impl Settlement {
    /// Where the local layer lies.
    #[must_use]
    pub fn directory(config: &Config) -> PathBuf {
        match config.settlement.dir.as_os_str().is_empty() {
            true => config.data.dir.join("chain"),
            false => config.settlement.dir.clone(),
        }
    }

    pub(crate) fn validate(&self, config: &Config, problems: &mut Problems) {
        self.backend.validate("settlement.backend", problems);
        problems.require(
            self.backend != SettlementBackend::Local
                || config.database.backend == DatabaseBackend::Sqlite
                || !self.dir.as_os_str().is_empty(),
            "settlement.dir",
            "must name a directory that all replicas share, when they share a database",
        );
        problems.require(
            (1..=200_000).contains(&self.max_block_entries),
            "settlement.max_block_entries",
            "must lie between 1 and 200000",
        );
    }
}
