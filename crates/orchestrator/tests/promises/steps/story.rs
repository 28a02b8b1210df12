//! The stories in which steps happen, told by processes that are replaced when they die.

use std::sync::Arc;

use orchestrator::{
    core::{
        client::{
            clock::Clock,
            database::{Changeset, Committer, DatabaseClient, Filter, Reader, ReaderExt},
            schema,
        },
        job::{Job, JobKind, JobState, NewJob, Phase},
        madara::settlement::SettlementClient,
        market::{
            account::AccountKey,
            allocation::RestrictReason,
            block::BlockState,
            credential::{Credential, CredentialState, Permissions},
            ids::{AllocationId, CredentialId, Id, IdGenerator, JobId, OperatorId},
            party::Principal,
            quantity::Micros,
        },
    },
    service::{
        access::{IssueCredential, RotateCredential},
        job::{EngineStep, Side, Step},
        work::{Call, RequestKey},
    },
};
use serde_json::Value;

use super::{
    mood::{Mood, Moods, Moody},
    process::{Place, Process, Watch},
};
use crate::promises::world::{HOUR, Mortal, Node, Store};

/// A story. All are told of the same market; what differs is what goes wrong in it by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// A whole life, in a mood of the handlers.
    Life(Mood),
    /// The provider works on an allocation for a while.
    SlowProvider,
    /// A job waits for another one.
    Dependence,
    /// A process dies with a job in hand, and the next one takes it back when the lease runs out.
    LostLease,
    /// A process dies with a job in hand, and the next one knows that it is alone.
    NextBoot,
    /// A process is asked to stop while it is at work.
    Shutdown,
    /// A job can't be read.
    Damage,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    money: Vec<u128>,
    transfers: Vec<(String, u128)>,
    allocations: Vec<String>,
    credentials: Vec<CredentialState>,
    effects: Vec<[u64; 4]>,
    failed: Vec<JobKind>,
    damaged: u64,
}

/// A run of a story.
pub struct Run {
    story: Story,
    store: Store,
    moods: Arc<Moods>,
    watch: Arc<Watch>,
    node: Node,
    process: Arc<Process>,
}

fn operator(key: &str) -> Call {
    let request = RequestKey { id: key.into(), fingerprint: key.into() };
    let id: OperatorId = Id::from_uuid(uuid::Uuid::from_u128(1));
    Call { principal: Principal::Operator(id), request: Some(request), trace_id: "t".into() }
}

const READ_WRITE: IssueCredential = IssueCredential { permissions: Permissions::ReadWrite, expires_at: None };

impl Story {
    /// Deaths without which it is not this story.
    pub fn own_deaths(self) -> Vec<Place> {
        let kind = Some(JobKind::Provision);
        let (phase, side) = (Some(Phase::Process), Side::After);
        match self {
            Self::LostLease | Self::NextBoot => {
                vec![Place { step: Step::Engine(EngineStep::SubjectHeld), side, kind, phase }]
            }
            _ => Vec::new(),
        }
    }

    fn mood(self) -> Mood {
        match self {
            Self::Life(mood) => mood,
            Self::Shutdown => Mood::Slow,
            _ => Mood::Plain,
        }
    }

    fn is_doomed(self, kind: JobKind) -> bool {
        self.mood() == Mood::Doomed(kind)
    }
}

impl Run {
    /// Tells a story, with the deaths that it has by itself and then perhaps one more.
    pub async fn tell(story: Story, death: Option<Place>) -> (End, Arc<Watch>) {
        let store = Store::new(5, 1).await;
        let moods = Arc::new(Moods::default());
        let watch = Watch::killing_at(story.own_deaths().into_iter().chain(death));
        let (node, process) = start(story, &store, &moods, &watch);
        let mut run = Self { story, store, moods, watch, node, process };
        if story == Story::SlowProvider {
            run.store.provider.set_polls(2);
        }
        let made = run.play().await;
        (run.end(&made).await, run.watch)
    }

    fn replace(&mut self) {
        (self.node, self.process) = start(self.story, &self.store, &self.moods, &self.watch);
    }

    /// After a death, a new process takes over: leases of the old one run out, unless it knows that it is alone.
    async fn go_on(&mut self) -> bool {
        let mut died = false;
        while self.process.died.is_cancelled() {
            died = true;
            self.replace();
            if self.story == Story::NextBoot {
                let booted = self.node.engine.release_leases_of_previous_process();
                tokio::select! {
                    biased;
                    () = self.process.died.cancelled() => continue,
                    freed = booted => drop(freed.unwrap()),
                }
            }
            self.store.clock.advance(Micros::from_secs(120));
        }
        died
    }

