//! A whole API over an in-memory database and a manual clock, with a key for each role.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use orchestrator::{
    client::{clock::ManualClock, db::memory::MemoryDatabase, job_queue::OverQueue, provider::FakeProvider},
    controller::route::{ApiSettings, ServeSettings, router, serve},
    core::{
        client::{
            database::{Filter, Query, Reader},
            schema::{self, Collection},
        },
        market::{event::DomainEvent, quantity::Micros},
    },
    service::{allocation::AllocationService, job::Engine, work::Work},
};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{fakes::Cache, world};

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
    /// The same for what is not needed.
    pub(crate) aside_down: Arc<AtomicBool>,
    pub(crate) closing: CancellationToken,
    /// An operator's key.
    pub(crate) operator: String,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) engine: Engine,
    pub(crate) provider: FakeProvider,
    pub(crate) allocations: AllocationService,
    pub(crate) letters: Arc<OverQueue>,
    pub(crate) layers: world::Layers,
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
        Self::serving(settings, ServeSettings::default()).await
    }

    pub(crate) async fn serving(settings: ApiSettings, serving: ServeSettings) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let built = world::build(settings).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, router(built.state), built.closing.clone(), serving));
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        Self {
            url: format!("http://{address}"),
            address,
            http,
            database: built.database,
            clock: built.clock,
            work: built.work,
            cache: built.cache,
            events: built.events,
            down: built.down,
            aside_down: built.aside_down,
            closing: built.closing,
            operator: built.operator,
            engine: built.engine,
            provider: built.provider,
            allocations: built.allocations,
            letters: built.letters,
            layers: built.layers,
        }
    }

    /// Lets every job run that is due, while time stands still.
    pub(crate) async fn run_jobs(&self) {
        while self.engine.tick().await.unwrap().claimed > 0 {
            self.engine.idle().await;
        }
    }

    /// Lets time pass, then the jobs that have become due.
    pub(crate) async fn pass(&self, time: Micros) {
        self.clock.advance(time);
        self.run_jobs().await;
    }

    /// Fires a trigger and lets the jobs run that follow.
    pub(crate) async fn fire(&self, trigger: &str) -> Value {
        let report = self.post(&self.operator, &format!("/triggers/{trigger}/fire"), json!({})).await.ok(200);
        self.run_jobs().await;
        report
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

    /// A consumer with so much money.
    pub(crate) async fn rich_consumer(&self) -> Tenant {
        let consumer = self.consumer().await;
        let path = format!("/accounts/consumer:{}/deposits", consumer.id);
        self.post(&self.operator, &path, json!({"amount": "1000000000"})).await.ok(201);
        consumer
    }

    /// An allocation of a mebibyte that is in use.
    pub(crate) async fn active(&self, consumer: &Tenant, unit: &str) -> String {
        let made = self.post(&consumer.key, "/allocations/reserve", reservation(unit)).await.ok(202);
        let id = made["id"].as_str().unwrap().to_owned();
        self.post(&consumer.key, &format!("/allocations/{id}/fund"), json!({})).await.ok(202);
        self.run_jobs().await;
        let now = self.get(&consumer.key, &format!("/allocations/{id}")).await.ok(200);
        assert_eq!(now["state"], "active");
        id
    }

    /// Every stored document, as text.
    pub(crate) async fn everything(&self) -> String {
        let mut all = String::new();
        for spec in schema::ALL {
            let mut query = Query::new(spec.collection);
            loop {
                let page = self.database.find(query.clone()).await.unwrap();
                page.documents.iter().for_each(|document| all.push_str(&document.body));
                match page.next {
                    Some(next) => query = query.after(Some(next)),
                    None => break,
                }
            }
        }
        all
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
