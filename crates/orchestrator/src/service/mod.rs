//! The services: what the market does, in terms of the ports. A service computes a changeset and commits it once.

pub mod access;
pub mod allocation;
pub mod answers;
pub mod block;
pub mod canary;
pub mod damage;
pub mod job;
pub mod ledger;
pub mod market;
pub mod outbox;
pub mod page;
pub mod pricing;
pub mod proof;
pub mod provisioning;
pub mod scoring;
pub mod settlement;
pub mod sla;
pub mod work;
