//! Keccak-256 with domain separation.

use sha3::{Digest, Keccak256};

use crate::core::market::{account::AccountKey, block::Hash32, terms::DomainId};

/// The first byte of everything that is hashed.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub enum Tag {
    /// Two child hashes of a tree.
    Node = 1,
    /// A leaf of the accounts tree.
    Account = 2,
    /// A leaf of the market tree.
    Market = 3,
    /// An event record.
    Record = 4,
    /// A state root.
    State = 5,
    /// A block header.
    Header = 6,
    /// The name of an account.
    AccountKey = 7,
    /// The name of something in the market tree.
    MarketKey = 8,
    /// The canonical encoding of something in the market tree.
    Digest = 9,
    /// The name of a settlement domain.
    Domain = 10,
    /// The name of a judged subject and period.
    Verdict = 11,
    /// A state as bytes.
    Snapshot = 12,
}

/// Keccak-256 over the tag and the parts, one after the other. Parts that vary in length are hashed on their own first.
#[must_use]
pub fn keccak(tag: Tag, parts: &[&[u8]]) -> Hash32 {
    let mut hasher = Keccak256::new();
    hasher.update([tag as u8]);
    for part in parts {
        hasher.update(part);
    }
    Hash32(hasher.finalize().into())
}

/// A hash cut to its first 30 bytes, so that it fits an event record.
pub type ShortHash = [u8; 30];

/// The first `N` bytes of a hash.
#[must_use]
pub fn cut<const N: usize>(hash: &Hash32) -> [u8; N] {
    std::array::from_fn(|i| hash.0.get(i).copied().unwrap_or(0))
}

/// How records name an account: by the hash of its domain and name.
#[must_use]
pub fn account_key_hash(domain: &DomainId, key: &AccountKey) -> ShortHash {
    account_key_hash_in(&domain_hash(domain), key)
}

/// The same, for a domain whose name was hashed before.
#[must_use]
pub fn account_key_hash_in(domain_hash: &Hash32, key: &AccountKey) -> ShortHash {
    cut(&keccak(Tag::AccountKey, &[&domain_hash.0, key.to_string().as_bytes()]))
}

/// How records name something in the market tree, such as `unit:unit_…`.
#[must_use]
pub fn market_key_hash(domain: &DomainId, name: &str) -> ShortHash {
    cut(&keccak(Tag::MarketKey, &[&domain_hash(domain).0, name.as_bytes()]))
}

/// The hash of a domain's name.
#[must_use]
pub fn domain_hash(domain: &DomainId) -> Hash32 {
    keccak(Tag::Domain, &[domain.as_str().as_bytes()])
}
