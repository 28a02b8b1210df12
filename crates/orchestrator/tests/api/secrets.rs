//! S3 secrets over HTTP: shown by the POST that makes them, and by nothing else, ever.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use orchestrator::{controller::route::openapi, core::market::quantity::Micros};
use serde_json::{Value, json};

use super::harness::{Api, Tenant};

struct Case {
    api: Api,
    consumer: Tenant,
    allocation: String,
}

impl Case {
    async fn new() -> Self {
        let api = Api::start().await;
        let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
        let unit = api.unit(&provider).await;
        let allocation = api.active(&consumer, &unit).await;
        Self { api, consumer, allocation }
    }

    fn path(&self) -> String {
        format!("/allocations/{}/credentials", self.allocation)
    }

    async fn issue(&self, once: &str) -> Value {
        let made = self.api.post_once(&self.consumer.key, &self.path(), once, json!({})).await.ok(201);
        self.api.run_jobs().await;
        made
    }

    async fn credential(&self, id: &str) -> Value {
        self.api.get(&self.consumer.key, &format!("/credentials/{id}")).await.ok(200)
    }

    /// The access key ids that open the bucket now.
    fn open(&self) -> Vec<String> {
        let keys = self.api.provider.keys(self.allocation.parse().unwrap());
        keys.into_iter().map(|(key, _)| key.access_key_id).collect()
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

#[tokio::test]
async fn a_replay_repeats_the_secret_for_ten_minutes_and_not_longer() {
    let case = Case::new().await;
    let api = &case.api;
    let first = case.issue("one").await;
    assert_eq!(first["replayed"], false);
    assert!(text(&first, "secret_access_key").len() >= 40);
    let before = api.documents().await;
    api.clock.advance(Micros::from_secs(599));
    let again = api.post_once(&case.consumer.key, &case.path(), "one", json!({})).await.ok(201);
    assert_eq!(again["secret_access_key"], first["secret_access_key"]);
    assert_eq!((&again["replayed"], &again["credential"]["state"]), (&json!(true), &json!("active")));
    api.clock.advance(Micros::from_secs(2));
    let late = api.post_once(&case.consumer.key, &case.path(), "one", json!({})).await;
    late.problem(410, "secret_gone", None);
    assert!(!late.body.to_string().contains(text(&first, "secret_access_key")));
    let other = json!({"permissions": "read_only"});
    let other = api.post_once(&case.consumer.key, &case.path(), "one", other).await;
    other.problem(409, "idempotency_key_reused", None);
    assert_eq!(api.documents().await, before);
    assert_eq!(case.open().len(), 1);
}

#[tokio::test]
async fn a_rotation_overlaps_and_a_revocation_closes() {
    let case = Case::new().await;
    let api = &case.api;
    let old = case.issue("one").await["credential"].clone();
    let path = format!("/credentials/{}/rotate", text(&old, "id"));
    let new = api.post_once(&case.consumer.key, &path, "two", json!({"overlap_ms": 60_000})).await.ok(201);
    api.run_jobs().await;
    assert_eq!(case.open().len(), 2);
    assert_eq!(case.credential(text(&old, "id")).await["state"], "rotating");
    assert_eq!(new["credential"]["predecessor"], old["id"]);
    // A rotated one is not rotated again.
    api.post(&case.consumer.key, &path, json!({})).await.problem(409, "invalid_state", None);
    let too_long = json!({"overlap_ms": u64::MAX / 1_000});
    let newest = format!("/credentials/{}/rotate", text(&new["credential"], "id"));
    let answer = api.post(&case.consumer.key, &newest, too_long).await;
    assert_eq!(
        (answer.status, answer.body["code"].as_str()),
        (422, Some("invalid_field")),
        "{}",
        answer.body
    );
    api.clock.advance(Micros::from_secs(61));
    api.fire("expire_credentials").await;
    assert_eq!(case.open(), [text(&new["credential"], "access_key_id")]);
    assert_eq!(case.credential(text(&old, "id")).await["state"], "revoked");
    let revoke = format!("/credentials/{}/revoke", text(&new["credential"], "id"));
    api.post(&case.consumer.key, &revoke, json!({})).await.ok(200);
    api.run_jobs().await;
    assert!(case.open().is_empty());
    assert_eq!(case.credential(text(&new["credential"], "id")).await["state"], "revoked");
}

/// Every address of the description that is read, with the ids of this case.
async fn all_answers(case: &Case, credential: &str) -> Vec<(String, String)> {
    let mut answers = Vec::new();
    let described = serde_json::to_value(openapi()).unwrap();
    let account = format!("consumer:{}", case.consumer.id);
    for (path, item) in described["paths"].as_object().unwrap() {
        // The stream of events does not end; it is looked at through the outbox, among all documents.
        if item["get"].is_null() || path == "/events" {
            continue;
        }
        let id = match path.split('/').nth(1).unwrap() {
            "allocations" => case.allocation.as_str(),
            "credentials" => credential,
            "accounts" => account.as_str(),
            "consumers" => case.consumer.id.as_str(),
            _ => "x",
        };
        let address = path.replace("{id}", id).replace("{domain}", "local").replace("{number}", "1");
        for key in [&case.consumer.key, &case.api.operator] {
            let answer = case.api.get(key, &address).await;
            assert!(answer.status < 500, "{address}: {}", answer.body);
            answers.push((address.clone(), answer.body.to_string()));
        }
    }
    answers
}

#[tokio::test]
async fn no_get_shows_a_secret_and_no_document_holds_one() {
    let case = Case::new().await;
    let issued = case.issue("one").await;
    let id = text(&issued["credential"], "id");
    let rotate = format!("/credentials/{id}/rotate");
    let rotated = case.api.post(&case.consumer.key, &rotate, json!({})).await.ok(201);
    case.api.run_jobs().await;
    let secrets = [text(&issued, "secret_access_key"), text(&rotated, "secret_access_key")];
    assert_ne!(secrets[0], secrets[1]);
    let answers = all_answers(&case, id).await;
    assert!(answers.len() > 40, "{}", answers.len());
    let listed = answers.iter().find(|(address, _)| *address == case.path()).unwrap();
    assert!(listed.1.contains(text(&issued["credential"], "access_key_id")), "the listing shows the key");
    let stored = case.api.everything().await;
    assert!(stored.contains(text(&issued["credential"], "access_key_id")));
    let api_key = case.consumer.key.rsplit('_').next().unwrap();
    for secret in secrets {
        for (address, answer) in &answers {
            assert!(!answer.contains(secret), "{address} shows a secret");
        }
        let forms = [secret.to_owned(), hex::encode(secret)];
        assert!(forms.iter().all(|form| !stored.contains(form)), "a document holds a secret");
    }
    assert!(!stored.contains(api_key), "a document holds an API key's secret");
}

/// Takes log lines down.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_line_holds_a_secret() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // This test's runtime has one thread, so that everything that it starts speaks here.
    let _guard = tracing::subscriber::set_default(subscriber);
    let case = Case::new().await;
    let issued = case.issue("one").await;
    let rotate = format!("/credentials/{}/rotate", text(&issued["credential"], "id"));
    let rotated = case.api.post(&case.consumer.key, &rotate, json!({})).await.ok(201);
    case.api.post(&case.consumer.key, &rotate, json!({})).await;
    case.api.run_jobs().await;
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    tracing::info!("a line of this test");
    let marked = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(marked.contains("a line of this test"), "nothing was taken down");
    let keys = [case.consumer.key.as_str(), case.api.operator.as_str()];
    let api_secrets = keys.map(|key| key.rsplit('_').next().unwrap());
    let secrets = [text(&issued, "secret_access_key"), text(&rotated, "secret_access_key")];
    for secret in secrets.into_iter().chain(api_secrets) {
        // Clients' own traces are not the daemon's.
        let line = log.lines().find(|line| line.contains(secret) && line.contains("orchestrator"));
        assert_eq!(line, None);
    }
}
