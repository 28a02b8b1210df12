//! An append-only Merkle tree of fixed depth over consecutive indexes. Empty subtrees are precomputed; only the paths of
//! leaves that changed are hashed again.

use std::sync::LazyLock;

use super::hash::{Tag, keccak_each, keccak_of, message};
use crate::core::market::block::Hash32;

/// Levels between the leaves and the root.
pub const DEPTH: usize = 32;

/// Hash of two children.
#[must_use]
pub fn node(left: &Hash32, right: &Hash32) -> Hash32 {
    keccak_of(&node_message(left, right))
}

fn node_message(left: &Hash32, right: &Hash32) -> [u8; 65] {
    message(Tag::Node, &[&left.0, &right.0])
}

/// Roots of empty subtrees by height; a missing leaf is 32 zero bytes.
static EMPTY: LazyLock<[Hash32; DEPTH + 1]> = LazyLock::new(|| {
    let mut below = Hash32::default();
    std::array::from_fn(|height| {
        if height > 0 {
            below = node(&below, &below);
        }
        below
    })
});

fn empty(height: usize) -> Hash32 {
    EMPTY.get(height).copied().unwrap_or_default()
}

/// Whether the subtree at a place of some height has no leaf, in a tree of so many.
const fn is_empty_at(place: usize, height: usize, leaves: usize) -> bool {
    place << height >= leaves
}

/// The tree.
#[derive(Debug, Clone)]
pub struct IndexTree {
    /// Hashes by height, leaves first; each level is cut after its last non-empty node.
    levels: Vec<Vec<Hash32>>,
    /// Leaves whose path is out of date.
    dirty: Vec<usize>,
}

impl Default for IndexTree {
    fn default() -> Self {
        Self { levels: vec![Vec::new(); DEPTH + 1], dirty: Vec::new() }
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
        let dirty = &mut self.dirty;
        dirty.sort_unstable();
        dirty.dedup();
        for height in 0..DEPTH {
            let (below, above) = self.levels.split_at_mut(height + 1);
            let (Some(below), Some(above)) = (below.last(), above.first_mut()) else { break };
            let empty = empty(height);
            for index in dirty.iter_mut() {
                *index /= 2;
            }
            dirty.dedup();
            above.resize(below.len().div_ceil(2), Hash32::default());
            let hashes = keccak_each(dirty, |&index| {
                let left = below.get(index * 2).unwrap_or(&empty);
                let right = below.get(index * 2 + 1).unwrap_or(&empty);
                node_message(left, right)
            });
            for (&index, hash) in dirty.iter().zip(hashes) {
                if let Some(slot) = above.get_mut(index) {
                    *slot = hash;
                }
            }
        }
        dirty.clear();
        self.top()
    }

    fn top(&self) -> Hash32 {
        let top = self.levels.get(DEPTH).and_then(|level| level.first());
        top.copied().unwrap_or_else(|| empty(DEPTH))
    }

    /// The siblings of a leaf from the bottom up, without those of empty subtrees, once [`IndexTree::root`] has brought the
    /// paths up to date; `None` for an index without a leaf, and while paths are out of date.
    #[must_use]
    pub fn siblings(&self, index: usize) -> Option<Vec<Hash32>> {
        if index < self.len() { self.siblings_at(index) } else { None }
    }

    /// The same, and for the place of the next leaf, too.
    #[must_use]
    pub fn siblings_at(&self, index: usize) -> Option<Vec<Hash32>> {
        if index > self.len() || !self.dirty.is_empty() {
            return None;
        }
        Some((0..DEPTH).filter_map(|height| self.at(height, (index >> height) ^ 1)).collect())
    }

