//! The market over HTTP: the source document's three endpoints, tenants, roles, replays, pages, and bad input.

use orchestrator::core::{client::schema, market::quantity::Micros};
use serde_json::{Value, json};

use super::harness::{Api, reservation, unit};

const RESERVE: &str = "/allocations/reserve";

#[tokio::test]
async fn the_source_documents_three_endpoints() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.consumer().await);
    let unit = api.unit(&provider).await;
    let page = api.get(&consumer.key, "/market/offerings").await.ok(200);
    assert_eq!(
        (page["items"][0]["unit"].as_str(), page["matching"].as_u64()),
        (Some(unit.as_str()), Some(1))
    );
    assert!(page["items"][0]["score"]["explanation"].is_string());
    let reserved = api.post(&consumer.key, RESERVE, reservation(&unit)).await.ok(202);
    assert_eq!((reserved["state"].as_str(), reserved["bytes"].as_u64()), (Some("reserved"), Some(1 << 20)));
    let path = format!("/allocations/{}", reserved["id"].as_str().unwrap());
    let read = api.get(&consumer.key, &path).await.ok(200);
    assert_eq!(read, reserved);
    assert_eq!(read["period_ms"], 2_592_000_000_u64);
    assert!(read["escrow_required"].is_string() && read["created_at"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn other_tenants_allocations_do_not_exist() {
    let api = Api::start().await;
    let (provider, owner) = (api.provider().await, api.consumer().await);
    let (stranger, competitor) = (api.consumer().await, api.provider().await);
    let unit = api.unit(&provider).await;
    let id =
        api.post(&owner.key, RESERVE, reservation(&unit)).await.ok(202)["id"].as_str().unwrap().to_owned();
    let path = format!("/allocations/{id}");
    for key in [&stranger.key, &competitor.key] {
        api.get(key, &path).await.problem(404, "not_found", None);
        api.get(key, &format!("{path}/verdicts")).await.problem(404, "not_found", None);
        api.get(key, &format!("{path}/credentials")).await.problem(404, "not_found", None);
        for action in ["fund", "cancel", "close"] {
            let answer = api.post(key, &format!("{path}/{action}"), json!({})).await;
            assert!(matches!(answer.status, 403 | 404), "{action}: {}", answer.body);
        }
    }
    for action in ["fund", "cancel", "close"] {
        api.post(&stranger.key, &format!("{path}/{action}"), json!({})).await.problem(404, "not_found", None);
    }
    let account = format!("/accounts/consumer:{}", owner.id);
    api.get(&stranger.key, &account).await.problem(404, "not_found", None);
    let listed = api.get(&stranger.key, "/allocations").await.ok(200);
    assert_eq!(listed["items"], json!([]));
    assert_eq!(api.get(&owner.key, &path).await.ok(200)["state"], "reserved");
}

#[tokio::test]
async fn wrong_roles_are_forbidden_and_leave_nothing_behind() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.consumer().await);
    let its_unit = api.unit(&provider).await;
    let before = api.documents().await;
    api.post(&consumer.key, "/units", unit()).await.problem(403, "forbidden", None);
    api.post(&consumer.key, "/providers", json!({"name": "x"})).await.problem(403, "forbidden", None);
    api.post(&provider.key, "/consumers", json!({"name": "x"})).await.problem(403, "forbidden", None);
    api.post(&provider.key, RESERVE, reservation(&its_unit)).await.problem(403, "forbidden", None);
    let oracle = json!({"name": "x", "public_key": "00", "key_id": "k"});
    api.post(&consumer.key, "/oracles", oracle).await.problem(403, "forbidden", None);
    let deposit = format!("/accounts/consumer:{}/deposits", consumer.id);
    api.post(&consumer.key, &deposit, json!({"amount": "5"})).await.problem(403, "forbidden", None);
    assert_eq!(api.documents().await, before);
}

#[tokio::test]
async fn a_replay_answers_alike_and_another_body_is_refused() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.consumer().await);
    let unit = api.unit(&provider).await;
    let first = api.post_once(&consumer.key, RESERVE, "one", reservation(&unit)).await.ok(202);
    let before = api.documents().await;
    let again = api.post_once(&consumer.key, RESERVE, "one", reservation(&unit)).await.ok(202);
    assert_eq!(again, first);
    let mut other = reservation(&unit);
    other["bytes"] = json!(2 << 20);
    api.post_once(&consumer.key, RESERVE, "one", other).await.problem(409, "idempotency_key_reused", None);
    assert_eq!(api.documents().await, before);
    // Another tenant's equal key is another key.
    let second = api.consumer().await;
    let theirs = api.post_once(&second.key, RESERVE, "one", reservation(&unit)).await.ok(202);
    assert_ne!(theirs["id"], first["id"]);
}

