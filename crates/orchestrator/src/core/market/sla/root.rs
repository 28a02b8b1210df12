//! The evidence root: a keccak-256 tree over the canonical bytes of everything that a verdict rests on.

use serde::Serialize;
use sha3::{Digest, Keccak256};

use super::canonical::{NotCanonical, canonical};
use crate::core::market::block::Hash32;

/// The hash of a leaf: keccak-256 over a zero byte and the canonical bytes.
///
/// # Errors
/// [`NotCanonical`] for values with fractions.
pub fn leaf<T: Serialize>(domain: &str, value: &T) -> Result<Hash32, NotCanonical> {
    let bytes = canonical(domain, value)?;
    Ok(Hash32(Keccak256::new().chain_update([0]).chain_update(bytes).finalize().into()))
}

/// The root over leaves in their order: pairs are hashed behind a one byte, an odd one moves up as it is. No leaves: zero.
#[must_use]
pub fn root(leaves: &[Hash32]) -> Hash32 {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => {
                    let hash = Keccak256::new().chain_update([1]).chain_update(left.0).chain_update(right.0);
                    Hash32(hash.finalize().into())
                }
                [single] => *single,
                _ => Hash32::default(),
            })
            .collect();
    }
    level.first().copied().unwrap_or_default()
}
