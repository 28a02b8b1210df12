//! Chance from a seed: small, fast, and the same on every machine.

use orchestrator::core::client::clock::Entropy;
use parking_lot::Mutex;

/// A generator of numbers (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// A generator for this seed; `salt` tells apart those that one run needs.
    #[must_use]
    pub fn new(seed: u64, salt: u64) -> Self {
        let mut dice = Self(seed ^ salt.wrapping_mul(0xA24B_AED4_963E_E407));
        // Neighbouring seeds part with the first draw.
        dice.draw();
        dice
    }

    /// The next 64 bits.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; zero when `bound` is zero.
    pub const fn below(&mut self, bound: u64) -> u64 {
        let drawn = self.draw();
        if bound == 0 { 0 } else { drawn % bound }
    }

    /// A number in `from..=to`.
    pub const fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// An index of a list of this length.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// One of a list, if it has any.
    pub fn pick<T: Clone>(&mut self, list: &[T]) -> Option<T> {
        let at = self.index(list.len());
        list.get(at).cloned()
    }

    /// True with a probability in parts per million.
    pub const fn hits(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < ppm as u64
    }

    /// A number from `1` to `2^bits` whose size is drawn first: small ones are as likely as large ones.
    pub const fn spread(&mut self, bits: u64) -> u64 {
        let size = self.below(bits + 1);
        1 + self.below(1 << size)
    }
}

/// Entropy for a replica.
#[derive(Debug)]
pub struct Seeded(Mutex<Dice>);

impl Seeded {
    /// From a generator of its own.
    #[must_use]
    pub const fn new(dice: Dice) -> Self {
        Self(Mutex::new(dice))
    }
}

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        let mut dice = self.0.lock();
        for chunk in buffer.chunks_mut(8) {
            let bytes = dice.draw().to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(bytes) {
                *to = from;
            }
        }
    }
}
