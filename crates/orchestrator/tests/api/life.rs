//! Allocations, money and jobs from their beginning to their end, over HTTP, with the real job engine.

use orchestrator::{
    client::provider::ScriptedFault,
    core::{
        client::schema,
        market::{
            allocation::{RestrictReason, Usage},
            quantity::{Bytes, Micros},
        },
    },
    service::work::Call,
};
use serde_json::{Value, json};

use super::harness::{Api, Tenant, reservation};

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

async fn state(api: &Api, consumer: &Tenant, id: &str) -> String {
    text(&api.get(&consumer.key, &format!("/allocations/{id}")).await.ok(200)["state"])
}

async fn balance(api: &Api, account: &str) -> u128 {
    let account = api.get(&api.operator, &format!("/accounts/{account}")).await.ok(200);
    text(&account["balance"]).parse().unwrap()
}

async fn balanced(api: &Api) {
    let ledger = api.get(&api.operator, "/ledger").await.ok(200);
    assert_eq!((&ledger["sum"], &ledger["balanced"]), (&json!("0"), &json!(true)), "{ledger}");
}

#[tokio::test]
async fn from_reservation_to_closed() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
    let unit = api.unit(&provider).await;
    let made = api.post(&consumer.key, "/allocations/reserve", reservation(&unit)).await.ok(202);
    let id = text(&made["id"]);
    let path = format!("/allocations/{id}");
    let funded = api.post_once(&consumer.key, &format!("{path}/fund"), "f", json!({})).await.ok(202);
    assert!(["funded", "provisioning"].contains(&funded["state"].as_str().unwrap()), "{funded}");
    let escrow: u128 = text(&made["escrow_required"]).parse().unwrap();
    assert_eq!(balance(&api, &format!("escrow:{id}")).await, escrow);
    // The same once more draws nothing more, with the key and without it.
    api.post_once(&consumer.key, &format!("{path}/fund"), "f", json!({})).await.ok(202);
    api.post(&consumer.key, &format!("{path}/fund"), json!({})).await.problem(409, "invalid_state", None);
    assert_eq!(balance(&api, &format!("escrow:{id}")).await, escrow);
    api.run_jobs().await;
    let active = api.get(&consumer.key, &path).await.ok(200);
    assert_eq!((&active["state"], &active["access"]), (&json!("active"), &json!("active")));
    assert!(active["routing"]["endpoint"].is_string() && active["routing"]["bucket"].is_string());
    api.post(&consumer.key, &format!("{path}/cancel"), json!({})).await.problem(409, "invalid_state", None);

    let system = Call::system("test");
    api.allocations.restrict(&system, id.parse().unwrap(), RestrictReason::Quota).await.unwrap();
    api.run_jobs().await;
    let restricted = api.get(&consumer.key, &path).await.ok(200);
    assert_eq!((&restricted["state"], &restricted["access"]), (&json!("restricted"), &json!("restricted")));
    assert_eq!(restricted["restrictions"].as_array().unwrap().len(), 1);
    api.allocations.unrestrict(&system, id.parse().unwrap(), RestrictReason::Quota).await.unwrap();
    api.run_jobs().await;
    assert_eq!(state(&api, &consumer, &id).await, "active");

    let renewed =
        api.post(&consumer.key, &format!("{path}/renew"), json!({"period_ms": 86_400_000})).await.ok(200);
    assert_ne!(renewed["ends_at"], active["ends_at"]);
    let usage =
        Usage { stored: Bytes(1 << 20), byte_seconds: 1 << 35, egress: Bytes(0), read_at: api.work.now() };
    api.provider.set_usage(id.parse().unwrap(), usage);
    api.pass(Micros::from_secs(3_600)).await;
    let closing = api.post(&consumer.key, &format!("{path}/close"), json!({})).await.ok(202);
    assert_eq!(closing["state"], "closing");
    api.post(&consumer.key, &format!("{path}/renew"), json!({"period_ms": 86_400_000})).await.problem(
        409,
        "invalid_state",
        None,
    );
    api.run_jobs().await;
    assert_eq!(state(&api, &consumer, &id).await, "closing");
    assert_eq!(balance(&api, &format!("escrow:{id}")).await, 0);
    api.pass(Micros::from_days(7)).await;
    assert_eq!(state(&api, &consumer, &id).await, "closed");
    assert_eq!(api.provider.level(id.parse().unwrap()), None);
    let unit = api.get(&provider.key, &format!("/units/{unit}")).await.ok(200);
    assert_eq!((&unit["state"], &unit["free_bytes"]), (&json!("available"), &unit["capacity_bytes"]));
    let whole = balance(&api, &format!("consumer:{}", consumer.id)).await
        + balance(&api, &format!("provider:{}", provider.id)).await
        + balance(&api, "fees").await;
    assert_eq!(whole, 1_000_000_000);
    balanced(&api).await;
}

