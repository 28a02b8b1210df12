//! The registrations that a daemon asks for again and again. Events that are there for good are read once and remembered; those after
//! them, which may still go, are read anew each time.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::Mutex;

use super::{
    blocks::{Change, Place, RegisteredBlock},
    logs,
    node::{BlockRef, Finality, Node},
};
use crate::core::{madara::settlement::SettlementError, market::block::Hash32};

type Result<T> = std::result::Result<T, SettlementError>;

/// Reads registrations, and remembers where it was.
pub struct Registry {
    place: Place,
    known: Mutex<Known>,
}

/// What the events said up to a block of the chain.
#[derive(Default)]
struct Known {
    /// That block; everything up to it is there for good.
    reached: Option<BlockRef>,
    /// The blocks that stand.
    blocks: BTreeMap<u64, RegisteredBlock>,
    /// Those that fell or were dropped, and were not registered again.
    fallen: BTreeSet<(u64, Hash32)>,
}

impl Known {
    fn follow(&mut self, change: Change) {
        match change {
            Change::Stands(block) => {
                self.fallen.remove(&(block.header.number, block.hash));
                self.blocks.insert(block.header.number, *block);
            }
            Change::Gone(from) => {
                let gone = self.blocks.split_off(&from);
                self.fallen.extend(gone.into_iter().map(|(number, block)| (number, block.hash)));
            }
        }
    }
}

impl Registry {
    /// Of a contract; nothing is read yet.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self { place, known: Mutex::default() }
    }

    /// The registration of a block that stands now; `None` when no event tells of it.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`], also for events that can't be read.
    pub async fn block(
        &self,
        node: &Node,
        finality: Finality,
        number: u64,
        hash: Hash32,
    ) -> Result<Option<RegisteredBlock>> {
        let mut known = self.known.lock().await;
        let find = |known: &Known| known.blocks.get(&number).filter(|block| block.hash == hash).cloned();
        if let Some(found) = find(&known) {
            return Ok(Some(found));
        }
        let later = self.go_on(&mut known, node, finality).await?;
        let later = later.into_iter().rev().find_map(|change| match change {
            Change::Stands(block) if block.hash == hash => Some(*block),
            _ => None,
        });
        Ok(later.or_else(|| find(&known)))
    }

    /// Whether a block was registered and fell, for good.
    ///
    /// # Errors
    /// As [`Registry::block`].
    pub async fn fell(&self, node: &Node, finality: Finality, number: u64, hash: Hash32) -> Result<bool> {
        let mut known = self.known.lock().await;
        let later = self.go_on(&mut known, node, finality).await?;
        let again = later.iter().any(|change| match change {
            Change::Stands(block) => block.hash == hash,
            Change::Gone(_) => false,
        });
        Ok(!again && known.fallen.contains(&(number, hash)))
    }

    /// Reads on; answers what may still go.
    async fn go_on(&self, known: &mut Known, node: &Node, finality: Finality) -> Result<Vec<Change>> {
        let settled = node.settled(finality).await?;
        if let Some(reached) = known.reached {
            let there = node.block(reached.number).await?;
            if there.is_none_or(|there| there.hash != reached.hash) {
                tracing::warn!(number = reached.number, "what was there for good went: events are read anew");
                *known = Known::default();
            }
        }
        let from = known.reached.map_or(self.place.from_block, |reached| reached.number + 1);
        let (found, _) =
            logs::until(node, &Place::filter(self.place.contract), from, self.place.log_range, |_| false)
                .await?;
        let mut later = Vec::new();
        for log in found {
            let change = self.place.change(&log)?;
            match (log.block_number, settled) {
                (Some(number), Some(settled)) if number <= settled.number => known.follow(change),
                _ => later.push(change),
            }
        }
        if let Some(settled) = settled.filter(|settled| settled.number >= from) {
            known.reached = Some(settled);
        }
        Ok(later)
    }
}
