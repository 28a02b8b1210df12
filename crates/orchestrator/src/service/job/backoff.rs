//! Exponential backoff with full jitter: the delay is drawn from zero to the bound, so that jobs that failed together
//! don't come back together.

use crate::core::{client::clock::Entropy, market::quantity::Micros};

/// The longest delay after `failures` failures in a row (1 is the first): `base` doubled each time, at most `max`.
pub(super) fn bound(base: Micros, max: Micros, failures: u32) -> Micros {
    let doublings = failures.saturating_sub(1).min(63);
    Micros(base.get().saturating_mul(1_u64 << doublings).min(max.get()))
}

/// A delay drawn from zero to [`bound`], both included.
pub(super) fn full_jitter(entropy: &dyn Entropy, base: Micros, max: Micros, failures: u32) -> Micros {
    Micros(entropy.below(bound(base, max, failures).get().saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::client::clock::SeededEntropy;

    #[test]
    fn the_bound_doubles_up_to_the_maximum() {
        let (base, max) = (Micros::from_millis(200), Micros::from_secs(1));
        let bounds: Vec<_> = (0..6).map(|n| bound(base, max, n).as_millis()).collect();
        assert_eq!(bounds, [200, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(bound(base, max, u32::MAX), max);
    }

    #[test]
    fn the_jitter_is_full() {
        let entropy = SeededEntropy::new(1);
        let draws: Vec<_> =
            (0..200).map(|_| full_jitter(&entropy, Micros(1_000), Micros(1_000), 1).get()).collect();
        assert!(draws.iter().any(|d| *d < 100) && draws.iter().any(|d| *d > 900));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn a_delay_never_passes_the_bound(seed: u64, base: u64, max: u64, failures: u32) {
            let delay = full_jitter(&SeededEntropy::new(seed), Micros(base), Micros(max), failures);
            prop_assert!(delay <= Micros(max));
        }
    }
}
