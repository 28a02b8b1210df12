//! Providers behind breakers, one for each.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Breakers, Guard, Symptom};
use crate::core::{
    client::provider::{
        AccessLevel, AllocateRequest, Generation, IssueRequest, Operation, ProviderClient,
        ProviderDescription, ProviderDirectory, ProviderError,
    },
    market::{
        allocation::{Routing, Usage},
        ids::AllocationId,
        party::Provider,
        quantity::Micros,
    },
};

impl Symptom for ProviderError {
    fn is_sick(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Unavailable(_) => true,
            Self::Refused(_) | Self::Stale(_) | Self::Unknown(_) | Self::NoCapacity | Self::Deferred(_) => {
                false
            }
        }
    }

    fn deferred(after: Micros) -> Self {
        Self::Deferred(after)
    }
}

/// A directory whose adapters are behind breakers.
pub struct GuardedProviders {
    inner: Arc<dyn ProviderDirectory>,
    breakers: Breakers,
}

impl GuardedProviders {
    /// Puts the adapters of a directory behind breakers of their own.
    #[must_use]
    pub fn new(inner: Arc<dyn ProviderDirectory>, breakers: Breakers) -> Self {
        Self { inner, breakers }
    }
}

#[async_trait]
impl ProviderDirectory for GuardedProviders {
    async fn client(&self, provider: &Provider) -> Result<Arc<dyn ProviderClient>, ProviderError> {
        let inner = self.inner.client(provider).await?;
        let guard = self.breakers.of("provider", &format!("provider {}", provider.id));
        Ok(Arc::new(Guarded { inner, guard }))
    }
}

/// An adapter behind a breaker.
struct Guarded {
    inner: Arc<dyn ProviderClient>,
    guard: Guard,
}

#[async_trait]
impl ProviderClient for Guarded {
    async fn describe(&self) -> Result<ProviderDescription, ProviderError> {
        self.guard.call(self.inner.describe()).await
    }

    async fn allocate(&self, request: &AllocateRequest) -> Result<Operation<Routing>, ProviderError> {
        self.guard.call(self.inner.allocate(request)).await
    }

    async fn deallocate(
        &self,
        allocation: AllocationId,
        generation: Generation,
    ) -> Result<Operation<()>, ProviderError> {
        self.guard.call(self.inner.deallocate(allocation, generation)).await
    }

    async fn issue_credential(&self, request: &IssueRequest) -> Result<(), ProviderError> {
        self.guard.call(self.inner.issue_credential(request)).await
    }

    async fn revoke_credential(
        &self,
        allocation: AllocationId,
        generation: Generation,
        access_key_id: &str,
    ) -> Result<(), ProviderError> {
        self.guard.call(self.inner.revoke_credential(allocation, generation, access_key_id)).await
    }

    async fn restrict(
        &self,
        allocation: AllocationId,
        generation: Generation,
        level: AccessLevel,
    ) -> Result<(), ProviderError> {
        self.guard.call(self.inner.restrict(allocation, generation, level)).await
    }

    async fn usage(&self, allocation: AllocationId) -> Result<Usage, ProviderError> {
        self.guard.call(self.inner.usage(allocation)).await
    }

    async fn allocations(&self) -> Result<Vec<AllocationId>, ProviderError> {
        self.guard.call(self.inner.allocations()).await
    }
}
