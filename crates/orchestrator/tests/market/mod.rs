//! The market over the embedded database, with the job engine at work beside it.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use orchestrator::{
    client::{
        clock::{SystemClock, SystemEntropy},
        db::sqlite::{Options, SqliteDatabase},
        provider::{FakeProvider, FakeProviders},
        vault::AesVault,
    },
    controller::worker::{Driver, DriverSettings},
    core::{
        client::{
            clock::{Clock, Entropy},
            database::{Changeset, DatabaseClient, Filter, ReaderExt},
            provider::ProviderDirectory,
            schema,
            vault::Vault,
        },
        market::{
            account::{Account, AccountKey, TransferKind},
            allocation::{Allocation, AllocationState, Usage},
            credential::{CredentialState, Permissions},
            ids::{AllocationId, ConsumerId, IdGenerator, UnitId},
            money::Amount,
            offering::OfferingFilter,
            party::Principal,
            quantity::{Bytes, Micros},
            terms::{DomainId, PriceTerms, SlaTerms},
            unit::{DataUnit, Features},
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        access::{AccessSettings, CredentialService, IssueCredential},
        allocation::{
            AllocationService, AllocationSettings, FinalSettlement, OfferingPicker, ReserveRequest, Target,
        },
        job::{Engine, EnginePorts, EngineSettings, Wake, WakingCommitter},
        ledger::{LedgerDraft, Posting},
        market::{MarketService, MarketSettings, NewAdapter, NewConsumer, NewProvider, NewUnit},
        provisioning::{ProvisioningSettings, handlers},
        work::{Call, Work},
    },
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// The last period costs nothing.
struct Free;

#[async_trait]
impl FinalSettlement for Free {
    async fn settle_final(
        &self,
        _at: orchestrator::service::job::step::At<'_>,
        _allocation: &mut Allocation,
        _usage: Usage,
        _ledger: &mut LedgerDraft<'_>,
        _changes: &mut Changeset,
    ) -> Result<()> {
        Ok(())
    }
}

struct NoOfferings;

#[async_trait]
impl OfferingPicker for NoOfferings {
    async fn pick(&self, _filter: &OfferingFilter, _limit: usize) -> Result<Vec<UnitId>> {
        Err(Error::new(ErrorCode::NoMatchingOffering, "none"))
    }
}

const SIZE: Bytes = Bytes(Bytes::GIB);

#[derive(Clone)]
struct World {
    db: Arc<SqliteDatabase>,
    work: Work,
    allocations: AllocationService,
    credentials: CredentialService,
    provider: FakeProvider,
    engine: Engine,
    consumer: ConsumerId,
    unit: UnitId,
    _dir: Arc<tempfile::TempDir>,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = SqliteDatabase::open(&dir.path().join("db"), Options::default()).unwrap();
        db.connect(schema::ALL).await.unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let ids = IdGenerator::new(clock.clone(), entropy.clone());
        let wake = Arc::new(Wake::default());
        let committer = Arc::new(WakingCommitter::new(db.clone(), wake.clone()));
        let work = Work::new(db.clone(), committer, ids.clone());
        let vault: Arc<dyn Vault> = Arc::new(AesVault::new(&Zeroizing::new([1; 32]), entropy.clone()));
        let provider = FakeProvider::new(Bytes(SIZE.0 * 100));
        let directory: Arc<dyn ProviderDirectory> = Arc::new(FakeProviders(provider.clone()));
        let settlement: Arc<dyn FinalSettlement> = Arc::new(Free);
        let handlers = handlers(&work, &directory, &vault, &settlement, ProvisioningSettings::default());
        let ports = EnginePorts {
            reader: db.clone(),
            claimer: db.clone(),
            committer: db.clone(),
            ids,
            clock: clock.clone(),
            entropy: entropy.clone(),
            wake,
        };
        let engine = Engine::new(ports, EngineSettings::default(), handlers);
        let market = MarketService::new(work.clone(), vault.clone(), MarketSettings::default());
        let system = Call::system("test");
        let owner =
            NewProvider { name: "p".into(), domain: None, owner: None, adapter: NewAdapter::CoHosted };
        let owner = market.register_provider(&system, owner).await.unwrap().value.id;
        let consumer = NewConsumer { name: "c".into(), domain: None, owner: None };
        let consumer = market.register_consumer(&system, consumer).await.unwrap().value.id;
        let unit = NewUnit {
            provider: Some(owner),
            name: "u".into(),
            kind: None,
            profile: None,
            region: "eu-1".into(),
            country: "DE".into(),
            capacity: Bytes(SIZE.0 * 10),
            features: Features::default(),
            tags: BTreeMap::new(),
            price: PriceTerms { per_gib_month: Amount(100), per_gib_egress: Amount(1) },
            price_bounds: None,
            sla: SlaTerms::default(),
        };
        let unit = market.register_unit(&system, unit).await.unwrap().value.id;
        let settings = AllocationSettings::default();
        let allocations = AllocationService::new(work.clone(), Arc::new(NoOfferings), settings);
        let credentials =
            CredentialService::new(work.clone(), vault, entropy, clock, AccessSettings::default());
        let dir = Arc::new(dir);
        let world = Self { db, work, allocations, credentials, provider, engine, consumer, unit, _dir: dir };
        world.deposit(1_000).await;
        world
    }

    async fn deposit(&self, amount: u128) {
        let mut ledger = LedgerDraft::new(self.work.reader.as_ref(), &self.work.ids, DomainId::local());
        let posting = Posting {
            kind: TransferKind::Deposit,
            debit: AccountKey::External,
            credit: AccountKey::Consumer(self.consumer),
            amount: Amount(amount),
            idempotency_key: "deposit".into(),
            subject: self.consumer.to_string(),
        };
        ledger.post(posting).await.unwrap();
        let mut changes = Changeset::new();
        ledger.finish(&mut changes);
        self.work.committer.commit(changes).await.unwrap();
    }

    fn call(&self) -> Call {
        Call { principal: Principal::Consumer(self.consumer), request: None, trace_id: "t".into() }
    }

    fn request(&self) -> ReserveRequest {
        ReserveRequest {
            consumer: None,
            target: Target::Unit(self.unit),
            bytes: SIZE,
            period: Micros::from_days(30),
            egress_allowance: Bytes(0),
        }
    }

    /// Waits until the allocation is as wanted; the test's own time-out ends a wait in vain.
    async fn until(&self, id: AllocationId, wanted: impl Fn(&Allocation) -> bool) -> Allocation {
        for _ in 0..2_000 {
            let allocation = self.allocations.get(&self.call(), id).await.unwrap();
            if wanted(&allocation) {
                return allocation;
            }
            SystemClock::new().sleep(Micros::from_millis(5)).await;
        }
        panic!("the allocation never came to what was waited for");
    }

    async fn balance(&self, key: AccountKey) -> u128 {
        let id = Account::id_of(&DomainId::local(), &key);
        self.db.load::<Account>(&id).await.unwrap().map_or(0, |stored| stored.value.balance.0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_never_oversell_the_embedded_database() {
    let world = World::new().await;
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.allocations.reserve(&world.call(), world.request()).await })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => made += 1,
            Err(error) => assert_eq!(error.code, ErrorCode::InsufficientCapacity),
        }
    }
    assert_eq!(made, 10);
    let unit = world.db.load::<DataUnit>(&world.unit.to_string()).await.unwrap().unwrap().value;
    assert_eq!((unit.free, unit.live), (0, 10));
    let all = world.db.list_all::<Allocation>(Filter::All).await.unwrap();
    assert_eq!(all.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_reservation_to_a_working_key_and_back_with_the_engine() {
    let world = World::new().await;
    let stop = CancellationToken::new();
    let driver = Driver::new(world.engine.clone(), DriverSettings::default());
    let driver = tokio::spawn(driver.run(stop.clone()));
    let call = world.call();
    let id = world.allocations.reserve(&call, world.request()).await.unwrap().value.id;
    world.allocations.fund(&call, id).await.unwrap();
    let active = world.until(id, |a| a.state == AllocationState::Active).await;
    assert!(active.routing.is_some());
    let wanted = IssueCredential { permissions: Permissions::ReadWrite, expires_at: None };
    let issued = world.credentials.issue(&call, id, wanted).await.unwrap();
    assert_eq!(issued.credential.state, CredentialState::Active);
    let keys = world.provider.keys(id);
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].0.secret, issued.secret);
    let revoked = world.credentials.revoke(&call, issued.credential.id).await.unwrap().value;
    assert_eq!(revoked.state, CredentialState::Revoked);
    assert!(world.provider.keys(id).is_empty());
    world.allocations.close(&call, id).await.unwrap();
    world.until(id, |a| a.purge_at.is_some()).await;
    assert_eq!(world.balance(AccountKey::Escrow(id)).await, 0);
    assert_eq!(world.balance(AccountKey::Consumer(world.consumer)).await, 1_000);
    stop.cancel();
    driver.await.unwrap();
}
