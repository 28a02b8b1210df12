//! A whole market in memory that outlives its processes: a [`Store`] holds what survives a crash, a [`Node`] is one process
//! over it. Time stands still unless a test moves it, and chance is seeded.

mod check;
mod mortal;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use orchestrator::{
    client::{
        clock::{ManualClock, SeededEntropy},
        da::LocalDa,
        db::memory::MemoryDatabase,
        provider::{FakeProvider, FakeProviders},
        settlement::{LocalRules, LocalSettlement},
        storage::MemoryStorage,
        vault::AesVault,
    },
    core::{
        client::{
            clock::{Clock, Entropy},
            database::{
                Changeset, Claim, Claimer, Committer, DatabaseError, Document, Filter, Reader, ReaderExt,
                Result as DbResult,
            },
            provider::ProviderDirectory,
            schema,
            vault::Vault,
        },
        job::{Job, JobKind},
        madara::settlement::SettlementClient,
        market::{
            account::{Account, AccountKey, Transfer, TransferKind},
            allocation::Allocation,
            block::Block,
            ids::{AllocationId, ConsumerId, IdGenerator, ProviderId, UnitId},
            money::Amount,
            offering::OfferingFilter,
            party::Principal,
            quantity::{Bytes, Micros, Timestamp},
            sla::JudgeRules,
            terms::{DomainId, PriceTerms, SlaTerms},
            unit::{DataUnit, Features},
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        access::{AccessSettings, CredentialService, ExpireCredentials},
        allocation::{
            AllocationService, AllocationSettings, BlastRadius, EndPeriods, ExpireReservations,
            FinalSettlement, OfferingPicker, Reconcile, ReconcileSettings, ReserveRequest, Target,
        },
        block::{BlockPorts, BlockSettings, BlockStore, SealTrigger, handlers as block_handlers},
        job::{
            Boundaries, Engine, EnginePorts, EngineSettings, JobHandler, JobService, Policy, Trigger, Wake,
        },
        ledger::{AccountService, DepositWatcher, DisputeService, dispute::DisputeSettings},
        market::{MarketService, MarketSettings, NewAdapter, NewConsumer, NewProvider, NewUnit},
        provisioning::{ProvisioningSettings, handlers},
        settlement::{SettlementDomains, verify_with_evidence},
        sla::{CloseSlaWindows, PeriodSettlement, SlaCheck, SlaService, SlaSettings},
        work::{Call, RequestKey, Work},
    },
};
use zeroize::Zeroizing;

pub use self::mortal::Mortal;

pub const START: Timestamp = Timestamp(1_760_000_000_000_000);
pub const HOUR: Micros = Micros::from_secs(3_600);
/// What one allocation of the tests holds, and the length of its period.
pub const SIZE: Bytes = Bytes(Bytes::GIB);
pub const PERIOD: Micros = Micros::from_days(2);
/// What each consumer begins with.
pub const FUNDS: u128 = 1_000_000;

/// Everything that survives a process.
#[derive(Clone)]
pub struct Store {
    pub db: Arc<MemoryDatabase>,
    pub clock: ManualClock,
    pub entropy: Arc<SeededEntropy>,
    pub provider: FakeProvider,
    pub settlement: LocalSettlement,
    pub da: LocalDa,
    storage: Arc<MemoryStorage>,
    pub owner: ProviderId,
    pub consumers: Vec<ConsumerId>,
    pub units: Vec<UnitId>,
}

/// One process.
pub struct Node {
    pub store: Store,
    pub writes: Arc<Mortal>,
    pub work: Work,
    pub allocations: AllocationService,
    pub credentials: CredentialService,
    pub accounts: AccountService,
    pub disputes: DisputeService,
    pub jobs: JobService,
    pub engine: Engine,
    triggers: Vec<Arc<dyn Trigger>>,
}

/// Offers every unit, in the order of registration.
struct AllUnits(Arc<MemoryDatabase>);

#[async_trait]
impl OfferingPicker for AllUnits {
    async fn pick(&self, _filter: &OfferingFilter, limit: usize) -> Result<Vec<UnitId>> {
        let all = self.0.list_all::<DataUnit>(Filter::All).await?;
        Ok(all.into_iter().map(|stored| stored.value.id).take(limit).collect())
    }
}

impl Store {
    /// A provider with two units for four allocations each, and consumers with money.
    pub async fn new(seed: u64, consumers: usize) -> Self {
        let clock = ManualClock::new(START);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let db = MemoryDatabase::with_schema();
        let settlement =
            LocalSettlement::in_memory(DomainId::local(), LocalRules::default(), Arc::clone(&shared));
        let mut store = Self {
            clock,
            entropy: Arc::new(SeededEntropy::new(seed)),
            provider: FakeProvider::new(Bytes(SIZE.0 * 100)),
            settlement,
            da: LocalDa::in_memory(),
            storage: Arc::new(MemoryStorage::new(shared)),
            owner: orchestrator::core::market::ids::Id::from_uuid(uuid::Uuid::nil()),
            consumers: Vec::new(),
            units: Vec::new(),
            db,
        };
        let node = store.node();
        let market = MarketService::new(node.work.clone(), store.vault(), MarketSettings::default());
        let call = Call::system("test");
        let owner =
            NewProvider { name: "p".into(), domain: None, owner: None, adapter: NewAdapter::CoHosted };
        store.owner = market.register_provider(&call, owner).await.unwrap().value.id;
        for n in 0..2 {
            let unit = market.register_unit(&call, new_unit(store.owner, n)).await.unwrap().value.id;
            store.units.push(unit);
        }
        for n in 0..consumers {
            let consumer = NewConsumer { name: format!("c{n}"), domain: None, owner: None };
            let id = market.register_consumer(&call, consumer).await.unwrap().value.id;
            store.consumers.push(id);
            store
                .settlement
                .deposit(&format!("funds {n}"), AccountKey::Consumer(id), Amount(FUNDS))
                .await
                .unwrap();
        }
        store
            .settlement
            .deposit("collateral", AccountKey::Provider(store.owner), Amount(FUNDS))
            .await
            .unwrap();
        DepositWatcher::new(node.work.clone(), store.domains()).fire().await.unwrap();
        store
    }

