//! Object storage in memory, for tests.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::RwLock;

use super::{check_bucket, check_key};
use crate::core::{
    client::{
        clock::Clock,
        storage::{ByteStream, ObjectInfo, ObjectPage, StorageClient, StorageError},
    },
    market::quantity::{Micros, Timestamp},
};

type Objects = BTreeMap<String, (Bytes, Timestamp)>;

/// Object storage in this process.
pub struct MemoryStorage {
    clock: Arc<dyn Clock>,
    buckets: RwLock<BTreeMap<String, Objects>>,
}

impl MemoryStorage {
    /// Storage without buckets.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, buckets: RwLock::default() }
    }

    fn read<T>(&self, bucket: &str, look: impl FnOnce(&Objects) -> T) -> Result<T, StorageError> {
        check_bucket(bucket)?;
        self.buckets.read().get(bucket).map(look).ok_or_else(|| StorageError::NoBucket(bucket.to_owned()))
    }

    fn object(&self, bucket: &str, key: &str) -> Result<(Bytes, Timestamp), StorageError> {
        check_key(key)?;
        self.read(bucket, |objects| objects.get(key).cloned())?
            .ok_or_else(|| StorageError::NoObject(key.to_owned()))
    }
}

fn info(key: &str, body: &Bytes, modified: Timestamp) -> ObjectInfo {
    ObjectInfo { key: key.to_owned(), size: u64::try_from(body.len()).unwrap_or(u64::MAX), modified }
}

#[async_trait]
impl StorageClient for MemoryStorage {
    async fn create_bucket(&self, bucket: &str) -> Result<(), StorageError> {
        check_bucket(bucket)?;
        self.buckets.write().entry(bucket.to_owned()).or_default();
        Ok(())
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), StorageError> {
        check_bucket(bucket)?;
        let mut buckets = self.buckets.write();
        if buckets.get(bucket).is_some_and(|objects| !objects.is_empty()) {
            return Err(StorageError::NotEmpty(bucket.to_owned()));
        }
        buckets.remove(bucket);
        Ok(())
    }

    async fn put(&self, bucket: &str, key: &str, mut body: ByteStream) -> Result<u64, StorageError> {
        check_key(key)?;
        self.read(bucket, |_| ())?;
        let mut whole = BytesMut::new();
        while let Some(part) = body.try_next().await? {
            whole.extend_from_slice(&part);
        }
        let whole = whole.freeze();
        let info = info(key, &whole, self.clock.now());
        let mut buckets = self.buckets.write();
        let objects = buckets.get_mut(bucket).ok_or_else(|| StorageError::NoBucket(bucket.to_owned()))?;
        objects.insert(info.key, (whole, info.modified));
        Ok(info.size)
    }

    async fn get(&self, bucket: &str, key: &str) -> Result<ByteStream, StorageError> {
        let (body, _) = self.object(bucket, key)?;
        Ok(stream::iter([Ok(body)]).boxed())
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectInfo, StorageError> {
        let (body, modified) = self.object(bucket, key)?;
        Ok(info(key, &body, modified))
    }

    async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ObjectPage, StorageError> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut objects: Vec<_> = self.read(bucket, |objects| {
            objects
                .range::<str, _>((from, Bound::Unbounded))
                .take_while(|(key, _)| key.starts_with(prefix))
                .take(limit.saturating_add(1))
                .map(|(key, (body, modified))| info(key, body, *modified))
                .collect()
        })?;
        let more = objects.len() > limit;
        objects.truncate(limit);
        let next = objects.last().filter(|_| more).map(|last| last.key.clone());
        Ok(ObjectPage { objects, next })
    }

    async fn delete(&self, bucket: &str, key: &str) -> Result<(), StorageError> {
        check_bucket(bucket)?;
        check_key(key)?;
        let mut buckets = self.buckets.write();
        let objects = buckets.get_mut(bucket).ok_or_else(|| StorageError::NoBucket(bucket.to_owned()))?;
        objects.remove(key);
        Ok(())
    }

    async fn presign_get(&self, _: &str, _: &str, _: Micros) -> Result<String, StorageError> {
        Err(StorageError::NotSupported("a presigned address"))
    }
}
