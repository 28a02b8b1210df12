//! What is fuzzed: one function for each group of parsers of outside bytes. Each takes any bytes, asserts laws (what parses
//! is written and read back as the same; what is refused leaves nothing behind; what was not proved is not believed) and
//! panics when one is broken.
//!
//! libFuzzer calls them from `fuzz/`, a workspace of its own; the tests of this crate call them with the committed seeds,
//! with every input that was ever found, and with some thousands of mutations from a fixed seed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a law that does not hold stops the run, which is how a fuzzer learns of it"
)]

mod answer;
mod api;
mod bundle;
mod changeset;
mod config;
mod document;
mod evidence;
pub mod files;
mod market;
pub mod mutate;
mod proof;
mod provider_admin;
mod provider_s3;
mod queue;
mod records;
mod request;
mod scalar;
mod seal;
pub mod seeds;
mod sign;
mod storage;

pub use answer::answer;
pub use api::api;
pub use bundle::bundle;
pub use changeset::changeset;
pub use config::config;
pub use document::document;
pub use evidence::evidence;
pub use proof::{proof, proof_mutated};
pub use provider_admin::provider_admin;
pub use provider_s3::provider_s3;
pub use queue::queue;
pub use records::records;
pub use scalar::scalar;
pub use seal::seal;

/// One group of parsers.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of the function, of the libFuzzer program, and of the directories of its inputs.
    pub name: &'static str,
    /// What is run.
    pub run: fn(&[u8]),
    /// Inputs are no longer than this.
    pub max_len: usize,
    /// How many mutated inputs the ordinary tests try.
    pub inputs: u32,
}

macro_rules! targets {
    ($($name:ident: $max_len:literal bytes, $inputs:literal inputs;)+) => {
        /// Every target.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), run: $name, max_len: $max_len, inputs: $inputs }),+];
    };
}

targets! {
    answer: 4096 bytes, 3000 inputs;
    api: 4096 bytes, 1500 inputs;
    bundle: 8192 bytes, 1500 inputs;
    changeset: 1024 bytes, 1000 inputs;
    config: 4096 bytes, 300 inputs;
    document: 8192 bytes, 4000 inputs;
    evidence: 4096 bytes, 700 inputs;
    proof: 8192 bytes, 500 inputs;
    proof_mutated: 512 bytes, 200 inputs;
    provider_admin: 2048 bytes, 300 inputs;
    provider_s3: 4096 bytes, 300 inputs;
    queue: 2048 bytes, 2000 inputs;
    records: 4096 bytes, 1000 inputs;
    scalar: 256 bytes, 10000 inputs;
    seal: 1024 bytes, 2000 inputs;
}

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
