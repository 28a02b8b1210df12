//! A small market for these tests.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use ed25519_dalek::{Signer, SigningKey};
use orchestrator::{
    client::{
        clock::{ManualClock, SeededEntropy},
        db::memory::MemoryDatabase,
        storage::MemoryStorage,
    },
    core::{
        client::{
            database::{Changeset, ReaderExt},
            provider::{
                AccessLevel, AllocateRequest, Generation, IssueRequest, Operation, ProviderClient,
                ProviderDescription, ProviderDirectory, ProviderError,
            },
        },
        market::{
            account::{Account, AccountKey},
            allocation::{AccessState, Allocation, AllocationState, Routing, Usage},
            evidence::{
                EvidenceReport, EvidenceSubject, FailureClass, OperationKind, OperationStats, Qos,
                ReportBody, ReportStatement,
            },
            ids::{AllocationId, Id, IdGenerator, OracleId, ProviderId, UnitId},
            money::Amount,
            party::{AdapterConfig, Oracle, Provider},
            quantity::{Bytes, Micros, Ppm, Timestamp},
            sla::{JudgeRules, histogram, statement_bytes},
            terms::{DomainId, PriceTerms, SlaTerms},
            unit::{DataUnit, Features, UnitMode},
        },
    },
    service::{
        scoring::{ChangeFeed, WatchedCommitter},
        sla::{EvidenceService, PeriodSettlement, SlaService, SlaSettings},
        work::{Call, Work},
    },
};
use parking_lot::Mutex;

pub const START: Timestamp = Timestamp(1_000_000_000_000_000);

pub fn id<I: Id>(n: u128) -> I {
    I::from_uuid(uuid::Uuid::from_u128(n))
}

pub fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

pub struct World {
    pub db: Arc<MemoryDatabase>,
    pub clock: ManualClock,
    pub work: Work,
    pub feed: ChangeFeed,
    pub settings: SlaSettings,
    pub evidence: EvidenceService,
    pub settlement: PeriodSettlement,
    pub sla: SlaService,
    pub meter: Arc<Meter>,
}

impl World {
    /// Buckets of a second, periods of ten; oracle 1 with key 1; unit 1 of provider 1.
    pub async fn new() -> Self {
        let db = MemoryDatabase::with_schema();
        let clock = ManualClock::new(START);
        let ids = IdGenerator::new(Arc::new(clock.clone()), Arc::new(SeededEntropy::new(1)));
        let feed = ChangeFeed::new();
        let committer = Arc::new(WatchedCommitter::new(db.clone(), feed.clone()));
        let work = Work::new(db.clone(), committer, ids);
        let settings = SlaSettings {
            rules: JudgeRules { bucket: Micros::from_secs(1), ..JudgeRules::default() },
            billing_period: Micros::from_secs(10),
            lateness: Micros::from_secs(2),
            reputation_day: Micros::from_secs(10),
            ..SlaSettings::default()
        };
        let storage = Arc::new(MemoryStorage::new(Arc::new(clock.clone())));
        let world = Self {
            evidence: EvidenceService::new(work.clone(), settings.clone()),
            settlement: PeriodSettlement::new(work.clone(), storage.clone(), settings.clone()),
            sla: SlaService::new(work.clone(), storage, settings.clone()),
            meter: Arc::new(Meter::default()),
            db,
            clock,
            work,
            feed,
            settings,
        };
        let mut changes = Changeset::new();
        for n in 1..=3_u8 {
            changes.insert(&Oracle {
                id: id(u128::from(n)),
                name: "o".into(),
                public_key: hex::encode(key(n).verifying_key().to_bytes()),
                key_id: "k".into(),
                last_nonce: 0,
                standing: Ppm::ONE,
                enabled: true,
                created_at: START,
            });
        }
        changes.insert(&Provider {
            id: id(1),
            name: "p".into(),
            domain: DomainId::local(),
            owner: None,
            adapter: AdapterConfig::Embedded { admin_url: None, sealed_token: None },
            created_at: START,
        });
        changes.insert(&unit(1));
        world.work.committer.commit(changes).await.unwrap();
        world
    }

    /// An active allocation of 1 GiB at 2,592,000 base units a GiB-month (one a second), with money behind it.
    pub async fn allocation(&self, n: u128, escrow: u128) -> AllocationId {
        let allocation = allocation(n);
        let account = |key, balance| Account {
            balance: Amount(balance),
            sequence: 1,
            ..Account::empty(DomainId::local(), key)
        };
        let mut changes = Changeset::new();
        changes
            .insert(&account(AccountKey::Escrow(allocation.id), escrow))
            .insert(&account(AccountKey::Collateral(allocation.provider), 1_000))
            .insert(&allocation);
        self.work.committer.commit(changes).await.unwrap();
        allocation.id
    }

    pub async fn balance(&self, key: AccountKey) -> u128 {
        let id = Account::id_of(&DomainId::local(), &key);
        self.db.load::<Account>(&id).await.unwrap().map_or(0, |a| a.value.balance.get())
    }

