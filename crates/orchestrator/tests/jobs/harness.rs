//! A world with a database in memory, a clock that stands still, and handlers that do as they are told.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use orchestrator::{
    client::{
        clock::{ManualClock, SeededEntropy},
        db::memory::MemoryDatabase,
    },
    core::{
        client::{
            clock::Clock,
            database::{Changeset, Committer, DatabaseError, Filter, ReaderExt, Result as DbResult},
            schema,
        },
        job::{Job, JobKind, JobState, NewJob},
        market::{
            ids::{IdGenerator, JobId},
            quantity::{Micros, Timestamp},
        },
    },
    error::{Error, ErrorCode},
    service::{
        job::{
            Engine, EnginePorts, EngineSettings, JobContext, JobError, JobHandler, Policy, Processed,
            Verified, Wake,
        },
        outbox::{OutboxRow, Outgoing},
        work::Work,
    },
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Semaphore;

/// What a scripted phase does.
pub enum Act {
    Done,
    Write(Changeset),
    Verify,
    Refute,
    Transient,
    Permanent,
    Poll(Micros),
    Panic,
    /// Never returns.
    Hang,
    /// Waits for a permit, then is done.
    Gate(Arc<Semaphore>),
}

type Script = Box<dyn Fn(&Job, u32) -> Act + Send + Sync>;

/// A handler that follows scripts: each is given the job and the count of the call, from 1.
pub struct Scripted {
    pub kind: JobKind,
    pub policy: Policy,
    pub process: Script,
    pub verify: Script,
    pub on_failed: Script,
    pub log: Arc<Log>,
}

/// What handlers saw.
#[derive(Default)]
pub struct Log {
    calls: Mutex<HashMap<(JobId, &'static str), u32>>,
    pub generations: Mutex<Vec<(JobId, u64)>>,
    active: AtomicI64,
    pub most_active: AtomicI64,
    active_jobs: Mutex<HashMap<JobId, u32>>,
    pub doubled: AtomicBool,
}

impl Log {
    pub fn calls(&self, job: JobId, phase: &'static str) -> u32 {
        self.calls.lock().get(&(job, phase)).copied().unwrap_or(0)
    }

    fn enter(&self, job: JobId) {
        let now = self.active.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_active.fetch_max(now, Ordering::SeqCst);
        let mut active = self.active_jobs.lock();
        let count = active.entry(job).or_default();
        *count += 1;
        if *count > 1 {
            self.doubled.store(true, Ordering::SeqCst);
        }
    }

    fn leave(&self, job: JobId) {
        self.active.fetch_sub(1, Ordering::SeqCst);
        if let Some(count) = self.active_jobs.lock().get_mut(&job) {
            *count -= 1;
        }
    }
}

struct Inside<'a>(&'a Log, JobId);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

pub fn scripted(kind: JobKind, process: impl Fn(&Job, u32) -> Act + Send + Sync + 'static) -> Scripted {
    Scripted {
        kind,
        policy: Policy { max_attempts: 3, max_verify_attempts: 3, max_rounds: 2, ..Policy::default() },
        process: Box::new(process),
        verify: Box::new(|_, _| Act::Done),
        on_failed: Box::new(|_, _| Act::Done),
        log: Arc::default(),
    }
}

impl Scripted {
    pub fn verify(mut self, verify: impl Fn(&Job, u32) -> Act + Send + Sync + 'static) -> Self {
        self.verify = Box::new(verify);
        self
    }

    pub fn on_failed(mut self, on_failed: impl Fn(&Job, u32) -> Act + Send + Sync + 'static) -> Self {
        self.on_failed = Box::new(on_failed);
        self
    }

