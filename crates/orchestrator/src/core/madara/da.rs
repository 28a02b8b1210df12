//! The data-availability port: where the ordered records of blocks are published, so that anyone can rebuild the ledger.

use async_trait::async_trait;

use crate::core::market::{block::Hash32, quantity::Micros, terms::DomainId};

/// What a data-availability layer answers when it can't do as asked.
#[derive(Debug, thiserror::Error)]
pub enum DaError {
    /// Larger than the layer's limit.
    #[error("{size} bytes are more than the data-availability layer's limit of {limit}")]
    TooLarge {
        /// What was to be published.
        size: usize,
        /// What can be.
        limit: usize,
    },
    /// No such publication.
    #[error("`{0}` is not published")]
    NotPublished(String),
    /// What came back is not what was committed to.
    #[error("the data of `{0}` does not match its commitment")]
    Mismatch(String),
    /// It can't be reached.
    #[error("the data-availability layer is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is left alone for now, because it failed too often; it was not asked. Come again after so long.
    #[error("the data-availability layer is left alone for {} ms", .0.as_millis())]
    Deferred(Micros),
}

impl DaError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Deferred(_) => true,
            Self::TooLarge { .. } | Self::NotPublished(_) | Self::Mismatch(_) => false,
        }
    }
}

/// Limits of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaLimits {
    /// Bytes in one publication, at most.
    pub max_bytes: usize,
}

/// A data-availability layer.
#[async_trait]
pub trait DaClient: Send + Sync + 'static {
    /// Publishes the records of a block; the same again gives the same reference and has no further effect.
    async fn publish_state_diff(&self, domain: &DomainId, block: u64, data: &[u8])
    -> Result<String, DaError>;

    /// Whether the publication is included for good.
    async fn verify_inclusion(&self, reference: &str) -> Result<bool, DaError>;

    /// Checks that `data` is what the reference commits to.
    async fn validate(&self, reference: &str, data: &[u8]) -> Result<(), DaError>;

    /// Reads a publication back and checks it against its commitment.
    async fn fetch(&self, reference: &str) -> Result<Vec<u8>, DaError>;

    /// The commitment inside a reference.
    fn commitment(&self, reference: &str) -> Result<Hash32, DaError>;

    /// The limits.
    fn limits(&self) -> DaLimits;
}
