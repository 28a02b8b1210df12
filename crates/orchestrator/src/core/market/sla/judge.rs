//! The judgement of a window: evidence in, verdict out. Order of the evidence does not matter.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    bucket::{Bucket, Sight, bucket_start, merge},
    canonical::NotCanonical,
    histogram, root,
};
use crate::core::market::{
    block::Hash32,
    evidence::{OperationKind, Qos},
    ids::{OracleId, ProviderId},
    quantity::{Micros, Ppm, Timestamp},
    terms::{PenaltyPolicy, SlaTerms},
    unit::MaintenanceWindow,
    verdict::{Attribution, Metric, MetricResult, VerdictStatus},
};

/// The first line of the canonical bytes of a piece of evidence.
pub const EVIDENCE_DOMAIN: &str = "orchestrator.evidence_leaf.v1";

/// A window `[from, to)`; a bucket belongs to the window that its first instant lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// First instant.
    pub from: Timestamp,
    /// First instant after it.
    pub to: Timestamp,
}

/// The rules that a judgement follows; stored with the evidence, so that anyone can follow them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeRules {
    /// Length of a bucket.
    pub bucket: Micros,
    /// How many oracles must have seen a bucket for it to be known.
    pub quorum: u32,
    /// How far from the median uptime an oracle's bucket may lie before it counts as outvoted (with three oracles or more).
    pub outvote: Ppm,
    /// How long ahead maintenance must be announced to be left out.
    pub maintenance_notice: Micros,
    /// How much maintenance is left out per month of 30 days, counted from the epoch.
    pub maintenance_cap: Micros,
    /// When more than this share of unrelated providers fail at once for an oracle, the fault is the path's.
    pub path_share: Ppm,
    /// Fewer unrelated providers than this prove nothing.
    pub path_min_providers: u32,
    /// A provider fails in a bucket when at least this share of its operations did.
    pub provider_down: Ppm,
}

impl Default for JudgeRules {
    fn default() -> Self {
        Self {
            bucket: Micros::from_secs(300),
            quorum: 1,
            outvote: Ppm(200_000),
            maintenance_notice: Micros::from_secs(86_400),
            maintenance_cap: Micros::from_secs(8 * 3_600),
            path_share: Ppm(500_000),
            path_min_providers: 3,
            provider_down: Ppm(500_000),
        }
    }
}

/// Everything that a judgement rests on, as it is stored under the evidence root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceSet {
    /// Buckets of the unit.
    pub buckets: Vec<Bucket>,
    /// What the same oracles saw of all providers at the same times.
    pub sights: Vec<Sight>,
    /// Announced maintenance of the unit.
    pub maintenance: Vec<MaintenanceWindow>,
}

/// What a window came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// Per metric that was promised.
    pub metrics: BTreeMap<Metric, MetricResult>,
    /// Buckets that count: those of the window without announced maintenance.
    pub total: u64,
    /// Those of them that enough oracles saw.
    pub known: u64,
    /// Known over total, floored.
    pub coverage: Ppm,
    /// The outcome.
    pub status: VerdictStatus,
    /// Whose fault failing or unknown buckets were.
    pub attribution: Attribution,
    /// Oracle buckets that the median outvoted.
    pub outvoted: Vec<(OracleId, Timestamp)>,
    /// Root over the evidence.
    pub evidence_root: Hash32,
}

impl EvidenceSet {
    /// In canonical order, whatever order it came in.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.buckets.sort_by(|a, b| (a.start, a.oracle, &a.subject).cmp(&(b.start, b.oracle, &b.subject)));
        self.sights.sort_by_key(|s| (s.start, s.oracle));
        self.maintenance.sort_by_key(|m| (m.from, m.to, m.announced_at));
        self
    }

    /// The evidence root of a sorted set.
    ///
    /// # Errors
    /// Never for these types, which hold integers and texts only.
    pub fn root(&self) -> Result<Hash32, NotCanonical> {
        let mut leaves = Vec::with_capacity(self.buckets.len() + self.sights.len() + self.maintenance.len());
        for bucket in &self.buckets {
            leaves.push(root::leaf(EVIDENCE_DOMAIN, bucket)?);
        }
        for sight in &self.sights {
            leaves.push(root::leaf(EVIDENCE_DOMAIN, sight)?);
        }
        for window in &self.maintenance {
            leaves.push(root::leaf(EVIDENCE_DOMAIN, window)?);
        }
        Ok(root::root(&leaves))
    }
}