    pub fn policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.policy);
        self
    }

    async fn act(
        &self,
        context: &dyn JobContext,
        phase: &'static str,
        script: &Script,
    ) -> Result<Act, JobError> {
        let job = context.job();
        let call = {
            let mut calls = self.log.calls.lock();
            let call = calls.entry((job.id, phase)).or_default();
            *call += 1;
            *call
        };
        self.log.generations.lock().push((job.id, context.generation().0));
        self.log.enter(job.id);
        let _inside = Inside(&self.log, job.id);
        // A turn for others, so that what may run side by side does.
        tokio::task::yield_now().await;
        let failed = || Error::new(ErrorCode::ProviderFailed, "scripted");
        match script(job, call) {
            Act::Transient => Err(JobError::Transient(failed())),
            Act::Permanent => Err(JobError::Permanent(failed())),
            Act::Poll(after) => Err(JobError::PollAgain(after)),
            Act::Panic => panic!("scripted panic"),
            Act::Hang => std::future::pending().await,
            Act::Gate(gate) => {
                gate.acquire().await.unwrap().forget();
                Ok(Act::Done)
            }
            act => Ok(act),
        }
    }
}

#[async_trait]
impl JobHandler for Scripted {
    fn kind(&self) -> JobKind {
        self.kind
    }

    fn policy(&self) -> Policy {
        self.policy
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        Ok(match self.act(context, "process", &self.process).await? {
            Act::Write(changes) => Processed::Done(changes),
            Act::Verify => Processed::Verify {
                changes: Changeset::new(),
                output: json!({"processed": true}),
                delay: Micros::ZERO,
            },
            _ => Processed::Done(Changeset::new()),
        })
    }

    async fn verify(&self, context: &dyn JobContext) -> Result<Verified, JobError> {
        Ok(match self.act(context, "verify", &self.verify).await? {
            Act::Write(changes) => Verified::Confirmed(changes),
            Act::Refute => Verified::Refuted("scripted".into()),
            _ => Verified::Confirmed(Changeset::new()),
        })
    }

    async fn on_failed(&self, context: &dyn JobContext, _: &Error) -> Result<Changeset, JobError> {
        Ok(match self.act(context, "on_failed", &self.on_failed).await? {
            Act::Write(changes) => changes,
            _ => Changeset::new(),
        })
    }
}

/// A committer that dies after so many commits: from then on nothing is answered. The fatal commit itself is applied, or not.
pub struct Mortal {
    inner: Arc<MemoryDatabase>,
    left: AtomicI64,
    applies_the_last: bool,
}

impl Mortal {
    pub fn new(inner: Arc<MemoryDatabase>, lives: i64, applies_the_last: bool) -> Arc<Self> {
        Arc::new(Self { inner, left: AtomicI64::new(lives), applies_the_last })
    }

    pub fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }
}

#[async_trait]
impl Committer for Mortal {
    async fn commit(&self, changeset: Changeset) -> DbResult<()> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left > 0 {
            return self.inner.commit(changeset).await;
        }
        if left == 0 && self.applies_the_last {
            self.inner.commit(changeset).await?;
        }
        Err(DatabaseError::Unavailable("the process has died".into()))
    }
}

