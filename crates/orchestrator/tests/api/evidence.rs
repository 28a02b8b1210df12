//! Evidence over HTTP, signed with a real Ed25519 key over bytes that this test writes by itself.

use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

use super::harness::{Api, Tenant};
use crate::tools::python;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;

/// The canonical bytes by the documented rule, without the daemon's help: the JSON library here sorts and is compact.
fn canonical(statement: &Value) -> String {
    format!("orchestrator.evidence.v1\n{statement}")
}

fn signed_by(key: &SigningKey, statement: &Value) -> Value {
    let signature = key.sign(canonical(statement).as_bytes());
    json!({ "statement": statement, "signature": hex::encode(signature.to_bytes()) })
}

struct Probe {
    api: Api,
    key: SigningKey,
    oracle: Tenant,
    unit: String,
    /// The instant of the first report's end.
    now: i64,
}

impl Probe {
    async fn new() -> Self {
        let api = Api::start().await;
        let provider = api.provider().await;
        let unit = api.unit(&provider).await;
        let key = SigningKey::from_bytes(&[3; 32]);
        let public_key = hex::encode(key.verifying_key().to_bytes());
        let body = json!({"name": "probe", "public_key": public_key, "key_id": "k1"});
        let oracle = api.tenant("/oracles", body).await;
        let now = api.work.now().as_micros();
        Self { api, key, oracle, unit, now }
    }

    fn statement(&self, nonce: u64, from: i64, to: i64) -> Value {
        json!({
            "version": 1, "oracle": self.oracle.id, "key_id": "k1", "subject": {"unit": self.unit},
            "from": self.now + from, "to": self.now + to, "nonce": nonce,
            "body": {"type": "qos", "operations": {"get": {
                "attempts": 10, "failures": {"timeout": 1}, "latency_sum_us": 0, "latency": {},
                "bulk_bytes": 0, "bulk_us": 0,
            }}},
        })
    }

    fn with(&self, nonce: u64, field: &str, value: Value) -> Value {
        let mut statement = self.statement(nonce, -20 * SECOND, -15 * SECOND);
        statement[field] = value;
        statement
    }

    async fn refused(&self, statement: &Value, status: u16, code: &str, field: Option<&str>) {
        let before = self.api.documents().await;
        let report = signed_by(&self.key, statement);
        self.api.post(&self.oracle.key, "/evidence", report).await.problem(status, code, field);
        assert_eq!(self.api.documents().await, before, "{code} left something behind");
    }
}

#[tokio::test]
async fn a_signed_report_is_taken_once_and_shown() {
    let probe = Probe::new().await;
    let report = signed_by(&probe.key, &probe.statement(1, -10 * SECOND, -5 * SECOND));
    let api = &probe.api;
    let receipt = api.post_once(&probe.oracle.key, "/evidence", "r", report.clone()).await.ok(201);
    let before = api.documents().await;
    let again = api.post_once(&probe.oracle.key, "/evidence", "r", report).await.ok(201);
    assert_eq!(again, receipt);
    assert_eq!(api.documents().await, before);
    let consumer = api.consumer().await;
    let seen = api.get(&consumer.key, &format!("/units/{}/qos", probe.unit)).await.ok(200);
    assert_eq!((&seen["items"][0]["attempts"], &seen["items"][0]["failures"]), (&json!(10), &json!(1)));
}

#[tokio::test]
async fn every_wrong_report_has_its_code_and_leaves_nothing_behind() {
    let probe = Probe::new().await;
    let first = signed_by(&probe.key, &probe.statement(7, -10 * SECOND, -5 * SECOND));
    probe.api.post(&probe.oracle.key, "/evidence", first).await.ok(201);
    let at = |nonce, from, to| probe.statement(nonce, from, to);
    for (statement, status, code) in [
        (at(7, -20 * SECOND, -15 * SECOND), 409, "stale_nonce"),
        (at(6, -20 * SECOND, -15 * SECOND), 409, "stale_nonce"),
        (at(8, -10 * SECOND, -5 * SECOND), 409, "overlapping_period"),
        (at(8, -12 * SECOND, -9 * SECOND), 409, "overlapping_period"),
        (at(8, -6 * SECOND, -4 * SECOND), 409, "overlapping_period"),
        // The bucket began 200 seconds ago.
        (at(8, -210 * SECOND, -190 * SECOND), 422, "invalid_period"),
        (at(8, -SECOND, SECOND), 422, "invalid_period"),
        (at(8, SECOND, 2 * SECOND), 422, "invalid_period"),
        (at(8, -20 * MINUTE, -19 * MINUTE), 422, "invalid_period"),
        (at(8, -15 * SECOND, -15 * SECOND), 422, "invalid_period"),
        (at(8, -15 * SECOND, -20 * SECOND), 422, "invalid_period"),
        (probe.with(8, "key_id", json!("k2")), 422, "bad_signature"),
    ] {
        probe.refused(&statement, status, code, None).await;
    }
    let unknown = json!({"unit": "unit_00000000000000000000000000000009"});
    probe.refused(&probe.with(8, "subject", unknown), 404, "not_found", None).await;
    let version = probe.with(8, "version", json!(2));
    probe.refused(&version, 422, "invalid_field", Some("statement.version")).await;
    let mut large = at(8, -20 * SECOND, -15 * SECOND);
    large["body"]["operations"]["get"]["attempts"] = json!(u64::MAX);
    probe.refused(&large, 422, "invalid_field", Some("statement.body.operations.get.attempts")).await;
    let mut odd = at(8, -20 * SECOND, -15 * SECOND);
    odd["body"]["operations"]["get"]["failures"] = json!({"timeout": 11});
    probe.refused(&odd, 422, "invalid_field", Some("statement.body.operations.get.failures")).await;
    // None of them used up the nonce.
    let fine = signed_by(&probe.key, &at(8, -20 * SECOND, -15 * SECOND));
    probe.api.post(&probe.oracle.key, "/evidence", fine).await.ok(201);
}

