//! A whole market in memory: services, a fake provider, and a runner that takes jobs through the handlers one by one.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;
use zeroize::Zeroizing;

use super::fake::Fake;
use crate::{
    client::{
        clock::{ManualClock, SeededEntropy},
        db::memory::MemoryDatabase,
        vault::AesVault,
    },
    core::{
        client::{
            clock::Clock,
            database::{Changeset, DatabaseError, Filter, Reader, ReaderExt, Stored},
            provider::Generation,
            vault::Vault,
        },
        job::{Effect, Job, JobState},
        market::{
            account::{Account, AccountKey, Transfer, TransferKind},
            allocation::{Allocation, Usage},
            ids::{AllocationId, ConsumerId, IdGenerator, ProviderId, UnitId},
            money::Amount,
            offering::OfferingFilter,
            party::Principal,
            quantity::{Bytes, Micros, Timestamp},
            terms::{DomainId, PriceTerms, SlaTerms},
            unit::{DataUnit, Features},
        },
    },
    error::{Error, Result},
    service::{
        access::{AccessSettings, CredentialService},
        allocation::{
            AllocationService, AllocationSettings, FinalSettlement, OfferingPicker, ReserveRequest, Target,
        },
        job::{JobContext, JobError, JobHandler, Processed, Verified},
        ledger::{LedgerDraft, Posting},
        market::{MarketService, MarketSettings, NewAdapter, NewConsumer, NewProvider, NewUnit},
        provisioning::{ProvisioningSettings, handlers},
        work::{Call, RequestKey, Work},
    },
};

/// Pays the stored byte-seconds, and nothing else.
struct PayByUse;

#[async_trait]
impl FinalSettlement for PayByUse {
    async fn settle_final(
        &self,
        _at: crate::service::job::step::At<'_>,
        allocation: &mut Allocation,
        usage: Usage,
        ledger: &mut LedgerDraft<'_>,
        _changes: &mut Changeset,
    ) -> Result<()> {
        let amount = allocation.price.payment(usage.byte_seconds, usage.egress).unwrap();
        let amount = amount.min(ledger.balance(AccountKey::Escrow(allocation.id)).await?);
        allocation.paid = amount;
        ledger
            .post(Posting {
                kind: TransferKind::Payment,
                debit: AccountKey::Escrow(allocation.id),
                credit: AccountKey::Provider(allocation.provider),
                amount,
                idempotency_key: format!("final:{}", allocation.id),
                subject: allocation.id.to_string(),
            })
            .await
    }
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

struct Attempt {
    job: Job,
    generation: u64,
    now: Timestamp,
}

#[async_trait]
impl JobContext for Attempt {
    fn job(&self) -> &Job {
        &self.job
    }
    fn generation(&self) -> Generation {
        Generation(self.generation)
    }
    fn now(&self) -> Timestamp {
        self.now
    }
    async fn intend(&self, _key: &str, intent: Value) -> Result<Effect, JobError> {
        Ok(Effect { intent, outcome: None, at: self.now })
    }
    async fn record(&self, _key: &str, _outcome: Value) -> Result<(), JobError> {
        Ok(())
    }
    fn effects(&self) -> BTreeMap<String, Effect> {
        BTreeMap::new()
    }
}

pub(super) const SIZE: Bytes = Bytes(10 * Bytes::GIB);
pub(super) const PERIOD: Micros = Micros::from_days(30);
pub(super) const GRACE: Micros = Micros::from_days(7);

#[derive(Clone)]
pub(super) struct World {
    pub(super) db: Arc<MemoryDatabase>,
    pub(super) clock: ManualClock,
    pub(super) work: Work,
    pub(super) fake: Fake,
    pub(super) market: MarketService,
    pub(super) allocations: AllocationService,
    pub(super) credentials: CredentialService,
    handlers: Vec<Arc<dyn JobHandler>>,
    generations: Arc<parking_lot::Mutex<u64>>,
    pub(super) provider: ProviderId,
    pub(super) consumer: ConsumerId,
    pub(super) unit: UnitId,
}

pub(super) fn new_unit(capacity: Bytes) -> NewUnit {
    NewUnit {
        provider: None,
        name: "disks".into(),
        kind: None,
        profile: None,
        region: "eu-1".into(),
        country: "DE".into(),
        capacity,
        features: Features::default(),
        tags: BTreeMap::new(),
        price: PriceTerms { per_gib_month: Amount(1_000), per_gib_egress: Amount(10) },
        price_bounds: None,
        sla: SlaTerms::default(),
    }
}

pub(super) fn new_provider() -> NewProvider {
    NewProvider { name: "built-in".into(), domain: None, owner: None, adapter: NewAdapter::CoHosted }
}

impl World {
    /// A market with one unit of ten times [`SIZE`] and a consumer with a million.
    pub(super) async fn new() -> Self {
        let db = MemoryDatabase::with_schema();
        let clock = ManualClock::new(Timestamp(1_760_000_000_000_000));
        let entropy = Arc::new(SeededEntropy::new(7));
        let ids = IdGenerator::new(Arc::new(clock.clone()), entropy.clone());
        let work = Work::new(db.clone(), db.clone(), ids);
        let vault: Arc<dyn Vault> = Arc::new(AesVault::new(&Zeroizing::new([1; 32]), entropy.clone()));
        let fake = Fake::default();
        let settlement: Arc<dyn FinalSettlement> = Arc::new(PayByUse);
        let settings = ProvisioningSettings::default();
        let directory: Arc<dyn crate::core::client::provider::ProviderDirectory> = Arc::new(fake.clone());
        let handlers = handlers(&work, &directory, &vault, &settlement, settings);
        let market = MarketService::new(work.clone(), vault.clone(), MarketSettings::default());
        let offerings = Arc::new(AllUnits(db.clone()));
        let allocations = AllocationService::new(work.clone(), offerings, AllocationSettings::default());
        let access = AccessSettings { wait: Micros::ZERO, ..AccessSettings::default() };
        let credentials =
            CredentialService::new(work.clone(), vault, entropy, Arc::new(clock.clone()), access);
        let system = Call::system("test");
        let provider = market.register_provider(&system, new_provider()).await.unwrap().value.id;
        let consumer = NewConsumer { name: "c".into(), domain: None, owner: None };
        let consumer = market.register_consumer(&system, consumer).await.unwrap().value.id;
        let unit = NewUnit { provider: Some(provider), ..new_unit(Bytes(SIZE.0 * 10)) };
        let unit = market.register_unit(&system, unit).await.unwrap().value.id;
        let world = Self {
            db,
            clock,
            work,
            fake,
            market,
            allocations,
            credentials,
            handlers,
            generations: Arc::default(),
            provider,
            consumer,
            unit,
        };
        world.deposit(consumer, 1_000_000).await;
        world
    }

