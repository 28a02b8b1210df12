//! Time and chance, as ports: the only ways in which the inner layers learn what time it is or draw a number.

use async_trait::async_trait;

use crate::core::market::quantity::{Micros, Timestamp};

/// A clock. The real one never goes backwards within a process; the manual one moves when it is told.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The present instant, UTC.
    fn now(&self) -> Timestamp;

    /// Returns once `now() ≥ until`; at once when that already holds.
    async fn sleep_until(&self, until: Timestamp);

    /// Returns after `duration` of this clock's time.
    async fn sleep(&self, duration: Micros) {
        self.sleep_until(self.now().plus(duration)).await;
    }
}

/// A source of random bytes: the operating system's, or a seeded one.
pub trait Entropy: Send + Sync + 'static {
    /// Fills the whole buffer; an empty one is left alone.
    fn fill(&self, buffer: &mut [u8]);

    /// A number in `0..bound`; zero when `bound` is zero. The bias is below 2^-32 for bounds below 2^32.
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0_u8; 8];
        self.fill(&mut bytes);
        if bound == 0 { 0 } else { u64::from_le_bytes(bytes) % bound }
    }
}
