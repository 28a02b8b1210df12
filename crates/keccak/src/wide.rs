//! Messages of the same length side by side in vectors: eight with AVX-512, four with AVX2. Whoever has neither gets `None`.

use fearless_simd::{Level, Simd, SimdFrom as _, u64x4, u64x8};

use crate::{
    Digest,
    permutation::{Lane, State, permute},
};

/// Bytes that Keccak-256 takes in between two permutations.
const BLOCK: usize = 136;
const WORD: usize = 8;

/// Keccak-256 of eight messages of the same length.
pub(crate) fn eight(messages: &[&[u8]; 8]) -> Option<[Digest; 8]> {
    let simd = Level::new().as_avx512()?;
    Some(simd.vectorize(
        #[inline(always)]
        || digests::<_, u64x8<_>, 8>(simd, messages),
    ))
}

/// Keccak-256 of four messages of the same length.
pub(crate) fn four(messages: &[&[u8]; 4]) -> Option<[Digest; 4]> {
    let simd = Level::new().as_avx2()?;
    Some(simd.vectorize(
        #[inline(always)]
        || digests::<_, u64x4<_>, 4>(simd, messages),
    ))
}

/// A vector with a word of each of `N` messages.
trait Words<S: Simd, const N: usize>: Lane {
    fn new(simd: S, words: [u64; N]) -> Self;
    fn words(self) -> [u64; N];
}

macro_rules! words {
    ($vector:ident, $many:literal) => {
        impl<S: Simd> Words<S, $many> for $vector<S> {
            #[inline(always)]
            fn new(simd: S, words: [u64; $many]) -> Self {
                Self::simd_from(simd, words)
            }

            #[inline(always)]
            fn words(self) -> [u64; $many] {
                self.into()
            }
        }

        impl<S: Simd> Lane for $vector<S> {
            #[inline(always)]
            fn xor(self, other: Self) -> Self {
                self ^ other
            }

            #[inline(always)]
            fn xor_all(self, number: u64) -> Self {
                self ^ number
            }

            #[inline(always)]
            fn rotate(self, bits: u32) -> Self {
                (self << bits) | (self >> (u64::BITS - bits))
            }

            #[inline(always)]
            fn xor_masked(self, off: Self, on: Self) -> Self {
                self ^ (!off & on)
            }
        }
    };
}

words!(u64x4, 4);
words!(u64x8, 8);

#[inline(always)]
fn digests<S: Simd, V: Words<S, N>, const N: usize>(simd: S, messages: &[&[u8]; N]) -> [Digest; N] {
    let length = messages[0].len();
    let mut state: State<V> = [V::new(simd, [0; N]); 25];
    // Every message has a last block that is not full, be it empty.
    let (full, words) = (length / BLOCK, length % BLOCK / WORD);
    for block in 0..full {
        absorb(simd, &mut state, messages, block * BLOCK, BLOCK / WORD);
        state = permute(&state);
    }
    absorb(simd, &mut state, messages, full * BLOCK, words);
    let rest = length - length % WORD;
    let ends = V::new(simd, words_of(messages, |message| end(message, rest)));
    state[words] = state[words].xor(ends);
    let last = BLOCK / WORD - 1;
    state[last] = state[last].xor_all(1 << 63);
    state = permute(&state);

    let words = [state[0].words(), state[1].words(), state[2].words(), state[3].words()];
    let mut digests = [[0; 32]; N];
    for (at, digest) in digests.iter_mut().enumerate() {
        for (bytes, words) in digest.as_chunks_mut::<WORD>().0.iter_mut().zip(&words) {
            *bytes = words[at].to_le_bytes();
        }
    }
    digests
}

/// Takes in so many words of each message from a place on.
#[inline(always)]
fn absorb<S: Simd, V: Words<S, N>, const N: usize>(
    simd: S,
    state: &mut State<V>,
    messages: &[&[u8]; N],
    from: usize,
    words: usize,
) {
    for (at, lane) in state.iter_mut().take(words).enumerate() {
        let from = from + at * WORD;
        *lane = lane.xor(V::new(simd, words_of(messages, |message| word(message, from))));
    }
}

#[inline(always)]
fn words_of<const N: usize>(messages: &[&[u8]; N], word: impl Fn(&[u8]) -> u64) -> [u64; N] {
    let mut words = [0; N];
    for (slot, message) in words.iter_mut().zip(messages) {
        *slot = word(message);
    }
    words
}

/// The word that begins at a place.
#[inline(always)]
fn word(message: &[u8], from: usize) -> u64 {
    message.get(from..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// What is behind the last whole word of a message, and the bit that ends it.
#[inline(always)]
fn end(message: &[u8], from: usize) -> u64 {
    let rest = message.get(from..).unwrap_or_default();
    rest.iter().rev().fold(1, |word, byte| (word << 8) | u64::from(*byte))
}
