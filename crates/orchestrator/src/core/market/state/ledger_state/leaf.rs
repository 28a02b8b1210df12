//! What the two trees of a state commit to.

use super::super::hash::{ShortHash, Tag, keccak_of, message};
use crate::core::market::block::Hash32;

/// An account as the tree commits to it: liabilities only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountLeaf {
    /// Hash of its domain and name.
    pub key: ShortHash,
    /// Money that can be moved.
    pub balance: u128,
    /// Money ever released for withdrawal.
    pub withdrawable: u128,
    /// Records that touched it; not committed, it follows from the records.
    pub sequence: u64,
}

impl AccountLeaf {
    /// What the tree holds the hash of.
    pub(super) fn message(&self) -> [u8; 63] {
        account_message(&self.key, self.balance, self.withdrawable)
    }
}

fn account_message(key: &ShortHash, balance: u128, withdrawable: u128) -> [u8; 63] {
    message(Tag::Account, &[key, &balance.to_be_bytes(), &withdrawable.to_be_bytes()])
}

/// The hash of an account's leaf.
#[must_use]
pub fn account_leaf_hash(key: &ShortHash, balance: u128, withdrawable: u128) -> Hash32 {
    keccak_of(&account_message(key, balance, withdrawable))
}

/// Something in the market tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarketLeaf {
    /// Hash of its domain and name.
    pub key: ShortHash,
    /// Hash of its canonical encoding, cut.
    pub digest: [u8; 26],
}

pub(super) fn market_message(key: &ShortHash, digest: &[u8; 26]) -> [u8; 57] {
    message(Tag::Market, &[key, digest])
}

/// The hash of a leaf of the market tree.
#[must_use]
pub fn market_leaf_hash(key: &ShortHash, digest: &[u8; 26]) -> Hash32 {
    keccak_of(&market_message(key, digest))
}
