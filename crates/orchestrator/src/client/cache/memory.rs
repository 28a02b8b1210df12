//! A cache in memory: bounded in bytes; what was used least recently goes first, after what has run out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::core::{
    client::{
        cache::{CacheClient, CacheError},
        clock::Clock,
    },
    market::quantity::{Micros, Timestamp},
};

/// What an entry costs beside its key and value: a round figure for the three maps that name it.
const OVERHEAD: usize = 128;

/// Settings of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryCacheSettings {
    /// Bytes of keys, values and book-keeping that it may hold.
    pub max_bytes: usize,
}

impl Default for MemoryCacheSettings {
    fn default() -> Self {
        Self { max_bytes: 8 << 20 }
    }
}

/// A cache in this process.
pub struct MemoryCache {
    clock: Arc<dyn Clock>,
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<Arc<str>, Entry>,
    by_use: BTreeMap<u64, Arc<str>>,
    by_expiry: BTreeSet<(Timestamp, Arc<str>)>,
    uses: u64,
    bytes: usize,
}

struct Entry {
    value: Vec<u8>,
    expires: Timestamp,
    used: u64,
}

impl MemoryCache {
    /// An empty cache.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, settings: &MemoryCacheSettings) -> Self {
        Self { clock, max_bytes: settings.max_bytes, state: Mutex::default() }
    }

    /// How many bytes it holds, book-keeping included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

fn cost(key: &str, value: &[u8]) -> usize {
    key.len().saturating_mul(3).saturating_add(value.len()).saturating_add(OVERHEAD)
}

impl State {
    fn remove(&mut self, key: &str) {
        if let Some((key, entry)) = self.entries.remove_entry(key) {
            self.bytes = self.bytes.saturating_sub(cost(&key, &entry.value));
            self.by_use.remove(&entry.used);
            self.by_expiry.remove(&(entry.expires, key));
        }
    }

    /// The live entry, marked as used.
    fn touch(&mut self, key: &str, now: Timestamp) -> Option<&mut Entry> {
        if self.entries.get(key).is_some_and(|entry| entry.expires <= now) {
            self.remove(key);
        }
        self.uses += 1;
        let uses = self.uses;
        let entry = self.entries.get_mut(key)?;
        if let Some(name) = self.by_use.remove(&entry.used) {
            self.by_use.insert(uses, name);
        }
        entry.used = uses;
        Some(entry)
    }

    fn put(&mut self, key: &str, value: Vec<u8>, expires: Timestamp, now: Timestamp, max_bytes: usize) {
        self.remove(key);
        let bytes = cost(key, &value);
        if expires <= now || bytes > max_bytes {
            return;
        }
        self.make_room(max_bytes - bytes, now);
        let key: Arc<str> = key.into();
        self.uses += 1;
        self.bytes += bytes;
        self.by_use.insert(self.uses, key.clone());
        self.by_expiry.insert((expires, key.clone()));
        self.entries.insert(key, Entry { value, expires, used: self.uses });
    }

    fn make_room(&mut self, limit: usize, now: Timestamp) {
        while let Some((expires, key)) = self.by_expiry.first() {
            if *expires > now {
                break;
            }
            let key = key.clone();
            self.remove(&key);
        }
        while self.bytes > limit {
            let Some((_, key)) = self.by_use.first_key_value() else { return };
            let key = key.clone();
            self.remove(&key);
        }
    }
}

#[async_trait]
impl CacheClient for MemoryCache {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
        let now = self.clock.now();
        Ok(self.state.lock().touch(key, now).map(|entry| entry.value.clone()))
    }

    async fn set(&self, key: &str, value: Vec<u8>, ttl: Micros) -> Result<(), CacheError> {
        let now = self.clock.now();
        self.state.lock().put(key, value, now.plus(ttl), now, self.max_bytes);
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<(), CacheError> {
        self.state.lock().remove(key);
        Ok(())
    }

    async fn increment(&self, key: &str, ttl: Micros) -> Result<u64, CacheError> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let (count, expires) = match state.touch(key, now) {
            // A value that is no number starts anew, as if it had been forgotten.
            Some(entry) => match std::str::from_utf8(&entry.value).ok().and_then(|t| t.parse::<u64>().ok()) {
                Some(count) => (count.saturating_add(1), entry.expires),
                None => (1, now.plus(ttl)),
            },
            None => (1, now.plus(ttl)),
        };
        state.put(key, count.to_string().into_bytes(), expires, now, self.max_bytes);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::clock::ManualClock;

    #[tokio::test]
    async fn it_stays_within_its_bound_and_forgets_the_least_recently_used() {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let one = cost("k00", &[0; 100]);
        let cache = MemoryCache::new(clock, &MemoryCacheSettings { max_bytes: 3 * one });
        let ttl = Micros::from_secs(10);
        for key in ["k00", "k01", "k02"] {
            cache.set(key, vec![0; 100], ttl).await.unwrap();
        }
        assert!(cache.get("k00").await.unwrap().is_some());
        cache.set("k03", vec![0; 100], ttl).await.unwrap();
        assert_eq!(cache.bytes(), 3 * one);
        assert!(cache.get("k00").await.unwrap().is_some());
        assert!(cache.get("k01").await.unwrap().is_none());
        cache.set("big", vec![0; 4 * one], ttl).await.unwrap();
        assert!(cache.get("big").await.unwrap().is_none());
        assert!(cache.get("k03").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn what_has_run_out_makes_room_before_what_is_in_use() {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let one = cost("k0", &[]);
        let cache = MemoryCache::new(clock.clone(), &MemoryCacheSettings { max_bytes: 2 * one });
        cache.set("k0", vec![], Micros::from_secs(10)).await.unwrap();
        cache.set("k1", vec![], Micros::from_secs(1)).await.unwrap();
        clock.advance(Micros::from_secs(2));
        cache.set("k2", vec![], Micros::from_secs(10)).await.unwrap();
        assert!(cache.get("k0").await.unwrap().is_some());
        assert!(cache.get("k2").await.unwrap().is_some());
    }
}
