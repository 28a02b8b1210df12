//! Laws of concurrency, with real threads, the real clock and SQLite in a file; and the late packet of a paused worker,
//! which no provider takes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use orchestrator::{
    client::{
        clock::{SeededEntropy, SystemClock, SystemEntropy},
        db::sqlite::{Options, SqliteDatabase},
        provider::{EmbeddedProvider, EmbeddedSettings, FakeProvider},
    },
    controller::worker::{Driver, DriverSettings},
    core::{
        client::{
            clock::Clock,
            database::{
                Changeset, Claim, Claimer, Committer, DatabaseClient, DatabaseError, Document, Filter,
                ReaderExt, Result as DbResult,
            },
            provider::{AccessLevel, AllocateRequest, Generation, Operation, ProviderClient, ProviderError},
            schema,
        },
        job::{Job, JobKind, JobState, NewJob},
        market::{
            ids::{AllocationId, Id, IdGenerator},
            quantity::{Bytes, Micros},
        },
    },
    error::Error,
    service::job::{
        Engine, EnginePorts, EngineSettings, JobContext, JobError, JobHandler, Policy, Processed, Wake,
    },
};
use orchestrator_provider::{ProviderOptions, ProviderServer};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::harness::{World, turn};

const KIND: JobKind = JobKind::Release;
const LEASE: Micros = Micros::from_millis(400);

/// A process's way to the database: once it is dead nothing is answered, not even what was done.
struct Line {
    database: Arc<dyn DatabaseClient>,
    dead: AtomicBool,
}