    fn vault(&self) -> Arc<dyn Vault> {
        Arc::new(AesVault::new(&Zeroizing::new([1; 32]), self.entropy.clone()))
    }

    pub fn domains(&self) -> SettlementDomains {
        SettlementDomains::new([Arc::new(self.settlement.clone()) as Arc<dyn SettlementClient>])
    }

    /// A process that lives on.
    pub fn node(&self) -> Node {
        self.node_over(Mortal::new(self.db.clone(), i64::MAX, false))
    }

    /// A process that writes through `writes`.
    pub fn node_over(&self, writes: Arc<Mortal>) -> Node {
        self.node_with(writes, None, |handler| handler)
    }

    /// A process that writes through `writes`, tells `boundaries` of its steps, and has its handlers changed.
    pub fn node_with(
        &self,
        writes: Arc<Mortal>,
        boundaries: Option<Arc<dyn Boundaries>>,
        change: impl Fn(Arc<dyn JobHandler>) -> Arc<dyn JobHandler>,
    ) -> Node {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let entropy: Arc<dyn Entropy> = self.entropy.clone();
        let ids = IdGenerator::new(clock.clone(), entropy.clone());
        let work = Work::new(self.db.clone(), writes.clone(), ids.clone());
        let directory: Arc<dyn ProviderDirectory> = Arc::new(FakeProviders(self.provider.clone()));
        let sla = sla_settings();
        let periods = PeriodSettlement::new(work.clone(), self.storage.clone(), sla.clone());
        let last: Arc<dyn FinalSettlement> = Arc::new(periods.clone());
        let provisioning = ProvisioningSettings { grace: HOUR, ..ProvisioningSettings::default() };
        let mut all = handlers(&work, &directory, &self.vault(), &last, provisioning);
        all.push(Arc::new(SlaCheck::new(periods, directory.clone())));
        let blocks = BlockPorts {
            // States are stored often, so that it happens in every story.
            store: BlockStore::new(self.db.clone(), self.storage.clone()).storing_states_every(2),
            ids: ids.clone(),
            domains: self.domains(),
            da: Arc::new(self.da.clone()),
            settings: BlockSettings::default(),
        };
        all.extend(block_handlers(&blocks));
        let ports = EnginePorts {
            reader: self.db.clone(),
            claimer: writes.clone(),
            committer: writes.clone(),
            ids,
            clock: clock.clone(),
            entropy: entropy.clone(),
            wake: Arc::new(Wake::default()),
        };
        let all = all.into_iter().map(change).collect();
        let engine = Engine::watched(ports, EngineSettings::default(), all, boundaries);
        let picker = Arc::new(AllUnits(self.db.clone()));
        let allocations = AllocationService::new(work.clone(), picker, AllocationSettings::default());
        let access = AccessSettings { wait: Micros::ZERO, ..AccessSettings::default() };
        let disputes = DisputeService::new(work.clone(), DisputeSettings::default());
        let blast_radius = BlastRadius { percent: 100, floor: 1_000 };
        let reconcile =
            ReconcileSettings { teardowns_per_hour: 1_000, blast_radius, ..ReconcileSettings::default() };
        let triggers: Vec<Arc<dyn Trigger>> = vec![
            Arc::new(DepositWatcher::new(work.clone(), self.domains())),
            Arc::new(ExpireReservations::new(allocations.clone())),
            Arc::new(EndPeriods::new(allocations.clone())),
            Arc::new(ExpireCredentials::new(work.clone())),
            Arc::new(CloseSlaWindows::new(work.clone(), sla)),
            Arc::new(disputes.clone()),
            Arc::new(Reconcile::new(work.clone(), directory, reconcile)),
            Arc::new(SealTrigger::new(work.clone(), blocks)),
        ];
        Node {
            store: self.clone(),
            writes,
            allocations,
            credentials: CredentialService::new(work.clone(), self.vault(), entropy, clock, access),
            accounts: AccountService::new(work.clone(), self.domains()),
            disputes,
            jobs: JobService::new(work.clone()),
            engine,
            triggers,
            work,
        }
    }

