//! Blocks over HTTP, one route after the other: records, proofs of blocks, accounts, units and allocations, and what an
//! operator decides when sealing has stopped or something could not be sealed.

use orchestrator::{
    core::{
        client::{
            database::{Changeset, Committer, ReaderExt, Stored},
            schema,
        },
        market::{quantity::Micros, terms::DomainId},
    },
    service::{
        block::{ChainTip, Quarantined},
        ledger::UnsealedMarker,
    },
};
use serde_json::{Value, json};

use super::harness::{Api, Tenant};

/// A market with an allocation in use, and everything of it in final blocks.
struct Settled {
    api: Api,
    provider: Tenant,
    consumer: Tenant,
    unit: String,
    allocation: String,
}

impl Settled {
    async fn new() -> Self {
        let api = Api::start().await;
        let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
        let unit = api.unit(&provider).await;
        let allocation = api.active(&consumer, &unit).await;
        seal(&api).await;
        Self { api, provider, consumer, unit, allocation }
    }

    async fn tip(&self) -> Stored<ChainTip> {
        let id = ChainTip::id_of(&DomainId::local());
        self.api.database.load::<ChainTip>(&id).await.unwrap().unwrap()
    }
}

/// Seals what waits, and lets it become final.
async fn seal(api: &Api) {
    api.fire("seal_blocks").await;
    for _ in 0..20 {
        api.pass(Micros::from_secs(60)).await;
    }
}

/// The words that the description permits for a field.
fn words(schema: &str, field: &str) -> Vec<Value> {
    let described = serde_json::to_value(orchestrator::controller::route::openapi()).unwrap();
    described["components"]["schemas"][schema]["properties"][field]["enum"].as_array().unwrap().clone()
}

#[tokio::test]
async fn records_come_page_by_page_and_the_proof_says_what_they_lead_to() {
    let market = Settled::new().await;
    let (api, key) = (&market.api, &market.consumer.key);
    let block = api.get(key, "/blocks/local/1").await.ok(200);
    assert!(words("BlockView", "state").contains(&block["state"]), "{block}");
    let count = block["records"].as_u64().unwrap();
    assert!(count > 2, "{block}");
    let mut items = Vec::new();
    let mut from = json!(0);
    while from != Value::Null {
        let page = api.get(key, &format!("/blocks/local/1/records?from={from}&limit=2")).await.ok(200);
        assert_eq!(page["from"], from);
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        from = page["next"].clone();
    }
    assert_eq!(items.len() as u64, count);
    let kinds = words("RecordView", "type");
    assert!(items.iter().all(|item| kinds.contains(&item["type"]) && item["bytes"].is_string()), "{items:?}");
    assert!(
        ["deposit", "transfer", "market_open", "market_set"]
            .iter()
            .all(|kind| items.iter().any(|item| item["type"] == *kind))
    );
    let past = api.get(key, &format!("/blocks/local/1/records?from={}", count + 5)).await.ok(200);
    assert_eq!((&past["items"], &past["next"]), (&json!([]), &Value::Null));
    api.get(key, "/blocks/local/1/records?from=x").await.problem(400, "invalid_parameter", Some("from"));
    api.get(key, "/blocks/local/9/records").await.problem(404, "not_found", None);
    api.get(key, "/blocks/elsewhere/1/records").await.problem(404, "not_found", None);

    let proof = api.get(key, "/blocks/local/1/proof").await.ok(200);
    assert!(words("BlockProofView", "kind").contains(&proof["kind"]), "{proof}");
    assert_eq!((&proof["post_state"], &proof["events_root"]), (&block["state_root"], &block["events_root"]));
    assert_ne!(proof["pre_state"], proof["post_state"]);
    api.get(key, "/blocks/local/1/proof?kind=validity").await.problem(501, "not_supported", None);
    api.get(key, "/blocks/local/1/proof?kind=faith").await.problem(400, "invalid_parameter", Some("kind"));
    api.get(key, "/blocks/local/9/proof").await.problem(404, "not_found", None);
}

