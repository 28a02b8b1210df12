//! `kill -9` at random instants, under a load of real clients: nothing acknowledged is lost, nothing happens twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::harness::{Api, MIB, MONTH_MS, Place, id, wait_for};

const SEED: u64 = 0x5eed_0123_4567_89ab;
const ROUNDS: u32 = 8;
const CLIENTS: u64 = 3;

/// A small generator, so that a run can be repeated.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What the daemon acknowledged of one purchase.
struct Bought {
    key: String,
    ask: Value,
    allocation: String,
    credential: Option<Value>,
    uploads: Vec<(String, [u8; 32])>,
    closed: bool,
}

/// One consumer, whose every request is repeated under its key until it is answered.
struct Client {
    api: Api,
    consumer: String,
    unit: String,
    number: u64,
    bought: Mutex<Vec<Bought>>,
    stop: Arc<AtomicBool>,
}

impl Client {
    async fn insist(&self, path: &str, body: &Value, key: &str) -> Value {
        wait_for(path, || async {
            match self.api.send(Method::POST, path, Some(body), Some(key)).await {
                Some((status, answer)) if status.is_success() => Some(answer),
                // Dead, starting or stopping: the same request again.
                None => None,
                Some((status, _)) if status.is_server_error() => None,
                Some((status, answer)) => panic!("POST {path} ({key}): {status} {answer}"),
            }
        })
        .await
    }