    /// The siblings that several leaves need together, by ascending index: level by level from the bottom, left to right,
    /// without those of empty subtrees and those that follow from the leaves. `None` for indexes without a leaf, none at
    /// all, or such as are not ascending, and while paths are out of date.
    #[must_use]
    pub fn siblings_of(&self, indexes: &[u32]) -> Option<Vec<Hash32>> {
        let mut places: Vec<usize> = indexes.iter().map(|index| *index as usize).collect();
        let last = *places.last()?;
        if last >= self.len() || !places.is_sorted_by(|a, b| a < b) || !self.dirty.is_empty() {
            return None;
        }
        let mut siblings = Vec::new();
        for height in 0..DEPTH {
            for pair in places.chunk_by(|a, b| a >> 1 == b >> 1) {
                if let [alone] = pair {
                    siblings.extend(self.at(height, alone ^ 1));
                }
            }
            places.iter_mut().for_each(|place| *place >>= 1);
            places.dedup();
        }
        Some(siblings)
    }

    /// All [`DEPTH`] siblings of a leaf from the bottom up, those of empty subtrees, too: for trees whose number of leaves
    /// whoever checks does not know. `None` for an index without a leaf, and while paths are out of date.
    #[must_use]
    pub fn path(&self, index: usize) -> Option<Vec<Hash32>> {
        if index >= self.len() || !self.dirty.is_empty() {
            return None;
        }
        let sibling = |height: usize| self.at(height, (index >> height) ^ 1).unwrap_or_else(|| empty(height));
        Some((0..DEPTH).map(sibling).collect())
    }

    /// A node; `None` where a subtree is empty.
    fn at(&self, height: usize, place: usize) -> Option<Hash32> {
        self.levels.get(height)?.get(place).copied()
    }
}

/// The root that a leaf, its index and its siblings lead to in a tree of so many leaves; `None` unless there are just the
/// siblings that it needs.
#[must_use]
pub fn root_from(leaf: Hash32, index: u32, leaves: u32, siblings: &[Hash32]) -> Option<Hash32> {
    root_from_many(&[(index, leaf)], leaves, siblings)
}

/// The root that several leaves, by ascending index, and the siblings that they need together lead to in a tree of so many
/// leaves; `None` unless there are just those siblings.
#[must_use]
pub fn root_from_many(found: &[(u32, Hash32)], leaves: u32, siblings: &[Hash32]) -> Option<Hash32> {
    let leaves = leaves as usize;
    let mut level: Vec<(usize, Hash32)> =
        found.iter().map(|(index, leaf)| (*index as usize, *leaf)).collect();
    if level.last()?.0 >= leaves || !level.is_sorted_by(|a, b| a.0 < b.0) {
        return None;
    }
    let mut siblings = siblings.iter();
    for height in 0..DEPTH {
        let mut above = Vec::with_capacity(level.len());
        for pair in level.chunk_by(|a, b| a.0 >> 1 == b.0 >> 1) {
            let &[(place, hash), ref right @ ..] = pair else { continue };
            let joined = match right {
                [(_, right), ..] => node(&hash, right),
                [] => {
                    let empty = is_empty_at(place ^ 1, height, leaves).then(|| empty(height));
                    let sibling = match empty {
                        Some(empty) => empty,
                        None => *siblings.next()?,
                    };
                    if place & 1 == 1 { node(&sibling, &hash) } else { node(&hash, &sibling) }
                }
            };
            above.push((place >> 1, joined));
        }
        level = above;
    }
    match (level.first(), siblings.next()) {
        (Some((_, root)), None) => Some(*root),
        _ => None,
    }
}

/// The root that a leaf, its index and all its siblings lead to; `None` unless there is a sibling for every level.
#[must_use]
pub fn root_from_path(leaf: Hash32, index: u32, path: &[Hash32]) -> Option<Hash32> {
    if path.len() != DEPTH {
        return None;
    }
    let climb = |(height, below): (usize, Hash32), sibling: &Hash32| {
        let right = (index >> height) & 1 == 1;
        (height + 1, if right { node(sibling, &below) } else { node(&below, sibling) })
    };
    Some(path.iter().fold((0, leaf), climb).1)
}

/// The root over a list of hashes: pairs are joined level by level, an odd last one is joined with zero. The empty list
/// has the zero hash.
#[must_use]
pub fn list_root(mut hashes: Vec<Hash32>) -> Hash32 {
    while hashes.len() > 1 {
        hashes = joined(hashes);
    }
    hashes.first().copied().unwrap_or_default()
}

