//! The contract of `CacheClient`.

use std::sync::Arc;

use orchestrator::{
    client::{
        cache::{GuardedCache, GuardedCacheSettings, MemoryCache, MemoryCacheSettings},
        clock::ManualClock,
    },
    core::{
        client::cache::CacheClient,
        market::quantity::{Micros, Timestamp},
    },
};

/// `make` gives a cache that is large enough and a way to let time pass for it.
pub async fn suite<T: CacheClient, A: AsyncFn(Micros)>(make: impl AsyncFn() -> (T, A)) {
    let (cache, pass) = make().await;
    let ttl = Micros::from_secs(10);
    assert_eq!(cache.get("a").await.unwrap(), None);
    cache.remove("a").await.unwrap();
    cache.set("a", b"1".to_vec(), ttl).await.unwrap();
    cache.set("b", vec![0, 255], ttl).await.unwrap();
    assert_eq!(cache.get("a").await.unwrap(), Some(b"1".to_vec()));
    assert_eq!(cache.get("b").await.unwrap(), Some(vec![0, 255]));
    pass(Micros::from_secs(6)).await;
    cache.set("a", b"2".to_vec(), ttl).await.unwrap();
    pass(Micros::from_secs(6)).await;
    assert_eq!(cache.get("a").await.unwrap(), Some(b"2".to_vec()), "setting again replaces the time");
    assert_eq!(cache.get("b").await.unwrap(), None);
    cache.remove("a").await.unwrap();
    assert_eq!(cache.get("a").await.unwrap(), None);

    assert_eq!(cache.increment("n", ttl).await.unwrap(), 1);
    pass(Micros::from_secs(6)).await;
    assert_eq!(cache.increment("n", ttl).await.unwrap(), 2);
    pass(Micros::from_secs(6)).await;
    assert_eq!(cache.increment("n", ttl).await.unwrap(), 1, "counting does not put the end off");
    cache.set("gone", b"x".to_vec(), Micros::ZERO).await.unwrap();
    assert_eq!(cache.get("gone").await.unwrap(), None);

    cache.set("there", b"x".to_vec(), ttl).await.unwrap();
    cache.set("there", b"y".to_vec(), Micros::ZERO).await.unwrap();
    assert_eq!(cache.get("there").await.unwrap(), None, "no time at all replaces, too");
    cache.set("for long", vec![], Micros::from_days(100_000)).await.unwrap();
    assert_eq!(cache.get("for long").await.unwrap(), Some(vec![]));
    for text in ["", "many", "-1", "1.5", " 1", "99999999999999999999999"] {
        cache.set("text", text.into(), ttl).await.unwrap();
        assert_eq!(cache.increment("text", ttl).await.unwrap(), 1, "{text:?} is no count");
    }
    cache.set("count", b"41".to_vec(), ttl).await.unwrap();
    assert_eq!(cache.increment("count", ttl).await.unwrap(), 42);
    assert_eq!(cache.get("count").await.unwrap(), Some(b"42".to_vec()));
    let counts = futures::future::join_all((0..50).map(|_| cache.increment("together", ttl))).await;
    let mut counts: Vec<u64> = counts.into_iter().map(Result::unwrap).collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=50).collect::<Vec<_>>());
}

fn memory() -> (MemoryCache, ManualClock) {
    let clock = ManualClock::new(Timestamp(0));
    (MemoryCache::new(Arc::new(clock.clone()), &MemoryCacheSettings::default()), clock)
}

#[tokio::test]
async fn in_memory() {
    suite(async || {
        let (cache, clock) = memory();
        (cache, async move |by| clock.advance(by))
    })
    .await;
}

#[tokio::test]
async fn guarded() {
    suite(async || {
        let (cache, clock) = memory();
        let cache = Arc::new(cache);
        let settings = GuardedCacheSettings::default();
        let cache = GuardedCache::new(cache, Arc::new(clock.clone()), settings);
        (cache, async move |by| clock.advance(by))
    })
    .await;
}