#[tokio::test]
async fn a_cancelled_reservation_gives_everything_back() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
    let unit = api.unit(&provider).await;
    let made = api.post(&consumer.key, "/allocations/reserve", reservation(&unit)).await.ok(202);
    let path = format!("/allocations/{}", text(&made["id"]));
    assert_eq!(
        api.post(&consumer.key, &format!("{path}/cancel"), json!({})).await.ok(200)["state"],
        "cancelled"
    );
    api.post(&consumer.key, &format!("{path}/fund"), json!({})).await.problem(409, "invalid_state", None);
    let unit = api.get(&provider.key, &format!("/units/{unit}")).await.ok(200);
    assert_eq!(unit["free_bytes"], unit["capacity_bytes"]);
}

#[tokio::test]
async fn a_period_that_ends_closes_by_itself() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
    let unit = api.unit(&provider).await;
    let id = api.active(&consumer, &unit).await;
    api.clock.advance(Micros::from_days(31));
    assert_eq!(api.fire("end_periods").await["changed"], 1);
    assert_eq!(state(&api, &consumer, &id).await, "closing");
    api.pass(Micros::from_days(7)).await;
    assert_eq!(state(&api, &consumer, &id).await, "closed");
    balanced(&api).await;
}

#[tokio::test]
async fn jobs_are_listed_retried_called_off_and_verified() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
    let unit = api.unit(&provider).await;
    let id = api.active(&consumer, &unit).await;
    let key = &api.operator;
    let done = api.get(key, &format!("/jobs?subject={id}&state=completed&kind=provision")).await.ok(200);
    let done = done["items"].as_array().unwrap().clone();
    assert_eq!((done.len(), &done[0]["kind"], &done[0]["subject"]), (1, &json!("provision"), &json!(id)));
    let counts = api.get(key, "/jobs/counts").await.ok(200);
    assert_eq!(counts["by_state"]["completed"], 1);
    assert_eq!(counts["by_kind"]["provision"], Value::Null);
    let path = format!("/jobs/{}", text(&done[0]["id"]));
    assert_eq!(api.get(key, &path).await.ok(200)["state"], "completed");
    for action in ["retry", "cancel", "verify"] {
        let before = api.documents().await;
        api.post(key, &format!("{path}/{action}"), json!({})).await.problem(409, "invalid_state", None);
        assert_eq!(api.documents().await, before);
    }
    // One that the provider refuses fails for good, and a person may let it run again.
    api.provider.script("restrict", ScriptedFault::Refused);
    let system = Call::system("test");
    api.allocations.restrict(&system, id.parse().unwrap(), RestrictReason::Quota).await.unwrap();
    api.run_jobs().await;
    let failed = api.get(key, "/jobs?state=failed").await.ok(200);
    let failed = failed["items"][0].clone();
    assert_eq!(failed["subject"], id, "{failed}");
    assert!(!failed["failures"].as_array().unwrap().is_empty());
    let path = format!("/jobs/{}", text(&failed["id"]));
    let retried = api.post_once(key, &format!("{path}/retry"), "r", json!({})).await.ok(200);
    let budgets = (&retried["state"], &retried["attempts"], &retried["losses"]);
    assert_eq!(budgets, (&json!("pending_retry"), &json!(0), &json!(0)));
    assert_eq!(api.post_once(key, &format!("{path}/retry"), "r", json!({})).await.ok(200), retried);
    api.run_jobs().await;
    assert_eq!(api.get(key, &path).await.ok(200)["state"], "completed");
    // One that has not begun is called off, and stays so.
    let issue = format!("/allocations/{id}/credentials");
    let issued = api.post(&consumer.key, &issue, json!({})).await.ok(201);
    let waiting = api.get(key, &format!("/jobs?state=created&subject={id}")).await.ok(200);
    let path = format!("/jobs/{}", text(&waiting["items"][0]["id"]));
    assert_eq!(api.post(key, &format!("{path}/cancel"), json!({})).await.ok(200)["state"], "cancelled");
    api.run_jobs().await;
    let credential = format!("/credentials/{}", text(&issued["credential"]["id"]));
    assert_eq!(api.get(&consumer.key, &credential).await.ok(200)["state"], "pending");
}

