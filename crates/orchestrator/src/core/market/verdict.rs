//! SLA verdicts: what was promised, what was seen, what follows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    block::Hash32,
    evidence::EvidenceSubject,
    ids::{AllocationId, UnitId, VerdictId},
    money::Amount,
    quantity::{Ppm, Timestamp},
    terms::DomainId,
};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// The outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictStatus {
    /// Every metric with evidence met its target.
    Met,
    /// At least one metric missed its target.
    Breached,
    /// Too little evidence to say; no penalty.
    Unknown,
}

/// A judged metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Mean latency, in microseconds, at most.
    LatencyAvg,
    /// 95th percentile of the latency, in microseconds, at most.
    LatencyP95,
    /// Upload throughput, in bytes per second, at least.
    Upload,
    /// Download throughput, in bytes per second, at least.
    Download,
    /// Mean uptime, in ppm, at least.
    Uptime,
    /// Failures over operations, in ppm, at most.
    ErrorRate,
}

/// One metric's judgement; the unit of the numbers is that of the [`Metric`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricResult {
    /// What was seen; `None` without evidence.
    pub observed: Option<u64>,
    /// What was promised.
    pub target: u64,
    /// Whether the promise was kept; `None` without evidence.
    pub met: Option<bool>,
}

/// Whose fault unknown or failing buckets were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribution {
    /// The provider's.
    Provider,
    /// The path's or the oracle's: most unrelated providers failed at once.
    Path,
    /// Ours: the orchestrator's own canary failed.
    Orchestrator,
    /// Nobody's: nothing failed.
    None,
}

/// A verdict over one window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlaVerdict {
    /// Its id.
    pub id: VerdictId,
    /// The domain whose block carries it.
    pub domain: DomainId,
    /// What was judged.
    pub subject: EvidenceSubject,
    /// The unit behind the subject.
    pub unit: UnitId,
    /// The allocation whose billing period it was; `None` for a rolling one.
    pub allocation: Option<AllocationId>,
    /// Unique per judged period: `<allocation>/<period>`, or the day for rolling ones.
    pub period_key: String,
    /// Number of the billing period, counted from 0.
    pub period: u32,
    /// First instant of the window.
    pub from: Timestamp,
    /// First instant after it.
    pub to: Timestamp,
    /// Per metric.
    pub metrics: BTreeMap<Metric, MetricResult>,
    /// Known buckets over all buckets of the window.
    pub coverage: Ppm,
    /// The outcome.
    pub status: VerdictStatus,
    /// Share of the period's payment that is credited.
    pub credit: Ppm,
    /// The payment that the credit was taken of.
    pub payment: Amount,
    /// The credit that was paid.
    pub credited: Amount,
    /// Whose fault it was.
    pub attribution: Attribution,
    /// Root over the buckets that it rests on.
    pub evidence_root: Hash32,
    /// Storage key of those buckets.
    pub evidence_key: String,
    /// How its record on the chain names it: 32 hex digits. Who checks a chain has nothing else to ask for it by. `None` in
    /// documents of before; the daemon fills it in when it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_subject: Option<String>,
    /// When it was given.
    pub created_at: Timestamp,
}

impl Entity for SlaVerdict {
    const NAME: &'static str = "sla_verdict";
    const COLLECTION: Collection = schema::VERDICTS;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}
