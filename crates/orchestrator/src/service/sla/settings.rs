//! What measurement and judgement can be tuned with. The defaults are the domain's.

use crate::{
    core::market::{
        dispute::TOLERANCE,
        quantity::{BasisPoints, Micros, Ppm},
        sla::JudgeRules,
    },
    service::ledger::dispute::DisputeSettings,
};

/// The bucket that holds evidence, unless configured otherwise.
pub const EVIDENCE_BUCKET: &str = "evidence";

/// Settings of evidence, verdicts and billing periods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlaSettings {
    /// How windows are judged; the bucket length is in it.
    pub rules: JudgeRules,
    /// Length of a billing period, counted from an allocation's activation.
    pub billing_period: Micros,
    /// How late a report may come in; a period is judged only that long after its end, so that no bucket changes after
    /// it was judged.
    pub lateness: Micros,
    /// Length of the rolling window that reputation looks at: a day.
    pub reputation_day: Micros,
    /// Difference between the provider's meter and an oracle's above which a dispute is opened.
    pub metering_tolerance: Ppm,
    /// The platform's fee.
    pub fee: BasisPoints,
    /// Storage bucket of the evidence.
    pub evidence_bucket: String,
    /// How disputes over metering are dealt with.
    pub disputes: DisputeSettings,
    /// What an outvoted bucket costs an oracle's standing.
    pub outvoted_penalty: Ppm,
}

impl Default for SlaSettings {
    fn default() -> Self {
        Self {
            rules: JudgeRules::default(),
            billing_period: Micros::from_days(30),
            lateness: Micros::from_secs(600),
            reputation_day: Micros::from_days(1),
            metering_tolerance: TOLERANCE,
            fee: BasisPoints(200),
            evidence_bucket: EVIDENCE_BUCKET.into(),
            disputes: DisputeSettings::default(),
            outvoted_penalty: Ppm(1_000),
        }
    }
}
