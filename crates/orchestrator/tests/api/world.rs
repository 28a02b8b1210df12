//! Every service of the API over an in-memory database, a manual clock, a fake provider and the local settlement layer,
//! with the real job engine, which the tests let run by hand.

use std::sync::{Arc, atomic::AtomicBool};

use orchestrator::{
    client::{
        clock::{ManualClock, SeededEntropy},
        da::LocalDa,
        db::memory::MemoryDatabase,
        job_queue::OverQueue,
        provider::{FakeProvider, FakeProviders},
        queue::{DatabaseQueue, DatabaseQueueSettings},
        settlement::{LocalRules, LocalSettlement},
        storage::MemoryStorage,
        vault::AesVault,
    },
    controller::{
        route::{ApiSettings, ApiState, Services},
        worker::trigger::{ScheduledTrigger, TriggerRegistry},
    },
    core::{
        client::{
            database::Committer, event_bus::EventFeed, provider::ProviderDirectory, storage::StorageClient,
            vault::Vault,
        },
        madara::{da::DaClient, job_queue::JobQueueClient},
        market::{
            event::DomainEvent,
            ids::{IdGenerator, OperatorId},
            party::Principal,
            quantity::{Bytes, Micros, Timestamp},
            terms::DomainId,
        },
    },
    service::{
        access::{
            AccessSettings, AuditService, CredentialService, ExpireCredentials, KeyService, KeySettings,
        },
        allocation::{
            AllocationService, AllocationSettings, EndPeriods, ExpireReservations, FinalSettlement,
            Reconcile, ReconcileSettings,
        },
        block::{
            self, AttestationService, BlockPorts, BlockService, BlockSettings, BlockStore, seal::SealTrigger,
        },
        job::{Backlog, Engine, EnginePorts, EngineSettings, JobService, Trigger, Wake},
        ledger::{
            accounts::AccountService,
            dispute::{DisputeService, DisputeSettings},
        },
        market::{MarketService, MarketSettings, UnitMaintenance},
        pricing::PricingService,
        proof::{PayoutService, PayoutSettings, ProofService},
        provisioning::{self, ProvisioningSettings},
        scoring::{ChangeFeed, OfferingService, OfferingSettings, ReputationService, WatchedCommitter},
        settlement::SettlementDomains,
        sla::{
            CloseSlaWindows, EvidenceService, OracleService, PeriodSettlement, SlaCheck, SlaService,
            SlaSettings,
        },
        work::{Call, Work},
    },
};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::fakes::{Cache, Feed, Part};

/// Jobs that may wait in these tests.
pub(crate) const MAX_BACKLOG: u64 = 100;

/// What the harness needs of the world.
pub(crate) struct Built {
    pub(crate) state: ApiState,
    pub(crate) database: Arc<MemoryDatabase>,
    pub(crate) clock: ManualClock,
    pub(crate) work: Work,
    pub(crate) cache: Arc<Cache>,
    pub(crate) events: broadcast::Sender<DomainEvent>,
    pub(crate) down: Arc<AtomicBool>,
    /// The same for what is not needed.
    pub(crate) aside_down: Arc<AtomicBool>,
    pub(crate) closing: CancellationToken,
    pub(crate) operator: String,
    pub(crate) engine: Engine,
    pub(crate) provider: FakeProvider,
    pub(crate) allocations: AllocationService,
    pub(crate) letters: Arc<OverQueue>,
    pub(crate) layers: Layers,
}

/// The settlement layers, and where blocks are published.
pub(crate) type Layers = (SettlementDomains, Arc<dyn DaClient>);

/// What services, jobs and triggers share.
struct Base {
    database: Arc<MemoryDatabase>,
    clock: ManualClock,
    entropy: Arc<SeededEntropy>,
    committer: Arc<dyn Committer>,
    work: Work,
    feed: ChangeFeed,
    vault: Arc<dyn Vault>,
    storage: Arc<dyn StorageClient>,
    domains: SettlementDomains,
    providers: Arc<dyn ProviderDirectory>,
    sla: SlaSettings,
}

