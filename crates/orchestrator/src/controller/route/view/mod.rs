//! What requests and answers look like: times as RFC 3339, money as decimal strings, durations in milliseconds, sizes
//! in bytes. The stored documents stay free to change.

pub mod access;
pub mod allocation;
pub mod attestation;
pub mod block;
pub mod common;
pub mod job;
pub mod ledger;
pub mod offering;
pub mod party;
pub mod payout;
pub mod sla;
pub mod terms;
pub mod unit;
