//! The domain of the storage market: entities, lifecycles, ledger rules and SLA mathematics, all pure.

pub mod account;
pub mod address;
pub mod allocation;
pub mod attestation;
pub mod billing;
pub mod block;
pub mod credential;
pub mod dispute;
pub mod event;
pub mod evidence;
pub mod ids;
pub mod json;
pub mod money;
pub mod offering;
pub mod party;
pub mod payout;
pub mod pricing;
pub mod quantity;
pub mod ranking;
pub mod reputation;
pub mod score;
pub mod sla;
pub mod state;
pub mod terms;
pub mod unit;
pub mod verdict;
