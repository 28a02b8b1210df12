//! The Ethereum back end on a real chain of one's own (anvil), which stops, forgets, and changes its mind when a test says so.
//! `cargo xtask test` fetches it; `ORCHESTRATOR_TEST_EMBEDDED_ONLY=1` goes without.

mod anvil;
mod commands;
mod da;
mod demo;
mod deposits;
mod faults;
#[cfg(feature = "kms")]
mod kms;
mod market;
mod payouts;
mod pipeline;
mod rollup;
mod sender;
mod world;
