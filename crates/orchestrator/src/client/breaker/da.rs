//! A data-availability layer behind a breaker.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Guard, Symptom};
use crate::core::{
    madara::da::{DaClient, DaError, DaLimits},
    market::{block::Hash32, quantity::Micros, terms::DomainId},
};

impl Symptom for DaError {
    fn is_sick(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::TooLarge { .. } | Self::NotPublished(_) | Self::Mismatch(_) | Self::Deferred(_) => false,
        }
    }

    fn deferred(after: Micros) -> Self {
        Self::Deferred(after)
    }
}

/// The layer behind its breaker.
pub struct GuardedDa {
    inner: Arc<dyn DaClient>,
    guard: Guard,
}

impl GuardedDa {
    /// Puts a layer behind a breaker.
    #[must_use]
    pub fn new(inner: Arc<dyn DaClient>, guard: Guard) -> Self {
        Self { inner, guard }
    }
}

#[async_trait]
impl DaClient for GuardedDa {
    async fn publish_state_diff(
        &self,
        domain: &DomainId,
        block: u64,
        data: &[u8],
    ) -> Result<String, DaError> {
        self.guard.call(self.inner.publish_state_diff(domain, block, data)).await
    }

    async fn verify_inclusion(&self, reference: &str) -> Result<bool, DaError> {
        self.guard.call(self.inner.verify_inclusion(reference)).await
    }

    async fn validate(&self, reference: &str, data: &[u8]) -> Result<(), DaError> {
        self.guard.call(self.inner.validate(reference, data)).await
    }

    async fn fetch(&self, reference: &str) -> Result<Vec<u8>, DaError> {
        self.guard.call(self.inner.fetch(reference)).await
    }

    fn commitment(&self, reference: &str) -> Result<Hash32, DaError> {
        self.inner.commitment(reference)
    }

    fn limits(&self) -> DaLimits {
        self.inner.limits()
    }
}