/// Judges a window of one unit of `provider`.
///
/// # Errors
/// [`NotCanonical`] never happens for these types.
pub fn judge(
    window: Window,
    evidence: &EvidenceSet,
    terms: &SlaTerms,
    rules: &JudgeRules,
    provider: ProviderId,
) -> Result<Judgement, NotCanonical> {
    let evidence = evidence.clone().sorted();
    let excluded = excluded_spans(&evidence.maintenance, rules);
    let starts: BTreeSet<Timestamp> = starts(window, rules.bucket)
        .filter(|start| !excluded.iter().any(|e| start.0 < e.1.0 && e.0.0 < start.plus(rules.bucket).0))
        .collect();
    let seen = Seen::gather(&evidence, &starts, rules, provider);
    let total = u64::try_from(starts.len()).unwrap_or(u64::MAX);
    let known = u64::try_from(seen.uptimes.len()).unwrap_or(0);
    let coverage = ratio(known, total);
    let metrics = seen.metrics(terms, rules);
    let breached = metrics.values().any(|m| m.met == Some(false));
    let status = if total == 0 || known == 0 || coverage < terms.min_coverage {
        VerdictStatus::Unknown
    } else if breached {
        VerdictStatus::Breached
    } else {
        VerdictStatus::Met
    };
    let attribution = if status == VerdictStatus::Breached {
        Attribution::Provider
    } else if seen.canary {
        Attribution::Orchestrator
    } else if seen.path {
        Attribution::Path
    } else {
        Attribution::None
    };
    let evidence_root = evidence.root()?;
    Ok(Judgement {
        metrics,
        total,
        known,
        coverage,
        status,
        attribution,
        outvoted: seen.outvoted,
        evidence_root,
    })
}

/// The share of a period's payment that is credited. `reputation` is in thousandths of a point.
#[must_use]
pub fn credit_of(judgement: &Judgement, terms: &SlaTerms, reputation: u32) -> Ppm {
    if judgement.status != VerdictStatus::Breached {
        return Ppm(0);
    }
    let credit = match terms.penalty {
        PenaltyPolicy::Withhold => 1_000_000,
        PenaltyPolicy::Reputation => 1_000_000 - reputation.min(100_000) * 10,
        PenaltyPolicy::Tiered => tier_credit(judgement, terms),
    };
    Ppm(credit.min(1_000_000))
}

fn tier_credit(judgement: &Judgement, terms: &SlaTerms) -> u32 {
    let tiers = terms.effective_tiers();
    let lowest = tiers.iter().map(|t| t.credit_ppm.get()).min().unwrap_or(0);
    let uptime = judgement.metrics.get(&Metric::Uptime);
    match uptime.and_then(|m| m.observed.map(|o| (o, m.met))) {
        Some((observed, Some(false))) => tiers
            .iter()
            .filter(|t| observed < u64::from(t.uptime_below_ppm.get()))
            .map(|t| t.credit_ppm.get())
            .max()
            .unwrap_or(lowest),
        _ => lowest,
    }
}

/// `part / whole` in parts per million, floored, at most the whole; zero of nothing.
fn ratio(part: u64, whole: u64) -> Ppm {
    let ppm = u128::from(part.min(whole)) * 1_000_000 / u128::from(whole.max(1));
    Ppm(u32::try_from(ppm).unwrap_or(1_000_000))
}

/// The first instants of the window's buckets. At most a million: longer windows need longer buckets.
fn starts(window: Window, bucket: Micros) -> impl Iterator<Item = Timestamp> {
    let length = bucket.get().max(1);
    let first = bucket_start(window.from, bucket);
    let first = if first < window.from { first.plus(Micros(length)) } else { first };
    (0..1_000_000_u64)
        .map(move |i| first.plus(Micros(i.saturating_mul(length))))
        .take_while(move |start| *start < window.to)
}