    /// One round of what the process does by itself. When it dies, the next one picks up what it was at.
    async fn turn(&mut self) {
        let mut rounds = 1;
        while rounds > 0 {
            tokio::select! {
                biased;
                () = self.process.died.cancelled() => {}
                () = self.node.turn() => rounds -= 1,
            }
            if self.go_on().await {
                rounds = 4;
            } else if rounds > 0 {
                self.store.clock.advance(Micros::from_secs(30));
            }
        }
        self.retry_failed().await;
    }

    /// A person looks after what was given up, once.
    async fn retry_failed(&self) {
        for stored in self.store.db.list_all::<Job>(Filter::eq("state", "failed")).await.unwrap_or_default() {
            let Job { id, kind, .. } = stored.value;
            if self.story.is_doomed(kind) && kind != JobKind::Migrate {
                self.moods.forgive();
                self.node.jobs.retry(&operator(&format!("retry {id}")), id).await.unwrap();
            }
        }
    }

    async fn rest(&mut self, time: Micros) {
        self.store.clock.advance(time);
        self.turn().await;
    }

    async fn open_jobs(&self) -> usize {
        let jobs = self.store.db.list_all::<Job>(Filter::All).await.unwrap();
        jobs.iter().filter(|job| !job.value.state.is_terminal()).count()
    }

    /// Lets time pass until nothing is left to do.
    async fn settle(&mut self) {
        for round in 0..60 {
            self.rest(Micros::from_secs(2 + round)).await;
            if self.open_jobs().await == 0 {
                return;
            }
        }
        panic!("{:?}: never at rest", self.story);
    }

    fn call(&self, key: &str) -> Call {
        self.store.call(0, key)
    }

    /// The script: two allocations, one of which is called off at once; keys come and go; access is cut and opened; the
    /// provider loses the allocation; periods are paid; it is closed and purged, and all is settled.
    async fn play(&mut self) -> Vec<AllocationId> {
        let mut made = Vec::new();
        for n in 0..2 {
            let (call, request) = (self.call(&format!("reserve {n}")), self.store.request(n));
            made.push(self.node.allocations.reserve(&call, request).await.unwrap().value.id);
            self.node.allocations.fund(&self.call(&format!("fund {n}")), made[n]).await.unwrap();
        }
        self.node.allocations.cancel(&self.call("cancel"), made[1]).await.unwrap();
        self.disturb(made[0]).await;
        self.settle().await;
        if self.story.is_doomed(JobKind::Provision) {
            // It was given up and the money is back: nothing more comes of it.
            self.finish().await;
            return made;
        }
        self.keys(made[0]).await;
        for (n, cut) in [true, false].into_iter().enumerate() {
            let (call, reason) = (operator(&format!("access {n}")), RestrictReason::Violation);
            let answer = match cut {
                true => self.node.allocations.restrict(&call, made[0], reason).await,
                false => self.node.allocations.unrestrict(&call, made[0], reason).await,
            };
            answer.unwrap();
            self.settle().await;
        }
        self.store.clock.advance(Micros::from_secs(900));
        self.store.provider.lose(made[0]);
        self.settle().await;
        for round in 0..6 {
            if round == 0 {
                self.store.used(made[0], 1 << 28);
            }
            self.rest(Micros(HOUR.0 * 5)).await;
        }
        // A last reading, which no whole period has paid.
        self.store.used(made[0], 1 << 29);
        self.node.allocations.close(&self.call("close"), made[0]).await.unwrap();
        self.finish().await;
        made
    }

    /// Two keys at once, one of which is replaced and the other called back.
    async fn keys(&mut self, allocation: AllocationId) {
        let mut keys: Vec<CredentialId> = Vec::new();
        for n in 0..2 {
            let call = self.call(&format!("issue {n}"));
            let issued = self.node.credentials.issue(&call, allocation, READ_WRITE).await.unwrap();
            keys.push(issued.credential.id);
        }
        self.settle().await;
        let overlap = RotateCredential { overlap: Some(Micros::from_secs(60)) };
        if self.story.is_doomed(JobKind::RotateCredential) {
            return;
        }
        self.node.credentials.rotate(&self.call("rotate"), keys[0], overlap).await.unwrap();
        self.node.credentials.revoke(&self.call("revoke"), keys[1]).await.unwrap();
        self.settle().await;
    }