/// The world.
pub struct World {
    pub db: Arc<MemoryDatabase>,
    pub clock: ManualClock,
    pub entropy: Arc<SeededEntropy>,
    pub ids: IdGenerator,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let clock = ManualClock::new(Timestamp(1_700_000_000_000_000));
        let entropy = Arc::new(SeededEntropy::new(seed));
        let ids = IdGenerator::new(Arc::new(clock.clone()), entropy.clone());
        Self { db: MemoryDatabase::with_schema(), clock, entropy, ids }
    }

    pub fn work(&self) -> Work {
        Work::new(self.db.clone(), self.db.clone(), self.ids.clone())
    }

    pub fn engine(&self, handlers: Vec<Scripted>) -> Engine {
        self.engine_over(self.db.clone(), handlers.into_iter().map(|h| Arc::new(h) as _).collect())
    }

    pub fn engine_over(&self, committer: Arc<dyn Committer>, handlers: Vec<Arc<dyn JobHandler>>) -> Engine {
        let ports = EnginePorts {
            reader: self.db.clone(),
            claimer: self.db.clone(),
            committer,
            ids: self.ids.clone(),
            clock: Arc::new(self.clock.clone()),
            entropy: self.entropy.clone(),
            wake: Arc::new(Wake::default()),
        };
        Engine::new(ports, EngineSettings::default(), handlers)
    }

    pub fn new_job(&self, kind: JobKind, subject: &str, key: &str) -> NewJob {
        NewJob::now(kind, subject, key, self.clock.now())
    }

    pub async fn enqueue(&self, job: NewJob) -> JobId {
        let mut changes = Changeset::new();
        let id = job.enqueue(&mut changes, &self.ids);
        self.db.commit(changes).await.unwrap();
        id
    }

    pub async fn job(&self, id: JobId) -> Job {
        self.db.load::<Job>(&id.to_string()).await.unwrap().unwrap().value
    }

    pub async fn state(&self, id: JobId) -> JobState {
        self.job(id).await.state
    }

    pub async fn outgoing(&self) -> Vec<Outgoing> {
        let rows = self.db.list_all::<OutboxRow>(Filter::All).await.unwrap();
        rows.into_iter().map(|row| row.value.outgoing).collect()
    }

    pub async fn dead_letters(&self) -> Vec<String> {
        let letters = self.outgoing().await.into_iter().filter_map(|outgoing| match outgoing {
            Outgoing::DeadLetter { body, .. } => Some(body),
            _ => None,
        });
        letters.collect()
    }

    pub async fn alerts(&self) -> usize {
        self.outgoing().await.iter().filter(|o| matches!(o, Outgoing::Alert { .. })).count()
    }

    /// How often an effect named `name` took hold: a counter that only handlers' commits move.
    pub async fn counter(&self, name: &str) -> i64 {
        let body = self.db.get_body(name).await;
        body.map_or(0, |body| body["count"].as_i64().unwrap())
    }

    /// Lets due jobs run, while time stands still.
    pub async fn settle_some(&self, engine: &Engine) {
        while engine.tick().await.unwrap().claimed > 0 {
            engine.idle().await;
        }
    }

    /// Lets due jobs run, and time pass, until nothing is left to do within a day.
    pub async fn settle(&self, engines: &[&Engine]) {
        for _ in 0..100_000 {
            let mut claimed = 0;
            for engine in engines {
                claimed += engine.tick().await.unwrap().claimed;
            }
            for engine in engines {
                engine.idle().await;
            }
            if claimed > 0 {
                continue;
            }
            for engine in engines {
                engine.reap().await.unwrap();
            }
            let waits = Filter::Gt("due".into(), i64::MIN.into());
            let leased = Filter::Gt("lease_until".into(), i64::MIN.into());
            let left = self.db.list_all::<Job>(Filter::Or(vec![waits, leased])).await.unwrap();
            let now = self.clock.now().as_micros();
            let next = left.iter().filter_map(|job| job.value.due.or(job.value.lease_until)).min();
            match next {
                None => return,
                Some(at) if at > now => self.clock.advance(Micros(u64::try_from(at - now).unwrap())),
                Some(_) => {}
            }
        }
        panic!("the jobs never settled");
    }
}

/// A raw look at a document.
#[async_trait]
pub trait Raw {
    async fn get_body(&self, id: &str) -> Option<serde_json::Value>;
}

#[async_trait]
impl Raw for MemoryDatabase {
    async fn get_body(&self, id: &str) -> Option<serde_json::Value> {
        use orchestrator::core::client::database::Reader;
        let document = self.get(schema::META, id).await.unwrap()?;
        Some(serde_json::from_str(&document.body).unwrap())
    }
}

/// A counter document that a handler's commit moves by one with each time that it takes hold.
pub async fn make_counter(db: &MemoryDatabase, name: &str) {
    let mut changes = Changeset::new();
    changes.insert_json(schema::META, name.to_owned(), &json!({"count": 0}));
    db.commit(changes).await.unwrap();
}

pub fn bump(name: &str) -> Changeset {
    let mut changes = Changeset::new();
    changes.add(schema::META, name, "count", 1, 0);
    changes
}

/// Lets spawned tasks go on until they wait.
pub async fn turn() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