#[tokio::test]
async fn disputes_are_opened_decided_once_and_lapse() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
    let unit = api.unit(&provider).await;
    let id = api.active(&consumer, &unit).await;
    let path = format!("/allocations/{id}/dispute");
    let claim = |kind: &str, amount: &str| json!({"kind": kind, "claim": "x", "amount": amount});
    let before = api.documents().await;
    api.post(&consumer.key, &path, claim("quarrel", "1")).await.problem(400, "malformed_body", Some("kind"));
    let answer = api.post(&consumer.key, &path, claim("violation", "1")).await;
    assert!(matches!(answer.status, 403 | 422), "{}", answer.body);
    let mut wordless = claim("billing", "1");
    wordless["claim"] = json!("");
    api.post(&consumer.key, &path, wordless).await.problem(422, "invalid_field", Some("claim"));
    assert_eq!(api.documents().await, before);
    let opened = api.post_once(&consumer.key, &path, "d", claim("billing", "5")).await.ok(201);
    api.post_once(&consumer.key, &path, "d", claim("billing", "5")).await.ok(201);
    assert_eq!(api.count(schema::DISPUTES).await, 1);
    let dispute = format!("/disputes/{}", text(&opened["id"]));
    assert_eq!((&opened["state"], &opened["held"]), (&json!("open"), &json!("5")));
    for tenant in [&consumer, &provider] {
        api.get(&tenant.key, &dispute).await.ok(200);
        assert_eq!(api.get(&tenant.key, "/disputes").await.ok(200)["items"].as_array().unwrap().len(), 1);
    }
    let decide = json!({"decision": "consumer", "reason": "the meter was wrong"});
    let decided = api.post(&api.operator, &format!("{dispute}/decide"), decide.clone()).await.ok(200);
    assert_eq!(decided["state"], "for_consumer");
    api.post(&api.operator, &format!("{dispute}/decide"), decide).await.problem(409, "invalid_state", None);
    let second = api.post(&consumer.key, &path, claim("billing", "5")).await.ok(201);
    api.clock.advance(Micros::from_secs(73 * 3_600));
    api.fire("expire_disputes").await;
    let lapsed = api.get(&consumer.key, &format!("/disputes/{}", text(&second["id"]))).await.ok(200);
    assert_eq!(lapsed["state"], "lapsed");
    balanced(&api).await;
}

