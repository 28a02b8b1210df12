//! Keccak-256 with domain separation.

use orchestrator_keccak::{digest, digests};
use sha3::{Digest, Keccak256};

use crate::{
    core::market::{account::AccountKey, address::Address, block::Hash32, terms::DomainId},
    utils::parallel,
};

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
    /// The name of an account that has an owner.
    OwnedAccount = 12,
    /// Everything that the next record of a block may depend on.
    StepState = 13,
    /// A step of a block.
    Step = 14,
    /// A state as bytes.
    Snapshot = 15,
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

/// What is hashed of the tag and the parts where all messages of a kind have the same length: `LENGTH` bytes together.
#[must_use]
pub fn message<const LENGTH: usize>(tag: Tag, parts: &[&[u8]]) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[0] = tag as u8;
    let mut at = 1;
    for part in parts {
        if let Some(slot) = message.get_mut(at..at + part.len()) {
            slot.copy_from_slice(part);
        }
        at += part.len();
    }
    debug_assert_eq!(at, LENGTH, "the parts have another length");
    message
}

/// Keccak-256 of a message.
#[must_use]
pub fn keccak_of<const LENGTH: usize>(message: &[u8; LENGTH]) -> Hash32 {
    Hash32(digest(message))
}

/// Keccak-256 of the message of each item, in their order; several at once, which is why they have one length.
pub fn keccak_each<T: Sync, const LENGTH: usize>(
    items: &[T],
    message: impl Fn(&T) -> [u8; LENGTH] + Sync,
) -> Vec<Hash32> {
    parallel::pieces(items, |piece| {
        let messages: Vec<[u8; LENGTH]> = piece.iter().map(&message).collect();
        digests(&messages).into_iter().map(Hash32).collect()
    })
}

/// A hash cut to its first 30 bytes, so that it fits an event record.
pub type ShortHash = [u8; 30];

/// The first `N` bytes of a hash.
#[must_use]
pub fn cut<const N: usize>(hash: &Hash32) -> [u8; N] {
    std::array::from_fn(|i| hash.0.get(i).copied().unwrap_or(0))
}

/// How records name an account: by the hash of its domain, its owner and its name. `None` is for domains whose accounts have no
/// owners, because no chain pays them out.
#[must_use]
pub fn account_key_hash(domain: &DomainId, owner: Option<&Address>, key: &AccountKey) -> ShortHash {
    account_key_hash_in(&domain_hash(domain), owner, key)
}

/// The same, for a domain whose name was hashed before.
#[must_use]
pub fn account_key_hash_in(domain_hash: &Hash32, owner: Option<&Address>, key: &AccountKey) -> ShortHash {
    if let AccountKey::Unclaimed(hash) = key {
        return *hash;
    }
    let name = key.to_string();
    match owner {
        None => cut(&keccak(Tag::AccountKey, &[&domain_hash.0, name.as_bytes()])),
        Some(owner) => owned_key_hash(domain_hash, owner, &name),
    }
}

/// How records name an account that an owner gave any name.
#[must_use]
pub fn owned_key_hash(domain_hash: &Hash32, owner: &Address, name: &str) -> ShortHash {
    cut(&keccak(Tag::OwnedAccount, &[&domain_hash.0, &owner.0, name.as_bytes()]))
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
