//! The object-storage port, for the daemon's own data: block records, evidence buckets, proofs.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::core::market::quantity::{Micros, Timestamp};

/// What a storage answers when it can't do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No such bucket.
    #[error("bucket `{0}` does not exist")]
    NoBucket(String),
    /// No such object.
    #[error("object `{0}` does not exist")]
    NoObject(String),
    /// A key or bucket name that the port does not allow.
    #[error(
        "`{0}` is not a valid name: use 1 to 512 of a-z A-Z 0-9 . _ - and /, without empty or dot segments"
    )]
    InvalidName(String),
    /// The bucket still has objects.
    #[error("bucket `{0}` is not empty")]
    NotEmpty(String),
    /// This back end can't do it.
    #[error("{0} is not supported by this storage")]
    NotSupported(&'static str),
    /// The disk is full; no partial object is left.
    #[error("the storage is full")]
    Full,
    /// It can't be reached, or broke off.
    #[error("the storage is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is left alone for now, because it failed too often; it was not asked. Come again after so long.
    #[error("the storage is left alone for {} ms", .0.as_millis())]
    Deferred(Micros),
}

impl StorageError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Full | Self::Unavailable(_) | Self::Deferred(_) => true,
            Self::NoBucket(_)
            | Self::NoObject(_)
            | Self::InvalidName(_)
            | Self::NotEmpty(_)
            | Self::NotSupported(_) => false,
        }
    }
}

/// The bytes of an object as they come.
pub type ByteStream = BoxStream<'static, Result<Bytes, StorageError>>;

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written.
    pub modified: Timestamp,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectPage {
    /// By key, ascending.
    pub objects: Vec<ObjectInfo>,
    /// The last key, when more follow.
    pub next: Option<String>,
}

/// Object storage.
#[async_trait]
pub trait StorageClient: Send + Sync + 'static {
    /// Makes sure that the bucket exists; twice is fine.
    async fn create_bucket(&self, bucket: &str) -> Result<(), StorageError>;

    /// Removes an empty bucket; a missing one is no error.
    async fn delete_bucket(&self, bucket: &str) -> Result<(), StorageError>;

    /// Writes an object; readers see the old or the new one, never a part. Durable when it returns.
    async fn put(&self, bucket: &str, key: &str, body: ByteStream) -> Result<u64, StorageError>;

    /// Reads an object.
    async fn get(&self, bucket: &str, key: &str) -> Result<ByteStream, StorageError>;

    /// What is known of an object.
    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectInfo, StorageError>;

    /// Up to `limit` objects whose keys start with `prefix` and come after `after`.
    async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ObjectPage, StorageError>;

    /// Removes an object; a missing one is no error.
    async fn delete(&self, bucket: &str, key: &str) -> Result<(), StorageError>;

    /// An address at which anyone may read the object until it runs out.
    async fn presign_get(&self, bucket: &str, key: &str, expires: Micros) -> Result<String, StorageError>;
}
