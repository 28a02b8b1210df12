//! Tests that cross modules: contract suites of the ports, the HTTP API, the workers, stock clients.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that calls them"
)]

mod api;
mod architecture;
mod clients;
#[cfg(all(feature = "mongodb", feature = "s3", feature = "sqs"))]
mod cluster;
mod contract;
mod daemon;
#[cfg(feature = "ethereum")]
mod ethereum;
mod golden;
mod jobs;
mod market;
mod promises;
#[cfg(all(feature = "eventbridge", feature = "s3", feature = "sns", feature = "sqs"))]
mod resources;
#[cfg(any(feature = "kafka", feature = "redis"))]
mod servers;
mod sla;
mod tools;