#[tokio::test]
async fn a_signature_of_another_key_or_over_other_words_is_bad() {
    let probe = Probe::new().await;
    let api = &probe.api;
    let before = api.documents().await;
    let statement = probe.statement(1, -10 * SECOND, -5 * SECOND);
    let good = signed_by(&probe.key, &statement);
    let forged = signed_by(&SigningKey::from_bytes(&[4; 32]), &statement);
    let mut altered = good.clone();
    altered["statement"]["nonce"] = json!(2);
    let mut short = good.clone();
    short["signature"] = json!("00");
    let mut junk = good.clone();
    junk["signature"] = json!("zz".repeat(64));
    for report in [forged, altered, short, junk] {
        api.post(&probe.oracle.key, "/evidence", report).await.problem(422, "bad_signature", None);
    }
    assert_eq!(api.documents().await, before);
    api.post(&probe.oracle.key, "/evidence", good).await.ok(201);
}

#[tokio::test]
async fn unknown_disabled_and_other_oracles_are_refused() {
    let probe = Probe::new().await;
    let api = &probe.api;
    let statement = probe.statement(1, -10 * SECOND, -5 * SECOND);
    let report = signed_by(&probe.key, &statement);
    let public_key = hex::encode(SigningKey::from_bytes(&[5; 32]).verifying_key().to_bytes());
    let other = json!({"name": "other", "public_key": public_key, "key_id": "k1"});
    let other = api.tenant("/oracles", other).await;
    let consumer = api.consumer().await;
    let disable = format!("/oracles/{}/disable", probe.oracle.id);
    let before = api.documents().await;
    api.post(&other.key, "/evidence", report.clone()).await.problem(403, "forbidden", None);
    api.post(&consumer.key, "/evidence", report.clone()).await.problem(403, "forbidden", None);
    let nobody = signed_by(&probe.key, &probe.with(1, "oracle", json!(format!("orcl_{:032x}", 9))));
    api.post(&api.operator, "/evidence", nobody).await.problem(404, "not_found", None);
    assert_eq!(api.documents().await, before);
    api.post(&api.operator, &disable, json!({})).await.ok(200);
    let before = api.documents().await;
    api.post(&probe.oracle.key, "/evidence", report.clone()).await.problem(403, "forbidden", None);
    assert_eq!(api.documents().await, before);
    let enable = format!("/oracles/{}/enable", probe.oracle.id);
    api.post(&api.operator, &enable, json!({})).await.ok(200);
    api.post(&probe.oracle.key, "/evidence", report).await.ok(201);
}

#[tokio::test]
async fn a_program_in_python_writes_the_same_bytes() {
    let Some(python) = python() else { return };
    let probe = Probe::new().await;
    let statement = probe.statement(1, -10 * SECOND, -5 * SECOND);
    let script = "import json,sys\n\
         x = json.loads(sys.argv[1])\n\
         sys.stdout.buffer.write(b'orchestrator.evidence.v1\\n' + json.dumps(x, sort_keys=True, \
         separators=(',', ':')).encode())";
    let text = statement.to_string();
    let output = std::process::Command::new(python).args(["-c", script, &text]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let signature = hex::encode(probe.key.sign(&output.stdout).to_bytes());
    let report = json!({ "statement": statement, "signature": signature });
    probe.api.post(&probe.oracle.key, "/evidence", report).await.ok(201);
}
