//! Object storage behind a breaker.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Guard, Symptom};
use crate::core::{
    client::storage::{ByteStream, ObjectInfo, ObjectPage, StorageClient, StorageError},
    market::quantity::Micros,
};

impl Symptom for StorageError {
    fn is_sick(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::NoBucket(_)
            | Self::NoObject(_)
            | Self::InvalidName(_)
            | Self::NotEmpty(_)
            | Self::NotSupported(_)
            | Self::Full
            | Self::Deferred(_) => false,
        }
    }

    fn deferred(after: Micros) -> Self {
        Self::Deferred(after)
    }
}

/// The storage behind its breaker.
pub struct GuardedStorage {
    inner: Arc<dyn StorageClient>,
    guard: Guard,
}

impl GuardedStorage {
    /// Puts a storage behind a breaker.
    #[must_use]
    pub fn new(inner: Arc<dyn StorageClient>, guard: Guard) -> Self {
        Self { inner, guard }
    }
}

#[async_trait]
impl StorageClient for GuardedStorage {
    async fn create_bucket(&self, bucket: &str) -> Result<(), StorageError> {
        self.guard.call(self.inner.create_bucket(bucket)).await
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), StorageError> {
        self.guard.call(self.inner.delete_bucket(bucket)).await
    }

    async fn put(&self, bucket: &str, key: &str, body: ByteStream) -> Result<u64, StorageError> {
        self.guard.call(self.inner.put(bucket, key, body)).await
    }

    async fn get(&self, bucket: &str, key: &str) -> Result<ByteStream, StorageError> {
        self.guard.call(self.inner.get(bucket, key)).await
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectInfo, StorageError> {
        self.guard.call(self.inner.head(bucket, key)).await
    }

    async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ObjectPage, StorageError> {
        self.guard.call(self.inner.list(bucket, prefix, after, limit)).await
    }

    async fn delete(&self, bucket: &str, key: &str) -> Result<(), StorageError> {
        self.guard.call(self.inner.delete(bucket, key)).await
    }

    async fn presign_get(&self, bucket: &str, key: &str, expires: Micros) -> Result<String, StorageError> {
        // Worked out here; nobody is asked.
        self.inner.presign_get(bucket, key, expires).await
    }
}
