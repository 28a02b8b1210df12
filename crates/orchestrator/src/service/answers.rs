//! Answers that replicas share for a moment, through the cache: what costs the database many reads is then read once for all
//! replicas, and one that has just started need not read everything before it can say anything.
//!
//! Nothing rests on them. Each carries the instant since when it has been true, and is thrown away when it is older than the
//! reader bears, or from another time by another clock; the cache's own expiry bounds it a second time, by the cache's clock alone.
//! What can't be read, is of another format or is not there is read from the database. Only what everybody with a key may see
//! is shared: keys name no caller.

use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    core::{
        client::cache::CacheClient,
        market::{
            ids::IdGenerator,
            quantity::{Micros, Timestamp},
        },
    },
    error::Result,
};

/// The format of what is shared. Raised whenever a shared type changes, so that replicas of two versions leave each other's
/// answers alone.
const FORMAT: u32 = 1;
/// The oldest that [`SharedAnswers::through`] answers with.
const MOST: Micros = Micros::from_secs(1);
/// How long the cache keeps such an answer; the rest of the second is for the way there.
const KEPT: Micros = Micros::from_millis(750);
/// Larger answers are not shared: caches are for small values.
const LARGEST: usize = 1 << 20;

/// Answers that are shared, or none where a process is alone. Clones share everything.
#[derive(Clone, Default)]
pub struct SharedAnswers {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    cache: Arc<dyn CacheClient>,
    ids: IdGenerator,
    market: String,
}

/// An answer of some replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told<T> {
    /// The answer.
    pub value: T,
    /// Since when it has been true, by the clock of who gave it.
    pub as_of: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<T> {
    format: u32,
    as_of: Timestamp,
    value: T,
}

impl SharedAnswers {
    /// Nothing is shared: every answer is the database's.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Answers in a cache that other replicas use, too. `market` tells this market's answers from those of any other one that
    /// uses the same cache.
    #[must_use]
    pub fn over(cache: Arc<dyn CacheClient>, ids: IdGenerator, market: impl Into<String>) -> Self {
        Self { inner: Some(Arc::new(Inner { cache, ids, market: market.into() })) }
    }

    /// Whether anything is shared.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.inner.is_some()
    }

    /// What was told under a key, unless it is older than `most`, can't be read, or was never told.
    pub async fn get<T: DeserializeOwned>(&self, key: &str, most: Micros) -> Option<Told<T>> {
        let inner = self.inner.as_ref()?;
        let found = inner.cache.get(&inner.key(key)).await.ok().flatten();
        let Some(bytes) = found else {
            count("missed");
            return None;
        };
        let read = serde_json::from_slice::<Envelope<T>>(&bytes).ok();
        let Some(envelope) = read.filter(|envelope| envelope.format == FORMAT) else {
            count("unreadable");
            return None;
        };
        let Envelope { as_of, value, .. } = envelope;
        let now = inner.ids.now();
        // From the future, too: then one of the two clocks is wrong, and nobody knows how old it is.
        if now.since(as_of).max(as_of.since(now)) > most {
            count("stale");
            return None;
        }
        count("found");
        Some(Told { value, as_of })
    }

    /// Tells an answer that has been true since `as_of`, for `ttl` from then on at most. A cache that is away is none.
    pub async fn put<T: Serialize + Sync>(&self, key: &str, value: &T, as_of: Timestamp, ttl: Micros) {
        let Some(inner) = &self.inner else { return };
        let spent = inner.ids.now().since(as_of);
        let left = Micros(ttl.get().saturating_sub(spent.get()));
        let Ok(bytes) = serde_json::to_vec(&Envelope { format: FORMAT, as_of, value }) else { return };
        if left > Micros::ZERO && bytes.len() <= LARGEST {
            // The guard of the cache tells of failures; here they cost nothing but the next reader's time.
            let _ = inner.cache.set(&inner.key(key), bytes, left).await;
        }
    }

    /// The answer that was told within the last second; else what `read` gives, which is then told. Failures are not.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn through<T, F>(&self, key: &str, read: F) -> Result<T>
    where
        T: Serialize + DeserializeOwned + Send + Sync,
        F: Future<Output = Result<T>> + Send,
    {
        let Some(inner) = &self.inner else { return read.await };
        if let Some(told) = self.get(key, MOST).await {
            return Ok(told.value);
        }
        let as_of = inner.ids.now();
        let value = read.await?;
        self.put(key, &value, as_of, KEPT).await;
        Ok(value)
    }
}