    /// Oracle `n` reports on unit 1 for the second that has just ended.
    pub async fn report_last_second(&self, n: u8, qos: Qos) {
        let to = self.work.now();
        let from = to.minus(Micros::from_secs(1));
        let nonce = u64::try_from(to.as_micros()).unwrap();
        let report = signed(n, EvidenceSubject::Unit(id(1)), from, to, nonce, ReportBody::Qos(qos));
        self.evidence.submit(&oracle(n), report).await.unwrap();
    }
}

pub fn oracle(n: u8) -> Call {
    let principal = orchestrator::core::market::party::Principal::Oracle(id::<OracleId>(u128::from(n)));
    Call { principal, request: None, trace_id: "t".into() }
}

pub fn signed(
    n: u8,
    subject: EvidenceSubject,
    from: Timestamp,
    to: Timestamp,
    nonce: u64,
    body: ReportBody,
) -> EvidenceReport {
    let statement = ReportStatement {
        version: 1,
        oracle: id(u128::from(n)),
        key_id: "k".into(),
        subject,
        from,
        to,
        nonce,
        body,
    };
    let signature = hex::encode(key(n).sign(&statement_bytes(&statement).unwrap()).to_bytes());
    EvidenceReport { statement, signature }
}

pub fn qos(attempts: u64, failures: u64) -> Qos {
    let latency = 10_000;
    let good = attempts - failures;
    let stats = OperationStats {
        attempts,
        failures: BTreeMap::from([(FailureClass::ServerError, failures)]),
        latency_sum_us: good * latency,
        latency: BTreeMap::from([(histogram::index(latency), good)]),
        bulk_bytes: 0,
        bulk_us: 0,
    };
    Qos { operations: BTreeMap::from([(OperationKind::Get, stats)]) }
}

pub fn unit(n: u128) -> DataUnit {
    DataUnit {
        id: id::<UnitId>(n),
        provider: id::<ProviderId>(n),
        name: format!("unit {n}"),
        domain: DomainId::local(),
        kind: "storage".into(),
        profile: "s3".into(),
        region: "local".into(),
        country: "CH".into(),
        capacity: Bytes(100 * Bytes::GIB),
        free: 100 << 30,
        live: 0,
        active: 0,
        features: Features::default(),
        tags: BTreeMap::new(),
        price: PriceTerms { per_gib_month: Amount(2_592_000), per_gib_egress: Amount(0) },
        price_bounds: None,
        sla: SlaTerms::default(),
        mode: UnitMode::Open,
        maintenance: Vec::new(),
        created_at: START,
        updated_at: START,
    }
}

fn allocation(n: u128) -> Allocation {
    let unit = unit(1);
    Allocation {
        id: id(n),
        consumer: id(1),
        unit: unit.id,
        provider: unit.provider,
        domain: unit.domain,
        bytes: Bytes(Bytes::GIB),
        egress_allowance: Bytes(0),
        period: Micros::from_days(30),
        price: unit.price,
        sla: unit.sla,
        escrow_required: Amount(1_000),
        state: AllocationState::Active,
        access: AccessState::Active,
        restrictions: Default::default(),
        routing: None,
        reserved_until: START,
        activated_at: Some(START),
        ends_at: Some(START.plus(Micros::from_days(30))),
        closing_at: None,
        purge_at: None,
        periods_settled: 0,
        settled_through: None,
        settled_usage: Usage::default(),
        usage: Usage::default(),
        paid: Amount::ZERO,
        credited: Amount::ZERO,
        breached_in_a_row: 0,
        earlier: Vec::new(),
        failure: None,
        created_at: START,
        updated_at: START,
    }
}

/// A provider that only has a meter.
#[derive(Default)]
pub struct Meter {
    pub usage: Mutex<Usage>,
}

#[async_trait]
impl ProviderDirectory for MeterOnly {
    async fn client(&self, _provider: &Provider) -> Result<Arc<dyn ProviderClient>, ProviderError> {
        Ok(Arc::new(MeterOnly(self.0.clone())))
    }
}

pub struct MeterOnly(pub Arc<Meter>);

fn refused<T>() -> Result<T, ProviderError> {
    Err(ProviderError::Refused("only a meter".into()))
}

#[async_trait]
impl ProviderClient for MeterOnly {
    async fn describe(&self) -> Result<ProviderDescription, ProviderError> {
        refused()
    }
    async fn allocate(&self, _: &AllocateRequest) -> Result<Operation<Routing>, ProviderError> {
        refused()
    }
    async fn deallocate(&self, _: AllocationId, _: Generation) -> Result<Operation<()>, ProviderError> {
        refused()
    }
    async fn issue_credential(&self, _: &IssueRequest) -> Result<(), ProviderError> {
        refused()
    }
    async fn revoke_credential(&self, _: AllocationId, _: Generation, _: &str) -> Result<(), ProviderError> {
        refused()
    }
    async fn restrict(&self, _: AllocationId, _: Generation, _: AccessLevel) -> Result<(), ProviderError> {
        refused()
    }
    async fn usage(&self, _: AllocationId) -> Result<Usage, ProviderError> {
        Ok(*self.usage_lock())
    }
    async fn allocations(&self) -> Result<Vec<AllocationId>, ProviderError> {
        refused()
    }
}

impl MeterOnly {
    fn usage_lock(&self) -> parking_lot::MutexGuard<'_, Usage> {
        self.0.usage.lock()
    }
}