impl Base {
    fn new(provider: &FakeProvider) -> Self {
        let database = MemoryDatabase::with_schema();
        let clock = ManualClock::new(Timestamp(1_790_000_000_000_000));
        let entropy = Arc::new(SeededEntropy::new(7));
        let ids = IdGenerator::new(Arc::new(clock.clone()), entropy.clone());
        let feed = ChangeFeed::new();
        let committer: Arc<dyn Committer> = Arc::new(WatchedCommitter::new(database.clone(), feed.clone()));
        let rules = LocalRules { confirm_after: Micros::ZERO, final_after: Micros::ZERO };
        let local = LocalSettlement::in_memory(DomainId::local(), rules, Arc::new(clock.clone()));
        Self {
            work: Work::new(database.clone(), committer.clone(), ids),
            vault: Arc::new(AesVault::new(&zeroize::Zeroizing::new([7; 32]), entropy.clone())),
            storage: Arc::new(MemoryStorage::new(Arc::new(clock.clone()))),
            domains: SettlementDomains::new([Arc::new(local) as _]),
            providers: Arc::new(FakeProviders(provider.clone())),
            sla: SlaSettings::default(),
            database,
            clock,
            entropy,
            committer,
            feed,
        }
    }

    fn blocks(&self) -> BlockPorts {
        BlockPorts {
            store: BlockStore::new(self.database.clone(), self.storage.clone()),
            ids: self.work.ids.clone(),
            domains: self.domains.clone(),
            da: Arc::new(LocalDa::in_memory()),
            settings: BlockSettings::default(),
        }
    }

    async fn letters(&self) -> Arc<OverQueue> {
        let (clock, entropy) = (Arc::new(self.clock.clone()), self.entropy.clone());
        let settings = DatabaseQueueSettings::default();
        let messages = DatabaseQueue::new(self.database.clone(), clock, entropy, settings);
        let queue = Arc::new(OverQueue::new(Arc::new(messages), "jobs"));
        queue.create_queues().await.unwrap();
        queue
    }

    fn engine(&self, periods: &PeriodSettlement, blocks: &BlockPorts) -> Engine {
        let settlement: Arc<dyn FinalSettlement> = Arc::new(periods.clone());
        let settings = ProvisioningSettings::default();
        let mut handlers =
            provisioning::handlers(&self.work, &self.providers, &self.vault, &settlement, settings);
        handlers.push(Arc::new(SlaCheck::new(periods.clone(), self.providers.clone())));
        handlers.extend(block::handlers(blocks));
        let ports = EnginePorts {
            reader: self.database.clone(),
            claimer: self.database.clone(),
            committer: self.committer.clone(),
            ids: self.work.ids.clone(),
            clock: Arc::new(self.clock.clone()),
            entropy: self.entropy.clone(),
            wake: Arc::new(Wake::default()),
        };
        Engine::new(ports, EngineSettings::default(), handlers)
    }

    fn triggers(
        &self,
        allocations: &AllocationService,
        market: &MarketService,
        disputes: &DisputeService,
        blocks: &BlockPorts,
    ) -> Arc<TriggerRegistry> {
        let work = &self.work;
        let triggers: Vec<Arc<dyn Trigger>> = vec![
            Arc::new(ExpireReservations::new(allocations.clone())),
            Arc::new(EndPeriods::new(allocations.clone())),
            Arc::new(Reconcile::new(work.clone(), self.providers.clone(), ReconcileSettings::default())),
            Arc::new(ExpireCredentials::new(work.clone())),
            Arc::new(UnitMaintenance::new(market.clone())),
            Arc::new(CloseSlaWindows::new(work.clone(), self.sla.clone())),
            Arc::new(SealTrigger::new(work.clone(), blocks.clone())),
            Arc::new(disputes.clone()),
        ];
        let hourly = |trigger| ScheduledTrigger::new(trigger, Micros::from_secs(3_600));
        Arc::new(TriggerRegistry::new(
            self.database.clone(),
            self.database.clone(),
            Arc::new(self.clock.clone()),
            triggers.into_iter().map(hourly).collect(),
        ))
    }
}