    pub(super) async fn deposit(&self, consumer: ConsumerId, amount: u128) {
        let mut ledger = LedgerDraft::new(self.work.reader.as_ref(), &self.work.ids, DomainId::local());
        let posting = Posting {
            kind: TransferKind::Deposit,
            debit: AccountKey::External,
            credit: AccountKey::Consumer(consumer),
            amount: Amount(amount),
            idempotency_key: format!("deposit:{}", self.work.ids.next::<ConsumerId>()),
            subject: consumer.to_string(),
        };
        ledger.post(posting).await.unwrap();
        let mut changes = Changeset::new();
        ledger.finish(&mut changes);
        self.work.committer.commit(changes).await.unwrap();
    }

    pub(super) fn call(&self) -> Call {
        Call { principal: Principal::Consumer(self.consumer), request: None, trace_id: "t".into() }
    }

    pub(super) fn keyed(&self, key: &str, body: &str) -> Call {
        let request = Some(RequestKey { id: key.into(), fingerprint: body.into() });
        Call { request, ..self.call() }
    }

    pub(super) fn request(&self) -> ReserveRequest {
        ReserveRequest {
            consumer: None,
            target: Target::Unit(self.unit),
            bytes: SIZE,
            period: PERIOD,
            egress_allowance: Bytes(Bytes::GIB),
        }
    }

    pub(super) async fn reserve(&self) -> Allocation {
        self.allocations.reserve(&self.call(), self.request()).await.unwrap().value
    }

    pub(super) async fn active(&self) -> AllocationId {
        let id = self.reserve().await.id;
        self.allocations.fund(&self.call(), id).await.unwrap();
        self.run_jobs().await;
        id
    }

    pub(super) async fn allocation(&self, id: AllocationId) -> Allocation {
        self.db.load::<Allocation>(&id.to_string()).await.unwrap().unwrap().value
    }

    pub(super) async fn the_unit(&self) -> DataUnit {
        self.db.load::<DataUnit>(&self.unit.to_string()).await.unwrap().unwrap().value
    }

    pub(super) async fn balance(&self, key: AccountKey) -> u128 {
        let id = Account::id_of(&DomainId::local(), &key);
        self.db.load::<Account>(&id).await.unwrap().map_or(0, |stored| stored.value.balance.0)
    }

