//! `[dependencies]`.

use super::section;
use crate::{
    config::{HumanDuration, Problems},
    core::breaker::BreakerSettings,
};

section! {
    /// How dependencies outside (providers, settlement layer, data availability, storage, SNS) are dealt with when they fail.
    Dependencies {
        /// Retries that a dependency is worth, in percent of the calls that it answers; beyond that it is left alone.
        retry_percent: u32 = 20;
        /// Retries a minute that are always allowed.
        retry_floor: u32 = 10;
        /// Failures in a row after which it is left alone.
        trip_after: u32 = 5;
        /// How long it is left alone at first; twice as long after each failed probe.
        open_min: HumanDuration = HumanDuration::secs(1);
        /// The longest that it is left alone between two probes.
        open_max: HumanDuration = HumanDuration::secs(30);
        /// Calls a second that are let through after an outage even when there were fewer before it.
        min_rate: u32 = 5;
        /// The longest that a job is told to wait for its turn; then it asks again.
        max_wait: HumanDuration = HumanDuration::secs(600);
        /// How often our own canary is asked: our own endpoint, and whether most providers fail at once.
        canary_interval: HumanDuration = HumanDuration::secs(5);
        /// How long it must have been well before anything is judged or torn down again.
        canary_calm: HumanDuration = HumanDuration::secs(60);
    }
}

impl Dependencies {
    /// The same, as breakers take it.
    #[must_use]
    pub fn breaker(&self) -> BreakerSettings {
        BreakerSettings {
            retry_percent: self.retry_percent,
            retry_floor: self.retry_floor,
            trip_after: self.trip_after,
            open_min: self.open_min.0,
            open_max: self.open_max.0,
            min_rate: self.min_rate,
            max_wait: self.max_wait.0,
            ..BreakerSettings::default()
        }
    }

    pub(crate) fn validate(&self, problems: &mut Problems) {
        problems.require(
            self.canary_interval.0.get() >= 100_000,
            "dependencies.canary_interval",
            "must be at least 100ms",
        );
        let rule = (1..=100).contains(&self.retry_percent);
        problems.require(rule, "dependencies.retry_percent", "must lie between 1 and 100");
        let rule = (1..=100_000).contains(&self.retry_floor);
        problems.require(rule, "dependencies.retry_floor", "must lie between 1 and 100000");
        problems.require(
            (1..=1_000).contains(&self.trip_after),
            "dependencies.trip_after",
            "must lie between 1 and 1000",
        );
        problems.require(
            self.open_min.0.get() >= 10_000 && self.open_min <= self.open_max,
            "dependencies.open_min",
            "must be at least 10ms and not longer than dependencies.open_max",
        );
        problems.require(
            (1..=100_000).contains(&self.min_rate),
            "dependencies.min_rate",
            "must lie between 1 and 100000",
        );
        problems.require(self.max_wait.0.get() >= 1_000_000, "dependencies.max_wait", "must be at least 1s");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::market::quantity::Micros;

    #[test]
    fn each_limit_is_checked() {
        let faults = |change: fn(&mut Dependencies)| {
            let mut section = Dependencies::default();
            change(&mut section);
            let mut problems = Problems::default();
            section.validate(&mut problems);
            problems.0.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert!(faults(|_| {}).is_empty());
        assert_eq!(faults(|one| one.retry_percent = 0), ["dependencies.retry_percent"]);
        assert_eq!(faults(|one| one.retry_percent = 101), ["dependencies.retry_percent"]);
        assert_eq!(faults(|one| one.retry_floor = 0), ["dependencies.retry_floor"]);
        assert_eq!(faults(|one| one.trip_after = 0), ["dependencies.trip_after"]);
        assert_eq!(faults(|one| one.open_min = HumanDuration::secs(31)), ["dependencies.open_min"]);
        assert_eq!(faults(|one| one.min_rate = 0), ["dependencies.min_rate"]);
        assert_eq!(faults(|one| one.max_wait = HumanDuration(Micros(1))), ["dependencies.max_wait"]);
        assert_eq!(
            faults(|one| one.canary_interval = HumanDuration(Micros(1))),
            ["dependencies.canary_interval"]
        );
    }
}
