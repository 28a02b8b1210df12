//! Keccak-256 of many messages of the same length, several at once where the processor has vectors for it: the nodes of a level
//! of a tree do not depend on one another. Bit for bit what the crate `sha3` says, which does what is left over.
//!
//! A crate of its own because debug builds compile it with optimisation: tests hash as much as the daemon does.

mod permutation;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod wide;

use sha3::{Digest as _, Keccak256};

/// A hash.
pub type Digest = [u8; 32];

/// Keccak-256 of each message, in their order.
#[must_use]
pub fn digests<const LENGTH: usize>(messages: &[[u8; LENGTH]]) -> Vec<Digest> {
    let messages = Messages { bytes: messages.as_flattened(), length: LENGTH, count: messages.len() };
    each(messages, &Width::ALL)
}

/// Keccak-256 of a message.
#[must_use]
pub fn digest(message: &[u8]) -> Digest {
    Keccak256::digest(message).into()
}

/// Messages, one behind the other.
#[derive(Clone, Copy)]
struct Messages<'a> {
    bytes: &'a [u8],
    length: usize,
    count: usize,
}

impl<'a> Messages<'a> {
    fn get(self, at: usize) -> &'a [u8] {
        self.bytes.get(at * self.length..(at + 1) * self.length).unwrap_or_default()
    }

    /// Those from a place on; behind the last one, the last one again.
    fn some<const N: usize>(self, from: usize) -> [&'a [u8]; N] {
        std::array::from_fn(|at| self.get((from + at).min(self.count - 1)))
    }
}

/// A way to hash several at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Eight,
    Four,
}

impl Width {
    /// The best first.
    const ALL: [Self; 2] = [Self::Eight, Self::Four];

    /// The digests of some messages from a place on; `None` when the processor can't.
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    fn digests(self, messages: Messages<'_>, from: usize, digests: &mut Vec<Digest>) -> Option<()> {
        let left = messages.count - from;
        match self {
            Self::Eight => digests.extend(wide::eight(&messages.some(from))?.into_iter().take(left)),
            Self::Four => digests.extend(wide::four(&messages.some(from))?.into_iter().take(left)),
        }
        Some(())
    }

    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
    fn digests(self, _messages: Messages<'_>, _from: usize, _digests: &mut Vec<Digest>) -> Option<()> {
        None
    }
}

/// The digests, by the first of the ways that the processor has. Two already take no longer at once than one after the other;
/// one does.
fn each(messages: Messages<'_>, ways: &[Width]) -> Vec<Digest> {
    let mut digests = Vec::with_capacity(messages.count);
    while digests.len() < messages.count {
        let from = digests.len();
        let several = messages.count - from > 1;
        let wide = several && ways.iter().any(|way| way.digests(messages, from, &mut digests).is_some());
        if !wide {
            digests.push(digest(messages.get(from)));
        }
    }
    digests
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the processor has, by itself each, and what there is without any.
    fn ways() -> Vec<Vec<Width>> {
        let messages = Messages { bytes: &[], length: 0, count: 2 };
        let here = Width::ALL.into_iter().filter(|way| way.digests(messages, 0, &mut Vec::new()).is_some());
        here.map(|way| vec![way]).chain([Vec::new()]).collect()
    }

    fn check(bytes: &[u8], length: usize, count: usize) {
        let messages = Messages { bytes: &bytes[..length * count], length, count };
        let expected: Vec<Digest> = (0..count).map(|at| digest(messages.get(at))).collect();
        for way in ways() {
            assert_eq!(each(messages, &way), expected, "{way:?}, {count} of {length} bytes");
        }
        assert_eq!(each(messages, &Width::ALL), expected);
    }

    /// Bytes that look like chance.
    fn bytes(count: usize) -> Vec<u8> {
        (0..count.div_ceil(32)).flat_map(|n| digest(&n.to_be_bytes())).collect()
    }

    #[test]
    fn every_length_in_every_number() {
        let bytes = bytes(140 * 17);
        for length in 0..=140 {
            for count in 0..=17 {
                check(&bytes, length, count);
            }
        }
    }

    #[test]
    fn messages_of_several_blocks() {
        let bytes = bytes(1_488 * 9);
        for length in [271, 272, 273, 407, 408, 1_487, 1_488] {
            for count in [1, 2, 8, 9] {
                check(&bytes, length, count);
            }
        }
    }

    #[test]
    fn known_answers() {
        const EMPTY: [u8; 4] = [0xc5, 0xd2, 0x46, 0x01];
        const ABC: [u8; 4] = [0x4e, 0x03, 0x65, 0x7a];
        for digest in digests(&[[]; 9]) {
            assert_eq!(digest[..4], EMPTY);
        }
        for digest in digests(&[*b"abc"; 9]) {
            assert_eq!(digest[..4], ABC);
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..4_000), length in 1_usize..300) {
            check(&bytes, length, bytes.len() / length);
        }
    }
}
