//! Consumers that go on whatever happens to the daemon: each repeats a request, with the same idempotency key, until it is
//! answered, and remembers the answer. In the end what they remember is held against what the daemon says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
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
struct Stored {
    key: String,
    hash: [u8; 32],
}

/// An allocation that was acknowledged.
struct Bought {
    id: String,
    /// The idempotency key of its reservation, and the body.
    key: String,
    ask: Value,
    store: Option<Store>,
    stored: Vec<Stored>,
    /// Whether closing it was acknowledged.
    closed: bool,
}

/// A consumer with everything that was acknowledged to it.
pub(crate) struct Consumer {
    dice: Dice,
    name: String,
    operator: Api,
    api: Api,
    id: String,
    unit: String,
    count: u64,
    /// Index on the chain → amount.
    deposits: BTreeMap<u64, u128>,
    /// Transfer id → amount.
    withdrawals: BTreeMap<String, u128>,
    bought: Vec<Bought>,
}

/// The consumers at work.
pub(crate) struct Load {
    end: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Consumer>>,
}

impl Load {
    /// Lets `consumers` consumers begin.
    pub(crate) async fn begin(operator: &Api, seed: u64, consumers: u64) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let unit = operator.unit().await;
        let tasks = (0..consumers).map(|number| {
            let (operator, unit, end) = (operator.clone(), unit.clone(), end.clone());
            tokio::spawn(async move {
                let dice = Dice::new(seed ^ (number + 1).wrapping_mul(0x5851_f42d_4c95_7f2d));
                let mut consumer = Consumer::arrive(operator, unit, format!("{seed}-{number}"), dice).await;
                while !end.load(Ordering::Relaxed) {
                    consumer.act().await;
                }
                consumer
            })
        });
        Self { tasks: tasks.collect(), end }
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
async fn stubborn(
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

fn amount(value: &Value) -> u128 {
    value.as_str().unwrap_or_else(|| panic!("no amount: {value}")).parse().unwrap()
}

impl Consumer {
    async fn arrive(operator: Api, unit: String, name: String, dice: Dice) -> Self {
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
            Self { dice, name, operator, api, id, unit, count: 0, deposits, withdrawals, bought };
        consumer.deposit().await;
        consumer
    }

    fn account(&self) -> String {
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
    }

    async fn close(&mut self) {
        let open = self.bought.iter().filter(|b| !b.closed && b.store.is_some()).count();
        if open > 1 {
            self.close_first().await;
        }
    }

    async fn close_first(&mut self) {
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
struct Store {
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

    async fn get(&self, key: &str) -> Vec<u8> {
        let url = self.bucket.get_object(Some(&self.keys), key).sign(SIGNED_FOR);
        let answer = self.client.get(url).send().await.unwrap();
        let status = answer.status();
        let body = answer.bytes().await.unwrap();
        assert!(status.is_success(), "get {key}: {status} {}", String::from_utf8_lossy(&body));
        body.to_vec()
    }
}

/// What was found as it should be.
pub(crate) struct Judged {
    /// Answers that were acknowledged and held against the state.
    pub(crate) acknowledged: u64,
    /// Calls that took effect at the provider, each counted once.
    pub(crate) effects: u64,
}

/// Holds everything that was acknowledged against what the daemon says, closes what is open, waits until nothing is left
/// to do, and does the accounts.
pub(crate) async fn judge(operator: &Api, provider: &Api, consumers: &mut [Consumer]) -> Judged {
    let bought: usize = consumers.iter().map(|c| c.bought.len()).sum();
    let stored: usize = consumers.iter().flat_map(|c| &c.bought).map(|b| b.stored.len()).sum();
    assert!(bought > 0 && stored > 0, "the clients got nowhere: {bought} bought, {stored} stored");
    for consumer in consumers.iter_mut() {
        consumer.nothing_is_lost_or_doubled().await;
        while consumer.bought.iter().any(|b| !b.closed) {
            consumer.close_first().await;
        }
    }
    for consumer in consumers.iter() {
        for bought in &consumer.bought {
            consumer.api.until(&bought.id, "closed").await;
        }
        consumer.accounts_add_up().await;
    }
    everything_drains(operator).await;
    let unit = &operator.all("/units").await[0];
    assert_eq!(unit["state"], "available", "{unit}");
    assert_eq!(unit["free_bytes"], unit["capacity_bytes"], "{unit}");
    let effects = provider_agrees(operator, provider, consumers).await;
    let acknowledged = consumers.iter().map(|consumer| {
        let objects: usize = consumer.bought.iter().map(|bought| bought.stored.len()).sum();
        // Each purchase is reserved, funded, given a key and closed.
        consumer.deposits.len() + consumer.withdrawals.len() + 4 * consumer.bought.len() + objects
    });
    Judged { acknowledged: acknowledged.sum::<usize>() as u64, effects }
}

impl Consumer {
    async fn nothing_is_lost_or_doubled(&mut self) {
        for bought in &self.bought {
            let body = Some(&bought.ask);
            let again =
                stubborn(&self.api, Method::POST, "/allocations/reserve", body, Some(&bought.key)).await;
            assert_eq!((again.0, text(&again.1, "id")), (202, bought.id.clone()), "{}", again.1);
            let Some(store) = bought.store.as_ref().filter(|_| !bought.closed) else { continue };
            for object in &bought.stored {
                let hash: [u8; 32] = Sha256::digest(store.get(&object.key).await).into();
                assert_eq!(hash, object.hash, "{} of {}", object.key, bought.id);
            }
        }
        let ids = self.bought.iter().map(|b| b.id.clone()).collect::<BTreeSet<_>>();
        assert_eq!(ids.len(), self.bought.len(), "two reservations, one allocation");
        let known = self.api.all("/allocations").await;
        assert_eq!(known.iter().map(|a| text(a, "id")).collect::<BTreeSet<_>>(), ids);
        let transfers = self.api.all(&format!("{}/transfers", self.account())).await;
        let of = |kind: &str| {
            let these = transfers.iter().filter(|t| t["kind"] == kind);
            these.map(|t| (text(t, "id"), amount(&t["amount"]))).collect::<BTreeMap<_, _>>()
        };
        let deposits = transfers.iter().filter(|t| t["kind"] == "deposit").map(|t| {
            let index = t["subject"].as_str().and_then(|subject| subject.strip_prefix("deposit:")).unwrap();
            (index.parse().unwrap(), amount(&t["amount"]))
        });
        let deposits = deposits.collect::<Vec<(u64, u128)>>();
        assert_eq!(deposits.len(), self.deposits.len(), "deposits");
        assert_eq!(deposits.into_iter().collect::<BTreeMap<_, _>>(), self.deposits, "deposits");
        assert_eq!(of("withdraw"), self.withdrawals, "withdrawals");
        let funded = transfers.iter().filter(|t| t["kind"] == "fund").map(|t| text(t, "credit"));
        let funded = funded.collect::<Vec<_>>();
        assert_eq!(funded.len(), ids.len(), "each was funded once");
        let escrows = ids.iter().map(|id| format!("escrow:{id}")).collect::<BTreeSet<_>>();
        assert_eq!(funded.into_iter().collect::<BTreeSet<_>>(), escrows);
    }

    /// After everything is closed: what came in is what is there, what went out, and what the storage cost.
    async fn accounts_add_up(&self) {
        let (mut paid, mut credited) = (0, 0);
        for bought in &self.bought {
            let allocation = self.api.get(&format!("/allocations/{}", bought.id)).await;
            paid += amount(&allocation["paid"]);
            credited += amount(&allocation["credited"]);
            let escrow = self.operator.get(&format!("/accounts/escrow:{}", bought.id)).await;
            assert_eq!(escrow["balance"], "0", "{escrow}");
        }
        let balance = amount(&self.api.get(&self.account()).await["balance"]);
        let out: u128 = self.withdrawals.values().sum();
        assert_eq!(self.deposits.values().sum::<u128>() + credited, balance + out + paid);
    }
}

/// No job waits, none was given up, every change lies in a final block, and the accounts sum to zero.
async fn everything_drains(operator: &Api) {
    wait_for("the end of all jobs and final blocks", || async {
        let counts = operator.get("/jobs/counts").await;
        let waiting = counts["by_state"].as_object().unwrap().iter().any(|(state, count)| {
            !["completed", "failed", "cancelled"].contains(&state.as_str()) && count.as_u64() != Some(0)
        });
        let ledger = operator.get("/ledger").await;
        let blocks = operator.all("/blocks").await;
        let done =
            !waiting && ledger["unsealed"] == 0 && blocks.iter().all(|block| block["state"] == "final");
        (done && !blocks.is_empty()).then_some(())
    })
    .await;
    let failed = operator.all("/jobs?state=failed").await;
    assert!(failed.is_empty(), "jobs were given up: {failed:?}");
    let ledger = operator.get("/ledger").await;
    assert_eq!((&ledger["sum"], &ledger["balanced"]), (&json!("0"), &json!(true)), "{ledger}");
}

/// The provider has the prober's own allocation and no other, and did nothing twice.
async fn provider_agrees(operator: &Api, provider: &Api, consumers: &[Consumer]) -> u64 {
    let mut all = 0;
    let there = provider.get("/allocations").await;
    let there = there["allocations"].as_array().unwrap().iter().map(|id| hex_of(id.as_str().unwrap()));
    let probe = hex_of(&operator.unit().await);
    assert!(there.clone().all(|id| id == probe), "orphans: {:?}", there.collect::<Vec<_>>());
    for consumer in consumers {
        for bought in &consumer.bought {
            let id = &bought.id;
            let keys = consumer.api.all(&format!("/allocations/{id}/credentials")).await.len();
            let effects = provider.get(&format!("/allocations/{id}/effects")).await;
            let count = |operation: &str| effects["effects"][operation].as_u64().unwrap_or_default();
            assert_eq!((count("allocate"), count("deallocate")), (1, 1), "{id}: {effects}");
            assert_eq!(count("put_key"), keys as u64, "{id}: {effects}");
            assert!(count("delete_key") <= keys as u64, "{id}: {effects}");
            assert!(count("restrict") <= 2, "{id}: {effects}");
            all += effects["effects"].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>();
        }
    }
    all
}

fn hex_of(id: &str) -> String {
    id.rsplit('_').next().unwrap_or_default().to_owned()
}
