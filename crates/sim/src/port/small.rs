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

use super::behind;
use crate::faults::{Faults, Injected, Port, through};

behind! {
    /// Storage behind faults.
    pub struct FaultyStorage(dyn StorageClient);
    at Port::Storage, or StorageError::Unavailable(Box::new(Injected)), as StorageError;

    fn create_bucket(bucket: &str) -> ();
    fn delete_bucket(bucket: &str) -> ();
    fn put(bucket: &str, key: &str, body: ByteStream) -> u64;
    fn get(bucket: &str, key: &str) -> ByteStream;
    fn head(bucket: &str, key: &str) -> ObjectInfo;
    fn list(bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> ObjectPage;
    fn delete(bucket: &str, key: &str) -> ();
    fn presign_get(bucket: &str, key: &str, expires: Micros) -> String;
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
