//! Evidence buckets: what one oracle saw of one subject in one span of time, summed.

use serde::{Deserialize, Serialize};

use crate::core::{
    client::{
        database::Entity,
        schema::{self, Collection},
    },
    market::{
        evidence::{EvidenceSubject, FailureClass, OperationStats, Qos, ReportBody, ReportStatement},
        ids::{OracleId, ProviderId},
        quantity::{Micros, Timestamp},
    },
};

/// A bucket. `start` is a multiple of the bucket length since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Text of the subject's id, which finds are by.
    pub subject: String,
    /// Who saw it.
    pub oracle: OracleId,
    /// First instant of the bucket.
    pub start: Timestamp,
    /// Periods `(from, to]` that reports covered, ascending, none overlapping.
    pub periods: Vec<(Timestamp, Timestamp)>,
    /// Sums over the reports.
    pub qos: Qos,
    /// The latest usage reading, if one was reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageReading>,
    /// Objects whose read-back was checked.
    #[serde(default)]
    pub checked: u64,
    /// Objects that came back damaged or not at all.
    #[serde(default)]
    pub damaged: u64,
}

/// A cumulative meter reading by an oracle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReading {
    /// When.
    pub at: Timestamp,
    /// Integral of the stored bytes over time, in decimal.
    #[serde(with = "crate::core::market::json::decimal")]
    pub byte_seconds: u128,
    /// Bytes sent.
    pub egress: u64,
}

impl Entity for Bucket {
    const NAME: &'static str = "evidence_bucket";
    const COLLECTION: Collection = schema::BUCKETS;
    fn document_id(&self) -> String {
        Self::id_of(&self.subject, self.start, self.oracle)
    }
}

/// What one oracle saw of all providers in one bucket: whether most failed at once is read from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// `sight:<oracle>`: keeps sights apart from buckets in the same collection.
    pub subject: String,
    /// Who saw it.
    pub oracle: OracleId,
    /// First instant of the bucket.
    pub start: Timestamp,
    /// Attempts and counted failures per provider, ascending by provider.
    pub providers: Vec<(ProviderId, u64, u64)>,
    /// Whether the orchestrator's own canary failed in it.
    #[serde(default)]
    pub canary_failed: bool,
}

impl Sight {
    /// The subject under which an oracle's sights are stored.
    #[must_use]
    pub fn subject_of(oracle: OracleId) -> String {
        format!("sight:{oracle}")
    }

    /// Nothing seen yet.
    #[must_use]
    pub fn empty(oracle: OracleId, start: Timestamp) -> Self {
        Self { subject: Self::subject_of(oracle), oracle, start, providers: Vec::new(), canary_failed: false }
    }

    /// Adds what a report says of a provider's unit.
    pub fn add(&mut self, provider: ProviderId, attempts: u64, failures: u64) {
        match self.providers.binary_search_by_key(&provider, |row| row.0) {
            Ok(at) => {
                if let Some(row) = self.providers.get_mut(at) {
                    row.1 = row.1.saturating_add(attempts);
                    row.2 = row.2.saturating_add(failures);
                }
            }
            Err(at) => self.providers.insert(at, (provider, attempts, failures)),
        }
    }
}

impl Entity for Sight {
    const NAME: &'static str = "oracle_sight";
    const COLLECTION: Collection = schema::BUCKETS;
    fn document_id(&self) -> String {
        Bucket::id_of(&self.subject, self.start, self.oracle)
    }
}

/// First instant of the bucket that holds `at`, for buckets `[start, start + length)`.
#[must_use]
pub fn bucket_start(at: Timestamp, length: Micros) -> Timestamp {
    let length = i64::try_from(length.get()).unwrap_or(i64::MAX).max(1);
    Timestamp(at.as_micros().div_euclid(length).saturating_mul(length))
}

/// Why a report can't be added to a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// Its period overlaps one that the bucket has.
    #[error("the period overlaps a report that is known")]
    Overlap,
    /// Its sums do not fit.
    #[error("the sums do not fit")]
    Overflow,
}

