//! A small market behind the real router, on the database in memory: the world of the API's own tests.

use std::{
    cell::RefCell,
    hash::{DefaultHasher, Hash, Hasher},
};

use axum::{Router, body::Body};
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt;
use orchestrator::{
    controller::route::{ApiSettings, router},
    core::{
        client::{
            database::{Filter, Query, Reader, ReaderExt},
            schema,
        },
        market::account::{Account, Transfer, TransferKind},
        market::unit::DataUnit,
    },
};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

#[allow(dead_code, reason = "the API's tests use more of it")]
#[path = "../../orchestrator/tests/api/fakes.rs"]
mod fakes;
#[allow(dead_code, reason = "the API's tests use more of it")]
#[path = "../../orchestrator/tests/api/world.rs"]
mod world;

thread_local! {
    // Never dropped: what it would shut down may outlive the thread's other values.
    static RUNTIME: &'static Runtime =
        Box::leak(Box::new(Builder::new_current_thread().enable_all().build().unwrap()));
    static MARKET: RefCell<Option<Market>> = const { RefCell::new(None) };
}

/// Runs a future on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// A market with one of each, and who may speak in it.
pub(crate) struct Market {
    router: Router,
    built: world::Built,
    /// Placeholders of inputs, and what stands in their place.
    names: Vec<(&'static str, String)>,
    keys: Vec<(&'static str, String)>,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Runs `visit` in a market that nobody has changed: it is made anew after a visit that changed something.
pub(crate) fn visit(visit: impl AsyncFnOnce(&Market)) {
    let kept = MARKET.with(RefCell::take);
    let kept = block_on(async {
        let market = match kept {
            Some(market) => market,
            None => Market::new().await,
        };
        let before = market.fingerprint().await;
        visit(&market).await;
        (market.fingerprint().await == before).then_some(market)
    });
    MARKET.with(|slot| slot.replace(kept));
}

impl Market {
    async fn new() -> Self {
        let endless = ApiSettings { rate_limit: u64::MAX, auth_failures: u64::MAX, ..ApiSettings::default() };
        let built = world::build(endless).await;
        let keys = vec![("operator", built.operator.clone())];
        let mut market = Self { router: router(built.state.clone()), built, names: Vec::new(), keys };
        market.settle().await;
        market
    }

    /// Fills the market.
    async fn settle(&mut self) {
        let provider = self.tenant("provider", "/providers", json!({"name": "p"})).await;
        let consumer = self.tenant("consumer", "/consumers", json!({"name": "c"})).await;
        let public_key = hex::encode(crate::evidence::oracle_key().verifying_key().to_bytes());
        let oracle = json!({"name": "o", "public_key": public_key, "key_id": "k1"});
        let oracle = self.tenant("oracle", "/oracles", oracle).await;
        let offer = json!({
            "name": "disk", "region": "eu-1", "country": "DE", "capacity_bytes": 1_u64 << 30,
            "price": {"per_gib_month": "1000000", "per_gib_egress": "1000"},
        });
        let unit = self.made("provider", "/units", offer).await;
        let deposit = format!("/accounts/consumer:{consumer}/deposits");
        self.made("operator", &deposit, json!({"amount": "1000000000"})).await;
        let wish = json!({"unit": unit, "bytes": 1 << 20, "period_ms": 2_592_000_000_u64});
        let allocation = self.made("consumer", "/allocations/reserve", wish.clone()).await;
        self.made("consumer", &format!("/allocations/{allocation}/fund"), json!({})).await;
        while self.built.engine.tick().await.unwrap().claimed > 0 {
            self.built.engine.idle().await;
        }
        let reserved = self.made("consumer", "/allocations/reserve", wish).await;
        let issued =
            self.ask("consumer", "POST", &format!("/allocations/{allocation}/credentials"), json!({})).await;
        let credential = issued.json()["credential"]["id"].as_str().unwrap().to_owned();
        let jobs = self.ask("operator", "GET", "/jobs", Value::Null).await.json();
        let job = jobs["items"][0]["id"].as_str().unwrap().to_owned();
        self.names = vec![
            ("{a}", allocation),
            ("{c}", consumer),
            ("{j}", job),
            ("{k}", credential),
            ("{o}", oracle),
            ("{p}", provider),
            ("{r}", reserved),
            ("{u}", unit),
        ];
    }

    async fn tenant(&mut self, role: &'static str, path: &str, body: Value) -> String {
        let id = self.made("operator", path, body).await;
        let made = self.ask("operator", "POST", "/keys", json!({"tenant": id, "label": "t"})).await;
        self.keys.push((role, made.json()["text"].as_str().unwrap().to_owned()));
        id
    }

    /// The id of what a request made.
    async fn made(&self, role: &str, path: &str, body: Value) -> String {
        let answer = self.ask(role, "POST", path, body).await;
        assert!(answer.status < 300, "{path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()["id"].as_str().unwrap_or_default().to_owned()
    }

    /// A request of somebody with a key.
    pub(crate) async fn ask(&self, role: &str, method: &str, path: &str, body: Value) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.key(role).unwrap()));
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send(request.body(body).unwrap()).await
    }

    /// The key of a role.
    pub(crate) fn key(&self, role: &str) -> Option<&str> {
        self.keys.iter().find(|(name, _)| *name == role).map(|(_, key)| key.as_str())
    }

    /// An input with its placeholders filled.
    pub(crate) fn filled(&self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(data.len());
        let mut rest = data;
        while let Some((first, behind)) = rest.split_first() {
            match self.names.iter().find(|(name, _)| rest.starts_with(name.as_bytes())) {
                Some((name, id)) => {
                    out.extend_from_slice(id.as_bytes());
                    rest = rest.get(name.len()..).unwrap_or_default();
                }
                None => {
                    out.push(*first);
                    rest = behind;
                }
            }
        }
        out
    }

    /// Sends a request, and reads the answer; of an endless one its head.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let (parts, body) = response.into_parts();
        let kind = parts.headers.get(header::CONTENT_TYPE);
        let endless = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let body = if endless { Vec::new() } else { body.collect().await.unwrap().to_bytes().to_vec() };
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// A hash over everything that is stored.
    pub(crate) async fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for spec in schema::ALL {
            let mut query = Query::new(spec.collection).limit(10_000);
            loop {
                let page = self.built.database.find(query.clone()).await.unwrap();
                for document in page.documents {
                    (spec.collection, document.id, document.version, document.body).hash(&mut hasher);
                }
                match page.next {
                    Some(next) => query = query.after(Some(next)),
                    None => break,
                }
            }
        }
        hasher.finish()
    }

    /// Asserts that every account holds what its transfers brought it, and that no unit was sold twice.
    pub(crate) async fn books_balance(&self) {
        let database = &self.built.database;
        let transfers = database.list_all::<Transfer>(Filter::All).await.unwrap();
        for account in database.list_all::<Account>(Filter::All).await.unwrap() {
            let (mut balance, mut withdrawable) = (0_u128, 0_u128);
            for Transfer { domain, kind, debit, credit, amount, .. } in transfers.iter().map(|t| &t.value) {
                if *domain != account.value.domain {
                    continue;
                }
                if *debit == account.value.key {
                    balance = balance.wrapping_sub(amount.0);
                }
                if *credit == account.value.key {
                    let into = if *kind == TransferKind::Withdraw { &mut withdrawable } else { &mut balance };
                    *into = into.wrapping_add(amount.0);
                }
            }
            let Account { key, balance: held, withdrawable: free, .. } = account.value;
            assert_eq!((held.0, free.0), (balance, withdrawable), "{key}");
        }
        for unit in database.list_all::<DataUnit>(Filter::All).await.unwrap() {
            let unit = unit.value;
            assert!((0..=unit.capacity.signed()).contains(&unit.free), "{} has {} free", unit.id, unit.free);
        }
    }
}