    async fn shop(self: Arc<Self>) {
        let mut chance = Chance(SEED ^ (self.number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut turn = 0;
        while !self.stop.load(Ordering::Relaxed) {
            self.buy(turn, &mut chance).await;
            turn += 1;
        }
    }

    async fn buy(&self, turn: u64, chance: &mut Chance) {
        let key = format!("client-{}-{turn}", self.number);
        let ask = json!({ "unit": self.unit, "bytes": 4 * MIB, "period_ms": MONTH_MS, "egress_allowance_bytes": MIB });
        let allocation = id(&self.insist("/allocations/reserve", &ask, &key).await);
        let place = {
            let mut bought = self.bought.lock();
            let (key, allocation) = (key.clone(), allocation.clone());
            bought.push(Bought {
                key,
                ask,
                allocation,
                credential: None,
                uploads: Vec::new(),
                closed: false,
            });
            bought.len() - 1
        };
        let path = format!("/allocations/{allocation}");
        self.insist(&format!("{path}/fund"), &json!({}), &format!("{key}-fund")).await;
        let active = wait_for("an active allocation", || async {
            let (status, found) = self.api.send(Method::GET, &path, None, None).await?;
            assert!(status.is_success() || status.is_server_error(), "{found}");
            assert_ne!(found["state"], "failed", "{found}");
            (found["state"] == "active").then_some(found)
        })
        .await;
        let issued = self.insist(&format!("{path}/credentials"), &json!({}), &format!("{key}-keys")).await;
        self.bought.lock()[place].credential = Some(issued.clone());
        for file in 0..2 {
            let body: Vec<u8> = (0..20_000 + chance.below(60_000)).map(|_| chance.below(256) as u8).collect();
            let hash = Sha256::digest(&body).into();
            let name = format!("file-{file}");
            put(&self.api, &active, &issued, &name, body).await;
            self.bought.lock()[place].uploads.push((name, hash));
        }
        if chance.below(2) == 0 {
            self.insist(&format!("{path}/close"), &json!({}), &format!("{key}-close")).await;
            self.bought.lock()[place].closed = true;
        }
    }
}

fn bucket(allocation: &Value, issued: &Value) -> (Bucket, Credentials) {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{allocation} {issued}")).to_owned();
    let routing = &allocation["routing"];
    let endpoint = text(&routing["endpoint"]).parse().unwrap();
    let (name, region) = (text(&routing["bucket"]), text(&routing["region"]));
    let credentials =
        Credentials::new(text(&issued["credential"]["access_key_id"]), text(&issued["secret_access_key"]));
    (Bucket::new(endpoint, UrlStyle::Path, name, region).unwrap(), credentials)
}

const SIGNED_FOR: Duration = Duration::from_secs(120);

async fn put(api: &Api, allocation: &Value, issued: &Value, name: &str, body: Vec<u8>) {
    let (bucket, credentials) = bucket(allocation, issued);
    wait_for("an upload", || async {
        let url = bucket.put_object(Some(&credentials), name).sign(SIGNED_FOR);
        let answer = api.http.put(url).body(body.clone()).send().await.ok()?;
        let status = answer.status();
        let text = answer.text().await.ok()?;
        assert!(status.is_success() || status.is_server_error(), "PUT {name}: {status} {text}");
        status.is_success().then_some(())
    })
    .await;
}

async fn hash_of(api: &Api, allocation: &Value, issued: &Value, name: &str) -> [u8; 32] {
    let (bucket, credentials) = bucket(allocation, issued);
    let url = bucket.get_object(Some(&credentials), name).sign(SIGNED_FOR);
    let answer = api.http.get(url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{name} of {}", allocation["id"]);
    Sha256::digest(answer.bytes().await.unwrap()).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_killed_again_and_again_keeps_its_word() {
    let place = Place::hurried()
        .with("prober.enabled", "true")
        .with("prober.interval", "500ms")
        .with("sla.bucket", "1s")
        .with("sla.billing_period", "4s")
        .with("sla.rolling_window", "60s")
        .with("sla.settle_delay", "1s");
    let mut running = place.start().await;
    let unit = id(&running.api.all("/units").await[0]);
    let stop = Arc::new(AtomicBool::new(false));
    let (mut clients, mut tasks) = (Vec::new(), Vec::new());
    for number in 0..CLIENTS {
        let (consumer, api) = running.api.consumer(&format!("client {number}")).await;
        let (unit, stop) = (unit.clone(), stop.clone());
        let client = Arc::new(Client { api, consumer, unit, number, bought: Mutex::default(), stop });
        tasks.push(tokio::spawn(client.clone().shop()));
        clients.push(client);
    }
    let mut chance = Chance(SEED);
    for _ in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(200 + chance.below(1_200))).await;
        running.kill();
        running = place.start().await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    for client in &clients {
        holds(client).await;
    }
    all_closed(&clients).await;
    nothing_is_left(&running.api).await;
    provider_is_clean(&place, &running.api, &clients).await;
    running.stop_well().await;
    let report = place.cli(&["verify", "--json"]).await.json();
    assert_eq!((&report["is_final"], &report["problems"]), (&json!(true), &json!([])), "{report}");
    assert!(report["blocks"].as_u64().unwrap() > 0 && report["records"].as_u64().unwrap() > 0, "{report}");
}

/// Every acknowledged answer still holds.
async fn holds(client: &Client) {
    let allocations = client.api.all("/allocations").await;
    let bought = std::mem::take(&mut *client.bought.lock());
    assert!(!bought.is_empty());
    // One for each key, and none beside.
    assert_eq!(allocations.len(), bought.len(), "of {}", client.consumer);
    for one in &bought {
        let path = format!("/allocations/{}", one.allocation);
        let found = client.api.get(&path).await;
        assert_eq!(client.insist("/allocations/reserve", &one.ask, &one.key).await["id"], found["id"]);
        let issued = one.credential.as_ref().unwrap();
        if one.closed {
            assert!(["closing", "closed"].contains(&found["state"].as_str().unwrap()), "{found}");
            continue;
        }
        assert_eq!(found["state"], "active", "{found}");
        let again =
            client.insist(&format!("{path}/credentials"), &json!({}), &format!("{}-keys", one.key)).await;
        assert_eq!(again["credential"]["id"], issued["credential"]["id"]);
        assert_eq!(again["secret_access_key"], issued["secret_access_key"]);
        assert_eq!(client.api.all(&format!("{path}/credentials")).await.len(), 1);
        for (name, hash) in &one.uploads {
            assert_eq!(
                hash_of(&client.api, &found, issued, name).await,
                *hash,
                "{name} of {}",
                one.allocation
            );
        }
    }
    assert_eq!(client.api.all("/allocations").await.len(), bought.len(), "repeats bought more");
    *client.bought.lock() = bought;
}

async fn all_closed(clients: &[Arc<Client>]) {
    for client in clients {
        let open: Vec<_> =
            client.bought.lock().iter().filter(|one| !one.closed).map(|one| one.allocation.clone()).collect();
        for allocation in open {
            client.api.post(&format!("/allocations/{allocation}/close"), json!({})).await;
        }
    }
    for client in clients {
        let ids: Vec<_> = client.bought.lock().iter().map(|one| one.allocation.clone()).collect();
        for allocation in ids {
            client.api.until(&allocation, "closed").await;
        }
    }
}

/// No job is stuck, the books balance, and everything lies in final blocks.
async fn nothing_is_left(operator: &Api) {
    operator.until_settled().await;
    let mut waiting = Vec::new();
    for _ in 0..200 {
        waiting = operator.all("/jobs").await;
        waiting.retain(|job| job["state"] != "completed");
        if waiting.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(waiting.is_empty(), "stuck: {waiting:#?}");
    operator.until_settled().await;
    let unit = &operator.all("/units").await[0];
    assert_eq!(unit["state"], "available", "{unit}");
    assert_eq!(unit["free_bytes"], unit["capacity_bytes"], "{unit}");
}

/// At the provider each effect took hold once, and only the probe's allocation is left.
async fn provider_is_clean(place: &Place, operator: &Api, clients: &[Arc<Client>]) {
    let token = std::fs::read_to_string(place.data().join("provider/admin.token")).unwrap();
    let mut admin = operator.with_key(token.trim());
    admin.base = format!("http://{}", place.setting("provider.admin_listen"));
    let left = admin.get("/allocations").await;
    let left = left["allocations"].as_array().unwrap();
    assert!(left.len() <= 1, "orphans: {left:?}");
    for client in clients {
        let ids: Vec<_> = client.bought.lock().iter().map(|one| one.allocation.clone()).collect();
        for allocation in ids {
            let effects = admin.get(&format!("/allocations/{allocation}/effects")).await;
            for operation in ["allocate", "deallocate", "put_key"] {
                assert_eq!(effects["effects"][operation], 1, "{operation} of {allocation}: {effects}");
            }
        }
    }
}