    /// How each kind of job is run.
    pub fn policies(&self) -> BTreeMap<JobKind, Policy> {
        let found = parking_lot::Mutex::new(BTreeMap::new());
        self.node_with(Mortal::new(self.db.clone(), i64::MAX, false), None, |handler| {
            found.lock().insert(handler.kind(), handler.policy());
            handler
        });
        found.into_inner()
    }

    pub fn request(&self, unit: usize) -> ReserveRequest {
        ReserveRequest {
            consumer: None,
            target: Target::Unit(self.units[unit]),
            bytes: SIZE,
            period: PERIOD,
            egress_allowance: Bytes(Bytes::GIB),
        }
    }

    /// A call of consumer `n` with an idempotency key.
    pub fn call(&self, n: usize, key: &str) -> Call {
        let request = Some(RequestKey { id: format!("{n}/{key}"), fingerprint: key.into() });
        Call { principal: Principal::Consumer(self.consumers[n]), request, trace_id: "t".into() }
    }

    pub async fn allocation(&self, id: AllocationId) -> Allocation {
        self.db.load::<Allocation>(&id.to_string()).await.unwrap().unwrap().value
    }

    pub async fn allocations(&self) -> Vec<Allocation> {
        let all = self.db.list_all::<Allocation>(Filter::All).await.unwrap();
        all.into_iter().map(|stored| stored.value).collect()
    }

    pub async fn balance(&self, key: AccountKey) -> u128 {
        let id = Account::id_of(&DomainId::local(), &key);
        self.db.load::<Account>(&id).await.unwrap().map_or(0, |stored| stored.value.balance.0)
    }

    pub async fn transfers(&self) -> Vec<Transfer> {
        let all = self.db.list_all::<Transfer>(Filter::All).await.unwrap();
        all.into_iter().map(|stored| stored.value).collect()
    }

