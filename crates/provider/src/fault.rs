//! Injected faults, for tests and the demo: off unless the server was started with `allow_faults`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::RwLock;

use crate::wire::Faults;

const MILLION: u64 = 1_000_000;

/// The faults in force, and how far each rate has got.
#[derive(Debug, Default)]
pub struct FaultState {
    faults: RwLock<Faults>,
    s3_errors: AtomicU64,
    admin_errors: AtomicU64,
    admin_lost: AtomicU64,
}

impl FaultState {
    /// The faults in force.
    #[must_use]
    pub fn get(&self) -> Faults {
        *self.faults.read()
    }

    /// Replaces the faults in force.
    pub fn set(&self, faults: Faults) {
        *self.faults.write() = faults;
    }

    /// Waits and decides for one S3 request: whether it is to fail.
    pub async fn s3_request(&self) -> bool {
        let faults = self.get();
        pause(faults.latency_ms).await;
        strikes(&self.s3_errors, faults.error_ppm)
    }

    /// Waits and decides for one admin call: whether it is to fail before, and after it is served.
    pub async fn admin_call(&self) -> (bool, bool) {
        let faults = self.get();
        pause(faults.admin_latency_ms).await;
        (
            strikes(&self.admin_errors, faults.admin_error_ppm),
            strikes(&self.admin_lost, faults.admin_lost_ppm),
        )
    }

    /// Waits as long as `bytes` take at the rate in force.
    pub async fn throttle(&self, bytes: usize) {
        let micros = (bytes as u64).saturating_mul(MILLION).checked_div(self.get().bytes_per_second);
        if let Some(micros) = micros {
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
    }
}

async fn pause(millis: u64) {
    if millis > 0 {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

/// Adds the rate to the counter; strikes whenever a whole million is passed, so that the rate is met without chance.
fn strikes(counter: &AtomicU64, ppm: u32) -> bool {
    if ppm == 0 {
        return false;
    }
    let ppm = u64::from(ppm).min(MILLION);
    let before = counter.fetch_add(ppm, Ordering::Relaxed);
    before / MILLION != before.wrapping_add(ppm) / MILLION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_met_exactly() {
        let counter = AtomicU64::new(0);
        assert_eq!((0..100).filter(|_| strikes(&counter, 250_000)).count(), 25);
        assert_eq!((0..100).filter(|_| strikes(&counter, 0)).count(), 0);
        assert_eq!((0..100).filter(|_| strikes(&counter, 1_000_000)).count(), 100);
    }
}
