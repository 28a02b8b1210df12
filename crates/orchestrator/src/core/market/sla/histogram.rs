//! The latency histogram: fixed log-linear bounds, so that sums of buckets are exact and any two parties agree.
//!
//! Values below 16 µs have a bound of their own each; above that each power of two is cut into 16 equal parts, which keeps
//! the error of a percentile below 1/16. Index `i ≥ 16` covers `[lower(i), upper(i)]` with
//! `lower = (16 + i mod 16) << (i / 16 − 1)`.

use crate::core::market::evidence::Histogram;

const LINEAR: u64 = 16;
const SHIFT: u32 = 4;

/// The largest index that a `u64` of microseconds has.
pub const MAX_INDEX: u16 = 975;

/// The index of a latency in microseconds.
#[must_use]
pub fn index(micros: u64) -> u16 {
    if micros < LINEAR {
        return u16::try_from(micros).unwrap_or(0);
    }
    let exponent = 63 - micros.leading_zeros();
    let part = (micros >> (exponent - SHIFT)) - LINEAR;
    u16::try_from(u64::from(exponent - SHIFT + 1) * LINEAR + part).unwrap_or(MAX_INDEX)
}

/// The smallest latency of an index, in microseconds; that of the last index for larger ones.
#[must_use]
pub fn lower(index: u16) -> u64 {
    let index = u64::from(index.min(MAX_INDEX));
    if index < LINEAR {
        return index;
    }
    (LINEAR + index % LINEAR) << (index / LINEAR - 1)
}

/// The largest latency of an index, in microseconds.
#[must_use]
pub fn upper(index: u16) -> u64 {
    if index >= MAX_INDEX { u64::MAX } else { lower(index + 1) - 1 }
}

/// How many values a histogram holds.
#[must_use]
pub fn count(histogram: &Histogram) -> u64 {
    histogram.values().fold(0, |sum, n| sum.saturating_add(*n))
}

/// The upper bound below which at least 95 % of the values lie; `None` for an empty histogram.
#[must_use]
pub fn p95(histogram: &Histogram) -> Option<u64> {
    let total = u128::from(count(histogram));
    if total == 0 {
        return None;
    }
    let rank = (total * 95).div_ceil(100);
    let mut seen = 0_u128;
    for (index, n) in histogram {
        seen += u128::from(*n);
        if seen >= rank {
            return Some(upper(*index));
        }
    }
    None
}

/// How many values are surely at most `micros`.
#[must_use]
pub fn at_most(histogram: &Histogram, micros: u64) -> u64 {
    histogram.iter().take_while(|(i, _)| upper(**i) <= micros).fold(0, |sum, (_, n)| sum.saturating_add(*n))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bounds() {
        for (micros, expected) in
            [(0, 0), (15, 15), (16, 16), (31, 31), (32, 32), (33, 32), (34, 33), (1_000, 111), (50_000, 200)]
        {
            assert_eq!(index(micros), expected, "{micros}");
        }
        assert_eq!(index(u64::MAX), MAX_INDEX);
        assert_eq!(upper(MAX_INDEX), u64::MAX);
        assert_eq!((lower(111), upper(111)), (992, 1_023));
    }

    #[test]
    fn the_95th_percentile_is_an_upper_bound_of_the_right_rank() {
        let mut histogram = Histogram::new();
        for micros in 1..=100_u64 {
            *histogram.entry(index(micros)).or_default() += 1;
        }
        let p = p95(&histogram).unwrap();
        assert!((95..=101).contains(&p), "{p}");
        assert_eq!(p95(&Histogram::new()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn every_value_lies_in_its_bound(shift in 0_u32..64, noise: u64) {
            let micros = noise >> shift;
            let i = index(micros);
            prop_assert!(i <= MAX_INDEX);
            prop_assert!(lower(i) <= micros && micros <= upper(i));
            prop_assert!(i == 0 || upper(i - 1) + 1 == lower(i));
        }
    }
}
