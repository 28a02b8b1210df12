//! The reputation table, as a pure function by day. Numbers are thousandths of a point, 0 to 100,000.

use std::collections::BTreeMap;

use super::{
    sla::Judgement,
    verdict::{Metric, MetricResult, VerdictStatus},
};

/// Where every unit starts, and where reputation drifts to without data.
pub const START: u32 = 50_000;
/// The highest.
pub const MAX: u32 = 100_000;
/// Ten points a month of 30 days, per day, floored.
pub const DECAY_PER_DAY: u32 = 333;

/// The highest compliance tier that a day reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compliance {
    /// Every metric at least 20 % better than promised.
    Exceeded,
    /// Every metric met.
    Met,
    /// A metric missed.
    NotMet,
    /// A metric missed by 20 % or more.
    FarOff,
}

/// What a day's evidence says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Day {
    /// Nothing was seen.
    NoData,
    /// Something was seen, but too little: a missed report.
    Missed,
    /// Enough was seen.
    Judged(Compliance),
}

/// Reads a day's judgement.
#[must_use]
pub fn read_day(judgement: &Judgement) -> Day {
    if judgement.known == 0 {
        return Day::NoData;
    }
    if judgement.status == VerdictStatus::Unknown {
        return Day::Missed;
    }
    let known: BTreeMap<_, _> = judgement.metrics.iter().filter(|(_, m)| m.observed.is_some()).collect();
    Day::Judged(if judgement.status == VerdictStatus::Breached {
        if known.iter().any(|(kind, m)| compared(**kind, m, 1_200_000) == std::cmp::Ordering::Less) {
            Compliance::FarOff
        } else {
            Compliance::NotMet
        }
    } else if known.iter().all(|(kind, m)| compared(**kind, m, 800_000) != std::cmp::Ordering::Less) {
        Compliance::Exceeded
    } else {
        Compliance::Met
    })
}

/// How an observation compares with its target scaled by `factor` ppm, where greater is better. Uptime is compared by
/// its complement, so that "20 % better than 99.95 %" means a fifth less downtime. For `factor` 1,200,000 the answer
/// `Less` means at least 20 % worse; for 800,000 anything but `Less` means at least 20 % better.
fn compared(kind: Metric, metric: &MetricResult, factor: u128) -> std::cmp::Ordering {
    let observed = u128::from(metric.observed.unwrap_or(0));
    let target = u128::from(metric.target);
    let worse = factor > 1_000_000;
    match kind {
        Metric::LatencyAvg | Metric::LatencyP95 | Metric::ErrorRate => {
            let (seen, bound) = (observed * 1_000_000, target * factor);
            bad(if worse { seen >= bound && observed > target } else { seen > bound })
        }
        Metric::Uptime => {
            let (seen, bound) =
                (1_000_000_u128.saturating_sub(observed), 1_000_000_u128.saturating_sub(target));
            bad(if worse {
                seen * 1_000_000 >= bound * factor && seen > bound
            } else {
                seen * 1_000_000 > bound * factor
            })
        }
        Metric::Upload | Metric::Download => {
            // More is better: the factor is mirrored at one.
            let mirrored = 2_000_000 - factor;
            let (seen, bound) = (observed * 1_000_000, target * mirrored);
            bad(if worse { seen <= bound && observed < target } else { seen < bound })
        }
    }
}

const fn bad(is: bool) -> std::cmp::Ordering {
    if is { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater }
}

/// The reputation after a day: the new value, what was added before clamping, and why.
#[must_use]
pub fn after_day(before: u32, day: Day) -> (u32, i32, String) {
    let before = before.min(MAX);
    let (delta, reason): (i32, &str) = match day {
        Day::NoData => {
            let gap = before.abs_diff(START).min(DECAY_PER_DAY).cast_signed();
            let delta = if before > START { -gap } else { gap };
            (delta, "no evidence: drifts toward 50 by 10 a month")
        }
        Day::Missed => (-1_000, "too little evidence (-1)"),
        Day::Judged(Compliance::Exceeded) => {
            (4_000, "evidence on time (+1), every metric at least 20 % better than promised (+3)")
        }
        Day::Judged(Compliance::Met) => (3_000, "evidence on time (+1), every metric met (+2)"),
        Day::Judged(Compliance::NotMet) => (-1_000, "evidence on time (+1), a metric missed (-2)"),
        Day::Judged(Compliance::FarOff) => {
            (-2_000, "evidence on time (+1), a metric missed by 20 % or more (-3)")
        }
    };
    let after = before.saturating_add_signed(delta).min(MAX);
    (after, delta, reason.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table() {
        for (day, delta) in [
            (Day::Missed, -1_000),
            (Day::Judged(Compliance::Exceeded), 4_000),
            (Day::Judged(Compliance::Met), 3_000),
            (Day::Judged(Compliance::NotMet), -1_000),
            (Day::Judged(Compliance::FarOff), -2_000),
        ] {
            assert_eq!(after_day(START, day).1, delta);
        }
        assert_eq!(after_day(80_000, Day::NoData).0, 79_667);
        assert_eq!(after_day(50_100, Day::NoData).0, 50_000);
        assert_eq!(after_day(0, Day::NoData).0, 333);
    }

    #[test]
    fn twenty_percent_is_counted_from_the_target() {
        let metric = |observed, target| MetricResult { observed: Some(observed), target, met: None };
        let less = std::cmp::Ordering::Less;
        assert_ne!(compared(Metric::LatencyAvg, &metric(80, 100), 800_000), less);
        assert_eq!(compared(Metric::LatencyAvg, &metric(81, 100), 800_000), less);
        assert_eq!(compared(Metric::LatencyAvg, &metric(120, 100), 1_200_000), less);
        assert_ne!(compared(Metric::LatencyAvg, &metric(119, 100), 1_200_000), less);
        assert_ne!(compared(Metric::Upload, &metric(120, 100), 800_000), less);
        assert_eq!(compared(Metric::Upload, &metric(119, 100), 800_000), less);
        assert_eq!(compared(Metric::Upload, &metric(80, 100), 1_200_000), less);
        assert_ne!(compared(Metric::Uptime, &metric(999_600, 999_500), 800_000), less);
        assert_eq!(compared(Metric::Uptime, &metric(999_599, 999_500), 800_000), less);
        assert_eq!(compared(Metric::Uptime, &metric(999_400, 999_500), 1_200_000), less);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn it_stays_between_0_and_100(start in 0_u32..=100_000, days in proptest::collection::vec(0_u8..6, 0..200)) {
            let mut value = start;
            for day in days {
                let day = match day {
                    0 => Day::NoData,
                    1 => Day::Missed,
                    2 => Day::Judged(Compliance::Exceeded),
                    3 => Day::Judged(Compliance::Met),
                    4 => Day::Judged(Compliance::NotMet),
                    _ => Day::Judged(Compliance::FarOff),
                };
                value = after_day(value, day).0;
                prop_assert!(value <= MAX);
            }
        }
    }
}
