//! What replicas tell each other through a cache: offerings and scores. The cases are for any cache; here they run on the one in
//! memory, at the cluster's tests on Redis.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use orchestrator::{
    client::{
        cache::{MemoryCache, MemoryCacheSettings},
        db::memory::MemoryDatabase,
    },
    core::{
        client::{
            cache::CacheClient,
            database::{Changeset, Committer, DatabaseError, Document, Filter, Page, Query, Reader, Result},
            schema::{self, Collection},
        },
        market::{
            offering::OfferingFilter,
            quantity::{Bytes, Micros},
        },
    },
    error::ErrorCode,
    service::{
        answers::SharedAnswers,
        scoring::{
            ChangeFeed, OfferingPage, OfferingService, OfferingSettings, OfferingSort, ReputationService,
        },
        sla::EvidenceService,
        work::{Call, Work},
    },
};
use parking_lot::Mutex;

use super::world::{World, id, qos, unit};

/// A way to the database that counts what it is asked for, and can be cut.
pub struct Wire {
    inner: Arc<MemoryDatabase>,
    pub cut: AtomicBool,
    asked: Mutex<BTreeMap<&'static str, u64>>,
}

impl Wire {
    fn ask(&self, collection: Collection) -> Result<&MemoryDatabase> {
        *self.asked.lock().entry(collection.0).or_default() += 1;
        match self.cut.load(Ordering::SeqCst) {
            true => Err(DatabaseError::Unavailable("cut".into())),
            false => Ok(&self.inner),
        }
    }

    pub fn asked(&self, collection: Collection) -> u64 {
        self.asked.lock().get(collection.0).copied().unwrap_or(0)
    }
}

#[async_trait]
impl Reader for Wire {
    async fn get(&self, collection: Collection, id: &str) -> Result<Option<Document>> {
        self.ask(collection)?.get(collection, id).await
    }
    async fn find(&self, query: Query) -> Result<Page> {
        self.ask(query.collection)?.find(query).await
    }
    async fn count(&self, collection: Collection, filter: Filter) -> Result<u64> {
        self.ask(collection)?.count(collection, filter).await
    }
}

/// A replica, as far as it shows offerings and scores.
pub struct Replica {
    pub wire: Arc<Wire>,
    pub feed: ChangeFeed,
    pub offerings: OfferingService,
    pub reputations: ReputationService,
    pub evidence: EvidenceService,
}

pub fn replica(world: &World, cache: &Arc<dyn CacheClient>) -> Replica {
    let wire =
        Arc::new(Wire { inner: world.db.clone(), cut: AtomicBool::new(false), asked: Mutex::default() });
    let (ids, feed) = (world.work.ids.clone(), ChangeFeed::new());
    let answers = SharedAnswers::over(cache.clone(), ids.clone(), "market");
    let work = Work::new(wire.clone(), world.work.committer.clone(), ids.clone());
    let settings = OfferingSettings::default();
    Replica {
        offerings: OfferingService::sharing(wire.clone(), ids, feed.clone(), settings, answers.clone()),
        reputations: ReputationService::new(work.clone()).with_answers(answers.clone()),
        evidence: EvidenceService::new(work, world.settings.clone()).with_answers(answers),
        wire,
        feed,
    }
}

impl Replica {
    pub async fn list(&self) -> orchestrator::error::Result<Arc<OfferingPage>> {
        let filter = OfferingFilter::default();
        self.offerings.list(&Call::system("t"), &filter, 20, None, OfferingSort::Score).await
    }
}

/// Ten units; oracles saw two of them.
pub async fn world() -> World {
    let world = World::new().await;
    let mut changes = Changeset::new();
    for n in 2..=10 {
        changes.insert(&orchestrator::core::market::unit::DataUnit { provider: id(1), ..unit(n) });
    }
    world.work.committer.commit(changes).await.unwrap();
    for _ in 0..3 {
        world.clock.advance(Micros::from_secs(1));
        world.report_last_second(1, qos(100, 10)).await;
    }
    world
}

