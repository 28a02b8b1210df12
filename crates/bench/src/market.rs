//! The whole API over the embedded database: the router, the authentication and the services of the daemon.

use std::sync::Arc;

use orchestrator::{
    client::{
        cache::{MemoryCache, MemoryCacheSettings},
        clock::{SystemClock, SystemEntropy},
        db::sqlite::SqliteDatabase,
        storage::FilesystemStorage,
        vault::AesVault,
    },
    controller::{
        route::{ApiSettings, ApiState, Services},
        worker::trigger::TriggerRegistry,
    },
    core::{
        client::{clock::Clock, database::Committer, event_bus::EventFeed, storage::StorageClient},
        market::{
            event::DomainEvent,
            ids::{IdGenerator, OperatorId},
            party::Principal,
        },
    },
    service::{
        access::{AccessSettings, AuditService, CredentialService, KeyService, KeySettings},
        allocation::{AllocationService, AllocationSettings},
        block::{AttestationService, BlockService, BlockStore},
        job::{Backlog, JobService},
        ledger::{
            accounts::AccountService,
            dispute::{DisputeService, DisputeSettings},
        },
        market::{MarketService, MarketSettings},
        pricing::PricingService,
        proof::{PayoutService, PayoutSettings, ProofService},
        scoring::{ChangeFeed, OfferingService, OfferingSettings, ReputationService, WatchedCommitter},
        settlement::SettlementDomains,
        sla::{EvidenceService, OracleService, SlaService, SlaSettings},
        work::{Call, Work},
    },
};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// An event feed on which nothing happens.
struct Silence(broadcast::Sender<DomainEvent>);

impl EventFeed for Silence {
    fn subscribe(&self) -> broadcast::Receiver<DomainEvent> {
        self.0.subscribe()
    }
}

/// A market without providers.
pub struct Market {
    /// What the router works with.
    pub state: ApiState,
    /// The one write path; the offerings hear of what it writes.
    pub committer: Arc<dyn Committer>,
    /// Serves offerings.
    pub offerings: OfferingService,
    /// An API key.
    pub key: String,
}

impl Market {
    /// A market over a database; `directory` takes what is not in it.
    ///
    /// # Errors
    /// When the directory or the key can't be made.
    pub async fn open(database: Arc<SqliteDatabase>, directory: &std::path::Path) -> Result<Self, Fault> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let entropy = Arc::new(SystemEntropy);
        let ids = IdGenerator::new(clock.clone(), entropy.clone());
        let feed = ChangeFeed::new();
        let committer: Arc<dyn Committer> = Arc::new(WatchedCommitter::new(database.clone(), feed.clone()));
        let work = Work::new(database.clone(), committer.clone(), ids.clone());
        let storage: Arc<dyn StorageClient> = Arc::new(FilesystemStorage::open(directory.to_owned()).await?);
        let offerings = OfferingService::new(database.clone(), ids, feed, OfferingSettings::default());
        let keys = Arc::new(KeyService::new(work.clone(), entropy.clone(), KeySettings::default()));
        let operator = Principal::Operator(work.ids.next::<OperatorId>());
        let key = keys.create(&Call::system("bench"), operator, "bench").await?.text;
        let vault = Arc::new(AesVault::new(&zeroize::Zeroizing::new([7; 32]), entropy.clone()));
        let domains = SettlementDomains::new([]);
        let accounts = AccountService::new(work.clone(), domains.clone());
        let store = BlockStore::new(database.clone(), storage.clone());
        let proofs = ProofService::new(accounts.clone(), store.clone(), domains.clone());
        let credentials = CredentialService::new(
            work.clone(),
            vault.clone(),
            entropy,
            clock.clone(),
            AccessSettings::default(),
        );
        let allocations =
            AllocationService::new(work.clone(), Arc::new(offerings.clone()), AllocationSettings::default());
        let state = ApiState::new(Services {
            settings: ApiSettings { rate_limit: u64::MAX, ..ApiSettings::default() },
            cache: Arc::new(MemoryCache::new(clock.clone(), &MemoryCacheSettings::default())),
            feed: Arc::new(Silence(broadcast::channel(16).0)),
            dependencies: Vec::new(),
            metrics: None,
            closing: CancellationToken::new(),
            audit: Arc::new(AuditService::new(database.clone())),
            market: MarketService::new(work.clone(), vault, MarketSettings::default()),
            oracles: OracleService::new(work.clone()),
            evidence: EvidenceService::new(work.clone(), SlaSettings::default()),
            sla: SlaService::new(work.clone(), storage, SlaSettings::default()),
            attestations: AttestationService::new(work.clone(), store.clone(), domains.clone()),
            payouts: PayoutService::new(work.clone(), proofs.clone(), domains, PayoutSettings::default()),
            proofs,
            blocks: BlockService::new(work.clone(), store),
            disputes: DisputeService::new(work.clone(), DisputeSettings::default()),
            offerings: offerings.clone(),
            reputations: ReputationService::new(work.clone()),
            pricing: PricingService::new(work.clone()),
            jobs: JobService::new(work.clone()),
            backlog: Backlog::new(database.clone(), clock.clone(), 0),
            triggers: Arc::new(TriggerRegistry::new(database.clone(), database, clock, Vec::new())),
            keys,
            credentials,
            allocations,
            accounts,
            work,
        });
        Ok(Self { state, committer, offerings, key })
    }
}