    pub async fn blocks(&self) -> Vec<Block> {
        let all = self.db.list_all::<Block>(Filter::All).await.unwrap();
        all.into_iter().map(|stored| stored.value).collect()
    }

    /// The meter of an allocation: it held so many bytes for an hour.
    pub fn used(&self, id: AllocationId, bytes: u64) {
        let usage = orchestrator::core::market::allocation::Usage {
            stored: Bytes(bytes),
            byte_seconds: u128::from(bytes) * 3_600,
            egress: Bytes(0),
            read_at: self.clock.now(),
        };
        self.provider.set_usage(id, usage);
    }
}

impl Node {
    pub fn is_dead(&self) -> bool {
        self.writes.is_dead()
    }

    /// Lets due jobs run, and time pass by moments, until none is left to run now.
    pub async fn run(&self) {
        for _ in 0..2_000 {
            let Ok(tick) = self.engine.tick().await else {
                // A claim went wrong: the process is dead, or it tries again.
                if self.is_dead() {
                    return;
                }
                continue;
            };
            turns(&self.engine).await;
            if self.engine.running() > 0 {
                // It waits between two tries of its own.
                self.store.clock.advance(Micros::from_millis(250));
                turns(&self.engine).await;
                let _ = self.engine.renew().await;
            }
            if self.is_dead() || (tick.claimed == 0 && self.engine.running() == 0) {
                return;
            }
        }
        panic!("the jobs never come to an end");
    }

    /// Fires every trigger once and lets the jobs run.
    pub async fn turn(&self) {
        for trigger in &self.triggers {
            let _ = trigger.fire().await;
        }
        let _ = self.engine.reap().await;
        self.run().await;
    }
}

/// Lets spawned tasks go on until they wait.
async fn turns(engine: &Engine) {
    for _ in 0..400 {
        if engine.running() == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Moves time on, with everything that the passing of time brings about, until nothing is left to do.
pub async fn finish(nodes: &[&Node]) {
    let store = &nodes[0].store;
    for round in 0..400 {
        for node in nodes {
            node.turn().await;
        }
        // Who died has to be replaced first.
        if nodes.iter().any(|node| node.is_dead()) {
            return;
        }
        let over = store.allocations().await.iter().all(|a| a.state.is_terminal())
            && store.db.count(schema::UNSEALED, Filter::All).await.unwrap() == 0
            && store.db.count(schema::DISPUTES, Filter::eq("state", "open")).await.unwrap() == 0
            && store
                .db
                .list_all::<Job>(Filter::All)
                .await
                .unwrap()
                .iter()
                .all(|j| j.value.state.is_terminal());
        if over {
            return;
        }
        store.clock.advance(if round < 40 { Micros::from_secs(2) } else { HOUR });
    }
    let stuck = store.db.list_all::<Job>(Filter::All).await.unwrap();
    let stuck: Vec<_> = stuck.into_iter().filter(|job| !job.value.state.is_terminal()).collect();
    panic!("it never ends: {stuck:?}");
}

pub fn sla_settings() -> SlaSettings {
    SlaSettings {
        rules: JudgeRules { bucket: HOUR, ..JudgeRules::default() },
        billing_period: Micros::from_days(1),
        ..SlaSettings::default()
    }
}

fn new_unit(owner: ProviderId, n: usize) -> NewUnit {
    NewUnit {
        provider: Some(owner),
        name: format!("u{n}"),
        kind: None,
        profile: None,
        region: "eu-1".into(),
        country: "DE".into(),
        capacity: Bytes(SIZE.0 * 4),
        features: Features::default(),
        tags: BTreeMap::new(),
        price: PriceTerms { per_gib_month: Amount(720_000), per_gib_egress: Amount(10) },
        price_bounds: None,
        sla: SlaTerms::default(),
    }
}

/// Whether a refusal is one that an ordinary caller may see.
pub fn is_ordinary(error: &Error) -> bool {
    !matches!(error.code, ErrorCode::Internal | ErrorCode::Overflow)
}
