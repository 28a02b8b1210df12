//! `[prober]`.

use super::section;
use crate::{
    config::{Config, HumanDuration, HumanSize, Problems},
    core::market::quantity::Bytes,
};

section! {
    /// The built-in oracle.
    Prober {
        /// Whether it runs.
        enabled: bool = true;
        /// Time between probes with small objects.
        interval: HumanDuration = HumanDuration::secs(60);
        /// Time between transfers for throughput.
        bulk_interval: HumanDuration = HumanDuration::secs(3_600);
        /// Size of those transfers; throughput is judged on 8 MiB and more only.
        bulk_size: HumanSize = HumanSize(Bytes(8 << 20));
        /// Longest wait for one operation.
        timeout: HumanDuration = HumanDuration::secs(10);
    }
}

impl Prober {
    pub(crate) fn validate(&self, config: &Config, problems: &mut Problems) {
        problems.require(self.interval.0.get() >= 50_000, "prober.interval", "must be at least 50ms");
        problems.require(
            !self.enabled || self.interval <= config.sla.bucket,
            "prober.interval",
            "must not be longer than sla.bucket, or buckets stay without evidence",
        );
        problems.require(
            (8 << 20..=1 << 30).contains(&self.bulk_size.0.get()),
            "prober.bulk_size",
            "must lie between 8MiB and 1GiB",
        );
        problems.require(self.timeout.0.get() >= 10_000, "prober.timeout", "must be at least 10ms");
    }
}