/// The level above one of a list.
fn joined(mut level: Vec<Hash32>) -> Vec<Hash32> {
    if level.len() % 2 == 1 {
        level.push(Hash32::default());
    }
    keccak_each(level.as_chunks().0, |[left, right]| node_message(left, right))
}

/// The siblings of a member of a list, level by level from the bottom, zeros too; `None` for one that is not in it.
#[must_use]
pub fn list_proof(hashes: &[Hash32], index: usize) -> Option<Vec<Hash32>> {
    let (mut level, mut index) = (hashes.to_vec(), (index < hashes.len()).then_some(index)?);
    let mut siblings = Vec::new();
    while level.len() > 1 {
        siblings.push(level.get(index ^ 1).copied().unwrap_or_default());
        level = joined(level);
        index >>= 1;
    }
    Some(siblings)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::hash::keccak, *};

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
                let (siblings, leaves) = (tree.siblings(index).unwrap(), model.len() as u32);
                prop_assert_eq!(root_from(*leaf, index as u32, leaves, &siblings), Some(root));
                prop_assert_ne!(root_from(*leaf, index as u32 ^ 1, leaves, &siblings), Some(root));
                let path = tree.path(index).unwrap();
                prop_assert_eq!(root_from_path(*leaf, index as u32, &path), Some(root));
                prop_assert_ne!(root_from_path(*leaf, index as u32 ^ 1, &path), Some(root));
            }
            prop_assert!(tree.siblings(model.len()).is_none());
            prop_assert!(!tree.set(model.len() + 1, leaf(0)));
        }

        #[test]
        fn a_member_of_a_list_leads_to_its_root(count in 1_usize..70, at in any::<usize>()) {
            let hashes: Vec<Hash32> = (0..count).map(|n| leaf(n as u64)).collect();
            let at = at % count;
            let siblings = list_proof(&hashes, at).unwrap();
            let climb = |(at, below): (usize, Hash32), sibling: &Hash32| {
                (at >> 1, if at & 1 == 1 { node(sibling, &below) } else { node(&below, sibling) })
            };
            prop_assert_eq!(siblings.iter().fold((at, hashes[at]), climb).1, list_root(hashes.clone()));
            prop_assert_eq!(siblings.len(), count.next_power_of_two().trailing_zeros() as usize);
            prop_assert!(list_proof(&hashes, count).is_none());
        }

        #[test]
        fn one_proof_of_many_leaves_holds_for_just_these(
            leaves in 1_usize..200, picked in prop::collection::btree_set(0_u32..200, 1..20), at in any::<usize>(),
            cut in any::<bool>(),
        ) {
            let mut tree = IndexTree::default();
            for n in 0..leaves {
                tree.set(n, leaf(n as u64));
            }
            let root = tree.root();
            let picked: Vec<u32> = picked.into_iter().filter(|index| (*index as usize) < leaves).collect();
            let Some(siblings) = tree.siblings_of(&picked) else {
                prop_assert!(picked.is_empty());
                return Ok(());
            };
            let count = leaves as u32;
            let mut found: Vec<_> = picked.iter().map(|index| (*index, leaf(u64::from(*index)))).collect();
            prop_assert_eq!(root_from_many(&found, count, &siblings), Some(root));
            let alone: usize = picked.iter().map(|index| tree.siblings(*index as usize).unwrap().len()).sum();
            prop_assert!(siblings.len() <= alone);
            let mut other = siblings.clone();
            if cut { other.pop(); } else { other.push(root); }
            if other.len() != siblings.len() {
                prop_assert_eq!(root_from_many(&found, count, &other), None);
            }
            let at = at % found.len();
            found[at].1 = leaf(1_000);
            prop_assert_ne!(root_from_many(&found, count, &siblings), Some(root));
            let last = found.len() - 1;
            found.swap(0, last);
            prop_assert!(found.len() == 1 || root_from_many(&found, count, &siblings).is_none());
        }
    }
}
