//! Consumers that go on whatever happens to the daemon: each repeats a request, with the same idempotency key, until it is
//! answered, and remembers the answer. In the end what they remember is held against what the daemon says (`judge`).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::harness::{Api, text, wait_for};

const TOKEN: u128 = 1_000_000_000_000_000_000;
/// Longest time that a client repeats one request.
const STUBBORN: Duration = Duration::from_secs(90);
const SIGNED_FOR: Duration = Duration::from_secs(60);
/// What is reserved each time.
const BYTES: u64 = 8 << 20;

/// A small generator of numbers (splitmix64): the same seed, the same clients.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// An object that the provider said it has.
pub(super) struct Stored {
    pub(super) key: String,
    pub(super) hash: [u8; 32],
}

/// An allocation that was acknowledged.
pub(super) struct Bought {
    pub(super) id: String,
    /// The idempotency key of its reservation, and the body.
    pub(super) key: String,
    pub(super) ask: Value,
    pub(super) store: Option<Store>,
    pub(super) stored: Vec<Stored>,
    /// Whether closing it was acknowledged.
    pub(super) closed: bool,
}

/// A consumer with everything that was acknowledged to it.
pub(crate) struct Consumer {
    dice: Dice,
    name: String,
    pub(super) operator: Api,
    pub(super) api: Api,
    id: String,
    unit: String,
    count: u64,
    /// Answers that it was given, of all consumers together.
    answered: Arc<AtomicU64>,
    /// Index on the chain → amount.
    pub(super) deposits: BTreeMap<u64, u128>,
    /// Transfer id → amount.
    pub(super) withdrawals: BTreeMap<String, u128>,
    pub(super) bought: Vec<Bought>,
}

/// The consumers at work.
pub(crate) struct Load {
    end: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Consumer>>,
}

