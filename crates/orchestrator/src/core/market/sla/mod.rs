//! The mathematics of evidence: canonical bytes, histogram, buckets, judgement. All integers, all floors, recomputable
//! bit for bit.

pub mod bucket;
pub mod canonical;
pub mod histogram;
pub mod judge;
pub mod root;
pub mod signature;

pub use bucket::{Bucket, Sight, bucket_start};
pub use canonical::statement_bytes;
pub use judge::{EvidenceSet, JudgeRules, Judgement, Window, credit_of, judge};
