//! The engine: claims due jobs in batches, bounded by the free slots of their kinds, and starts each in a task of its own.
//! It has no loop: a driver calls [`Engine::tick`], [`Engine::renew`] and [`Engine::reap`], and so can a test, step by step.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    claim::{self, Lane},
    damage,
    dependency::Waiters,
    gather::Gather,
    handler::{JobHandler, Policy},
    meter::Meters,
    runner,
    step::{Boundaries, EngineStep},
    wake::Wake,
    writes::Writes,
};
use crate::{
    core::{
        client::{
            clock::{Clock, Entropy},
            database::{Claim, Claimer, Committer, DatabaseError, Document, Query, Reader, Stored},
        },
        job::{Job, JobKind, Phase},
        market::{
            ids::{IdGenerator, JobId},
            quantity::{Micros, Timestamp},
        },
    },
    error::Result,
};

/// Largest claim of one lane: while its jobs run the database works on the next one.
const MAX_CLAIM: usize = 512;

/// A claim of more than this is run in groups of as many: one task, one request to the database for all commits that are ready
/// together, and one wake-up of the runtime when they were answered. Kinds with few jobs at once, which are those that work long, never come to that.
const GROUP: usize = 32;

/// While some lanes are known to have a backlog they are claimed from without a look at the queue; every so many ticks the
/// engine looks all the same, so that other lanes get their turn.
const LOOK_EVERY: u64 = 8;

/// What the engine works with. The committer is the plain one: the engine rings the bells itself, more sparingly.
#[derive(Clone)]
pub struct EnginePorts {
    /// Reads.
    pub reader: Arc<dyn Reader>,
    /// Claims.
    pub claimer: Arc<dyn Claimer>,
    /// Commits.
    pub committer: Arc<dyn Committer>,
    /// Ids of what is written.
    pub ids: IdGenerator,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance, for the jitter.
    pub entropy: Arc<dyn Entropy>,
    /// The bells of this process.
    pub wake: Arc<Wake>,
}

/// How the engine behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    /// The name of this replica, the first part of its lease owner name.
    pub node: String,
    /// How long a claimed job is held without a heartbeat.
    pub lease: Micros,
    /// How far ahead the engine looks for jobs that will be due.
    pub look_ahead: Micros,
    /// How long a job waits when another one is at its subject; up to twice that, by chance.
    pub subject_delay: Micros,
    /// How long a job waits for one that it depends on, unless it is called earlier.
    pub dependency_delay: Micros,
    /// How long a job waits for one that failed or was cancelled.
    pub blocked_delay: Micros,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            node: "local".into(),
            lease: Micros::from_secs(30),
            look_ahead: Micros::from_secs(5),
            subject_delay: Micros::from_millis(50),
            dependency_delay: Micros::from_secs(1),
            blocked_delay: Micros::from_secs(30),
        }
    }
}

/// What a tick did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tick {
    /// Jobs that were claimed and started.
    pub claimed: usize,
    /// When the next job is due, if that is within the look-ahead.
    pub next_due: Option<Timestamp>,
    /// More is due, and there are slots for another whole claim beside little in hand: the database can be at it while what
    /// was started runs.
    pub claim_ahead: bool,
}

/// A kind that this process runs.
pub(super) struct Kind {
    pub(super) handler: Arc<dyn JobHandler>,
    pub(super) policy: Policy,
    pub(super) slots: Arc<Semaphore>,
    pub(super) meters: Meters,
}

impl Kind {
    /// Whether a whole claim has slots beside no more than two that are in hand.
    fn has_room_ahead(&self) -> bool {
        let free = self.slots.available_permits();
        free >= MAX_CLAIM && self.policy.concurrency.saturating_sub(free) <= 2 * MAX_CLAIM
    }
}

/// A job in the hands of this process.
pub(super) struct Held {
    /// The fencing token of the attempt.
    token: i64,
    /// When its lease was last set.
    pub(super) renewed_at: Timestamp,
    /// Cancelled when another worker turns out to have it.
    pub(super) lost: CancellationToken,
}

/// Takes a job out of the hands of this process when its attempt ends, even by a panic: or its lease would be renewed for
/// ever.
struct Hand {
    inner: Arc<Inner>,
    id: JobId,
    token: i64,
}

