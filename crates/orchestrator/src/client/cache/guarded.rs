//! A cache that may go away without taking anything with it: every call is bounded in time, a failure keeps the next calls from waiting
//! for the same thing, and while the cache is away nothing is found in it and counters are counted here.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{MemoryCache, MemoryCacheSettings};
use crate::core::{
    client::{
        cache::{CacheClient, CacheError},
        clock::Clock,
    },
    market::quantity::Micros,
};

/// How patient it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardedCacheSettings {
    /// The longest that a call waits for the cache.
    pub timeout: Duration,
    /// After a failure, how long the cache is left alone before one call tries again.
    pub pause: Duration,
}

impl Default for GuardedCacheSettings {
    fn default() -> Self {
        Self { timeout: Duration::from_millis(300), pause: Duration::from_secs(1) }
    }
}

/// Another cache, guarded.
///
/// `get` and `increment` never fail. `set` and `remove` do, at once, while the cache is away: what they were to replace may come back with
/// it, and a caller for whom that matters must know.
pub struct GuardedCache {
    inner: Arc<dyn CacheClient>,
    /// Counts while the cache is away: a limit then holds for each replica by itself.
    counters: MemoryCache,
    settings: GuardedCacheSettings,
    /// Since the last failure: when the next attempt may be made.
    closed_until: Mutex<Option<Instant>>,
}

/// The cache is being left alone.
#[derive(Debug, thiserror::Error)]
#[error("it failed a moment ago")]
struct LeftAlone;

/// The cache did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct TooSlow(Duration);

impl GuardedCache {
    /// Guards a cache.
    #[must_use]
    pub fn new(inner: Arc<dyn CacheClient>, clock: Arc<dyn Clock>, settings: GuardedCacheSettings) -> Self {
        let counters = MemoryCache::new(clock, &MemoryCacheSettings::default());
        Self { inner, counters, settings, closed_until: Mutex::new(None) }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, CacheError>>) -> Result<T, CacheError> {
        if !self.may_try() {
            count("skipped");
            return Err(CacheError::Unavailable(Box::new(LeftAlone)));
        }
        let outcome = tokio::time::timeout(self.settings.timeout, call).await;
        let outcome = outcome
            .unwrap_or_else(|_| Err(CacheError::Unavailable(Box::new(TooSlow(self.settings.timeout)))));
        match &outcome {
            Ok(_) => {
                count("answered");
                if self.closed_until.lock().take().is_some() {
                    tracing::info!("the cache answers again");
                }
            }
            Err(error) => {
                count("failed");
                let next = Instant::now().checked_add(self.settings.pause);
                if std::mem::replace(&mut *self.closed_until.lock(), next).is_none() {
                    tracing::warn!(
                        error = crate::error::chain(error),
                        "the cache does not answer: working without it"
                    );
                }
            }
        }
        outcome
    }

    /// Whether the cache is asked. After a pause the first caller is the one that tries; the others go on without.
    fn may_try(&self) -> bool {
        let mut closed_until = self.closed_until.lock();
        match *closed_until {
            None => true,
            Some(until) => {
                let now = Instant::now();
                if now < until {
                    return false;
                }
                *closed_until = Some(now.checked_add(self.settings.pause).unwrap_or(until));
                true
            }
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("orchestrator_cache_requests_total", "outcome" => outcome).increment(1);
}

#[async_trait]
impl CacheClient for GuardedCache {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
        Ok(self.call(self.inner.get(key)).await.unwrap_or_default())
    }

    async fn set(&self, key: &str, value: Vec<u8>, ttl: Micros) -> Result<(), CacheError> {
        self.call(self.inner.set(key, value, ttl)).await
    }

    async fn remove(&self, key: &str) -> Result<(), CacheError> {
        self.call(self.inner.remove(key)).await
    }

    async fn increment(&self, key: &str, ttl: Micros) -> Result<u64, CacheError> {
        match self.call(self.inner.increment(key, ttl)).await {
            Ok(count) => Ok(count),
            Err(_) => self.counters.increment(key, ttl).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::{client::clock::ManualClock, core::market::quantity::Timestamp};

    const TTL: Micros = Micros::from_secs(10);

    /// A cache in memory that can be switched off, and can be made to hang.
    struct Switched {
        inner: MemoryCache,
        off: AtomicBool,
        hangs: AtomicBool,
        calls: AtomicUsize,
    }

    impl Switched {
        async fn gate(&self) -> Result<&MemoryCache, CacheError> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            match self.off.load(Ordering::SeqCst) {
                false => Ok(&self.inner),
                true => Err(CacheError::Unavailable(Box::new(std::io::Error::other("switched off")))),
            }
        }
    }

    #[async_trait]
    impl CacheClient for Switched {
        async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
            self.gate().await?.get(key).await
        }
        async fn set(&self, key: &str, value: Vec<u8>, ttl: Micros) -> Result<(), CacheError> {
            self.gate().await?.set(key, value, ttl).await
        }
        async fn remove(&self, key: &str) -> Result<(), CacheError> {
            self.gate().await?.remove(key).await
        }
        async fn increment(&self, key: &str, ttl: Micros) -> Result<u64, CacheError> {
            self.gate().await?.increment(key, ttl).await
        }
    }

    fn guarded(timeout: Duration, pause: Duration) -> (Arc<Switched>, GuardedCache) {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let inner = MemoryCache::new(clock.clone(), &MemoryCacheSettings::default());
        let (off, hangs) = (AtomicBool::new(false), AtomicBool::new(false));
        let switched = Arc::new(Switched { inner, off, hangs, calls: AtomicUsize::new(0) });
        let settings = GuardedCacheSettings { timeout, pause };
        (switched.clone(), GuardedCache::new(switched, clock, settings))
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn after_a_failure_the_cache_is_left_alone_and_counters_go_on_here() {
        let (switched, cache) = guarded(HOUR, HOUR);
        cache.set("a", b"1".to_vec(), TTL).await.unwrap();
        switched.off.store(true, Ordering::SeqCst);
        assert_eq!(cache.get("a").await.unwrap(), None);
        let calls = switched.calls.load(Ordering::SeqCst);
        assert_eq!(cache.increment("n", TTL).await.unwrap(), 1);
        assert_eq!(cache.increment("n", TTL).await.unwrap(), 2);
        assert_eq!(cache.get("a").await.unwrap(), None);
        assert!(cache.set("a", b"2".to_vec(), TTL).await.is_err());
        assert!(cache.remove("a").await.is_err());
        assert_eq!(switched.calls.load(Ordering::SeqCst), calls, "nothing waits for it again");
    }

    #[tokio::test]
    async fn once_it_answers_again_it_is_used_again() {
        let (switched, cache) = guarded(HOUR, Duration::ZERO);
        cache.set("a", b"1".to_vec(), TTL).await.unwrap();
        switched.off.store(true, Ordering::SeqCst);
        assert_eq!(cache.get("a").await.unwrap(), None);
        switched.off.store(false, Ordering::SeqCst);
        assert_eq!(cache.get("a").await.unwrap(), Some(b"1".to_vec()));
        assert!(cache.closed_until.lock().is_none());
    }

    #[tokio::test]
    async fn a_cache_that_hangs_is_waited_for_once() {
        let (switched, cache) = guarded(Duration::from_millis(1), HOUR);
        switched.hangs.store(true, Ordering::SeqCst);
        assert_eq!(cache.get("a").await.unwrap(), None);
        for expected in 1..=3 {
            assert_eq!(cache.increment("n", TTL).await.unwrap(), expected);
        }
        assert_eq!(switched.calls.load(Ordering::SeqCst), 1);
    }
}
