//! The contract of `CacheClient` on a real Redis, and what happens when that goes away.

use std::{sync::Arc, time::Duration};

use orchestrator::{
    client::{
        cache::{GuardedCache, GuardedCacheSettings, RedisCache, RedisSettings},
        clock::ManualClock,
    },
    core::{
        client::cache::CacheClient,
        market::quantity::{Micros, Timestamp},
    },
};

use super::cache::suite;
use crate::servers::{OwnServer, eventually, unique, variable};

const TTL: Micros = Micros::from_secs(60);

fn settings() -> RedisSettings {
    // Not the usual quarter of a second: on a busy machine a test may have to wait.
    let timeout = Duration::from_secs(20);
    RedisSettings { timeout, ..RedisSettings::new(variable("ORCHESTRATOR_TEST_REDIS_URL"), unique("test")) }
}

async fn raw(url: &str) -> redis::aio::MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Lets time pass for all keys with a prefix, on the server.
async fn pass(settings: &RedisSettings, by: Micros) {
    let mut connection = raw(&settings.url).await;
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(format!("{}:*", settings.prefix)).query_async(&mut connection).await.unwrap();
    for key in keys {
        let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
        assert!(left != -1, "{key} has no end");
        let left = left - i64::try_from(by.as_millis()).unwrap();
        let _: i64 = redis::cmd("PEXPIRE").arg(&key).arg(left).query_async(&mut connection).await.unwrap();
    }
}

#[tokio::test]
async fn on_redis() {
    suite(async || {
        let settings = settings();
        (RedisCache::new(&settings).unwrap(), async move |by| pass(&settings, by).await)
    })
    .await;
}

#[tokio::test]
async fn values_end_by_themselves_and_prefixes_keep_apart() {
    let (one, other) = (RedisCache::new(&settings()).unwrap(), RedisCache::new(&settings()).unwrap());
    one.set("a", b"1".to_vec(), Micros::from_millis(30)).await.unwrap();
    one.set("long", b"1".to_vec(), TTL).await.unwrap();
    one.increment("n", Micros::from_millis(30)).await.unwrap();
    assert_eq!(other.get("long").await.unwrap(), None);
    eventually("the end of a value", async || one.get("a").await.unwrap().is_none()).await;
    eventually("the end of a count", async || one.get("n").await.unwrap().is_none()).await;
    assert_eq!(one.get("long").await.unwrap(), Some(b"1".to_vec()));
}

#[tokio::test]
async fn replicas_count_together() {
    let settings = settings();
    let replicas = [RedisCache::new(&settings).unwrap(), RedisCache::new(&settings).unwrap()];
    let counts = replicas.iter().cycle().take(40).map(|replica| replica.increment("n", TTL));
    let mut counts: Vec<u64> =
        futures::future::join_all(counts).await.into_iter().map(Result::unwrap).collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_counter_of_somebody_elses_without_an_end_gets_one() {
    let settings = settings();
    let cache = RedisCache::new(&settings).unwrap();
    let mut connection = raw(&settings.url).await;
    let key = format!("{}:n", settings.prefix);
    let _: () = redis::cmd("SET").arg(&key).arg(7).query_async(&mut connection).await.unwrap();
    assert_eq!(cache.increment("n", TTL).await.unwrap(), 1);
    let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
    assert!(left > 0, "{left}");
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_and_one_where_nobody_is_fails_each_call() {
    assert!(RedisCache::new(&RedisSettings::new("http://127.0.0.1", "x")).is_err());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cache = RedisCache::new(&RedisSettings::new(format!("redis://127.0.0.1:{port}"), "x")).unwrap();
    for _ in 0..2 {
        assert!(cache.get("a").await.is_err());
        assert!(cache.increment("a", TTL).await.is_err());
    }
}

/// A guarded cache on a server of the test's own.
fn own() -> (OwnServer, RedisCache, GuardedCache) {
    let server = OwnServer::start("ORCHESTRATOR_TEST_REDIS_COMMAND");
    let url = format!("redis://127.0.0.1:{}", server.port);
    let settings = RedisSettings::new(url, "test");
    let inner = Arc::new(RedisCache::new(&settings).unwrap());
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    // No pause, so that the first call after the server's return finds it.
    let guard = GuardedCacheSettings { timeout: Duration::from_secs(2), pause: Duration::ZERO };
    (server, RedisCache::new(&settings).unwrap(), GuardedCache::new(inner, clock, guard))
}

async fn answers(cache: &impl CacheClient) {
    eventually("an answer", async || cache.set("there", b"1".to_vec(), TTL).await.is_ok()).await;
}

#[tokio::test]
async fn a_server_that_is_killed_is_done_without_and_used_again_once_it_is_back() {
    let (mut server, _, cache) = own();
    answers(&cache).await;
    assert_eq!(cache.get("there").await.unwrap(), Some(b"1".to_vec()));
    server.kill();
    assert_eq!(cache.get("there").await.unwrap(), None);
    assert_eq!(cache.increment("n", TTL).await.unwrap(), 1);
    assert_eq!(cache.increment("n", TTL).await.unwrap(), 2);
    assert!(cache.set("there", b"2".to_vec(), TTL).await.is_err());
    server.start_again();
    answers(&cache).await;
    assert_eq!(cache.get("there").await.unwrap(), Some(b"1".to_vec()));
    assert_eq!(cache.increment("n", TTL).await.unwrap(), 1, "counted by the server again");
}

#[tokio::test]
async fn a_server_that_hangs_is_not_waited_for_longer_than_a_call_may_take() {
    let (server, unguarded, cache) = own();
    answers(&cache).await;
    answers(&unguarded).await;
    server.freeze();
    assert!(unguarded.get("there").await.is_err());
    assert_eq!(cache.get("there").await.unwrap(), None);
    assert_eq!(cache.increment("n", TTL).await.unwrap(), 1);
    server.thaw();
    answers(&cache).await;
    answers(&unguarded).await;
    assert_eq!(unguarded.get("there").await.unwrap(), Some(b"1".to_vec()));
}

#[tokio::test]
async fn the_server_tells_its_version() {
    let server = RedisCache::new(&settings()).unwrap().server().await.unwrap();
    assert!(server.version.starts_with(|first: char| first.is_ascii_digit()), "{server:?}");
    assert_eq!(server.mode, "standalone");
}

#[tokio::test]
async fn the_doctor_names_what_is_wrong() {
    let fine = orchestrator::resource::redis::examine(&RedisCache::new(&settings()).unwrap()).await;
    assert!(fine.version.as_deref().is_some_and(|version| version.starts_with("redis ")), "{fine:?}");
    assert!(fine.is_ready(), "{fine:?}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = RedisCache::new(&RedisSettings::new(format!("redis://127.0.0.1:{port}"), "x")).unwrap();
    let found = orchestrator::resource::redis::examine(&nobody).await;
    assert!(found.version.is_none() && found.findings[0].fix.contains("cache.url"), "{found:?}");
}