/// The spans of maintenance that are left out: announced in time, overlaps merged, capped per month of 30 days.
fn excluded_spans(maintenance: &[MaintenanceWindow], rules: &JudgeRules) -> Vec<(Timestamp, Timestamp)> {
    let month = Micros::from_days(30);
    let mut used: BTreeMap<Timestamp, u64> = BTreeMap::new();
    let mut spans = Vec::new();
    let mut done = Timestamp(i64::MIN);
    for window in maintenance {
        if window.announced_at.plus(rules.maintenance_notice) > window.from {
            continue;
        }
        let mut from = window.from.max(done);
        // A window may reach over the ends of months; each month has a cap of its own. The bound keeps an absurdly
        // long window from costing more than it can exclude.
        for _ in 0..100 {
            if from >= window.to {
                break;
            }
            let month_start = bucket_start(from, month);
            let end = window.to.min(month_start.plus(month));
            let spent = used.entry(month_start).or_default();
            let length = end.since(from).get().min(rules.maintenance_cap.get().saturating_sub(*spent));
            if length > 0 {
                *spent += length;
                spans.push((from, from.plus(Micros(length))));
            }
            from = end;
        }
        done = done.max(window.to);
    }
    spans
}

/// What is left of the evidence once excused buckets are gone.
struct Seen {
    /// Median uptime of each known bucket, in ppm.
    uptimes: Vec<u64>,
    /// Sums per oracle over the known buckets.
    sums: BTreeMap<OracleId, Qos>,
    outvoted: Vec<(OracleId, Timestamp)>,
    canary: bool,
    path: bool,
}

impl Seen {
    fn gather(
        evidence: &EvidenceSet,
        starts: &BTreeSet<Timestamp>,
        rules: &JudgeRules,
        provider: ProviderId,
    ) -> Self {
        let canaries: BTreeSet<Timestamp> =
            evidence.sights.iter().filter(|s| s.canary_failed).map(|s| s.start).collect();
        let paths: BTreeSet<(Timestamp, OracleId)> = evidence
            .sights
            .iter()
            .filter(|s| path_fault(s, rules, provider))
            .map(|s| (s.start, s.oracle))
            .collect();
        let mut by_start: BTreeMap<Timestamp, Vec<(OracleId, u64, &Qos)>> = BTreeMap::new();
        let (mut canary, mut path) = (false, false);
        for bucket in evidence.buckets.iter().filter(|b| starts.contains(&b.start)) {
            let (attempts, failures) = bucket.attempts_and_failures();
            if attempts == 0 {
                continue;
            }
            if canaries.contains(&bucket.start) {
                canary = true;
                continue;
            }
            if paths.contains(&(bucket.start, bucket.oracle)) {
                path = true;
                continue;
            }
            let uptime = u64::from(ratio(attempts.saturating_sub(failures), attempts).get());
            by_start.entry(bucket.start).or_default().push((bucket.oracle, uptime, &bucket.qos));
        }
        let mut seen =
            Self { uptimes: Vec::new(), sums: BTreeMap::new(), outvoted: Vec::new(), canary, path };
        for (start, rows) in by_start {
            if u32::try_from(rows.len()).unwrap_or(u32::MAX) < rules.quorum.max(1) {
                continue;
            }
            let Some(median) = lower_median(rows.iter().map(|r| r.1).collect()) else { continue };
            seen.uptimes.push(median);
            for (oracle, uptime, qos) in &rows {
                if rows.len() >= 3 && uptime.abs_diff(median) > u64::from(rules.outvote.get()) {
                    seen.outvoted.push((*oracle, start));
                    continue;
                }
                let sum = seen.sums.entry(*oracle).or_default();
                // Sums that do not fit are impossible within the limits of ingestion; the bucket is then left out.
                if let Some(merged) = merge(sum, qos) {
                    *sum = merged;
                }
            }
        }
        seen
    }

