//! The probe port: single S3 operations, timed and classified, as the prober needs them.

use async_trait::async_trait;
use bytes::Bytes;

use super::provider::IssuedKey;
use crate::core::market::{allocation::Routing, evidence::FailureClass, quantity::Micros};

/// What to probe, and with which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    /// The bucket, and how it is reached.
    pub routing: Routing,
    /// The key pair to sign with.
    pub key: IssuedKey,
}

/// What a successful operation took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReading {
    /// From the start of the operation to the first byte of the answer: for a `put` that is after its body was taken.
    pub first_byte: Micros,
    /// From the start to the last byte of the answer.
    pub total: Micros,
    /// Bytes of the object that were moved; zero for `head` and `delete`.
    pub bytes: u64,
    /// SHA-256 of the bytes that a `get` read, in hex.
    pub sha256: Option<String>,
}

/// How an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class:?}: {detail}")]
pub struct ProbeFailure {
    /// Whose fault it is, and whether it counts.
    pub class: FailureClass,
    /// For people; without secrets.
    pub detail: String,
}

/// Tries single operations against a provider's endpoint. Nothing is retried: a failure is a finding.
#[cfg_attr(any(test, feature = "test-util"), mockall::automock)]
#[async_trait]
pub trait ProbeClient: Send + Sync + 'static {
    /// Writes an object.
    async fn put(
        &self,
        target: &ProbeTarget,
        object: &str,
        body: Bytes,
    ) -> Result<ProbeReading, ProbeFailure>;

    /// Reads an object to its end and hashes it.
    async fn get(&self, target: &ProbeTarget, object: &str) -> Result<ProbeReading, ProbeFailure>;

    /// Reads an object's metadata.
    async fn head(&self, target: &ProbeTarget, object: &str) -> Result<ProbeReading, ProbeFailure>;

    /// Removes an object; a missing one is a success.
    async fn delete(&self, target: &ProbeTarget, object: &str) -> Result<ProbeReading, ProbeFailure>;
}
