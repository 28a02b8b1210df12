//! A whole API over an in-memory database and a manual clock, with a key for each role.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use orchestrator::{
    client::{
        clock::{ManualClock, SeededEntropy},
        db::memory::MemoryDatabase,
        vault::AesVault,
    },
    controller::{
        route::{ApiSettings, ApiState, Services, router, serve},
        worker::trigger::TriggerRegistry,
    },
    core::{
        client::{
            database::{Filter, Reader},
            event_bus::EventFeed,
            schema::{self, Collection},
        },
        market::{
            event::DomainEvent,
            ids::{IdGenerator, OperatorId},
            party::Principal,
            quantity::{Micros, Timestamp},
        },
    },
    service::{
        access::{AccessSettings, AuditService, CredentialService, KeyService, KeySettings},
        allocation::{AllocationService, AllocationSettings},
        block::{BlockService, BlockStore},
        job::JobService,
        ledger::{
            accounts::AccountService,
            dispute::{DisputeService, DisputeSettings},
        },
        market::{MarketService, MarketSettings},
        pricing::PricingService,
        proof::ProofService,
        scoring::{ChangeFeed, OfferingService, OfferingSettings, ReputationService, WatchedCommitter},
        settlement::SettlementDomains,
        sla::{EvidenceService, OracleService, SlaService, SlaSettings},
        work::{Call, Work},
    },
};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::fakes::{Cache, Chain, EmptyStorage, Feed, Part};

/// A running API.
pub(crate) struct Api {
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    pub(crate) database: Arc<MemoryDatabase>,
    pub(crate) clock: ManualClock,
    pub(crate) work: Work,
    pub(crate) cache: Arc<Cache>,
    pub(crate) events: broadcast::Sender<DomainEvent>,
    pub(crate) down: Arc<AtomicBool>,
    pub(crate) closing: CancellationToken,
    /// An operator's key.
    pub(crate) operator: String,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// A tenant with a key.
pub(crate) struct Tenant {
    pub(crate) id: String,
    pub(crate) key: String,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// Asserts the whole shape of problem details.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str, field: Option<&str>) -> &Self {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("/docs/errors/{code}"));
        assert!(self.body["title"].as_str().is_some_and(|t| !t.is_empty()));
        assert!(self.body["detail"].as_str().is_some_and(|t| !t.is_empty()));
        assert_eq!(self.body["field"].as_str(), field, "{}", self.body);
        assert_eq!(self.body["trace_id"], self.headers["x-trace-id"].to_str().unwrap());
        self
    }

