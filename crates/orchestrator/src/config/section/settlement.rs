//! `[settlement]`.

use serde::{Deserialize, Serialize};

use super::section;
use crate::config::{HumanDuration, Problems};

/// Settlement layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettlementBackend {
    /// A stand-in for a chain inside the data directory: the embedded default.
    Local,
}

section! {
    /// Blocks, settlement layer and data availability.
    Settlement {
        /// `local`.
        backend: SettlementBackend = SettlementBackend::Local;
        /// Time from settling a block to its finality on the local layer.
        finality: HumanDuration = HumanDuration::secs(5);
        /// Transfers and other entries in one block, at most.
        max_block_entries: u32 = 50_000;
    }
}

impl Settlement {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        problems.require(
            (1..=200_000).contains(&self.max_block_entries),
            "settlement.max_block_entries",
            "must lie between 1 and 200000",
        );
    }
}