impl Drop for Hand {
    fn drop(&mut self) {
        let mut running = self.inner.running.lock();
        // A job that is due again at once may be in another attempt's hands already.
        if running.get(&self.id).is_some_and(|held| held.token == self.token) {
            running.remove(&self.id);
        }
    }
}

/// What the engine's tasks share.
pub(super) struct Inner {
    pub(super) reader: Arc<dyn Reader>,
    pub(super) writes: Writes,
    pub(super) ids: IdGenerator,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) wake: Arc<Wake>,
    pub(super) settings: EngineSettings,
    /// Unique to this engine.
    pub(super) owner: String,
    pub(super) kinds: BTreeMap<JobKind, Arc<Kind>>,
    pub(super) running: Mutex<BTreeMap<JobId, Held>>,
    pub(super) waiters: Waiters,
    /// Cancelled when running jobs must give themselves back.
    pub(super) halt: CancellationToken,
    /// Whether a free slot is worth a wake-up.
    backlog: AtomicBool,
    hot: Mutex<BTreeSet<Lane>>,
    ticks: AtomicU64,
    pub(super) stopping: AtomicBool,
    tasks: TaskTracker,
}

/// The job engine of one process. Clones share everything.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

impl Engine {
    /// An engine that runs the kinds of `handlers`; of two handlers of one kind the later counts. Jobs of other kinds are left
    /// to other processes.
    #[must_use]
    pub fn new(ports: EnginePorts, settings: EngineSettings, handlers: Vec<Arc<dyn JobHandler>>) -> Self {
        Self::watched(ports, settings, handlers, None)
    }

    /// An engine that tells `boundaries` of every step, before and after it: for tests, which kill there.
    #[must_use]
    pub fn watched(
        ports: EnginePorts,
        settings: EngineSettings,
        handlers: Vec<Arc<dyn JobHandler>>,
        boundaries: Option<Arc<dyn Boundaries>>,
    ) -> Self {
        let EnginePorts { reader, claimer, committer, ids, clock, entropy, wake } = ports;
        let kinds = handlers.into_iter().map(|handler| {
            let policy = handler.policy();
            let slots = Arc::new(Semaphore::new(policy.concurrency.clamp(1, 1 << 16)));
            let meters = Meters::new(handler.kind());
            (handler.kind(), Arc::new(Kind { handler, policy, slots, meters }))
        });
        let kinds = kinds.collect();
        let owner = format!("{}-{:016x}", settings.node, entropy.below(u64::MAX));
        let inner = Inner {
            reader,
            writes: Writes::new(claimer, committer, boundaries),
            ids,
            clock,
            entropy,
            wake,
            settings,
            owner,
            kinds,
            running: Mutex::default(),
            waiters: Waiters::default(),
            halt: CancellationToken::new(),
            backlog: AtomicBool::new(false),
            hot: Mutex::default(),
            ticks: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            tasks: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// The name under which this engine holds leases.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.inner.owner
    }

    /// How the engine behaves.
    #[must_use]
    pub fn settings(&self) -> &EngineSettings {
        &self.inner.settings
    }

    /// The clock by which the engine works.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.inner.clock)
    }

    /// The bells that call the engine's driver.
    #[must_use]
    pub fn wake(&self) -> Arc<Wake> {
        Arc::clone(&self.inner.wake)
    }

    /// Jobs in the hands of this engine.
    #[must_use]
    pub fn running(&self) -> usize {
        self.inner.running.lock().len()
    }

