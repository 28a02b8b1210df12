//! Measurement and judgement: oracles, their evidence, verdicts and what is paid for a period.

pub mod evidence;
pub mod oracle;
pub mod period;
pub mod prober;
pub mod settings;
pub mod verdict;
pub mod windows;

pub use evidence::{BucketView, EvidenceService, Receipt};
pub use oracle::{NewOracle, OracleService};
pub use period::{PeriodSettlement, SlaCheck};
pub use settings::SlaSettings;
pub use verdict::{SlaService, VerdictProof};
pub use windows::CloseSlaWindows;
