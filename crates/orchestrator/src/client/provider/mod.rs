//! Provider adapters: the built-in S3 server through its admin API, the directory that finds the adapter of a provider,
//! and a fake with scripted faults.

mod directory;
mod embedded;
#[cfg(any(test, feature = "test-util"))]
mod fake;

pub use directory::{AdapterDirectory, CoHosted};
pub use embedded::{EmbeddedProvider, EmbeddedSettings};
#[cfg(any(test, feature = "test-util"))]
pub use fake::{FakeProvider, FakeProviders, ScriptedFault};