    /// What this story has beside the common script.
    async fn disturb(&mut self, allocation: AllocationId) {
        match self.story {
            Story::Dependence => {
                let first = self.enqueue(JobKind::SyncAccess, allocation, Vec::new()).await;
                self.enqueue(JobKind::SyncAccess, allocation, vec![first]).await;
            }
            Story::Life(Mood::Doomed(JobKind::Migrate)) => {
                self.enqueue(JobKind::Migrate, allocation, Vec::new()).await;
            }
            Story::Damage => {
                let id = self.enqueue(JobKind::SyncAccess, allocation, Vec::new()).await.to_string();
                let found = self.store.db.get(schema::JOBS, &id).await.unwrap().unwrap();
                let mut body: Value = serde_json::from_str(&found.body).unwrap();
                body["rounds"] = Value::from("many");
                let db = self.store.db.as_ref();
                db.update(schema::JOBS, &id, found.version, body.to_string()).await.unwrap();
            }
            Story::Shutdown => self.stop_in_the_middle().await,
            Story::Life(_) | Story::SlowProvider | Story::LostLease | Story::NextBoot => {}
        }
    }

    async fn enqueue(&self, kind: JobKind, allocation: AllocationId, depends_on: Vec<JobId>) -> JobId {
        let clock: Arc<dyn Clock> = Arc::new(self.store.clock.clone());
        let ids = IdGenerator::new(clock, self.store.entropy.clone());
        let mut changes = Changeset::new();
        let key = format!("extra {}", depends_on.len());
        let mut job = NewJob::now(kind, allocation, key, ids.now());
        job.depends_on = depends_on;
        let id = job.enqueue(&mut changes, &ids);
        self.store.db.commit(changes).await.unwrap();
        id
    }

    /// Claims, and is asked to stop while the handlers are at it.
    async fn stop_in_the_middle(&mut self) {
        self.node.engine.tick().await.unwrap();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(self.node.engine.running() > 0);
        tokio::select! {
            biased;
            () = self.process.died.cancelled() => {}
            _ = self.node.engine.drain(Micros::ZERO) => {}
        }
        if !self.go_on().await {
            self.replace();
        }
    }

    /// Lets time pass until all is over.
    async fn finish(&mut self) {
        for round in 0..200 {
            let step = if round < 6 { Micros::from_secs(2) } else { HOUR };
            self.rest(step).await;
            let unsealed = self.store.db.count(schema::UNSEALED, Filter::All).await.unwrap();
            let over = self.store.allocations().await.iter().all(|a| a.state.is_terminal());
            if over && unsealed == 0 && self.open_jobs().await == 0 {
                return;
            }
        }
        panic!("{:?}: it never ends", self.story);
    }

    /// All is over, as it should be; and what there is to compare.
    async fn end(&self, made: &[AllocationId]) -> End {
        let store = &self.store;
        store.check_the_end().await;
        let blocks = store.blocks().await;
        assert!(!blocks.is_empty() && blocks.iter().all(|block| block.state == BlockState::Final));
        // Each block was registered once and settled once; the rest are the deposits of the beginning.
        let transactions = store.settlement.nonce().await.unwrap();
        assert_eq!(transactions, 2 + 2 * blocks.len() as u64, "transactions of {} blocks", blocks.len());
        let mut sums = std::collections::BTreeMap::<String, u128>::new();
        for transfer in store.transfers().await {
            *sums.entry(format!("{:?}", transfer.kind)).or_default() += transfer.amount.0;
        }
        let (mut allocations, mut effects) = (Vec::new(), Vec::new());
        for id in made {
            allocations.push(format!("{:?}", store.allocation(*id).await.state));
            effects.push(
                ["allocate", "put_key", "delete_key", "deallocate"]
                    .map(|what| store.provider.effects(*id, what)),
            );
        }
        let mut credentials: Vec<_> = store.db.list_all::<Credential>(Filter::All).await.unwrap();
        credentials.sort_by_key(|stored| stored.value.created_at);
        let jobs = store.db.list_all::<Job>(Filter::All).await.unwrap();
        let failed = jobs.iter().filter(|job| job.value.state == JobState::Failed);
        End {
            money: vec![
                store.balance(AccountKey::Provider(store.owner)).await,
                store.balance(AccountKey::Consumer(store.consumers[0])).await,
            ],
            transfers: sums.into_iter().collect(),
            allocations,
            credentials: credentials.iter().map(|stored| stored.value.state).collect(),
            effects,
            failed: failed.map(|job| job.value.kind).collect(),
            damaged: store.db.count(schema::DAMAGED, Filter::All).await.unwrap(),
        }
    }
}

fn start(story: Story, store: &Store, moods: &Arc<Moods>, watch: &Arc<Watch>) -> (Node, Arc<Process>) {
    let writes = Mortal::new(store.db.clone(), i64::MAX, false);
    let process = Process::new(Arc::clone(watch), Arc::clone(&writes));
    let clock: Arc<dyn Clock> = Arc::new(store.clock.clone());
    let node = store.node_with(writes, Some(process.clone()), |inner| {
        Arc::new(Moody { inner, mood: story.mood(), moods: Arc::clone(moods), clock: Arc::clone(&clock) })
    });
    (node, process)
}