impl Inner {
    fn key(&self, key: &str) -> String {
        format!("answers/{FORMAT}/{}/{key}", self.market)
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("orchestrator_shared_answers_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{
        client::{
            cache::{MemoryCache, MemoryCacheSettings},
            clock::{ManualClock, SeededEntropy},
        },
        core::client::clock::Clock as _,
        error::{Error, ErrorCode},
    };

    struct Bed {
        clock: ManualClock,
        cache: Arc<MemoryCache>,
        reads: AtomicU64,
    }

    impl Bed {
        fn new() -> Self {
            let clock = ManualClock::new(Timestamp(1_000_000_000_000_000));
            let cache = MemoryCache::new(Arc::new(clock.clone()), &MemoryCacheSettings::default());
            Self { clock, cache: Arc::new(cache), reads: AtomicU64::new(0) }
        }

        /// The answers of a replica; its clock may be wrong.
        fn replica(&self, clock: &ManualClock) -> SharedAnswers {
            let ids = IdGenerator::new(Arc::new(clock.clone()), Arc::new(SeededEntropy::new(1)));
            SharedAnswers::over(self.cache.clone(), ids, "market")
        }

        /// What a replica answers; the database counts how often it was asked.
        async fn ask(&self, answers: &SharedAnswers) -> u64 {
            answers.through("n", async { Ok(self.reads.fetch_add(1, Ordering::SeqCst) + 1) }).await.unwrap()
        }
    }

    #[tokio::test]
    async fn one_read_serves_all_replicas_and_no_longer_than_a_second() {
        let bed = Bed::new();
        let replicas = [bed.replica(&bed.clock), bed.replica(&bed.clock)];
        assert_eq!(bed.ask(&replicas[0]).await, 1);
        assert_eq!(bed.ask(&replicas[1]).await, 1, "told by the other one");
        bed.clock.advance(KEPT);
        assert_eq!(bed.ask(&replicas[1]).await, 2);
        assert_eq!(bed.ask(&replicas[0]).await, 2);
        // A cache that forgets to forget.
        let key = replicas[0].inner.as_ref().unwrap().key("n");
        let bytes = bed.cache.get(&key).await.unwrap().unwrap();
        bed.cache.set(&key, bytes, Micros::from_days(1)).await.unwrap();
        bed.clock.advance(MOST);
        assert_eq!(bed.ask(&replicas[0]).await, 2, "a second at most");
        bed.clock.advance(Micros(1));
        assert_eq!(bed.ask(&replicas[0]).await, 3);
    }

    #[tokio::test]
    async fn what_took_long_to_read_is_kept_for_the_rest_of_its_time_only() {
        let bed = Bed::new();
        let answers = bed.replica(&bed.clock);
        let slow = |by: Micros| {
            let clock = bed.clock.clone();
            async move {
                clock.advance(by);
                Ok(7_u64)
            }
        };
        answers.through("slow", slow(Micros::from_millis(700))).await.unwrap();
        assert!(answers.get::<u64>("slow", MOST).await.is_some());
        bed.clock.advance(Micros::from_millis(50));
        assert_eq!(answers.get::<u64>("slow", MOST).await, None);
        answers.through("slower", slow(KEPT)).await.unwrap();
        assert_eq!(answers.get::<u64>("slower", MOST).await, None);
    }

    #[tokio::test]
    async fn garbage_other_formats_other_types_and_other_markets_are_not_there() {
        let bed = Bed::new();
        let answers = bed.replica(&bed.clock);
        let key = answers.inner.as_ref().unwrap().key("n");
        let now = bed.clock.now().as_micros();
        let mut expected = 0;
        for garbage in [
            String::new(),
            "\u{0}garbage".to_owned(),
            "7".to_owned(),
            "{}".to_owned(),
            format!("{{\"format\":{},\"as_of\":{now},\"value\":99}}", FORMAT - 1),
            format!("{{\"format\":{FORMAT},\"as_of\":{now},\"value\":\"text\"}}"),
            format!("{{\"format\":{FORMAT},\"as_of\":{now},\"value\":99,\"more\":1}}"),
            format!("{{\"format\":{FORMAT},\"value\":99}}"),
        ] {
            bed.cache.set(&key, garbage.clone().into_bytes(), Micros::from_secs(60)).await.unwrap();
            expected += 1;
            assert_eq!(bed.ask(&answers).await, expected, "{garbage:?}");
            assert_eq!(bed.ask(&answers).await, expected, "mended");
        }
        let ids = IdGenerator::new(Arc::new(bed.clock.clone()), Arc::new(SeededEntropy::new(1)));
        let other = SharedAnswers::over(bed.cache.clone(), ids, "other");
        assert_eq!(bed.ask(&other).await, expected + 1);
    }

    #[tokio::test]
    async fn a_clock_that_is_wrong_by_more_than_a_second_shares_nothing() {
        let bed = Bed::new();
        let right = bed.replica(&bed.clock);
        for wrong in [Micros::from_secs(3_600), Micros(MOST.get() + 1)] {
            let ahead = ManualClock::new(bed.clock.now().plus(wrong));
            let before = bed.ask(&right).await;
            assert_eq!(bed.ask(&bed.replica(&ahead)).await, before + 1);
            assert_eq!(bed.ask(&right).await, before + 2, "nor is what it tells believed");
        }
    }

    #[tokio::test]
    async fn failures_are_not_shared_and_a_process_alone_shares_nothing() {
        let bed = Bed::new();
        let answers = bed.replica(&bed.clock);
        let missing = async { Err::<u64, _>(Error::new(ErrorCode::NotFound, "none")) };
        assert!(answers.through("n", missing).await.is_err());
        assert_eq!(bed.ask(&answers).await, 1);
        let alone = SharedAnswers::none();
        assert_eq!(bed.ask(&alone).await, 2);
        assert_eq!(bed.ask(&alone).await, 3);
    }
}
