//! Measurement and judgement: oracles, their evidence, verdicts and what is paid for a period.

pub mod bundle;
pub mod check;
pub mod evidence;
mod meter;
pub mod oracle;
pub mod period;
pub mod prober;
pub mod settings;
pub mod verdict;
pub mod windows;

pub use check::SlaCheck;
pub use evidence::{BucketView, EvidenceService, Receipt};
pub use oracle::{NewOracle, OracleService};
pub use period::PeriodSettlement;
pub use settings::{EVIDENCE_BUCKET, SlaSettings};
pub use verdict::{SlaService, VerdictProof};
pub use windows::CloseSlaWindows;
