//! Clocks and sources of entropy: real ones, and ones that tests drive.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
#[cfg(any(test, feature = "test-util"))]
pub use manual::{ManualClock, SeededEntropy};

use crate::core::{
    client::clock::{Clock, Entropy},
    market::quantity::Timestamp,
};

#[cfg(any(test, feature = "test-util"))]
mod manual;

/// The system's clock, anchored once: it follows the monotonic clock from there, so that it never goes backwards.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    anchor: SystemTime,
    started: std::time::Instant,
}

impl SystemClock {
    /// Anchors the clock at the present.
    #[must_use]
    pub fn new() -> Self {
        Self { anchor: SystemTime::now(), started: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch =
            (self.anchor + self.started.elapsed()).duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }

    async fn sleep_until(&self, until: Timestamp) {
        let left = until.since(self.now());
        if left.get() > 0 {
            tokio::time::sleep(left.to_std()).await;
        }
    }
}

/// How many bytes a thread takes from the system at once.
const DRAWN: usize = 512;
/// Longer texts than ids come from the system directly.
const DEALT: usize = 16;

/// Bytes of the system's entropy that were drawn and not yet given away.
struct Drawn {
    bytes: [u8; DRAWN],
    left: usize,
}

thread_local! {
    static POOL: RefCell<Drawn> = const { RefCell::new(Drawn { bytes: [0; DRAWN], left: 0 }) };
}

/// The operating system's entropy. Ids are made by the thousand, and a system call for each is dearer than all else about them:
/// what is short (ids, nonces) comes from bytes that the thread drew before, each of which is given away once and wiped. Secret keys
/// are longer, and come from the system each time.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

#[expect(
    clippy::expect_used,
    reason = "without the system's entropy no key or id can be made; there is nothing to go on with"
)]
fn draw(buffer: &mut [u8]) {
    getrandom::fill(buffer).expect("the operating system's entropy source failed");
}

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        if buffer.len() > DEALT {
            return draw(buffer);
        }
        POOL.with_borrow_mut(|Drawn { bytes, left }| {
            if *left < buffer.len() {
                draw(bytes);
                *left = DRAWN;
            }
            let rest = *left - buffer.len();
            let dealt = &mut bytes[rest..*left];
            buffer.copy_from_slice(dealt);
            dealt.fill(0);
            *left = rest;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_was_drawn_is_dealt_once_whatever_the_lengths() {
        let mut dealt = BTreeSet::new();
        for round in 0..4 * DRAWN {
            // Eight bytes at least: equal ones would be a fault and no chance.
            let mut bytes = vec![0_u8; 8 + round % (DEALT + 8)];
            SystemEntropy.fill(&mut bytes);
            assert!(dealt.insert(bytes), "round {round}");
        }
        assert!(dealt.iter().flat_map(|bytes| bytes.windows(8)).all(|window| window != [0; 8]));
    }

    #[test]
    fn an_empty_buffer_is_left_alone() {
        SystemEntropy.fill(&mut []);
    }
}
