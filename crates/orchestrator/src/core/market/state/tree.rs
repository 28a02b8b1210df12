//! An append-only Merkle tree of fixed depth over consecutive indexes. Empty subtrees are precomputed; only the paths of
//! leaves that changed are hashed again.

use super::hash::{Tag, keccak};
use crate::{core::market::block::Hash32, utils::parallel};

/// Levels between the leaves and the root.
pub const DEPTH: usize = 32;

/// Hash of two children.
#[must_use]
pub fn node(left: &Hash32, right: &Hash32) -> Hash32 {
    keccak(Tag::Node, &[&left.0, &right.0])
}

/// Roots of empty subtrees by height; a missing leaf is 32 zero bytes.
fn empty_roots() -> Vec<Hash32> {
    let mut roots = vec![Hash32::default()];
    for _ in 0..DEPTH {
        let below = roots.last().copied().unwrap_or_default();
        roots.push(node(&below, &below));
    }
    roots
}

/// The tree.
#[derive(Debug, Clone)]
pub struct IndexTree {
    /// Hashes by height, leaves first; each level is cut after its last non-empty node.
    levels: Vec<Vec<Hash32>>,
    empty: Vec<Hash32>,
    /// Leaves whose path is out of date.
    dirty: Vec<usize>,
}

impl Default for IndexTree {
    fn default() -> Self {
        Self { levels: vec![Vec::new(); DEPTH + 1], empty: empty_roots(), dirty: Vec::new() }
    }
}

impl IndexTree {
    /// How many leaves there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.levels.first().map_or(0, Vec::len)
    }

    /// Whether there is no leaf.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets a leaf: one that exists, or the next one. Any other index is left alone and answers `false`.
    pub fn set(&mut self, index: usize, leaf: Hash32) -> bool {
        let Some(leaves) = self.levels.first_mut() else { return false };
        let next = leaves.len();
        match leaves.get_mut(index) {
            Some(slot) => *slot = leaf,
            None if index == next => leaves.push(leaf),
            None => return false,
        }
        self.dirty.push(index);
        true
    }

    /// Forgets the leaves from `len` on.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len() {
            return;
        }
        let mut keep = len;
        for level in &mut self.levels {
            level.truncate(keep);
            keep = keep.div_ceil(2);
        }
        self.dirty.retain(|index| *index < len);
        if let Some(last) = len.checked_sub(1) {
            self.dirty.push(last);
        }
    }

    /// Brings every path up to date and returns the root.
    pub fn root(&mut self) -> Hash32 {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        for height in 0..DEPTH {
            let (below, above) = self.levels.split_at_mut(height + 1);
            let (Some(below), Some(above)) = (below.last(), above.first_mut()) else { break };
            let empty = self.empty.get(height).copied().unwrap_or_default();
            for index in &mut dirty {
                *index /= 2;
            }
            dirty.dedup();
            above.resize(below.len().div_ceil(2), Hash32::default());
            let hashes = parallel::map(&dirty, |&index| {
                let left = below.get(index * 2).unwrap_or(&empty);
                let right = below.get(index * 2 + 1).unwrap_or(&empty);
                node(left, right)
            });
            for (&index, hash) in dirty.iter().zip(hashes) {
                if let Some(slot) = above.get_mut(index) {
                    *slot = hash;
                }
            }
        }
        self.top()
    }

    fn top(&self) -> Hash32 {
        let top = self.levels.get(DEPTH).and_then(|level| level.first());
        top.or_else(|| self.empty.get(DEPTH)).copied().unwrap_or_default()
    }

    /// The siblings of a leaf from the bottom up, once [`IndexTree::root`] has brought the paths up to date; `None` for
    /// an index without a leaf, and while paths are out of date.
    #[must_use]
    pub fn siblings(&self, index: usize) -> Option<Vec<Hash32>> {
        if index >= self.len() || !self.dirty.is_empty() {
            return None;
        }
        let sibling = |height: usize| {
            let level = self.levels.get(height);
            let found = level.and_then(|level| level.get((index >> height) ^ 1));
            found.or_else(|| self.empty.get(height)).copied()
        };
        (0..DEPTH).map(sibling).collect()
    }
}

