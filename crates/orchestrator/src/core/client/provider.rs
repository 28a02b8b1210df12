//! The provider-adapter port, in the manner of the Open Service Broker: asynchronous, pollable, idempotent by
//! allocation id, fenced by a generation.
//!
//! Every mutating call carries the subject's [`Generation`]. A provider refuses a generation lower than the highest that
//! it has seen for the allocation, and keeps tombstones of deallocated ones, so that a late packet of a paused worker
//! takes no effect.

use async_trait::async_trait;

use crate::core::market::{
    allocation::{Routing, Usage},
    credential::Permissions,
    ids::AllocationId,
    quantity::{Bytes, Micros},
};

/// Grows with every mutating job of an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// What a provider answers when it can't do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The request was refused (4xx): retrying does not help, nothing was made, nothing is to be removed.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// A higher generation was seen: whoever calls has lost its right to.
    #[error("the provider has seen a newer generation than {}", .0.0)]
    Stale(Generation),
    /// The allocation was deallocated, or never was.
    #[error("the provider does not know allocation {0}")]
    Unknown(AllocationId),
    /// Too little room.
    #[error("the provider has too little free capacity")]
    NoCapacity,
    /// No answer in time: it may have happened. Look it up, or remove the orphan.
    #[error("the provider did not answer in time")]
    Timeout(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A 5xx answer or a broken connection: it may have happened.
    #[error("the provider is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is left alone for now, because it failed too often; it was not asked. Come again after so long.
    #[error("the provider is left alone for {} ms", .0.as_millis())]
    Deferred(Micros),
}

impl ProviderError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Unavailable(_) | Self::NoCapacity | Self::Deferred(_) => true,
            Self::Refused(_) | Self::Stale(_) | Self::Unknown(_) => false,
        }
    }

    /// Whether the call may have left something behind that must be removed.
    #[must_use]
    pub const fn may_leave_orphan(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Unavailable(_))
    }
}

/// What a provider says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderDescription {
    /// Name and version of the software.
    pub software: String,
    /// Compatibility profiles it serves.
    pub profiles: Vec<String>,
    /// Bytes it can still give out; `None` when it does not know.
    pub free: Option<Bytes>,
}

/// What to allocate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocateRequest {
    /// The allocation.
    pub allocation: AllocationId,
    /// The subject's generation.
    pub generation: Generation,
    /// Quota.
    pub bytes: Bytes,
    /// Region wished for.
    pub region: String,
}

/// How far an asynchronous operation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation<T> {
    /// Accepted; ask again.
    Pending,
    /// Done.
    Done(T),
}

/// A key pair as the provider gave it.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedKey {
    /// S3 access key id.
    pub access_key_id: String,
    /// S3 secret access key.
    pub secret: String,
}

impl std::fmt::Debug for IssuedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedKey").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// What to issue. The caller chooses the key pair, so that a repeated call asks for the same thing.
#[derive(Clone, PartialEq, Eq)]
pub struct IssueRequest {
    /// The allocation that the key opens.
    pub allocation: AllocationId,
    /// The subject's generation.
    pub generation: Generation,
    /// The key pair to install.
    pub key: IssuedKey,
    /// What it may do.
    pub permissions: Permissions,
}

/// How wide an allocation is open, whatever its keys may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessLevel {
    /// As the keys say.
    Full,
    /// Reading only.
    ReadOnly,
    /// Nothing.
    None,
}

/// The adapter of one provider.
#[async_trait]
pub trait ProviderClient: Send + Sync + 'static {
    /// What the provider is.
    async fn describe(&self) -> Result<ProviderDescription, ProviderError>;

    /// Asks for an allocation, and asks how far it is: calling again with the same allocation polls. Once done, the
    /// answer stays the same.
    async fn allocate(&self, request: &AllocateRequest) -> Result<Operation<Routing>, ProviderError>;

    /// Removes an allocation with its keys and its data, and leaves a tombstone. Done, when it is gone or never was.
    async fn deallocate(
        &self,
        allocation: AllocationId,
        generation: Generation,
    ) -> Result<Operation<()>, ProviderError>;

    /// Installs a key. Installing the same key again changes its permissions at most.
    async fn issue_credential(&self, request: &IssueRequest) -> Result<(), ProviderError>;

    /// Takes a key away, effective within a second; a missing one is no error.
    async fn revoke_credential(
        &self,
        allocation: AllocationId,
        generation: Generation,
        access_key_id: &str,
    ) -> Result<(), ProviderError>;

    /// Opens or narrows the allocation.
    async fn restrict(
        &self,
        allocation: AllocationId,
        generation: Generation,
        level: AccessLevel,
    ) -> Result<(), ProviderError>;

    /// The meter, cumulative.
    async fn usage(&self, allocation: AllocationId) -> Result<Usage, ProviderError>;

    /// Allocations that the provider holds, tombstones apart: what `reconcile` compares with.
    async fn allocations(&self) -> Result<Vec<AllocationId>, ProviderError>;
}

/// Finds the adapter that serves a provider.
#[async_trait]
pub trait ProviderDirectory: Send + Sync + 'static {
    /// The adapter.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] when the provider is configured in a way that this build can't serve.
    async fn client(
        &self,
        provider: &crate::core::market::party::Provider,
    ) -> Result<std::sync::Arc<dyn ProviderClient>, ProviderError>;
}
