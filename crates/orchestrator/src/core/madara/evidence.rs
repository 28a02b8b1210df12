//! The port to whoever keeps the evidence behind verdicts for those who check a chain: the daemon's API, or a mirror of it.

use async_trait::async_trait;

/// Why evidence did not come.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// No answer, or one that says to come again.
    #[error("the source of the evidence does not answer: {0}")]
    Unavailable(String),
    /// An answer that is not one of a source of evidence.
    #[error("the source of the evidence answers with {0}")]
    Unexpected(String),
}

/// Where evidence is read from. Nothing that comes from it is believed: it is held against the chain.
#[async_trait]
pub trait EvidenceSource: Send + Sync {
    /// The bytes of the bundle behind the verdict whose record has this subject; `None` when the source has none. Asking
    /// again gives the same, or a later view of the same. It retries by itself what may pass.
    ///
    /// # Errors
    /// [`EvidenceError`], which ends the check: that nothing came says nothing about the chain.
    async fn bundle(&self, subject: &[u8; 16]) -> Result<Option<Vec<u8>>, EvidenceError>;
}