#[tokio::test]
async fn maintenance_and_decommissioning() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
    let unit = api.unit(&provider).await;
    let id = api.active(&consumer, &unit).await;
    let path = format!("/units/{unit}");
    let day = |n: u64| api.work.now().plus(Micros(Micros::from_days(1).get() * n)).to_rfc3339();
    let window = json!({"from": day(2), "to": day(3)});
    for (body, field) in [
        (json!({"from": "2001-01-01T00:00:00Z", "to": day(3)}), "from"),
        (json!({"from": day(3), "to": day(2)}), "to"),
    ] {
        let before = api.documents().await;
        let answer = api.post(&provider.key, &format!("{path}/maintenance"), body).await;
        answer.problem(422, "invalid_field", Some(field));
        assert_eq!(api.documents().await, before);
    }
    let bad_time = json!({"from": "tomorrow", "to": day(3)});
    let answer = api.post(&provider.key, &format!("{path}/maintenance"), bad_time).await;
    answer.problem(400, "malformed_body", Some("from"));
    let announced = api.post(&provider.key, &format!("{path}/maintenance"), window).await.ok(200);
    assert_eq!(announced["maintenance"].as_array().unwrap().len(), 1);
    let begun =
        api.post(&provider.key, &format!("{path}/maintenance/begin"), json!({"until": day(1)})).await.ok(200);
    assert_eq!(begun["state"], "maintenance");
    let during = api.post(&consumer.key, "/allocations/reserve", reservation(&unit)).await;
    during.problem(409, "invalid_state", None);
    let ended = api.post(&provider.key, &format!("{path}/maintenance/end"), json!({})).await.ok(200);
    assert_eq!(ended["state"], "in_use");
    api.post(&provider.key, &format!("{path}/maintenance/end"), json!({})).await.problem(
        409,
        "invalid_state",
        None,
    );
    let out = api.post(&provider.key, &format!("{path}/decommission"), json!({})).await.ok(202);
    assert_eq!(out["state"], "decommissioning");
    api.run_jobs().await;
    let late = api.post(&consumer.key, "/allocations/reserve", reservation(&unit)).await;
    late.problem(409, "invalid_state", None);
    api.post(&consumer.key, &format!("/allocations/{id}/close"), json!({})).await.ok(202);
    api.run_jobs().await;
    api.pass(Micros::from_days(7)).await;
    api.fire("unit_maintenance").await;
    assert_eq!(api.get(&provider.key, &path).await.ok(200)["state"], "decommissioned");
}

#[tokio::test]
async fn money_in_and_out_through_a_final_block() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.consumer().await);
    let path = format!("/accounts/consumer:{}", consumer.id);
    let amount = |n: &str| json!({"amount": n});
    let first = api.post_once(&api.operator, &format!("{path}/deposits"), "d", amount("1000")).await.ok(201);
    let again = api.post_once(&api.operator, &format!("{path}/deposits"), "d", amount("1000")).await.ok(201);
    assert_eq!(first, again);
    assert_eq!(balance(&api, &format!("consumer:{}", consumer.id)).await, 1_000);
    let out = format!("{path}/withdrawals");
    let moved = api.post_once(&consumer.key, &out, "w", amount("400")).await.ok(201);
    assert_eq!(api.post_once(&consumer.key, &out, "w", amount("400")).await.ok(201), moved);
    assert_eq!(balance(&api, &format!("consumer:{}", consumer.id)).await, 600);
    // No block is final yet.
    let claims = format!("{path}/claims");
    api.post(&consumer.key, &claims, json!({})).await.problem(404, "not_found", None);
    let earner = format!("/accounts/provider:{}", provider.id);
    api.post(&api.operator, &format!("{earner}/deposits"), amount("500")).await.ok(201);
    let collateral = format!("{earner}/collateral");
    api.post_once(&provider.key, &collateral, "c", amount("200")).await.ok(201);
    api.post_once(&provider.key, &collateral, "c", amount("200")).await.ok(201);
    assert_eq!(balance(&api, &format!("collateral:{}", provider.id)).await, 200);
    let back = json!({"amount": "50", "release": true});
    api.post(&provider.key, &collateral, back).await.ok(201);
    assert_eq!(balance(&api, &format!("collateral:{}", provider.id)).await, 150);

    api.fire("seal_blocks").await;
    for _ in 0..20 {
        api.pass(Micros::from_secs(60)).await;
    }
    let blocks = api.get(&consumer.key, "/blocks").await.ok(200);
    assert_eq!(
        (&blocks["items"][0]["number"], &blocks["items"][0]["state"]),
        (&json!(1), &json!("final")),
        "{blocks}"
    );
    api.get(&consumer.key, "/blocks/local/1").await.ok(200);
    let proof = api.get(&consumer.key, &format!("{path}/proof")).await.ok(200);
    assert_eq!(proof["block_state"], "final");
    let paid = api.post_once(&consumer.key, &claims, "x", json!({})).await.ok(200);
    assert_eq!((&paid["paid"], &paid["cumulative"]), (&json!("400"), &json!("400")));
    assert_eq!(api.post_once(&consumer.key, &claims, "x", json!({})).await.ok(200), paid);
    let nothing = api.post(&consumer.key, &claims, json!({})).await.ok(200);
    assert_eq!((&nothing["paid"], &nothing["cumulative"]), (&json!("0"), &json!("400")));
    balanced(&api).await;
}