impl Bucket {
    /// The id of a bucket's document.
    #[must_use]
    pub fn id_of(subject: &str, start: Timestamp, oracle: OracleId) -> String {
        format!("{subject}/{:020}/{oracle}", start.as_micros())
    }

    /// A bucket without reports.
    #[must_use]
    pub fn empty(subject: EvidenceSubject, oracle: OracleId, start: Timestamp) -> Self {
        Self {
            subject: subject.to_string(),
            oracle,
            start,
            periods: Vec::new(),
            qos: Qos::default(),
            usage: None,
            checked: 0,
            damaged: 0,
        }
    }

    /// Adds a report's sums. The order in which reports are added does not matter.
    ///
    /// # Errors
    /// [`BucketError`]; the bucket is then as it was.
    pub fn add(&mut self, statement: &ReportStatement) -> Result<(), BucketError> {
        let period = (statement.from, statement.to);
        let at = self.periods.partition_point(|p| p.0 < period.0);
        let overlaps = |p: &(Timestamp, Timestamp)| p.0 < period.1 && period.0 < p.1;
        let before = at.checked_sub(1).and_then(|i| self.periods.get(i));
        if before.is_some_and(overlaps) || self.periods.get(at).is_some_and(overlaps) {
            return Err(BucketError::Overlap);
        }
        match &statement.body {
            ReportBody::Qos(qos) => self.qos = merge(&self.qos, qos).ok_or(BucketError::Overflow)?,
            ReportBody::Usage { byte_seconds, egress, .. } => {
                let byte_seconds = byte_seconds.parse().map_err(|_| BucketError::Overflow)?;
                let reading = UsageReading { at: statement.to, byte_seconds, egress: egress.get() };
                if self.usage.is_none_or(|known| known.at < reading.at) {
                    self.usage = Some(reading);
                }
            }
            ReportBody::Integrity { checked, damaged } => {
                let checked = self.checked.checked_add(*checked).ok_or(BucketError::Overflow)?;
                self.damaged = self.damaged.checked_add(*damaged).ok_or(BucketError::Overflow)?;
                self.checked = checked;
            }
            ReportBody::Price { .. } => {}
        }
        self.periods.insert(at, period);
        Ok(())
    }

    /// Operations tried and counted failures, over all kinds.
    #[must_use]
    pub fn attempts_and_failures(&self) -> (u64, u64) {
        totals(&self.qos)
    }
}

/// Operations tried and counted failures of a report or bucket, over all kinds.
#[must_use]
pub fn totals(qos: &Qos) -> (u64, u64) {
    qos.operations.values().fold((0, 0), |(attempts, failures), stats| {
        (attempts.saturating_add(stats.attempts), failures.saturating_add(counted_failures(stats)))
    })
}

/// Failures that count against the provider: time-outs, broken connections and 5xx.
#[must_use]
pub fn counted_failures(stats: &OperationStats) -> u64 {
    stats
        .failures
        .iter()
        .filter(|(class, _)| !matches!(class, FailureClass::ClientError))
        .fold(0, |sum, (_, count)| sum.saturating_add(*count))
}

/// The sums of two observations; `None` when a sum does not fit.
#[must_use]
pub fn merge(a: &Qos, b: &Qos) -> Option<Qos> {
    let mut out = a.clone();
    for (kind, stats) in &b.operations {
        let into = out.operations.entry(*kind).or_default();
        into.attempts = into.attempts.checked_add(stats.attempts)?;
        into.latency_sum_us = into.latency_sum_us.checked_add(stats.latency_sum_us)?;
        into.bulk_bytes = into.bulk_bytes.checked_add(stats.bulk_bytes)?;
        into.bulk_us = into.bulk_us.checked_add(stats.bulk_us)?;
        for (class, count) in &stats.failures {
            let sum = into.failures.entry(*class).or_default();
            *sum = sum.checked_add(*count)?;
        }
        for (index, count) in &stats.latency {
            let sum = into.latency.entry(*index).or_default();
            *sum = sum.checked_add(*count)?;
        }
    }
    Some(out)
}