/// What a plain JavaScript verifier, which shares no code with us, says of a proof.
fn javascript(node: &std::path::Path, proof: &Value) -> Result<String, String> {
    use std::io::Write as _;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../contracts/ethereum/scripts/verify-proof.mjs");
    let mut command = std::process::Command::new(node);
    command.arg(script).stdin(std::process::Stdio::piped());
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(proof.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[tokio::test]
async fn proofs_of_accounts_hold_for_who_shares_no_code_with_us() {
    let market = Settled::new().await;
    let Settled { api, consumer, allocation, .. } = &market;
    let (money, escrow) = (format!("consumer:{}", consumer.id), format!("escrow:{allocation}"));
    let single = api.get(&consumer.key, &format!("/accounts/{money}/proof")).await.ok(200);
    let path = format!("/proofs?accounts={escrow},{money},{escrow}");
    let many = api.get(&consumer.key, &path).await.ok(200);
    assert_eq!(many["holds"], true, "{many}");
    assert_eq!(many["accounts"].as_array().unwrap().len(), 2, "each account once: {many}");
    assert_eq!(many["block_hash"], single["block_hash"]);

    api.get(&consumer.key, "/proofs?accounts=").await.problem(422, "invalid_field", Some("accounts"));
    api.get(&consumer.key, "/proofs?accounts=me").await.problem(422, "invalid_field", Some("accounts"));
    api.get(&consumer.key, "/proofs").await.problem(400, "invalid_parameter", Some("accounts"));
    let stranger = api.consumer().await;
    api.get(&stranger.key, &path).await.problem(404, "not_found", None);

    let Some(node) = crate::tools::tool("ORCHESTRATOR_TEST_NODE") else { return };
    for (proof, leaf) in [(&single, "/proof"), (&many, "/proof/leaves/0")] {
        let said = javascript(&node, proof).unwrap();
        assert!(said.contains(&money) && said.contains("holds for block"), "{said}");
        for field in ["balance", "withdrawable", "index"] {
            let mut wrong = proof.clone();
            let value = wrong.pointer_mut(&format!("{leaf}/{field}")).unwrap();
            *value = if field == "index" { json!(7) } else { json!("12345") };
            assert!(javascript(&node, &wrong).is_err(), "{field}");
        }
        let mut wrong = proof.clone();
        wrong["proof"]["siblings"].as_array_mut().unwrap().push(json!(format!("0x{}", "00".repeat(32))));
        assert!(javascript(&node, &wrong).unwrap_err().contains("siblings"));
        let mut wrong = proof.clone();
        wrong["header"]["records"] = json!(1);
        assert!(javascript(&node, &wrong).unwrap_err().contains("another hash"));
    }
}

#[tokio::test]
async fn what_funding_takes_is_told_to_who_may_know() {
    let market = Settled::new().await;
    let Settled { api, consumer, unit, allocation, .. } = &market;
    let money = format!("/accounts/consumer:{}/deposits", consumer.id);
    // On the local layer the operator stands in: there is nothing to sign.
    let paying_in = api.get(&consumer.key, &format!("{money}?amount=5")).await.ok(200);
    assert_eq!((&paying_in["calls"], &paying_in["waiting"]), (&json!([]), &json!([])));
    let funded = api.get(&consumer.key, &format!("/allocations/{allocation}/funding")).await.ok(200);
    assert_eq!((&funded["required"], &funded["missing"]), (&json!("0"), &json!("0")));
    let poor = api.consumer().await;
    let ask = json!({ "unit": unit, "bytes": 1_u64 << 20, "period_ms": 86_400_000_u64 });
    let reserved = api.post(&poor.key, "/allocations/reserve", ask).await.ok(202);
    let path = format!("/allocations/{}/funding", reserved["id"].as_str().unwrap());
    let funding = api.get(&poor.key, &path).await.ok(200);
    assert_eq!((&funding["balance"], &funding["missing"]), (&json!("0"), &funding["required"]));
    assert_ne!(funding["required"], "0");

    api.get(&consumer.key, &path).await.problem(404, "not_found", None);
    api.get(&poor.key, &money).await.problem(404, "not_found", None);
    api.get(&consumer.key, &format!("{money}?amount=x")).await.problem(
        400,
        "invalid_parameter",
        Some("amount"),
    );
    api.get(&api.operator, "/accounts/fees/deposits").await.problem(422, "invalid_field", Some("account"));
}

#[tokio::test]
async fn terms_of_units_and_allocations_are_proved_until_they_change() {
    let market = Settled::new().await;
    let Settled { api, provider, consumer, unit, allocation } = &market;
    let stranger = api.consumer().await;
    let unit_proof = format!("/units/{unit}/proof");
    let allocation_proof = format!("/allocations/{allocation}/proof");
    for (key, path) in [
        // What a unit promises is open to everybody; what was agreed, to those who agreed and to operators.
        (&stranger.key, &unit_proof),
        (&consumer.key, &allocation_proof),
        (&provider.key, &allocation_proof),
        (&api.operator, &allocation_proof),
    ] {
        for at in ["", "?at=final", "?at=sealed"] {
            let proved = api.get(key, &format!("{path}{at}")).await.ok(200);
            assert_eq!(proved["holds"], true, "{path}: {proved}");
            assert!(words("MarketProofView", "block_state").contains(&proved["block_state"]), "{proved}");
            assert!(proved["text"].as_str().is_some_and(|text| !text.is_empty()), "{proved}");
        }
        api.get(key, &format!("{path}?at=noon")).await.problem(400, "invalid_parameter", Some("at"));
    }
    api.get(&stranger.key, &allocation_proof).await.problem(404, "not_found", None);

    // A change that no block has yet: the proof is of what was, and does not show what is.
    let price = json!({"price": {"per_gib_month": "7", "per_gib_egress": "1"}});
    api.post(&provider.key, &format!("/units/{unit}/price"), price).await.ok(200);
    let proved = api.get(&stranger.key, &unit_proof).await.ok(200);
    assert_eq!((&proved["holds"], &proved["text"]), (&json!(true), &Value::Null), "{proved}");
    seal(api).await;
    let proved = api.get(&stranger.key, &unit_proof).await.ok(200);
    assert_eq!(proved["holds"], true);
    assert!(proved["text"].as_str().unwrap().contains('7'), "{proved}");

    // What no block knows yet has no proof.
    let mut other = super::harness::unit();
    other["name"] = json!("disk two");
    let fresh = api.post(&provider.key, "/units", other).await.ok(201);
    let path = format!("/units/{}/proof", fresh["id"].as_str().unwrap());
    api.get(&provider.key, &path).await.problem(404, "not_found", None);
}

#[tokio::test]
async fn sealing_that_has_stopped_goes_on_when_an_operator_says_so() {
    let market = Settled::new().await;
    let api = &market.api;
    api.post(&api.operator, "/blocks/local/resume", json!({})).await.problem(409, "invalid_state", None);
    let Stored { version, value: tip } = market.tip().await;
    let mut changes = Changeset::new();
    changes.replace(version, &ChainTip { halted: Some("three refusals".into()), ..tip });
    api.database.commit(changes).await.unwrap();
    api.post(&market.provider.key, "/blocks/local/resume", json!({})).await.problem(403, "forbidden", None);
    assert_eq!(api.fire("seal_blocks").await["changed"], 0, "nothing is sealed while it stands");
    let resumed = api.post_once(&api.operator, "/blocks/local/resume", "go", json!({})).await.ok(200);
    assert_eq!(resumed, json!({"domain": "local", "reason": "three refusals"}));
    let again = api.post_once(&api.operator, "/blocks/local/resume", "go", json!({})).await.ok(200);
    assert_eq!(again, resumed);
    assert_eq!(market.tip().await.value.halted, None);
    api.post(&api.operator, "/blocks/local/resume", json!({})).await.problem(409, "invalid_state", None);
}

#[tokio::test]
async fn what_could_not_be_sealed_is_seen_and_put_back_by_operators() {
    let market = Settled::new().await;
    let api = &market.api;
    let marker: UnsealedMarker = serde_json::from_value(
        json!({"id": format!("{}@99", market.unit), "domain": "local", "kind": "unit"}),
    )
    .unwrap();
    let item = Quarantined { marker, reason: "a test".into(), at: api.work.now() };
    let mut changes = Changeset::new();
    changes.insert(&item);
    api.database.commit(changes).await.unwrap();
    api.get(&market.consumer.key, "/blocks/quarantine").await.problem(403, "forbidden", None);
    let held = api.get(&api.operator, "/blocks/quarantine").await.ok(200);
    let one = &held["items"][0];
    assert_eq!((&one["id"], &one["reason"]), (&json!(item.marker.id), &json!("a test")));
    assert!(words("QuarantinedView", "kind").contains(&one["kind"]), "{one}");
    assert_eq!(api.get(&api.operator, "/blocks/quarantine?domain=other").await.ok(200)["items"], json!([]));

    let path = format!("/blocks/quarantine/{}/retry", item.marker.id);
    api.post(&market.provider.key, &path, json!({})).await.problem(403, "forbidden", None);
    let back = api.post_once(&api.operator, &path, "back", json!({})).await.ok(200);
    assert_eq!(back["id"], json!(item.marker.id));
    assert!(words("RetriedView", "kind").contains(&back["kind"]), "{back}");
    assert_eq!(api.post_once(&api.operator, &path, "back", json!({})).await.ok(200), back);
    api.post(&api.operator, &path, json!({})).await.problem(404, "not_found", None);
    assert_eq!(api.get(&api.operator, "/blocks/quarantine").await.ok(200)["items"], json!([]));
    assert_eq!(api.count(schema::UNSEALED).await, 1, "it waits for the next block");
    seal(api).await;
    assert_eq!(api.count(schema::UNSEALED).await, 0);
}
