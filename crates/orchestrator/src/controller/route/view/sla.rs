//! Evidence and verdicts.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::common::{Millis, Money, Time, word};
use crate::{
    core::market::{
        quantity::Micros,
        verdict::{MetricResult, SlaVerdict},
    },
    service::sla::{BucketView, Receipt, VerdictProof},
};

/// What an accepted report got.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReceiptView {
    /// The report's id.
    pub id: String,
    /// Who reported.
    pub oracle: String,
    /// On what.
    pub subject: String,
    /// First instant of the bucket that it was added to.
    pub bucket: Time,
}

impl From<Receipt> for ReceiptView {
    fn from(receipt: Receipt) -> Self {
        Self {
            id: receipt.id.to_string(),
            oracle: receipt.oracle.to_string(),
            subject: receipt.subject.to_string(),
            bucket: receipt.bucket.into(),
        }
    }
}

/// What one oracle saw of a unit in one bucket.
#[derive(Debug, Serialize, ToSchema)]
pub struct QosView {
    /// Who saw it.
    pub oracle: String,
    /// First instant.
    pub start: Time,
    /// Operations tried.
    pub attempts: u64,
    /// Operations that failed by time-out, broken connection or 5xx.
    pub failures: u64,
    /// Mean latency of the successful.
    pub latency_avg_ms: Option<Millis>,
    /// 95th percentile of it, upper bound.
    pub latency_p95_ms: Option<Millis>,
    /// Upload, where bulk transfers were made.
    pub upload_bytes_per_s: Option<u64>,
    /// Download, likewise.
    pub download_bytes_per_s: Option<u64>,
}

impl From<BucketView> for QosView {
    fn from(bucket: BucketView) -> Self {
        Self {
            oracle: bucket.oracle.to_string(),
            start: bucket.start.into(),
            attempts: bucket.attempts,
            failures: bucket.failures,
            latency_avg_ms: bucket.latency_avg_us.map(|us| Millis(Micros(us))),
            latency_p95_ms: bucket.latency_p95_us.map(|us| Millis(Micros(us))),
            upload_bytes_per_s: bucket.upload_bytes_per_s,
            download_bytes_per_s: bucket.download_bytes_per_s,
        }
    }
}

/// One metric's judgement. Latencies are in microseconds here, as they are committed to; throughput in bytes per
/// second, uptime and error rate in ppm.
#[derive(Debug, Serialize, ToSchema)]
pub struct MetricView {
    /// What was seen; `null` without evidence.
    pub observed: Option<u64>,
    /// What was promised.
    pub target: u64,
    /// Whether the promise was kept.
    pub met: Option<bool>,
}

impl From<MetricResult> for MetricView {
    fn from(result: MetricResult) -> Self {
        Self { observed: result.observed, target: result.target, met: result.met }
    }
}

/// A verdict over one window.
#[derive(Debug, Serialize, ToSchema)]
pub struct VerdictView {
    /// Its id.
    pub id: String,
    /// The domain whose block carries it.
    pub domain: String,
    /// What was judged.
    pub subject: String,
    /// The unit behind the subject.
    pub unit: String,
    /// The allocation whose billing period it was.
    pub allocation: Option<String>,
    /// Number of the billing period, counted from 0.
    pub period: u32,
    /// First instant of the window.
    pub from: Time,
    /// First instant after it.
    pub to: Time,
    /// Per metric: `latency_avg`, `latency_p95`, `upload`, `download`, `uptime`, `error_rate`.
    pub metrics: BTreeMap<String, MetricView>,
    /// Known buckets over all, in ppm.
    pub coverage_ppm: u32,
    /// `met`, `breached` or `unknown`.
    #[schema(example = "met")]
    pub status: String,
    /// Share of the payment that is credited, in ppm.
    pub credit_ppm: u32,
    /// The period's payment.
    pub payment: Money,
    /// The credit that was paid.
    pub credited: Money,
    /// Whose fault it was: `provider`, `path`, `orchestrator` or `none`.
    pub attribution: String,
    /// Root over the evidence.
    pub evidence_root: String,
    /// When it was given.
    pub created_at: Time,
}

impl From<SlaVerdict> for VerdictView {
    fn from(verdict: SlaVerdict) -> Self {
        Self {
            id: verdict.id.to_string(),
            domain: verdict.domain.0,
            subject: verdict.subject.to_string(),
            unit: verdict.unit.to_string(),
            allocation: verdict.allocation.map(|id| id.to_string()),
            period: verdict.period,
            from: verdict.from.into(),
            to: verdict.to.into(),
            metrics: verdict
                .metrics
                .iter()
                .map(|(metric, result)| (word(metric), (*result).into()))
                .collect(),
            coverage_ppm: verdict.coverage.get(),
            status: word(&verdict.status),
            credit_ppm: verdict.credit.get(),
            payment: verdict.payment.into(),
            credited: verdict.credited.into(),
            attribution: word(&verdict.attribution),
            evidence_root: verdict.evidence_root.to_string(),
            created_at: verdict.created_at.into(),
        }
    }
}

/// A verdict with all that anyone needs to judge again.
#[derive(Debug, Serialize, ToSchema)]
pub struct VerdictProofView {
    /// The verdict.
    pub verdict: VerdictView,
    /// Terms, rules and evidence in their canonical form, as they were committed to: integers, microseconds.
    #[schema(value_type = Object)]
    pub file: serde_json::Value,
    /// What judging the file again gives.
    #[schema(value_type = Object)]
    pub recomputed: serde_json::Value,
    /// Root over the file's evidence.
    pub evidence_root: String,
    /// Whether the root and the outcome are those of the verdict.
    pub consistent: bool,
}

impl From<VerdictProof> for VerdictProofView {
    fn from(proof: VerdictProof) -> Self {
        let verdict = &proof.verdict;
        let consistent = proof.evidence_root == verdict.evidence_root
            && proof.recomputed.status == verdict.status
            && proof.recomputed.metrics == verdict.metrics;
        Self {
            consistent,
            file: serde_json::to_value(&proof.file).unwrap_or_default(),
            recomputed: serde_json::to_value(&proof.recomputed).unwrap_or_default(),
            evidence_root: proof.evidence_root.to_string(),
            verdict: proof.verdict.into(),
        }
    }
}
