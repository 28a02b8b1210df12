//! The ranking score of offerings: a weighted sum of four components, each 0 to 1,000,000, in integers.

use serde::{Deserialize, Serialize};

use super::quantity::Ppm;

/// How much each component counts; they need not add up to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Weights {
    /// Of the reputation.
    pub reputation: u32,
    /// Of the measured performance.
    pub performance: u32,
    /// Of the price.
    pub cost: u32,
    /// Of the free share.
    pub headroom: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { reputation: 35, performance: 35, cost: 20, headroom: 10 }
    }
}

/// What a unit's score is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Reputation in thousandths of a point.
    pub reputation: u32,
    /// Probe operations that succeeded within the promised latency.
    pub good: u64,
    /// Probe operations tried.
    pub tried: u64,
    /// Price per GiB-month.
    pub price: u128,
    /// The market's median price.
    pub median_price: u128,
    /// Free bytes.
    pub free: u64,
    /// Capacity.
    pub capacity: u64,
}

/// The components and their weighted mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breakdown {
    /// Reputation over 100.
    pub reputation: Ppm,
    /// Lower bound, at 95 % confidence, of the share of operations that succeeded within the promised latency.
    pub performance: Ppm,
    /// Median price over (median price + price): one half at the median.
    pub cost: Ppm,
    /// Free over capacity.
    pub headroom: Ppm,
    /// The weighted mean of the four.
    pub score: Ppm,
}

/// The score of a unit.
#[must_use]
pub fn score(inputs: &Inputs, weights: &Weights) -> Breakdown {
    let reputation = Ppm(inputs.reputation.min(100_000) * 10);
    let performance = wilson_lower(inputs.good, inputs.tried);
    let both = inputs.median_price.saturating_add(inputs.price);
    let cost = super::money::mul_div_floor(inputs.median_price, 1_000_000, both.max(1))
        .map_or(0, |c| u32::try_from(c).unwrap_or(1_000_000));
    let headroom =
        u128::from(inputs.free.min(inputs.capacity)) * 1_000_000 / u128::from(inputs.capacity.max(1));
    let headroom = u32::try_from(headroom).unwrap_or(1_000_000);
    let parts = [
        (weights.reputation, reputation.0),
        (weights.performance, performance.0),
        (weights.cost, cost),
        (weights.headroom, headroom),
    ];
    let (sum, weight) = parts.iter().fold((0_u64, 0_u64), |(s, w), (weight, part)| {
        (s + u64::from(*weight) * u64::from(*part), w + u64::from(*weight))
    });
    let score = Ppm(u32::try_from(sum / weight.max(1)).unwrap_or(1_000_000));
    Breakdown { reputation, performance, cost: Ppm(cost), headroom: Ppm(headroom), score }
}

/// The lower end of Wilson's interval at 95 % for `good` of `tried`, in ppm, floored; zero without trials. Trials beyond
/// 10^9 are scaled down, which changes nothing in the first six digits.
#[must_use]
pub fn wilson_lower(good: u64, tried: u64) -> Ppm {
    if tried == 0 {
        return Ppm(0);
    }
    let scale = tried.div_ceil(1_000_000_000).max(1);
    let n = u128::from(tried / scale).max(1);
    let s = u128::from(good.min(tried) / scale).min(n);
    // z² = 3.8416 for 95 %, z = 1.96. All terms are multiplied by 10^6.
    let centre = s * 1_000_000 + 1_920_800;
    // z·√(s(n−s)/n + z²/4), with the root taken over 10^12 times its argument.
    let under = s * (n - s) * 1_000_000_000_000 / n + 960_400_000_000;
    let spread = (under.isqrt() + 1) * 196 / 100;
    let whole = n * 1_000_000 + 3_841_600;
    let ppm = centre.saturating_sub(spread) * 1_000_000 / whole;
    Ppm(u32::try_from(ppm).unwrap_or(1_000_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_vectors() {
        assert_eq!(wilson_lower(0, 0), Ppm(0));
        assert_eq!(wilson_lower(0, 10), Ppm(0));
        // 1 / (1 + 3.8416), 10 / 13.8416 and so on, by hand, floored.
        assert_eq!(wilson_lower(1, 1).0 / 10, 20_654);
        assert_eq!(wilson_lower(10, 10).0, 722_459);
        assert_eq!(wilson_lower(50, 100).0, 403_829);
        let inputs = Inputs {
            reputation: 50_000,
            good: 50,
            tried: 100,
            price: 100,
            median_price: 100,
            free: 1,
            capacity: 4,
        };
        let b = score(&inputs, &Weights::default());
        assert_eq!((b.reputation.0, b.cost.0, b.headroom.0), (500_000, 500_000, 250_000));
        assert_eq!(b.score.0, (35 * 500_000 + 35 * b.performance.0 + 20 * 500_000 + 10 * 250_000) / 100);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn the_bound_is_below_the_share_and_grows_with_evidence(good in 0_u64..1_000_000, bad in 0_u64..1_000_000) {
            let tried = good + bad;
            let bound = u64::from(wilson_lower(good, tried).0);
            prop_assert!(bound <= good * 1_000_000 / tried.max(1));
            prop_assert!(u64::from(wilson_lower(good * 4, tried * 4).0) >= bound);
        }
    }
}