/// Evidence is counted once for all replicas, is no older than where it is counted, and nothing is missing without the cache.
pub async fn evidence_is_counted_once(cache: &Arc<dyn CacheClient>) {
    let world = world().await;
    let first = replica(&world, cache);
    let page = first.list().await.unwrap();
    assert!(first.wire.asked(schema::BUCKETS) > 0);
    assert!(
        page.offerings.iter().any(|o| o.unit == id(1) && o.explanation.contains("of 300 seen")),
        "{page:?}"
    );

    // Seen since then: a unit that nobody has counted.
    let mut changes = Changeset::new();
    changes.insert(&unit(11));
    world.db.commit(changes).await.unwrap();
    world.clock.advance(Micros::from_secs(100));
    let second = replica(&world, cache);
    let taken_over = second.list().await.unwrap();
    assert_eq!(taken_over.offerings.len(), 11);
    assert_eq!(second.wire.asked(schema::BUCKETS), 1, "the new unit's");
    let scores = |page: &OfferingPage| -> BTreeMap<_, _> {
        page.offerings.iter().map(|o| (o.unit, (o.score.performance, o.explanation.clone()))).collect()
    };
    let (mut all, known) = (scores(&taken_over), scores(&page));
    all.retain(|unit, _| known.contains_key(unit));
    assert_eq!(all, known);

    // What was taken over ages from when it was counted.
    let full = OfferingSettings::default().full_refresh;
    world.clock.advance(Micros(full.get() - Micros::from_secs(101).get()));
    let before = second.wire.asked(schema::UNITS);
    second.list().await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(second.wire.asked(schema::UNITS), before, "a second is left");
    let late = replica(&world, cache);
    // Not by a page of another one's.
    late.offerings.refresh().await.unwrap();
    assert!(late.wire.asked(schema::BUCKETS) > 1, "too old for one that starts");
    world.clock.advance(Micros::from_secs(1));
    second.list().await.unwrap();
    for _ in 0..10_000 {
        if second.wire.asked(schema::UNITS) > before {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("what was taken over is kept for longer than what was counted");
}

/// A replica that has nothing yet, and can't read anything, answers what others answered a moment ago, and nothing older.
pub async fn pages_serve_those_who_have_none(cache: &Arc<dyn CacheClient>) {
    let world = world().await;
    let (old, new) = (replica(&world, cache), replica(&world, cache));
    new.wire.cut.store(true, Ordering::SeqCst);
    assert_eq!(new.list().await.unwrap_err().code, ErrorCode::Unavailable);
    let page = old.list().await.unwrap();
    // A server's clock goes on, so the moment may be over before it is used.
    let told = async || {
        for _ in 0..200 {
            world.clock.advance(Micros::from_millis(126));
            old.list().await.unwrap();
            for _ in 0..100 {
                if let Ok(page) = new.list().await {
                    return page;
                }
                tokio::task::yield_now().await;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        panic!("nothing was told");
    };
    assert_eq!(*told().await, *page);
    world.clock.advance(Micros::from_millis(251));
    assert_eq!(new.list().await.unwrap_err().code, ErrorCode::Unavailable, "a moment, and no longer");

    // Changes were missed, and everything is to be read: the same holds, and what is told is what is new.
    new.wire.cut.store(false, Ordering::SeqCst);
    assert_eq!(new.list().await.unwrap().offerings.len(), 10);
    let mut changes = Changeset::new();
    changes.insert(&unit(11));
    world.db.commit(changes).await.unwrap();
    old.feed.note(unit(11).id.to_string());
    world.clock.advance(Micros::from_secs(1));
    assert_eq!(old.list().await.unwrap().offerings.len(), 11);
    new.wire.cut.store(true, Ordering::SeqCst);
    new.feed.note_all();
    let told = async || {
        for _ in 0..200 {
            world.clock.advance(Micros::from_millis(126));
            old.list().await.unwrap();
            for _ in 0..100 {
                // What it had before, while the database is away, or what it was told.
                if new.list().await.unwrap().offerings.len() == 11 {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        panic!("nothing was told");
    };
    told().await;
}

/// Standings and histories are read once for all replicas.
pub async fn standings_are_read_once(cache: &Arc<dyn CacheClient>) {
    let world = world().await;
    let (one, other) = (replica(&world, cache), replica(&world, cache));
    let call = Call::system("t");
    let day = Micros::from_days(1);
    // A server's clock goes on, so an answer may have expired before it is used.
    for _ in 0..50 {
        let reads = other.wire.asked(schema::UNITS) + other.wire.asked(schema::BUCKETS);
        let reads = reads + other.wire.asked(schema::REPUTATIONS);
        let mean = one.reputations.of_provider(&call, id(1)).await.unwrap();
        assert_eq!((mean.units, mean.millipoints), (10, 50_000));
        assert_eq!(other.reputations.of_provider(&call, id(1)).await.unwrap(), mean);
        let reputation = one.reputations.of_unit(&call, id(1)).await.unwrap();
        assert_eq!(other.reputations.of_unit(&call, id(1)).await.unwrap(), reputation);
        let history = one.evidence.recent_qos(&call, id(1), day, 100).await.unwrap();
        assert_eq!((history.len(), history[0].attempts), (3, 100));
        assert_eq!(other.evidence.recent_qos(&call, id(1), day, 100).await.unwrap(), history);
        let now = other.wire.asked(schema::UNITS) + other.wire.asked(schema::BUCKETS);
        if now + other.wire.asked(schema::REPUTATIONS) == reads {
            return;
        }
        world.clock.advance(Micros::from_secs(2));
    }
    panic!("each replica reads for itself");
}

fn memory(world: &World) -> Arc<dyn CacheClient> {
    Arc::new(MemoryCache::new(Arc::new(world.clock.clone()), &MemoryCacheSettings::default()))
}

#[tokio::test]
async fn in_memory() {
    // Its clock is not the worlds', so that the stamps alone decide.
    let cache = memory(&World::new().await);
    evidence_is_counted_once(&cache).await;
    let cache = memory(&World::new().await);
    pages_serve_those_who_have_none(&cache).await;
    let cache = memory(&World::new().await);
    standings_are_read_once(&cache).await;
}

#[tokio::test]
async fn what_is_bought_is_checked_again() {
    let world = world().await;
    let cache = memory(&world);
    let (one, other) = (replica(&world, &cache), replica(&world, &cache));
    one.list().await.unwrap();
    one.list().await.unwrap();
    // Sold out meanwhile: the page that was told still offers it, the unit's own document decides.
    let mut sold = unit(2);
    sold.free = 0;
    let mut changes = Changeset::new();
    changes.replace(1, &orchestrator::core::market::unit::DataUnit { provider: id(1), ..sold });
    world.db.commit(changes).await.unwrap();
    other.feed.note(unit(2).id.to_string());
    world.clock.advance(Micros::from_secs(1));
    let page = other.list().await.unwrap();
    assert!(page.offerings.iter().all(|offering| offering.unit != id(2) && offering.free > Bytes(0)));
}
