//! Caches.

mod guarded;
mod memory;
#[cfg(feature = "redis")]
mod redis;

#[cfg(feature = "redis")]
pub use self::redis::{RedisCache, RedisServer, RedisSettings};
pub use guarded::{GuardedCache, GuardedCacheSettings};
pub use memory::{MemoryCache, MemoryCacheSettings};