#[tokio::test]
async fn zero_and_overflowing_numbers_are_refused_by_field() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.consumer().await);
    let its_unit = api.unit(&provider).await;
    let before = api.documents().await;
    let with = |field: &str, value: Value| {
        let mut body = reservation(&its_unit);
        body[field] = value;
        body
    };
    for (field, value) in [("bytes", json!(0)), ("bytes", json!(1_u64 << 53)), ("bytes", json!(u64::MAX))] {
        let answer = api.post(&consumer.key, RESERVE, with(field, value)).await;
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert_eq!(answer.body["field"], field);
    }
    let answer = api.post(&consumer.key, RESERVE, with("period_ms", json!(0))).await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    let mut dear = unit();
    dear["price"]["per_gib_month"] = json!("340282366920938463463374607431768211456");
    api.post(&provider.key, "/units", dear).await.problem(400, "malformed_body", Some("price.per_gib_month"));
    let mut empty = unit();
    empty["capacity_bytes"] = json!(0);
    let answer = api.post(&provider.key, "/units", empty).await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert_eq!(api.documents().await, before);
}

#[tokio::test]
async fn an_sla_that_no_unit_meets_is_answered_with_what_each_filter_removed() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.consumer().await);
    api.unit(&provider).await;
    let before = api.documents().await;
    let page = api.get(&consumer.key, "/market/offerings?max_latency_ms=1&region=eu-1").await.ok(200);
    assert_eq!((page["items"].as_array().unwrap().len(), &page["loosest"]), (0, &json!("max_latency")));
    let removed = page["removed"].as_array().unwrap();
    assert!(removed.iter().any(|r| r["filter"] == "max_latency" && r["removed"] == 1), "{page}");
    let body = json!({"filter": {"max_latency_ms": 1}, "bytes": 1024, "period_ms": 86_400_000});
    let answer = api.post(&consumer.key, RESERVE, body).await;
    answer.problem(422, "no_matching_offering", None);
    assert!(answer.body["extra"].to_string().contains("max_latency"), "{}", answer.body);
    assert_eq!(api.documents().await, before);
}

#[tokio::test]
async fn too_large_a_reservation_and_an_expired_one_are_refused() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.consumer().await);
    let unit = api.unit(&provider).await;
    let before = api.documents().await;
    let mut large = reservation(&unit);
    large["bytes"] = json!(1_u64 << 40);
    api.post(&consumer.key, RESERVE, large).await.problem(409, "insufficient_capacity", None);
    assert_eq!(api.documents().await, before);
    let reserved = api.post(&consumer.key, RESERVE, reservation(&unit)).await.ok(202);
    let path = format!("/allocations/{}/fund", reserved["id"].as_str().unwrap());
    let poor = api.post(&consumer.key, &path, json!({})).await;
    poor.problem(409, "insufficient_funds", None);
    api.clock.advance(Micros::from_secs(16 * 60));
    api.post(&consumer.key, &path, json!({})).await.problem(409, "reservation_expired", None);
    assert_eq!(api.count(schema::TRANSFERS).await, 0);
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_double() {
    let api = Api::start().await;
    let provider = api.provider().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(api.unit(&provider).await);
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&provider.key, &format!("/units?limit=2{cursor}")).await.ok(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|u| u["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    made.sort();
    seen.sort();
    assert_eq!(seen, made);
}

#[tokio::test]
async fn a_credential_shows_its_secret_to_the_post_that_made_it_only() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.consumer().await);
    let unit = api.unit(&provider).await;
    let reserved = api.post(&consumer.key, RESERVE, reservation(&unit)).await.ok(202);
    let path = format!("/allocations/{}/credentials", reserved["id"].as_str().unwrap());
    let before = api.documents().await;
    // Nothing to open yet.
    api.post(&consumer.key, &path, json!({})).await.problem(409, "invalid_state", None);
    api.post(&consumer.key, &path, json!({"permissions": "all"})).await.problem(
        400,
        "malformed_body",
        Some("permissions"),
    );
    assert_eq!(api.documents().await, before);
}

#[tokio::test]
async fn a_providers_reputation_is_open_to_every_key() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.consumer().await);
    let path = format!("/providers/{}/score", provider.id);
    let fresh = api.get(&consumer.key, &path).await.ok(200);
    assert_eq!(fresh, json!({"provider": provider.id, "reputation_millipoints": 50_000, "units": 0}));
    api.unit(&provider).await;
    assert_eq!(api.get(&consumer.key, &path).await.ok(200)["units"], 1);
    let unknown = format!("/providers/prov_{:032x}/score", 9);
    api.get(&consumer.key, &unknown).await.problem(404, "not_found", None);
}

#[tokio::test]
async fn only_operators_let_teardowns_go_on_and_only_where_they_stopped() {
    let api = Api::start().await;
    let provider = api.provider().await;
    let providers = api.get(&api.operator, "/providers").await.ok(200);
    let path = format!("/providers/{}/teardowns/resume", providers["items"][0]["id"].as_str().unwrap());
    api.post(&provider.key, &path, json!({})).await.problem(403, "forbidden", None);
    api.post(&api.operator, &path, json!({})).await.problem(409, "invalid_state", None);
}
