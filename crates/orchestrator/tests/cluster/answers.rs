//! What replicas tell each other, on Redis: told, expired, garbage, frozen, gone.

use std::{sync::Arc, time::Duration};

use orchestrator::{
    client::{
        cache::{GuardedCache, GuardedCacheSettings, RedisCache, RedisSettings},
        clock::SystemClock,
    },
    core::{
        client::{cache::CacheClient, schema},
        market::quantity::Micros,
    },
    service::work::Call,
};

use crate::{
    servers::{OwnServer, eventually, unique, variable},
    sla::{
        shared::{self, Replica, replica},
        world::id,
    },
};

fn on(settings: &RedisSettings) -> Arc<dyn CacheClient> {
    let redis = Arc::new(RedisCache::new(settings).unwrap());
    // No pause, so that the first call after the server's return finds it.
    let guard = GuardedCacheSettings { timeout: settings.timeout, pause: Duration::ZERO };
    Arc::new(GuardedCache::new(redis, Arc::new(SystemClock::new()), guard))
}

fn settings() -> RedisSettings {
    // On a busy machine a test may have to wait.
    let timeout = Duration::from_secs(20);
    RedisSettings {
        timeout,
        ..RedisSettings::new(variable("ORCHESTRATOR_TEST_REDIS_URL"), unique("answers"))
    }
}

async fn raw(settings: &RedisSettings) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(settings.url.as_str()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn keys(settings: &RedisSettings) -> Vec<String> {
    let pattern = format!("{}:*", settings.prefix);
    redis::cmd("KEYS").arg(pattern).query_async(&mut raw(settings).await).await.unwrap()
}

async fn units_of(replica: &Replica) -> u64 {
    replica.reputations.of_provider(&Call::system("t"), id(1)).await.unwrap().units
}

#[tokio::test]
async fn replicas_share_evidence() {
    shared::evidence_is_counted_once(&on(&settings())).await;
}

#[tokio::test]
async fn replicas_share_pages() {
    shared::pages_serve_those_who_have_none(&on(&settings())).await;
}

#[tokio::test]
async fn replicas_share_standings() {
    shared::standings_are_read_once(&on(&settings())).await;
}

#[tokio::test]
async fn what_was_told_expires_by_the_servers_clock() {
    let (world, settings) = (shared::world().await, settings());
    let replica = replica(&world, &on(&settings));
    assert_eq!(units_of(&replica).await, 10);
    let reads = replica.wire.asked(schema::UNITS);
    // The clock of the replica stands still.
    eventually("the end of an answer", async || {
        assert_eq!(units_of(&replica).await, 10);
        replica.wire.asked(schema::UNITS) > reads
    })
    .await;
    replica.list().await.unwrap();
    let mut connection = raw(&settings).await;
    for key in keys(&settings).await {
        let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
        // Gone by now, or with an end: evidence for half a refresh, everything else for less than a second.
        let most = if key.contains("/performance/") { 150_000 } else { 750 };
        assert!(left == -2 || (0..=most).contains(&left), "{key}: {left}");
    }
}

#[tokio::test]
async fn garbage_is_as_good_as_nothing() {
    let (world, settings) = (shared::world().await, settings());
    let cache = on(&settings);
    let first = replica(&world, &cache);
    let page = first.list().await.unwrap();
    first.list().await.unwrap();
    units_of(&first).await;
    eventually("a page and evidence", async || {
        world.clock.advance(Micros::from_millis(126));
        first.list().await.unwrap();
        units_of(&first).await;
        let keys = keys(&settings).await;
        ["/performance/", "/offerings/", "/standing/"]
            .iter()
            .all(|kind| keys.iter().any(|key| key.contains(kind)))
    })
    .await;
    let keys = keys(&settings).await;
    let mut connection = raw(&settings).await;
    for garbage in ["", "\u{0}\u{1}", "{}", "[]", "{\"format\":0,\"as_of\":0,\"value\":1}", "null"] {
        for key in &keys {
            let () = redis::cmd("SET")
                .arg(key)
                .arg(garbage)
                .arg("PX")
                .arg(60_000)
                .query_async(&mut connection)
                .await
                .unwrap();
        }
        let replica = replica(&world, &cache);
        let found = replica.list().await.unwrap();
        assert_eq!(found.offerings, page.offerings, "{garbage:?}");
        assert!(replica.wire.asked(schema::BUCKETS) > 0, "{garbage:?}");
        assert_eq!(units_of(&replica).await, 10, "{garbage:?}");
    }
    // A value of another type at the key, which the server refuses to read.
    for key in &keys {
        let () = redis::cmd("DEL").arg(key).query_async(&mut connection).await.unwrap();
        let _: i64 = redis::cmd("RPUSH").arg(key).arg("a").query_async(&mut connection).await.unwrap();
        let _: i64 = redis::cmd("PEXPIRE").arg(key).arg(60_000).query_async(&mut connection).await.unwrap();
    }
    let replica = replica(&world, &cache);
    assert_eq!(replica.list().await.unwrap().offerings, page.offerings);
    assert_eq!(units_of(&replica).await, 10);
}

#[tokio::test]
async fn a_cache_that_hangs_or_is_gone_slows_and_fails_nothing() {
    let world = shared::world().await;
    let mut server = OwnServer::start("ORCHESTRATOR_TEST_REDIS_COMMAND");
    let url = format!("redis://127.0.0.1:{}", server.port);
    let settings = RedisSettings::new(url, "test");
    let cache = on(&settings);
    eventually("the server", async || cache.set("there", vec![], Micros::from_secs(60)).await.is_ok()).await;
    let page = replica(&world, &cache).list().await.unwrap();
    server.freeze();
    let hanging = replica(&world, &cache);
    assert_eq!(hanging.list().await.unwrap().offerings, page.offerings);
    assert_eq!(units_of(&hanging).await, 10);
    server.thaw();
    server.kill();
    let without = replica(&world, &cache);
    assert_eq!(without.list().await.unwrap().offerings, page.offerings);
    assert!(without.wire.asked(schema::BUCKETS) > 0);
    for read in 1..=3 {
        let before = without.wire.asked(schema::UNITS);
        assert_eq!(units_of(&without).await, 10);
        assert!(without.wire.asked(schema::UNITS) > before, "read {read}");
    }
    // Back, and empty.
    server.start_again();
    eventually("the server", async || cache.set("there", vec![], Micros::from_secs(60)).await.is_ok()).await;
    let first = replica(&world, &cache);
    eventually("evidence is shared again", async || {
        first.offerings.refresh().await.unwrap();
        let next = replica(&world, &cache);
        assert_eq!(next.list().await.unwrap().offerings, page.offerings);
        next.wire.asked(schema::BUCKETS) == 0
    })
    .await;
}