impl Line {
    fn check(&self) -> DbResult<()> {
        match self.dead.load(Ordering::SeqCst) {
            true => Err(DatabaseError::Unavailable("the process was killed".into())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Committer for Line {
    async fn commit(&self, changeset: Changeset) -> DbResult<()> {
        self.check()?;
        self.database.commit(changeset).await?;
        self.check()
    }
}

#[async_trait]
impl Claimer for Line {
    async fn claim(&self, claim: Claim) -> DbResult<Vec<Document>> {
        self.check()?;
        let claimed = self.database.claim(claim).await?;
        self.check().map(|()| claimed)
    }
}

/// Adds one to the subject's counter, after a while.
struct Counting {
    mutates: bool,
    pause: Duration,
    /// The first so many calls block their whole runtime for longer than a lease.
    freezes: AtomicU32,
}

#[async_trait]
impl JobHandler for Counting {
    fn kind(&self) -> JobKind {
        KIND
    }
    fn policy(&self) -> Policy {
        Policy { mutates_subject: self.mutates, concurrency: 8, max_attempts: 20, ..Policy::default() }
    }
    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let freezes =
            self.freezes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if freezes.is_ok() {
            std::thread::sleep(LEASE.to_std() * 3);
        }
        tokio::time::sleep(self.pause).await;
        let mut changes = Changeset::new();
        changes.add(schema::META, format!("count-{}", context.job().id), "count", 1, 0);
        Ok(Processed::Done(changes))
    }
}

struct Market {
    database: Arc<dyn DatabaseClient>,
    ids: IdGenerator,
    lease: Micros,
    _keep: Box<dyn std::any::Any + Send>,
}

impl Market {
    async fn new(jobs: usize, subjects: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = SqliteDatabase::open(&directory.path().join("db"), Options::default()).unwrap();
        database.connect(schema::ALL).await.unwrap();
        Self::over(database, Box::new(directory), LEASE, (jobs, subjects)).await
    }

    async fn over(
        database: Arc<dyn DatabaseClient>,
        keep: Box<dyn std::any::Any + Send>,
        lease: Micros,
        (jobs, subjects): (usize, usize),
    ) -> Self {
        let clock = Arc::new(SystemClock::new());
        let ids = IdGenerator::new(clock.clone(), Arc::new(SystemEntropy));
        let mut changes = Changeset::new();
        for key in 0..jobs {
            let job = NewJob::now(KIND, format!("subject-{}", key % subjects), key, clock.now());
            let id = job.enqueue(&mut changes, &ids);
            changes.insert_json(schema::META, format!("count-{id}"), &json!({"count": 0}));
        }
        database.commit(changes).await.unwrap();
        Self { database, ids, lease, _keep: keep }
    }

    fn process(&self, seed: u64, handler: Counting) -> (Arc<Line>, Driver) {
        self.process_over(self.database.clone(), seed, handler)
    }

    fn process_over(
        &self,
        database: Arc<dyn DatabaseClient>,
        seed: u64,
        handler: Counting,
    ) -> (Arc<Line>, Driver) {
        let line = Arc::new(Line { database: database.clone(), dead: AtomicBool::new(false) });
        let ports = EnginePorts {
            reader: database,
            claimer: line.clone(),
            committer: line.clone(),
            ids: self.ids.clone(),
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(SeededEntropy::new(seed)),
            wake: Arc::new(Wake::default()),
        };
        let settings = EngineSettings {
            lease: self.lease,
            subject_delay: Micros::from_millis(5),
            ..EngineSettings::default()
        };
        let engine = Engine::new(ports, settings, vec![Arc::new(handler)]);
        let settings = DriverSettings {
            fallback: Micros::from_millis(20),
            idle_fallback: Micros::from_millis(20),
            heartbeat: Micros::from_millis(50),
            reap_every: Micros::from_millis(50),
            drain: Micros::from_millis(500),
        };
        (line, Driver::new(engine, settings))
    }

    /// Waits until every job is completed, then checks that each took hold once.
    async fn each_once(&self, jobs: u64) {
        let completed = || self.database.count(schema::JOBS, Filter::eq("state", "completed"));
        for _ in 0..3_000 {
            if completed().await.unwrap() == jobs {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(completed().await.unwrap(), jobs);
        let once = Filter::IdPrefix("count-".into()).and(Filter::eq("count", 1));
        assert_eq!(self.database.count(schema::META, once).await.unwrap(), jobs);
    }
}

fn counting(mutates: bool, freezes: u32) -> Counting {
    Counting { mutates, pause: Duration::from_millis(1), freezes: AtomicU32::new(freezes) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_engines_share_a_file_and_the_work_of_a_killed_one_is_done_once() {
    let market = Market::new(300, 20).await;
    let doomed = market.process(1, counting(true, 0));
    let survivor = market.process(2, counting(true, 0));
    one_is_killed(&market, doomed, survivor.1, 300).await;
}

/// As above, each with a client of its own. The server of the tests is slow: fewer jobs, longer leases.
#[cfg(feature = "mongodb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_engines_share_a_server_and_the_work_of_a_killed_one_is_done_once() {
    let (one, two, keep) = crate::contract::mongodb::connected_twice().await;
    let market = Market::over(one, Box::new(keep), Micros::from_secs(2), (40, 8)).await;
    let doomed = market.process(1, counting(true, 0));
    let survivor = market.process_over(two, 2, counting(true, 0));
    one_is_killed(&market, doomed, survivor.1, 40).await;
}

async fn one_is_killed(market: &Market, (line, doomed): (Arc<Line>, Driver), survivor: Driver, jobs: u64) {
    let stop = CancellationToken::new();
    let killed = tokio::spawn(doomed.run(CancellationToken::new()));
    let running = tokio::spawn(survivor.run(stop.clone()));
    // Killed in the middle of its work, without a word.
    while market.database.count(schema::JOBS, Filter::eq("state", "completed")).await.unwrap() < jobs / 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    line.dead.store(true, Ordering::SeqCst);
    killed.abort();
    market.each_once(jobs).await;
    stop.cancel();
    running.await.unwrap();
}

#[test]
fn a_frozen_process_loses_its_leases_and_takes_no_effect_when_it_thaws() {
    const JOBS: u64 = 16;
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let market = runtime().block_on(Market::new(16, 16));
    // Its one thread sleeps in a handler: no heartbeat, no reaper, while eight jobs are in its hands.
    let (_, frozen) = market.process(1, counting(false, 1));
    let (_, other) = market.process(2, counting(false, 0));
    let stop = CancellationToken::new();
    let threads = [(frozen, 0), (other, 100)].map(|(driver, delay)| {
        let stop = stop.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(delay));
            runtime().block_on(driver.run(stop));
        })
    });
    runtime().block_on(market.each_once(JOBS));
    // Long enough for the frozen one to come back with what it had in hand.
    std::thread::sleep(LEASE.to_std() * 4);
    runtime().block_on(market.each_once(JOBS));
    let jobs = runtime().block_on(market.database.list_all::<Job>(Filter::All)).unwrap();
    assert!(jobs.iter().any(|job| job.value.losses > 0), "nothing was taken over");
    stop.cancel();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Narrows or opens an allocation at its provider.
struct Restricting {
    provider: Arc<dyn ProviderClient>,
    allocation: AllocationId,
    level: AccessLevel,
    gate: Arc<Semaphore>,
    answers: Arc<Mutex<Vec<(u64, bool)>>>,
}

#[async_trait]
impl JobHandler for Restricting {
    fn kind(&self) -> JobKind {
        JobKind::SyncAccess
    }
    fn policy(&self) -> Policy {
        Policy { mutates_subject: true, timeout: Micros::from_days(1), ..Policy::default() }
    }
    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let generation = context.generation();
        self.gate.acquire().await.unwrap().forget();
        let answer = self.provider.restrict(self.allocation, generation, self.level).await;
        self.answers.lock().push((generation.0, matches!(answer, Err(ProviderError::Stale(_)))));
        answer.map_err(|error| JobError::Transient(Error::internal(error)))?;
        Ok(Processed::Done(Changeset::new()))
    }
}

/// A worker is paused before its call; its lease runs out, another does the job; then the call goes out after all.
async fn a_late_call_is_refused(provider: Arc<dyn ProviderClient>) {
    let world = World::new(110);
    let allocation = AllocationId::from_uuid(uuid::Uuid::from_u128(1));
    let request = AllocateRequest {
        allocation,
        generation: Generation(1),
        bytes: Bytes(1_000),
        region: "local".into(),
    };
    while provider.allocate(&request).await.unwrap() == Operation::Pending {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answers = Arc::new(Mutex::new(Vec::new()));
    let handler = |level, permits| {
        let gate = Arc::new(Semaphore::new(permits));
        let (provider, answers) = (provider.clone(), answers.clone());
        (gate.clone(), Arc::new(Restricting { provider, allocation, level, gate, answers }))
    };
    let (gate, paused) = handler(AccessLevel::None, 0);
    let (_, prompt) = handler(AccessLevel::ReadOnly, 9);
    let (slow, quick) = (
        world.engine_over(world.db.clone(), vec![paused]),
        world.engine_over(world.db.clone(), vec![prompt]),
    );
    let id = world.enqueue(world.new_job(JobKind::SyncAccess, &allocation.to_string(), "1")).await;
    assert_eq!(slow.tick().await.unwrap().claimed, 1);
    turn().await;
    world.clock.advance(EngineSettings::default().lease);
    assert_eq!(quick.reap().await.unwrap(), 1);
    assert_eq!(quick.tick().await.unwrap().claimed, 1);
    quick.idle().await;
    assert_eq!(world.state(id).await, JobState::Completed);
    let done = world.job(id).await;
    gate.add_permits(1);
    slow.idle().await;
    assert_eq!(*answers.lock(), [(2, false), (1, true)]);
    assert_eq!(world.job(id).await, done, "and the job is as the other left it");
}

#[tokio::test]
async fn the_late_call_of_a_paused_worker_is_refused_by_the_fake() {
    let provider = Arc::new(FakeProvider::new(Bytes(1 << 20)));
    a_late_call_is_refused(provider.clone()).await;
    let allocation = AllocationId::from_uuid(uuid::Uuid::from_u128(1));
    assert_eq!(provider.level(allocation), Some(AccessLevel::ReadOnly));
}

#[tokio::test]
async fn the_late_call_of_a_paused_worker_is_refused_by_the_built_in_provider() {
    const TOKEN: &str = "an admin token of the tests";
    let directory = tempfile::tempdir().unwrap();
    let server = ProviderServer::start(ProviderOptions::new(directory.path(), TOKEN)).await.unwrap();
    let token = Zeroizing::new(TOKEN.to_owned());
    let provider = EmbeddedProvider::new(&server.admin_url(), token, EmbeddedSettings::default()).unwrap();
    a_late_call_is_refused(Arc::new(provider)).await;
    server.shutdown().await;
}
