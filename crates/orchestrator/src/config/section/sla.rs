//! `[sla]`.

use super::section;
use crate::config::{HumanDuration, Problems};

section! {
    /// Evidence and verdicts.
    Sla {
        /// Length of an evidence bucket.
        bucket: HumanDuration = HumanDuration::secs(300);
        /// Length of a billing period, from activation.
        billing_period: HumanDuration = HumanDuration::days(30);
        /// Length of the rolling window for display and reputation.
        rolling_window: HumanDuration = HumanDuration::days(30);
        /// Oracles that must report on a bucket for it to be known.
        quorum: u32 = 1;
        /// How long after a period's end its evidence may still come in before it is judged.
        settle_delay: HumanDuration = HumanDuration::secs(600);
        /// Usage reports that differ by more than this open a dispute, in parts per million.
        usage_tolerance_ppm: u32 = 50_000;
    }
}

impl Sla {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        let (bucket, period) = (self.bucket.0.get(), self.billing_period.0.get());
        problems.require(bucket >= 100_000, "sla.bucket", "must be at least 100ms");
        problems.require(
            bucket > 0 && period >= bucket,
            "sla.billing_period",
            "must be at least one sla.bucket long",
        );
        problems.require(
            bucket > 0 && period / bucket.max(1) <= 100_000,
            "sla.bucket",
            "makes more than 100000 buckets of one sla.billing_period; make it longer",
        );
        problems.require(self.quorum >= 1, "sla.quorum", "must be at least 1");
    }
}
