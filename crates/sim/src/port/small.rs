//! Storage and cache behind faults.

use std::sync::Arc;

use async_trait::async_trait;
use orchestrator::core::{
    client::{
        cache::{CacheClient, CacheError},
        storage::{ByteStream, ObjectInfo, ObjectPage, StorageClient, StorageError},
    },
    market::quantity::Micros,
};

use crate::faults::{Faults, Injected, Port, through};

/// Storage behind faults.
pub struct FaultyStorage(pub Arc<dyn StorageClient>, pub Faults);

fn away() -> StorageError {
    StorageError::Unavailable(Box::new(Injected))
}

#[async_trait]
impl StorageClient for FaultyStorage {
    async fn create_bucket(&self, bucket: &str) -> Result<(), StorageError> {
        through!(self.1, Port::Storage, self.0.create_bucket(bucket), away())
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), StorageError> {
        through!(self.1, Port::Storage, self.0.delete_bucket(bucket), away())
    }

    async fn put(&self, bucket: &str, key: &str, body: ByteStream) -> Result<u64, StorageError> {
        through!(self.1, Port::Storage, self.0.put(bucket, key, body), away())
    }

    async fn get(&self, bucket: &str, key: &str) -> Result<ByteStream, StorageError> {
        through!(self.1, Port::Storage, self.0.get(bucket, key), away())
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectInfo, StorageError> {
        through!(self.1, Port::Storage, self.0.head(bucket, key), away())
    }

    async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ObjectPage, StorageError> {
        through!(self.1, Port::Storage, self.0.list(bucket, prefix, after, limit), away())
    }

    async fn delete(&self, bucket: &str, key: &str) -> Result<(), StorageError> {
        through!(self.1, Port::Storage, self.0.delete(bucket, key), away())
    }

    async fn presign_get(&self, bucket: &str, key: &str, expires: Micros) -> Result<String, StorageError> {
        through!(self.1, Port::Storage, self.0.presign_get(bucket, key, expires), away())
    }
}

/// A cache behind faults; it may also forget.
pub struct FaultyCache(pub Arc<dyn CacheClient>, pub Faults);

fn gone() -> CacheError {
    CacheError::Unavailable(Box::new(Injected))
}

#[async_trait]
impl CacheClient for FaultyCache {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
        if self.1.drops(Port::Cache) {
            self.0.remove(key).await?;
        }
        through!(self.1, Port::Cache, self.0.get(key), gone())
    }

    async fn set(&self, key: &str, value: Vec<u8>, ttl: Micros) -> Result<(), CacheError> {
        through!(self.1, Port::Cache, self.0.set(key, value, ttl), gone())
    }

    async fn remove(&self, key: &str) -> Result<(), CacheError> {
        through!(self.1, Port::Cache, self.0.remove(key), gone())
    }

    async fn increment(&self, key: &str, ttl: Micros) -> Result<u64, CacheError> {
        through!(self.1, Port::Cache, self.0.increment(key, ttl), gone())
    }
}