    fn metrics(&self, terms: &SlaTerms, rules: &JudgeRules) -> BTreeMap<Metric, MetricResult> {
        let median = |of: &dyn Fn(&Qos) -> Option<u64>| {
            let values: Vec<u64> = self.sums.values().filter_map(of).collect();
            let enough = u32::try_from(values.len()).unwrap_or(u32::MAX) >= rules.quorum.max(1);
            if enough { lower_median(values) } else { None }
        };
        let at_most = |observed: Option<u64>, target: u64| MetricResult {
            observed,
            target,
            met: observed.map(|o| o <= target),
        };
        let at_least = |observed: Option<u64>, target: u64| MetricResult {
            observed,
            target,
            met: observed.map(|o| o >= target),
        };
        let sum = self.uptimes.iter().map(|u| u128::from(*u)).sum::<u128>();
        let uptime = u128::try_from(self.uptimes.len())
            .ok()
            .and_then(|n| sum.checked_div(n))
            .and_then(|mean| u64::try_from(mean).ok());
        let mut metrics = BTreeMap::from([
            (Metric::Uptime, at_least(uptime, u64::from(terms.uptime.get()))),
            (Metric::ErrorRate, at_most(median(&error_rate), u64::from(terms.error_rate.get()))),
            (Metric::LatencyAvg, at_most(median(&latency_mean), terms.latency_avg.get())),
            (
                Metric::Upload,
                at_least(median(&|q| throughput(q, OperationKind::Put)), terms.upload_bytes_per_s),
            ),
            (
                Metric::Download,
                at_least(median(&|q| throughput(q, OperationKind::Get)), terms.download_bytes_per_s),
            ),
        ]);
        if let Some(target) = terms.latency_p95 {
            metrics.insert(Metric::LatencyP95, at_most(median(&latency_p95), target.get()));
        }
        metrics
    }
}

/// Whether more than the configured share of providers other than `provider` failed for this oracle in this bucket.
fn path_fault(sight: &Sight, rules: &JudgeRules, provider: ProviderId) -> bool {
    let others = sight.providers.iter().filter(|row| row.0 != provider && row.1 > 0);
    let (mut all, mut down) = (0_u64, 0_u64);
    for (_, attempts, failures) in others {
        all += 1;
        down += u64::from(ratio(*failures, *attempts) >= rules.provider_down);
    }
    all >= u64::from(rules.path_min_providers.max(1))
        && down * 1_000_000 > all * u64::from(rules.path_share.get())
}

fn lower_median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    let middle = values.len().checked_sub(1)? / 2;
    values.get(middle).copied()
}

fn error_rate(qos: &Qos) -> Option<u64> {
    let (attempts, failures) = super::bucket::totals(qos);
    (attempts > 0).then(|| u64::from(ratio(failures, attempts).get()))
}

/// Mean latency of the successful operations, in microseconds, floored.
#[must_use]
pub fn latency_mean(qos: &Qos) -> Option<u64> {
    let (sum, count) = qos.operations.values().fold((0_u128, 0_u128), |(sum, n), stats| {
        (sum + u128::from(stats.latency_sum_us), n + u128::from(histogram::count(&stats.latency)))
    });
    sum.checked_div(count).and_then(|mean| u64::try_from(mean).ok())
}

/// Upper bound of the 95th percentile over all kinds, in microseconds.
#[must_use]
pub fn latency_p95(qos: &Qos) -> Option<u64> {
    let mut all = crate::core::market::evidence::Histogram::new();
    for stats in qos.operations.values() {
        for (index, n) in &stats.latency {
            let sum = all.entry(*index).or_default();
            *sum = sum.saturating_add(*n);
        }
    }
    histogram::p95(&all)
}

/// Bytes per second of the bulk transfers of one kind.
#[must_use]
pub fn throughput(qos: &Qos, kind: OperationKind) -> Option<u64> {
    let stats = qos.operations.get(&kind).filter(|s| s.bulk_bytes > 0 && s.bulk_us > 0)?;
    u64::try_from(u128::from(stats.bulk_bytes) * 1_000_000 / u128::from(stats.bulk_us)).ok()
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
