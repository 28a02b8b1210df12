//! Evidence: signed reports of oracles.

use std::sync::LazyLock;

use ed25519_dalek::{Signer, SigningKey};
use orchestrator::core::market::{
    evidence::{EvidenceReport, ReportStatement},
    sla::{
        bucket::Bucket,
        canonical::{REPORT_DOMAIN, statement_bytes},
        signature,
    },
};
use serde_json::{Value, json};

use crate::market::{Market, visit};

/// The key of the market's oracle.
pub(crate) fn oracle_key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

/// The key of an oracle that signed one report, below, and no other.
static SIGNED_ONCE: LazyLock<(String, EvidenceReport)> = LazyLock::new(|| {
    let key = SigningKey::from_bytes(&[9; 32]);
    let statement: ReportStatement = serde_json::from_str(STATEMENT).unwrap();
    let signature = hex::encode(key.sign(&statement_bytes(&statement).unwrap()).to_bytes());
    (hex::encode(key.verifying_key().to_bytes()), EvidenceReport { statement, signature })
});

const STATEMENT: &str = r#"{"version":1,"oracle":"orcl_00000000000000000000000000000001","key_id":"k1","subject":{"unit":"unit_00000000000000000000000000000002"},"from":1789999990000000,"to":1789999995000000,"nonce":1,"body":{"type":"qos","operations":{"get":{"attempts":10,"failures":{"timeout":1},"latency_sum_us":0,"latency":{},"bulk_bytes":0,"bulk_us":0}}}}"#;

/// The one report that its oracle signed.
pub(crate) fn genuine() -> EvidenceReport {
    SIGNED_ONCE.1.clone()
}

/// What is signed has one form, which says everything; a signature covers nothing but what was signed; a report is counted
/// once or not at all.
///
/// The input is JSON of a report, or of a statement that the market's oracle then signs; `{o}` and `{u}` are it and a unit.
pub fn evidence(data: &[u8]) {
    if let Ok(report) = serde_json::from_slice::<EvidenceReport>(data) {
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<EvidenceReport>(&text).unwrap(), report);
        let (key, genuine) = &*SIGNED_ONCE;
        if signature::verifies(&report, key) {
            assert_eq!(report.statement, genuine.statement);
            assert!(report.signature.eq_ignore_ascii_case(&genuine.signature));
        }
    }
    visit(async |market| {
        if let Ok(statement) = serde_json::from_slice::<ReportStatement>(&market.filled(data)) {
            canonical(&statement);
            summed(&statement);
            handed_in(market, statement).await;
        }
    });
}

/// The canonical bytes lead back to the statement, so no two statements share them.
fn canonical(statement: &ReportStatement) {
    let bytes = statement_bytes(statement).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (domain, body) = text.split_once('\n').unwrap();
    assert_eq!(domain, REPORT_DOMAIN);
    assert!(body.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{body}");
    assert_eq!(&serde_json::from_str::<ReportStatement>(body).unwrap(), statement);
}

/// A bucket takes a report once, or stays as it was.
fn summed(statement: &ReportStatement) {
    let mut bucket = Bucket::empty(statement.subject, statement.oracle, statement.from);
    let before = bucket.clone();
    match bucket.add(statement) {
        Ok(()) if statement.from < statement.to => assert!(bucket.clone().add(statement).is_err()),
        Ok(()) => {}
        Err(_) => assert_eq!(bucket, before),
    }
}

async fn handed_in(market: &Market, statement: ReportStatement) {
    let signature = hex::encode(oracle_key().sign(&statement_bytes(&statement).unwrap()).to_bytes());
    let report = json!({"statement": statement, "signature": signature});
    let before = market.fingerprint().await;
    let taken = market.ask("oracle", "POST", "/evidence", report.clone()).await;
    assert!(taken.status < 500, "{report}: {}", taken.json());
    if taken.status >= 300 {
        assert_eq!(market.fingerprint().await, before, "{report} left something behind: {}", taken.json());
        return;
    }
    let after = market.fingerprint().await;
    let again = market.ask("oracle", "POST", "/evidence", report.clone()).await;
    assert!((400..500).contains(&again.status), "{report} was counted twice");
    assert_eq!(market.fingerprint().await, after);
    let path = market.filled(b"/units/{u}/qos");
    let seen = market.ask("consumer", "GET", std::str::from_utf8(&path).unwrap(), Value::Null).await;
    assert_eq!(seen.status, 200, "{report}: {}", seen.json());
}
