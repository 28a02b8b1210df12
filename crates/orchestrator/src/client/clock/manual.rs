//! A clock that moves when it is told, and entropy from a seed.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::core::{
    client::clock::{Clock, Entropy},
    market::quantity::{Micros, Timestamp},
};

/// A clock for tests: time stands still until [`ManualClock::advance`].
#[derive(Debug, Clone)]
pub struct ManualClock {
    now: Arc<watch::Sender<Timestamp>>,
}

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self { now: Arc::new(watch::Sender::new(start)) }
    }

    /// Moves the clock on and wakes those whose time has come.
    pub fn advance(&self, by: Micros) {
        self.now.send_modify(|now| *now = now.plus(by));
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    async fn sleep_until(&self, until: Timestamp) {
        let mut receiver = self.now.subscribe();
        // The sender lives as long as this clock does.
        let _ = receiver.wait_for(|now| *now >= until).await;
    }
}

/// Bytes that only depend on the seed and on how many were drawn before.
#[derive(Debug)]
pub struct SeededEntropy {
    state: Mutex<(u64, u64)>,
}

impl SeededEntropy {
    /// A source for this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: Mutex::new((seed, 0)) }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(32) {
            let mut state = self.state.lock();
            let digest = Sha256::new()
                .chain_update(state.0.to_le_bytes())
                .chain_update(state.1.to_le_bytes())
                .finalize();
            state.1 += 1;
            chunk.copy_from_slice(&digest[..chunk.len()]);
        }
    }
}
