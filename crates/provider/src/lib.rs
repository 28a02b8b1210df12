//! The built-in storage provider: an S3 server over a directory, with one bucket per allocation, keys that open that
//! bucket and nothing else, quotas enforced at write, and meters.
//!
//! It is a role of its own: own store ([`store`], SQLite for what is known, files for the bytes), own S3 endpoint
//! ([`s3`]) and own admin API ([`admin`], whose shapes are in [`wire`]). It knows nothing of the orchestrator.

pub mod admin;
pub mod blobs;
pub mod fault;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod live;
pub mod qos;
pub mod s3;
pub mod server;
pub mod store;
pub mod wire;

pub use server::{ProviderHandle, ProviderOptions, ProviderServer, StartError, TimeSource};
