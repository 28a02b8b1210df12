//! The cache port. A cache may forget anything at any time; a caller that can't reach it works without it.

use async_trait::async_trait;

use crate::core::market::quantity::Micros;

/// What a cache answers when it can't do as asked.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It can't be reached.
    #[error("the cache is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A cache of small values.
#[async_trait]
pub trait CacheClient: Send + Sync + 'static {
    /// The value, unless it was never set, ran out or was forgotten.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError>;

    /// Sets a value for at most `ttl`; setting again replaces value and time.
    async fn set(&self, key: &str, value: Vec<u8>, ttl: Micros) -> Result<(), CacheError>;

    /// Forgets a value; a missing one is no error.
    async fn remove(&self, key: &str) -> Result<(), CacheError>;

    /// Adds one to a counter and returns the sum; the first call starts it at one, to run out after `ttl`.
    async fn increment(&self, key: &str, ttl: Micros) -> Result<u64, CacheError>;
}