    /// Claims what is due and has a slot, and starts it.
    ///
    /// # Errors
    /// When the database does not answer. What was claimed before that runs.
    pub async fn tick(&self) -> Result<Tick> {
        let inner = &self.inner;
        let mut tick = Tick::default();
        if inner.stopping.load(Ordering::Acquire) {
            return Ok(tick);
        }
        // Set first: a slot that becomes free while this tick runs is worth another one.
        inner.backlog.store(true, Ordering::Release);
        let free: Vec<JobKind> = inner.free_kinds();
        if free.is_empty() {
            return Ok(tick);
        }
        let mut lanes: BTreeSet<Lane> =
            inner.hot.lock().iter().copied().filter(|lane| free.contains(&lane.kind)).collect();
        let turn = inner.ticks.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY);
        if !turn {
            tick.claimed = self.claim_all(std::mem::take(&mut lanes)).await?;
        }
        if tick.claimed == 0 {
            tick.next_due = self.look(&free, &mut lanes).await?;
            tick.claimed = self.claim_all(lanes).await?;
        }
        let hot: Vec<JobKind> = inner.hot.lock().iter().map(|lane| lane.kind).collect();
        tick.claim_ahead =
            hot.iter().any(|kind| inner.kinds.get(kind).is_some_and(|kind| kind.has_room_ahead()));
        let backlog = !hot.is_empty() || inner.free_kinds().len() < inner.kinds.len();
        inner.backlog.store(backlog, Ordering::Release);
        Ok(tick)
    }

    /// Looks which lanes have due jobs, and when the next one is due.
    async fn look(&self, kinds: &[JobKind], lanes: &mut BTreeSet<Lane>) -> Result<Option<Timestamp>> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let page = inner.reader.find(claim::peek(kinds, now.plus(inner.settings.look_ahead))).await?;
        for Stored { value: job, .. } in damage::readable(inner, page.documents).await {
            let due = Timestamp(job.due.unwrap_or(i64::MAX));
            if due > now {
                return Ok(Some(due));
            }
            let phase =
                [Phase::Process, Phase::Verify].into_iter().find(|p| p.claimable().contains(&job.state));
            if let Some(phase) = phase {
                lanes.insert(Lane::new(job.kind, phase));
            }
        }
        Ok(None)
    }

    async fn claim_all(&self, lanes: BTreeSet<Lane>) -> Result<usize> {
        let mut claimed = 0;
        for lane in lanes {
            claimed += self.claim(lane).await?;
        }
        Ok(claimed)
    }

    /// Claims from one lane as much as there are slots for, and starts it.
    async fn claim(&self, lane: Lane) -> Result<usize> {
        let inner = &self.inner;
        let Some(kind) = inner.kinds.get(&lane.kind) else { return Ok(0) };
        let wanted = kind.slots.available_permits().min(MAX_CLAIM);
        let permits = u32::try_from(wanted).unwrap_or(u32::MAX);
        if wanted == 0 {
            return Ok(0);
        }
        // Another tick of a clone may have been faster; then that one's claim wakes us again.
        let Ok(mut slots) = Arc::clone(&kind.slots).try_acquire_many_owned(permits) else { return Ok(0) };
        let now = inner.clock.now();
        let until = now.plus(inner.settings.lease);
        let claim = claim::claim(lane, now, &inner.owner, until, wanted);
        let documents = self.take(lane.kind, claim).await?;
        let claimed = documents.len();
        if claimed == wanted {
            inner.hot.lock().insert(lane);
        } else {
            inner.hot.lock().remove(&lane);
        }
        let labels = [("kind", lane.kind.as_str()), ("phase", lane.phase().as_str())];
        metrics::counter!("orchestrator_jobs_claimed_total", &labels).increment(claimed as u64);
        if claimed <= GROUP {
            for job in damage::readable(inner, documents).await {
                drop(self.start(kind, lane.phase(), job.value, now, slots.split(1)));
            }
            return Ok(claimed);
        }
        let mut documents = documents.into_iter();
        while documents.len() > 0 {
            let group: Vec<Document> = documents.by_ref().take(GROUP).collect();
            let slots = slots.split(group.len());
            inner.tasks.spawn(self.clone().run_group(Arc::clone(kind), lane.phase(), group, now, slots));
        }
        Ok(claimed)
    }

    /// Runs jobs that were claimed at `now` in this one task. They are read here, so that the first groups run while the others are
    /// still being read.
    async fn run_group(
        self,
        kind: Arc<Kind>,
        phase: Phase,
        documents: Vec<Document>,
        now: Timestamp,
        mut slots: Option<OwnedSemaphorePermit>,
    ) {
        let gather = self.inner.writes.gather();
        let jobs = damage::readable(&self.inner, documents).await;
        let attempts = jobs.into_iter().map(|job| {
            let slot = slots.as_mut().and_then(|slots| slots.split(1));
            let attempt = self.attempt(&kind, phase, job.value, now, (slot, Some(Arc::clone(&gather))));
            AssertUnwindSafe(attempt).catch_unwind().map(note_panic).boxed()
        });
        let attempts = attempts.collect();
        // Those of jobs that could not be read.
        drop(slots);
        gather.run(attempts).await;
    }

    /// Starts a job that was claimed at `now`; the handle ends with the attempt.
    pub(super) fn start(
        &self,
        kind: &Arc<Kind>,
        phase: Phase,
        job: Job,
        now: Timestamp,
        slot: Option<OwnedSemaphorePermit>,
    ) -> JoinHandle<()> {
        self.inner.tasks.spawn(self.attempt(kind, phase, job, now, (slot, None)))
    }

    /// The attempt at a job that was claimed at `now`, which is in the hands of this process from now on; with its slot, and
    /// with what gathers commits, if it shares its task. Boxed: it is large, and the layers between here and the runtime
    /// would each move it.
    fn attempt(
        &self,
        kind: &Arc<Kind>,
        phase: Phase,
        job: Job,
        now: Timestamp,
        (slot, others): (Option<OwnedSemaphorePermit>, Option<Arc<Gather>>),
    ) -> BoxFuture<'static, ()> {
        let lost = CancellationToken::new();
        let (id, token) = (job.id, job.lease_token);
        let held = Held { token, renewed_at: now, lost: lost.clone() };
        self.inner.running.lock().insert(id, held);
        let (hand, kind) = (Hand { inner: Arc::clone(&self.inner), id, token }, Arc::clone(kind));
        Box::pin(async move {
            let shared = Arc::clone(&hand.inner);
            runner::run(&shared, &kind, (job, phase), &lost, others).await;
            drop(hand);
            drop(slot);
            if shared.backlog.load(Ordering::Acquire) {
                shared.wake.jobs.notify_one();
            }
        })
    }

    /// Claims. A claim that is refused may have met a document that can't be counted on: those are set aside first.
    pub(super) async fn take(&self, kind: JobKind, claim: Claim) -> Result<Vec<Document>> {
        let inner = &self.inner;
        let refused = match inner.writes.claim(EngineStep::Claimed, Some(kind), claim.clone()).await {
            Err(error @ DatabaseError::Invalid(_)) => error,
            answer => return Ok(answer?),
        };
        let Claim { collection, filter, sort, limit, .. } = claim.clone();
        let query = Query { collection, filter, sort, limit, after: None };
        let found = inner.reader.find(query).await?.documents;
        let count = found.len();
        if damage::readable(inner, found).await.len() == count {
            return Err(refused.into());
        }
        Ok(inner.writes.claim(EngineStep::Claimed, Some(kind), claim).await?)
    }

    /// Waits until nothing that was claimed so far runs any more.
    pub async fn idle(&self) {
        // A tracker's wait ends when it is closed and empty; being closed keeps nobody from starting more.
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Stops to claim, lets running jobs finish for up to `patience`, then takes the rest back: they give up their leases,
    /// so that other workers may go on at once. Returns how many were taken back.
    pub async fn drain(&self, patience: Micros) -> usize {
        let inner = &self.inner;
        inner.stopping.store(true, Ordering::Release);
        tokio::select! {
            biased;
            () = self.idle() => return 0,
            () = inner.clock.sleep(patience) => {}
        }
        let taken_back = self.running();
        tracing::info!(taken_back, "running jobs are given back");
        inner.halt.cancel();
        // Those that hang in the database are left to their leases.
        tokio::select! {
            biased;
            () = self.idle() => {}
            () = inner.clock.sleep(Micros::from_secs(5)) => {}
        }
        taken_back
    }
}

/// The other attempts of the task go on.
fn note_panic(ended: Result<(), Box<dyn Any + Send>>) {
    if ended.is_err() {
        tracing::error!("an attempt panicked; its lease will run out");
    }
}

impl Inner {
    fn free_kinds(&self) -> Vec<JobKind> {
        let free = self.kinds.iter().filter(|(_, kind)| kind.slots.available_permits() > 0);
        free.map(|(kind, _)| *kind).collect()
    }
}