/// The root that a leaf, its index and its siblings lead to; `None` unless there is a sibling for every level.
#[must_use]
pub fn root_from(leaf: Hash32, index: u32, siblings: &[Hash32]) -> Option<Hash32> {
    if siblings.len() != DEPTH {
        return None;
    }
    let climb = |(height, below): (usize, Hash32), sibling: &Hash32| {
        let right = (index >> height) & 1 == 1;
        (height + 1, if right { node(sibling, &below) } else { node(&below, sibling) })
    };
    Some(siblings.iter().fold((0, leaf), climb).1)
}

/// The root over a list of hashes: pairs are joined level by level, an odd last one is joined with zero. The empty list
/// has the zero hash.
#[must_use]
pub fn list_root(mut hashes: Vec<Hash32>) -> Hash32 {
    let zero = Hash32::default();
    while hashes.len() > 1 {
        if hashes.len() % 2 == 1 {
            hashes.push(zero);
        }
        hashes = parallel::map(hashes.as_chunks().0, |[left, right]| node(left, right));
    }
    hashes.first().copied().unwrap_or(zero)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaf(n: u64) -> Hash32 {
        keccak(Tag::Account, &[&n.to_be_bytes()])
    }

    /// The definition, written down plainly.
    fn plain_root(leaves: &[Hash32]) -> Hash32 {
        let mut level = leaves.to_vec();
        let mut empty = Hash32::default();
        for _ in 0..DEPTH {
            level = level.chunks(2).map(|pair| node(&pair[0], pair.get(1).unwrap_or(&empty))).collect();
            empty = node(&empty, &empty);
        }
        level.first().copied().unwrap_or(empty)
    }

    #[test]
    fn golden_roots() {
        let mut tree = IndexTree::default();
        let roots = [
            tree.root().to_string(),
            {
                tree.set(0, leaf(1));
                tree.root().to_string()
            },
            {
                tree.set(1, leaf(2));
                tree.set(2, leaf(3));
                tree.root().to_string()
            },
        ];
        assert_eq!(roots, GOLDEN);
    }

    const GOLDEN: [&str; 3] = [
        "0x7c1d0e8a93ea9c09cc13b91ead8f72de66a33cb695c30934dc2d75bffac1248e",
        "0x16d87a5501979ba0f9110a10dd533a6f14097b7eb4b6a6023fbf72a67954a728",
        "0xb887ece908726684af3e7faff650a58d4b024a059839cbe741b093f235ce3f80",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_incremental_root_is_the_rebuilt_one(
            steps in prop::collection::vec((any::<u16>(), any::<u64>(), 0_u8..10), 1..60),
        ) {
            let mut tree = IndexTree::default();
            let mut model: Vec<Hash32> = Vec::new();
            for (place, value, what) in steps {
                if what == 0 {
                    let len = usize::from(place) % (model.len() + 1);
                    tree.truncate(len);
                    model.truncate(len);
                } else {
                    let index = usize::from(place) % (model.len() + 1);
                    prop_assert!(tree.set(index, leaf(value)));
                    if index == model.len() { model.push(leaf(value)) } else { model[index] = leaf(value) }
                }
                if what % 3 == 0 {
                    prop_assert_eq!(tree.root(), plain_root(&model));
                }
            }
            let root = tree.root();
            prop_assert_eq!(root, plain_root(&model));
            for (index, leaf) in model.iter().enumerate() {
                let siblings = tree.siblings(index).unwrap();
                prop_assert_eq!(root_from(*leaf, index as u32, &siblings), Some(root));
                prop_assert_ne!(root_from(*leaf, index as u32 ^ 1, &siblings), Some(root));
            }
            prop_assert!(tree.siblings(model.len()).is_none());
            prop_assert!(!tree.set(model.len() + 1, leaf(0)));
        }
    }
}
