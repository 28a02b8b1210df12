//! Money and evidence over HTTP.

use orchestrator::core::{
    client::{database::Changeset, schema},
    market::{
        money::Amount,
        payout::{Payout, PayoutState},
        terms::DomainId,
    },
};
use serde_json::json;

use super::harness::Api;

#[tokio::test]
async fn a_deposit_is_booked_once_and_can_be_read() {
    let api = Api::start().await;
    let consumer = api.consumer().await;
    let path = format!("/accounts/consumer:{}", consumer.id);
    let deposit = format!("{path}/deposits");
    let amount = json!({"amount": "1000"});
    let booked = api.post_once(&api.operator, &deposit, "d", amount.clone()).await.ok(201);
    assert_eq!(booked["transfer"]["amount"], "1000");
    api.post_once(&api.operator, &deposit, "d", amount).await.ok(201);
    assert_eq!(api.get(&consumer.key, &path).await.ok(200)["balance"], "1000");
    let transfers = api.get(&consumer.key, &format!("{path}/transfers")).await.ok(200);
    assert_eq!(transfers["items"].as_array().unwrap().len(), 1);
    assert_eq!(transfers["items"][0]["kind"], "deposit");
}

#[tokio::test]
async fn zero_foreign_and_too_large_movements_are_refused() {
    let api = Api::start().await;
    let (consumer, provider) = (api.consumer().await, api.provider().await);
    let path = format!("/accounts/consumer:{}", consumer.id);
    let before = api.documents().await;
    let answer = api.post(&api.operator, &format!("{path}/deposits"), json!({"amount": "0"})).await;
    answer.problem(422, "invalid_field", Some("amount"));
    for bad in ["-1", "1.5", "", "340282366920938463463374607431768211456"] {
        let answer = api.post(&api.operator, &format!("{path}/deposits"), json!({"amount": bad})).await;
        answer.problem(400, "malformed_body", Some("amount"));
    }
    let withdrawal = api.post(&consumer.key, &format!("{path}/withdrawals"), json!({"amount": "1"})).await;
    withdrawal.problem(409, "insufficient_funds", None);
    let collateral = format!("/accounts/provider:{}/collateral", provider.id);
    api.post(&provider.key, &collateral, json!({"amount": "1"})).await.problem(
        409,
        "insufficient_funds",
        None,
    );
    api.post(&provider.key, &format!("{path}/collateral"), json!({"amount": "1"})).await.problem(
        422,
        "invalid_field",
        Some("account"),
    );
    assert_eq!(api.documents().await, before);
    assert_eq!(api.count(schema::TRANSFERS).await, 0);
}

#[tokio::test]
async fn evidence_with_a_bad_signature_leaves_nothing_behind() {
    let api = Api::start().await;
    let provider = api.provider().await;
    let unit = api.unit(&provider).await;
    let public_key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let body = json!({"name": "probe", "public_key": public_key, "key_id": "k1"});
    let oracle = api.tenant("/oracles", body).await;
    let before = api.documents().await;
    let now = api.work.now().as_micros();
    let report = json!({
        "statement": {
            "version": 1, "oracle": oracle.id, "key_id": "k1", "subject": {"unit": unit},
            "from": now - 2_000_000, "to": now - 1_000_000, "nonce": 1,
            "body": {"type": "qos", "operations": {}},
        },
        "signature": "00".repeat(64),
    });
    let answer = api.post(&oracle.key, "/evidence", report.clone()).await;
    answer.problem(422, "bad_signature", None);
    let mut odd = report.clone();
    odd["statement"]["extra"] = json!(1);
    api.post(&oracle.key, "/evidence", odd).await.problem(400, "malformed_body", Some("statement.extra"));
    api.post(&provider.key, "/evidence", report).await.problem(403, "forbidden", None);
    assert_eq!(api.documents().await, before);
}

#[tokio::test]
async fn the_ledger_sums_to_zero_and_what_no_block_knows_has_no_proof() {
    let api = Api::start().await;
    let (consumer, stranger) = (api.consumer().await, api.consumer().await);
    let path = format!("/accounts/consumer:{}", consumer.id);
    api.post(&api.operator, &format!("{path}/deposits"), json!({"amount": "9"})).await.ok(201);
    let ledger = api.get(&api.operator, "/ledger").await.ok(200);
    assert_eq!((&ledger["sum"], &ledger["balanced"]), (&json!("0"), &json!(true)));
    assert_eq!((&ledger["deposited"], &ledger["unsealed"]), (&json!("9"), &json!(1)));
    api.get(&consumer.key, "/ledger").await.problem(403, "forbidden", None);
    // The layer has what it owes, and nothing is on its way out.
    let layer = &ledger["layer"];
    assert_eq!((&layer["solvent"], &layer["lag"], &layer["paid"]), (&true.into(), &"0".into(), &"0".into()));
    assert_eq!((&layer["held"], &layer["owed"]), (&ledger["deposited"], &ledger["liabilities"]));
    assert_eq!(api.get(&consumer.key, "/blocks").await.ok(200)["items"], json!([]));
    api.get(&consumer.key, "/blocks/local/1").await.problem(404, "not_found", None);
    api.get(&consumer.key, "/blocks/local/x").await.problem(404, "not_found", None);
    api.get(&consumer.key, &format!("{path}/proof")).await.problem(404, "not_found", None);
    api.get(&stranger.key, &format!("{path}/proof")).await.problem(404, "not_found", None);
    api.get(&consumer.key, &format!("{path}/proof?at=noon")).await.problem(
        400,
        "invalid_parameter",
        Some("at"),
    );
}

#[tokio::test]
async fn payouts_are_for_operators_and_each_owners_own_to_see() {
    let api = Api::start().await;
    let (consumer, other) = (api.consumer().await, api.consumer().await);
    let account = format!("consumer:{}", consumer.id);
    let payout = Payout {
        domain: DomainId::local(),
        account: account.parse().unwrap(),
        released: Amount(250),
        paid: Amount(100),
        state: PayoutState::SetAside { reason: "the token refused".into() },
        attempts: 3,
        changed_at: api.work.now(),
    };
    let mut changes = Changeset::new();
    changes.insert(&payout);
    api.work.committer.commit(changes).await.unwrap();
    for path in ["/payouts", "/payouts?state=set_aside&limit=10", "/payouts?domain=local"] {
        let found = api.get(&api.operator, path).await.ok(200);
        assert_eq!(found["items"].as_array().unwrap().len(), 1, "{path}");
        assert_eq!(
            (&found["items"][0]["state"], &found["items"][0]["reason"]),
            (&"set_aside".into(), &"the token refused".into())
        );
    }
    assert_eq!(api.get(&api.operator, "/payouts?state=paid").await.ok(200)["items"], json!([]));
    api.get(&api.operator, "/payouts?state=lost").await.problem(400, "invalid_parameter", Some("state"));
    api.get(&consumer.key, "/payouts").await.problem(403, "forbidden", None);
    let own = api.get(&consumer.key, &format!("/accounts/{account}/payout")).await.ok(200);
    assert_eq!(
        (&own["released"], &own["paid"], &own["transaction"]),
        (&"250".into(), &"100".into(), &json!(null))
    );
    api.get(&other.key, &format!("/accounts/{account}/payout")).await.problem(404, "not_found", None);
    let none = format!("/accounts/consumer:{}/payout", other.id);
    api.get(&other.key, &none).await.problem(404, "not_found", None);
}
