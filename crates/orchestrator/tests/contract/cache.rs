//! The contract of `CacheClient`.

use std::sync::Arc;

use orchestrator::{
    client::{
        cache::{MemoryCache, MemoryCacheSettings},
        clock::ManualClock,
    },
    core::{
        client::cache::CacheClient,
        market::quantity::{Micros, Timestamp},
    },
};

/// `make` gives a cache that is large enough and a way to let time pass for it.
async fn suite<T: CacheClient, A: Fn(Micros)>(make: impl Fn() -> (T, A)) {
    let (cache, pass) = make();
    let ttl = Micros::from_secs(10);
    assert_eq!(cache.get("a").await.unwrap(), None);
    cache.remove("a").await.unwrap();
    cache.set("a", b"1".to_vec(), ttl).await.unwrap();
    cache.set("b", vec![0, 255], ttl).await.unwrap();
    assert_eq!(cache.get("a").await.unwrap(), Some(b"1".to_vec()));
    assert_eq!(cache.get("b").await.unwrap(), Some(vec![0, 255]));
    pass(Micros::from_secs(6));
    cache.set("a", b"2".to_vec(), ttl).await.unwrap();
    pass(Micros::from_secs(6));
    assert_eq!(cache.get("a").await.unwrap(), Some(b"2".to_vec()), "setting again replaces the time");
    assert_eq!(cache.get("b").await.unwrap(), None);
    cache.remove("a").await.unwrap();
    assert_eq!(cache.get("a").await.unwrap(), None);

    assert_eq!(cache.increment("n", ttl).await.unwrap(), 1);
    pass(Micros::from_secs(6));
    assert_eq!(cache.increment("n", ttl).await.unwrap(), 2);
    pass(Micros::from_secs(6));
    assert_eq!(cache.increment("n", ttl).await.unwrap(), 1, "counting does not put the end off");
    cache.set("gone", b"x".to_vec(), Micros::ZERO).await.unwrap();
    assert_eq!(cache.get("gone").await.unwrap(), None);
}

#[tokio::test]
async fn in_memory() {
    suite(|| {
        let clock = ManualClock::new(Timestamp(0));
        let cache = MemoryCache::new(Arc::new(clock.clone()), &MemoryCacheSettings::default());
        (cache, move |by| clock.advance(by))
    })
    .await;
}
