//! Inclusion proofs: that an account held so much after a block, and that the market stood so.

use serde::{Deserialize, Serialize};

use super::{
    hash::{ShortHash, domain_hash, market_key_hash},
    header::state_root,
    ledger_state::{account_leaf_hash, market_leaf_hash},
    tree::{root_from, root_from_many, root_from_path},
};
use crate::core::market::{block::Hash32, money::Amount, terms::DomainId};

/// What an account held, and the hashes that tie it to a state root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountProof {
    /// Hash of the account's domain and name: 30 bytes in hex.
    pub key: String,
    /// Index of its leaf.
    pub index: u32,
    /// Money that can be moved.
    pub balance: Amount,
    /// Money ever released for withdrawal.
    pub withdrawable: Amount,
    /// Sibling hashes from the leaf upwards; those of empty subtrees are left out.
    pub siblings: Vec<Hash32>,
    /// Root of the market tree.
    pub market_root: Hash32,
    /// Number of accounts.
    pub next_index: u32,
    /// What deposits ever credited.
    pub total: Amount,
    /// The root that all this leads to.
    pub state_root: Hash32,
}

/// Whether the proof shows that the account named by `key` held what the proof says in the state with this root.
#[must_use]
pub fn verify_account(domain: &DomainId, key: &ShortHash, root: &Hash32, proof: &AccountProof) -> bool {
    if proof.key != hex::encode(key) || proof.state_root != *root {
        return false;
    }
    let leaf = account_leaf_hash(key, proof.balance.0, proof.withdrawable.0);
    let Some(accounts) = root_from(leaf, proof.index, proof.next_index, &proof.siblings) else {
        return false;
    };
    let found =
        state_root(&domain_hash(domain), &accounts, &proof.market_root, proof.next_index, proof.total.0);
    found == *root
}

/// One account of a proof of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvedLeaf {
    /// Hash of the account's domain and name: 30 bytes in hex.
    pub key: String,
    /// Index of its leaf.
    pub index: u32,
    /// Money that can be moved.
    pub balance: Amount,
    /// Money ever released for withdrawal.
    pub withdrawable: Amount,
}

/// What several accounts held, and the hashes that tie them to one state root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountsProof {
    /// The accounts, by ascending index.
    pub leaves: Vec<ProvedLeaf>,
    /// Sibling hashes level by level from the bottom, left to right; those of empty subtrees, and those that follow from
    /// the leaves, are left out.
    pub siblings: Vec<Hash32>,
    /// Root of the market tree.
    pub market_root: Hash32,
    /// Number of accounts.
    pub next_index: u32,
    /// What deposits ever credited.
    pub total: Amount,
    /// The root that all this leads to.
    pub state_root: Hash32,
}

/// Whether the proof shows that its accounts held what it says in the state with this root.
#[must_use]
pub fn verify_accounts(domain: &DomainId, root: &Hash32, proof: &AccountsProof) -> bool {
    let leaf = |proved: &ProvedLeaf| {
        let mut key = ShortHash::default();
        hex::decode_to_slice(&proved.key, &mut key).ok()?;
        // One spelling only, so that a proof that was changed in any way is none.
        let leaf = account_leaf_hash(&key, proved.balance.0, proved.withdrawable.0);
        (hex::encode(key) == proved.key).then_some((proved.index, leaf))
    };
    let Some(leaves) = proof.leaves.iter().map(leaf).collect::<Option<Vec<_>>>() else { return false };
    let Some(accounts) = root_from_many(&leaves, proof.next_index, &proof.siblings) else { return false };
    let (market, next, total) = (&proof.market_root, proof.next_index, proof.total.0);
    proof.state_root == *root && state_root(&domain_hash(domain), &accounts, market, next, total) == *root
}

/// What the market tree holds under a name, and the hashes that tie it to a state root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarketProof {
    /// Its name in the tree, such as `unit:<id>`.
    pub name: String,
    /// Index of its leaf.
    pub index: u32,
    /// Digest of the canonical text: 26 bytes in hex.
    pub digest: String,
    /// Sibling hashes from the leaf upwards, 32 of them.
    pub siblings: Vec<Hash32>,
    /// Root of the accounts' tree.
    pub accounts_root: Hash32,
    /// Number of accounts.
    pub next_index: u32,
    /// What deposits ever credited.
    pub total: Amount,
    /// The root that all this leads to.
    pub state_root: Hash32,
}

/// Whether the proof shows that the market tree of the state with this root holds the digest under the name.
#[must_use]
pub fn verify_market(domain: &DomainId, root: &Hash32, proof: &MarketProof) -> bool {
    let mut digest = [0_u8; 26];
    let read = hex::decode_to_slice(&proof.digest, &mut digest);
    // One spelling only, so that a proof that was changed in any way is none.
    if read.is_err() || hex::encode(digest) != proof.digest || proof.state_root != *root {
        return false;
    }
    let leaf = market_leaf_hash(&market_key_hash(domain, &proof.name), &digest);
    let Some(market) = root_from_path(leaf, proof.index, &proof.siblings) else { return false };
    state_root(&domain_hash(domain), &proof.accounts_root, &market, proof.next_index, proof.total.0) == *root
}