impl Load {
    /// Lets `consumers` consumers begin.
    pub(crate) async fn begin(operator: &Api, seed: u64, consumers: u64) -> Self {
        let (end, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let unit = operator.unit().await;
        let tasks = (0..consumers).map(|number| {
            let (operator, unit, end) = (operator.clone(), unit.clone(), end.clone());
            let answered = answered.clone();
            tokio::spawn(async move {
                let dice = Dice::new(seed ^ (number + 1).wrapping_mul(0x5851_f42d_4c95_7f2d));
                let name = format!("{seed}-{number}");
                let mut consumer = Consumer::arrive(operator, unit, name, dice, answered).await;
                while !end.load(Ordering::Relaxed) {
                    consumer.act().await;
                }
                consumer
            })
        });
        Self { tasks: tasks.collect(), end, answered }
    }

    /// How many answers were acknowledged so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets each finish what it is at.
    pub(crate) async fn finish(self) -> Vec<Consumer> {
        self.end.store(true, Ordering::Relaxed);
        let mut consumers = Vec::new();
        for task in self.tasks {
            consumers.push(task.await.expect("a client found something wrong"));
        }
        consumers
    }
}

/// Repeats a request until it is answered with anything but "try again".
pub(super) async fn stubborn(
    api: &Api,
    method: Method,
    path: &str,
    body: Option<&Value>,
    key: Option<&str>,
) -> (u16, Value) {
    let tried = async {
        loop {
            match api.send(method.clone(), path, body, key).await {
                Some((status, answer)) if status.as_u16() < 429 && answer["code"] != "conflict" => {
                    return (status.as_u16(), answer);
                }
                Some((status, answer)) if status.is_server_error() && status != 503 => {
                    panic!("{path}: {status} {answer}")
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(STUBBORN, tried).await.unwrap_or_else(|_| panic!("{path} is never answered"))
}

pub(super) fn amount(value: &Value) -> u128 {
    value.as_str().unwrap_or_else(|| panic!("no amount: {value}")).parse().unwrap()
}

impl Consumer {
    async fn arrive(operator: Api, unit: String, name: String, dice: Dice, answered: Arc<AtomicU64>) -> Self {
        let body = json!({ "name": format!("consumer {name}") });
        let key = format!("arrive-{name}");
        let (status, found) = stubborn(&operator, Method::POST, "/consumers", Some(&body), Some(&key)).await;
        assert_eq!(status, 201, "{found}");
        let id = text(&found, "id");
        let body = json!({ "role": "consumer", "tenant": id, "label": "load" });
        let (status, made) = stubborn(&operator, Method::POST, "/keys", Some(&body), None).await;
        assert_eq!(status, 201, "{made}");
        let api = operator.with_key(&text(&made, "text"));
        let (deposits, withdrawals, bought) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let mut consumer =
            Self { dice, name, operator, api, id, unit, count: 0, answered, deposits, withdrawals, bought };
        consumer.deposit().await;
        consumer
    }

    pub(super) fn account(&self) -> String {
        format!("/accounts/consumer:{}", self.id)
    }

    fn fresh_key(&mut self) -> String {
        self.count += 1;
        format!("{}-{}", self.name, self.count)
    }

    /// A POST until it is acknowledged; now and then once more, which must say the same.
    async fn post(&mut self, api: Api, path: &str, body: &Value, key: &str) -> Value {
        let (status, answer) = stubborn(&api, Method::POST, path, Some(body), Some(key)).await;
        assert!((200..300).contains(&status), "{path} {body}: {status} {answer}");
        self.answered.fetch_add(1, Ordering::Relaxed);
        if self.dice.below(4) == 0 {
            let (status, again) = stubborn(&api, Method::POST, path, Some(body), Some(key)).await;
            assert!((200..300).contains(&status), "{path} {body} again: {status} {again}");
            assert_eq!(identity(&answer), identity(&again), "{path} with the same key");
        }
        answer
    }

    async fn act(&mut self) {
        match self.dice.below(10) {
            0..=2 => self.buy().await,
            3..=6 => self.store().await,
            7 => self.deposit().await,
            8 => self.withdraw().await,
            _ => self.close().await,
        }
        tokio::time::sleep(Duration::from_millis(self.dice.below(40))).await;
    }

    async fn deposit(&mut self) {
        let (key, sum) = (self.fresh_key(), u128::from(100 + self.dice.below(100)) * TOKEN);
        let (path, body) = (format!("{}/deposits", self.account()), json!({ "amount": sum.to_string() }));
        let receipt = self.post(self.operator.clone(), &path, &body, &key).await;
        let index = receipt["index"].as_u64().unwrap();
        assert!(self.deposits.insert(index, sum).is_none(), "two deposits, one index: {receipt}");
    }

    async fn withdraw(&mut self) {
        let (key, sum) = (self.fresh_key(), u128::from(1 + self.dice.below(5)) * TOKEN);
        let (path, body) = (format!("{}/withdrawals", self.account()), json!({ "amount": sum.to_string() }));
        let transfer = self.post(self.api.clone(), &path, &body, &key).await;
        self.withdrawals.insert(text(&transfer, "id"), sum);
    }

    async fn buy(&mut self) {
        let key = self.fresh_key();
        let ask = json!({ "unit": self.unit, "bytes": BYTES, "period_ms": 86_400_000_u64, "egress_allowance_bytes": BYTES });
        let reserved = self.post(self.api.clone(), "/allocations/reserve", &ask, &key).await;
        let id = text(&reserved, "id");
        self.bought.push(Bought { id: id.clone(), key, ask, store: None, stored: Vec::new(), closed: false });
        let key = self.fresh_key();
        self.post(self.api.clone(), &format!("/allocations/{id}/fund"), &json!({}), &key).await;
        let active = self.until_active(&id).await;
        let key = self.fresh_key();
        let path = format!("/allocations/{id}/credentials");
        let issued = self.post(self.api.clone(), &path, &json!({}), &key).await;
        self.until_it_opens(&text(&issued["credential"], "id")).await;
        let store = Store::new(&self.api.http, &active["routing"], &issued);
        if let Some(last) = self.bought.last_mut() {
            last.store = Some(store);
        }
        self.store().await;
    }

    async fn until_active(&self, id: &str) -> Value {
        let path = format!("/allocations/{id}");
        wait_for(&format!("{id} to become active"), || async {
            let (status, found) = stubborn(&self.api, Method::GET, &path, None, None).await;
            assert_eq!(status, 200, "{found}");
            assert_ne!(found["state"], "failed", "{found}");
            (found["state"] == "active").then_some(found)
        })
        .await
    }

    /// An answer does not wait for ever for the provider to take a key.
    async fn until_it_opens(&self, credential: &str) {
        let path = format!("/credentials/{credential}");
        wait_for(&format!("{credential} to become active"), || async {
            let (status, found) = stubborn(&self.api, Method::GET, &path, None, None).await;
            assert_eq!(status, 200, "{found}");
            assert_ne!(found["state"], "revoked", "{found}");
            (found["state"] == "active").then_some(())
        })
        .await;
    }

    /// Stores an object in one of the open allocations.
    async fn store(&mut self) {
        let length = 1 + self.dice.below(200_000);
        let body = self.dice.bytes(length);
        let Some(bought) = self.bought.iter_mut().rev().find(|b| !b.closed && b.stored.len() < 20) else {
            return;
        };
        let Some(store) = &bought.store else { return };
        let key = format!("dir/{}.bin", bought.stored.len());
        let hash = Sha256::digest(&body).into();
        let put = async {
            while !store.put(&key, &body).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(STUBBORN, put).await.unwrap_or_else(|_| panic!("{key} can't be stored"));
        bought.stored.push(Stored { key, hash });
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    async fn close(&mut self) {
        let open = self.bought.iter().filter(|b| !b.closed && b.store.is_some()).count();
        if open > 1 {
            self.close_first().await;
        }
    }

    pub(super) async fn close_first(&mut self) {
        let key = self.fresh_key();
        let Some(at) = self.bought.iter().position(|b| !b.closed) else { return };
        let path = format!("/allocations/{}/close", self.bought[at].id);
        self.post(self.api.clone(), &path, &json!({}), &key).await;
        self.bought[at].closed = true;
    }
}

/// What must not differ between an answer and its repetition: what was made, not the state that it has come to since.
fn identity(answer: &Value) -> Vec<Value> {
    let fields = ["id", "secret_access_key", "index", "amount"].into_iter().map(|field| &answer[field]);
    fields.chain([&answer["credential"]["id"]]).cloned().collect()
}

/// A bucket with keys.
pub(super) struct Store {
    client: reqwest::Client,
    bucket: Bucket,
    keys: Credentials,
}

impl Store {
    fn new(http: &reqwest::Client, routing: &Value, issued: &Value) -> Self {
        let endpoint = text(routing, "endpoint").parse().unwrap();
        let (bucket, region) = (text(routing, "bucket"), text(routing, "region"));
        let keys =
            Credentials::new(text(&issued["credential"], "access_key_id"), text(issued, "secret_access_key"));
        Self {
            client: http.clone(),
            bucket: Bucket::new(endpoint, UrlStyle::Path, bucket, region).unwrap(),
            keys,
        }
    }

    /// Whether it was acknowledged. Anything but success and silence is a fault.
    async fn put(&self, key: &str, body: &[u8]) -> bool {
        let url = self.bucket.put_object(Some(&self.keys), key).sign(SIGNED_FOR);
        let Ok(answer) = self.client.put(url).body(body.to_vec()).send().await else { return false };
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        assert!(status.is_success() || status == 503, "put {key}: {status} {text}");
        status.is_success()
    }

    /// What it has under a key; `None` when it knows of nothing.
    pub(super) async fn get(&self, key: &str) -> Option<Vec<u8>> {
        let url = self.bucket.get_object(Some(&self.keys), key).sign(SIGNED_FOR);
        let answer = self.client.get(url).send().await.unwrap();
        let status = answer.status();
        if status == 404 {
            return None;
        }
        let body = answer.bytes().await.unwrap();
        assert!(status.is_success(), "get {key}: {status} {}", String::from_utf8_lossy(&body));
        Some(body.to_vec())
    }
}
