//! Evidence: signed reports of oracles, and the buckets that they are summed into.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    ids::{AllocationId, OracleId, ReportId, UnitId},
    quantity::{Bytes, Timestamp},
};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// What an operation of a probe was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Write an object.
    Put,
    /// Read an object.
    Get,
    /// Read an object's metadata.
    Head,
    /// Remove an object.
    Delete,
}

/// Why an operation failed. Only `timeout`, `connection` and `server_error` count against the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// No answer in time.
    Timeout,
    /// No connection, or a broken one.
    Connection,
    /// A 5xx answer.
    ServerError,
    /// A 4xx answer: the prober's own fault.
    ClientError,
}

/// Counts of latencies in fixed log-linear bounds; the bounds are those of `market::sla`'s histogram.
/// Key: index of the bound; value: how many operations fell into it.
pub type Histogram = BTreeMap<u16, u64>;

/// What was seen of one kind of operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationStats {
    /// Operations tried.
    pub attempts: u64,
    /// Operations failed, by class.
    #[serde(default)]
    pub failures: BTreeMap<FailureClass, u64>,
    /// Sum of the latencies of the successful, in microseconds.
    #[serde(default)]
    pub latency_sum_us: u64,
    /// Latencies of the successful.
    #[serde(default, with = "super::json::by_index")]
    pub latency: Histogram,
    /// Bytes moved by transfers of 8 MiB and more.
    #[serde(default)]
    pub bulk_bytes: u64,
    /// Time that those transfers took, time to first byte excluded, in microseconds.
    #[serde(default)]
    pub bulk_us: u64,
}

/// Quality of service, per kind of operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qos {
    /// What was seen.
    pub operations: BTreeMap<OperationKind, OperationStats>,
}

/// The versioned, open set of report bodies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ReportBody {
    /// Quality of service of a unit.
    Qos(Qos),
    /// Usage of an allocation, cumulative.
    Usage {
        /// Bytes stored at the end of the period.
        stored: Bytes,
        /// Integral of the stored bytes over time.
        byte_seconds: String,
        /// Bytes sent.
        egress: Bytes,
    },
    /// Stored bytes read back and hashed.
    Integrity {
        /// Objects checked.
        checked: u64,
        /// Objects whose hash differed or that were gone.
        damaged: u64,
    },
    /// A market price seen elsewhere, in base units per GiB-month.
    Price {
        /// The price.
        per_gib_month: super::money::Amount,
    },
}

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceSubject {
    /// A unit.
    Unit(UnitId),
    /// An allocation.
    Allocation(AllocationId),
}

impl std::fmt::Display for EvidenceSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unit(id) => id.fmt(f),
            Self::Allocation(id) => id.fmt(f),
        }
    }
}

/// What an oracle signs. The period is `(from, to]` and lies inside one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportStatement {
    /// Version of this form: 1.
    pub version: u32,
    /// Who reports.
    pub oracle: OracleId,
    /// Which of its keys signs.
    pub key_id: String,
    /// What is reported on.
    pub subject: EvidenceSubject,
    /// Start of the period, excluded; microseconds since the epoch.
    pub from: Timestamp,
    /// End of the period, included.
    pub to: Timestamp,
    /// Grows with each report of the oracle.
    pub nonce: u64,
    /// What was seen.
    pub body: ReportBody,
}

/// A statement with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceReport {
    /// What is said.
    pub statement: ReportStatement,
    /// Ed25519 signature over the statement's canonical bytes, 64 bytes in hex.
    pub signature: String,
}

/// A report as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredReport {
    /// Its id.
    pub id: ReportId,
    /// `<oracle>/<subject>/<from>`: no two reports of one oracle and subject begin at the same instant.
    pub period_key: String,
    /// The report.
    pub report: EvidenceReport,
    /// Start of the bucket it lies in.
    pub bucket: Timestamp,
    /// When it came in.
    pub received_at: Timestamp,
}

impl Entity for StoredReport {
    const NAME: &'static str = "stored_report";
    const COLLECTION: Collection = schema::REPORTS;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}