    pub(super) async fn jobs(&self) -> Vec<Job> {
        let all = self.db.list_all::<Job>(Filter::All).await.unwrap();
        all.into_iter().map(|stored| stored.value).collect()
    }

    /// Runs what is due, with retries at once, until nothing is.
    pub(super) async fn run_jobs(&self) {
        for _ in 0..1_000 {
            let now = self.clock.now();
            let all = self.db.list_all::<Job>(Filter::All).await.unwrap();
            let due = all.into_iter().find(|job| job.value.due.is_some_and(|due| due <= now.as_micros()));
            let Some(stored) = due else { return };
            self.attempt(stored, now).await;
        }
        panic!("the jobs never come to an end");
    }

    async fn attempt(&self, stored: Stored<Job>, now: Timestamp) {
        let Stored { version, value: mut job } = stored;
        let handler = self.handlers.iter().find(|handler| handler.kind() == job.kind).unwrap();
        let verifying = job.state == JobState::PendingVerification;
        let generation = {
            let mut generations = self.generations.lock();
            *generations += 1;
            *generations
        };
        if !verifying {
            job.attempts += 1;
        }
        let attempt = Attempt { job: job.clone(), generation, now };
        let outcome = if verifying {
            match handler.verify(&attempt).await {
                Ok(Verified::Confirmed(changes)) => Ok(Processed::Done(changes)),
                Ok(Verified::Refuted(reason)) => panic!("{reason}"),
                Err(error) => Err(error),
            }
        } else {
            handler.process(&attempt).await
        };
        let mut changes = match outcome {
            Ok(Processed::Done(changes)) => {
                (job.state, job.due) = (JobState::Completed, None);
                changes
            }
            Ok(Processed::Verify { changes, output, delay }) => {
                job.output = output;
                (job.state, job.due) = (JobState::PendingVerification, Some(now.plus(delay).as_micros()));
                changes
            }
            Err(JobError::PollAgain(delay)) => {
                job.attempts = job.attempts.saturating_sub(u32::from(!verifying));
                job.due = Some(now.plus(delay).as_micros());
                Changeset::new()
            }
            Err(JobError::Transient(_)) if job.attempts < handler.policy().max_attempts => Changeset::new(),
            Err(JobError::Transient(error) | JobError::Permanent(error)) => {
                (job.state, job.due) = (JobState::Failed, None);
                self.failed(handler.as_ref(), &attempt, &error).await
            }
        };
        changes.replace(version, &job);
        match self.work.committer.commit(changes).await {
            Ok(()) | Err(DatabaseError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn failed(&self, handler: &dyn JobHandler, attempt: &Attempt, error: &Error) -> Changeset {
        handler.on_failed(attempt, error).await.unwrap()
    }

    /// What must hold whatever happened: money is conserved, counters agree with the allocations, what is over holds no money
    /// and nothing at the provider.
    pub(super) async fn check(&self) {
        let transfers = self.db.list_all::<Transfer>(Filter::All).await.unwrap();
        let deposits: u128 = transfers
            .iter()
            .filter(|t| t.value.kind == TransferKind::Deposit)
            .map(|t| t.value.amount.0)
            .sum();
        let accounts = self.db.list_all::<Account>(Filter::All).await.unwrap();
        assert_eq!(accounts.iter().map(|a| a.value.balance.0).sum::<u128>(), deposits);
        let unit = self.the_unit().await;
        let (mut free, mut live, mut active) = (unit.capacity.signed(), 0, 0);
        for stored in self.db.list_all::<Allocation>(Filter::All).await.unwrap() {
            let allocation = stored.value;
            if allocation.state.is_terminal() {
                assert_eq!(
                    self.balance(AccountKey::Escrow(allocation.id)).await,
                    0,
                    "{:?}",
                    allocation.state
                );
                assert!(!self.fake.0.lock().held.contains_key(&allocation.id), "{:?}", allocation.state);
                continue;
            }
            free -= allocation.bytes.signed();
            live += 1;
            active += i64::from(allocation.state.is_in_use());
        }
        assert_eq!((unit.free, unit.live, unit.active), (free, live, active));
        assert!(free >= 0);
    }

    pub(super) fn use_storage(&self, id: AllocationId, byte_seconds: u128) {
        let usage = Usage { byte_seconds, read_at: self.clock.now(), ..Usage::default() };
        self.fake.0.lock().usage.insert(id, usage);
    }

    pub(super) async fn count_documents(&self, collection: crate::core::client::schema::Collection) -> u64 {
        self.db.count(collection, Filter::All).await.unwrap()
    }
}