/// Builds everything.
pub(crate) async fn build(settings: ApiSettings) -> Built {
    let provider = FakeProvider::new(Bytes(1 << 40));
    let base = Base::new(&provider);
    let work = base.work.clone();
    let (events, _) = broadcast::channel(16);
    let cache = Arc::new(Cache::default());
    let (closing, down) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let aside_down = Arc::new(AtomicBool::new(false));
    let keys = Arc::new(KeyService::new(work.clone(), base.entropy.clone(), KeySettings::default()));
    let operator = Principal::Operator(work.ids.next::<OperatorId>());
    let call = Call { principal: operator, request: None, trace_id: String::new() };
    let operator = keys.create(&call, operator, "tests").await.unwrap().text;
    let offerings = OfferingService::new(
        base.database.clone(),
        work.ids.clone(),
        base.feed.clone(),
        OfferingSettings::default(),
    );
    let allocations =
        AllocationService::new(work.clone(), Arc::new(offerings.clone()), AllocationSettings::default());
    let market = MarketService::new(work.clone(), base.vault.clone(), MarketSettings::default());
    let disputes = DisputeService::new(work.clone(), DisputeSettings::default());
    let periods = PeriodSettlement::new(work.clone(), base.storage.clone(), base.sla.clone());
    let blocks = base.blocks();
    let layers = (blocks.domains.clone(), blocks.da.clone());
    let letters = base.letters().await;
    let engine = base.engine(&periods, &blocks);
    let triggers = base.triggers(&allocations, &market, &disputes, &blocks);
    let accounts = AccountService::new(work.clone(), base.domains.clone());
    let proofs = ProofService::new(accounts.clone(), blocks.store.clone(), base.domains.clone());
    // Nobody works the jobs off while a request waits.
    let access = AccessSettings { wait: Micros::ZERO, ..AccessSettings::default() };
    let state = ApiState::new(Services {
        settings,
        work: work.clone(),
        cache: cache.clone(),
        feed: Arc::new(Feed(events.clone())) as Arc<dyn EventFeed>,
        dependencies: vec![
            Arc::new(Part { name: "database", needed: true, down: down.clone() }),
            Arc::new(Part { name: "cache", needed: false, down: aside_down.clone() }),
        ],
        metrics: Some(Arc::new(|| "# metrics\n".to_owned())),
        closing: closing.clone(),
        keys,
        audit: Arc::new(AuditService::new(base.database.clone())),
        market,
        allocations: allocations.clone(),
        credentials: CredentialService::new(
            work.clone(),
            base.vault.clone(),
            base.entropy.clone(),
            Arc::new(base.clock.clone()),
            access,
        ),
        oracles: OracleService::new(work.clone()),
        evidence: EvidenceService::new(work.clone(), base.sla.clone()),
        sla: SlaService::new(work.clone(), base.storage.clone(), base.sla.clone()),
        attestations: AttestationService::new(work.clone(), blocks.store.clone(), base.domains.clone()),
        payouts: PayoutService::new(
            work.clone(),
            proofs.clone(),
            base.domains.clone(),
            PayoutSettings::default(),
        ),
        proofs,
        blocks: BlockService::new(work.clone(), blocks.store),
        accounts,
        disputes,
        offerings,
        reputations: ReputationService::new(work.clone()),
        pricing: PricingService::new(work.clone()),
        jobs: JobService::new(work.clone()).with_dead_letters(letters.clone()),
        backlog: Backlog::new(base.database.clone(), Arc::new(base.clock.clone()), MAX_BACKLOG),
        triggers,
    });
    let Base { database, clock, .. } = base;
    Built {
        state,
        database,
        clock,
        work,
        cache,
        events,
        down,
        aside_down,
        closing,
        operator,
        engine,
        provider,
        allocations,
        letters,
        layers,
    }
}