    /// Asserts a status and gives the body.
    #[track_caller]
    pub(crate) fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::with(ApiSettings::default()).await
    }

    pub(crate) async fn with(settings: ApiSettings) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let database = MemoryDatabase::with_schema();
        let clock = ManualClock::new(Timestamp(1_790_000_000_000_000));
        let entropy = Arc::new(SeededEntropy::new(7));
        let ids = IdGenerator::new(Arc::new(clock.clone()), entropy.clone());
        let feed = ChangeFeed::new();
        let committer = Arc::new(WatchedCommitter::new(database.clone(), feed.clone()));
        let work = Work::new(database.clone(), committer, ids.clone());
        let (events, _) = broadcast::channel(16);
        let cache = Arc::new(Cache::default());
        let closing = CancellationToken::new();
        let down = Arc::new(AtomicBool::new(false));
        let keys = Arc::new(KeyService::new(work.clone(), entropy.clone(), KeySettings::default()));
        let offerings = OfferingService::new(database.clone(), ids, feed, OfferingSettings::default());
        let vault = Arc::new(AesVault::new(&zeroize::Zeroizing::new([7; 32]), entropy.clone()));
        let access = AccessSettings { wait: Micros::ZERO, ..AccessSettings::default() };
        let domains = SettlementDomains::new([Arc::new(Chain::new()) as _]);
        let operator = Principal::Operator(work.ids.next::<OperatorId>());
        let call = Call { principal: operator, request: None, trace_id: String::new() };
        let operator = keys.create(&call, operator, "tests").await.unwrap().text;
        let accounts = AccountService::new(work.clone(), domains.clone());
        let store = BlockStore::new(database.clone(), Arc::new(EmptyStorage));
        let drain = settings.drain;
        let state = ApiState::new(Services {
            settings,
            work: work.clone(),
            cache: cache.clone(),
            feed: Arc::new(Feed(events.clone())) as Arc<dyn EventFeed>,
            dependencies: vec![Arc::new(Part { name: "database", down: down.clone() })],
            metrics: Some(Arc::new(|| "# metrics\n".to_owned())),
            closing: closing.clone(),
            keys,
            audit: Arc::new(AuditService::new(database.clone())),
            market: MarketService::new(work.clone(), vault.clone(), MarketSettings::default()),
            allocations: AllocationService::new(
                work.clone(),
                Arc::new(offerings.clone()),
                AllocationSettings::default(),
            ),
            credentials: CredentialService::new(
                work.clone(),
                vault,
                entropy,
                Arc::new(clock.clone()),
                access,
            ),
            oracles: OracleService::new(work.clone()),
            evidence: EvidenceService::new(work.clone(), SlaSettings::default()),
            sla: SlaService::new(work.clone(), Arc::new(EmptyStorage), SlaSettings::default()),
            proofs: ProofService::new(accounts.clone(), store.clone(), domains),
            blocks: BlockService::new(work.clone(), store),
            accounts,
            disputes: DisputeService::new(work.clone(), DisputeSettings::default()),
            offerings,
            reputations: ReputationService::new(work.clone()),
            pricing: PricingService::new(work.clone()),
            jobs: JobService::new(work.clone()),
            triggers: Arc::new(TriggerRegistry::new(
                database.clone(),
                database.clone(),
                Arc::new(clock.clone()),
                Vec::new(),
            )),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, router(state), closing.clone(), drain));
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        Self { url, http, database, clock, work, cache, events, down, closing, operator }
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, headers, body }
    }

    pub(crate) async fn get(&self, key: &str, path: &str) -> Answer {
        self.send(self.http.get(format!("{}{path}", self.url)).bearer_auth(key)).await
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: Value) -> Answer {
        self.send(self.http.post(format!("{}{path}", self.url)).bearer_auth(key).json(&body)).await
    }

    pub(crate) async fn post_once(&self, key: &str, path: &str, once: &str, body: Value) -> Answer {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(key).json(&body);
        self.send(request.header("idempotency-key", once)).await
    }

    /// A key for a tenant.
    pub(crate) async fn key_for(&self, tenant: &str) -> String {
        let made = self.post(&self.operator, "/keys", json!({"tenant": tenant, "label": "t"})).await.ok(201);
        made["text"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn consumer(&self) -> Tenant {
        self.tenant("/consumers", json!({"name": "a consumer"})).await
    }

    pub(crate) async fn provider(&self) -> Tenant {
        self.tenant("/providers", json!({"name": "a provider"})).await
    }

    pub(crate) async fn tenant(&self, path: &str, body: Value) -> Tenant {
        let made = self.post(&self.operator, path, body).await.ok(201);
        let id = made["id"].as_str().unwrap().to_owned();
        Tenant { key: self.key_for(&id).await, id }
    }

    /// A unit of a gibibyte.
    pub(crate) async fn unit(&self, provider: &Tenant) -> String {
        let made = self.post(&provider.key, "/units", unit()).await.ok(201);
        made["id"].as_str().unwrap().to_owned()
    }

    /// How many documents there are, in all collections but the request markers' and the audit log.
    pub(crate) async fn documents(&self) -> u64 {
        let mut sum = 0;
        for spec in schema::ALL {
            sum += self.count(spec.collection).await;
        }
        sum
    }

    pub(crate) async fn count(&self, collection: Collection) -> u64 {
        self.database.count(collection, Filter::All).await.unwrap()
    }
}

/// A unit to register.
pub(crate) fn unit() -> Value {
    json!({
        "name": "disk one", "region": "eu-1", "country": "DE", "capacity_bytes": 1_u64 << 30,
        "price": {"per_gib_month": "1000000", "per_gib_egress": "1000"},
    })
}

/// A reservation of a mebibyte for a month.
pub(crate) fn reservation(unit: &str) -> Value {
    json!({"unit": unit, "bytes": 1 << 20, "period_ms": 2_592_000_000_u64})
}
