//! What holds for every request: problems in one shape, who may come in, strict bodies and parameters, limits.

use std::{sync::atomic::Ordering, time::Duration};

use orchestrator::controller::route::ApiSettings;
use serde_json::json;

use super::harness::Api;

const ID: &str = "00000000000000000000000000000001";

#[tokio::test]
async fn what_is_not_there_and_wrong_methods_are_problems() {
    let api = Api::start().await;
    api.get(&api.operator, "/nowhere").await.problem(404, "not_found", None);
    let request = api.http.delete(format!("{}/units", api.url)).bearer_auth(&api.operator);
    let answer = api.send(request).await;
    answer.problem(405, "method_not_allowed", None);
    assert!(answer.headers["allow"].to_str().unwrap().contains("GET"));
}

#[tokio::test]
async fn unknown_and_malformed_ids_are_not_found() {
    let api = Api::start().await;
    for path in [
        format!("/units/unit_{ID}"),
        "/units/unit_1".into(),
        format!("/units/alloc_{ID}"),
        format!("/allocations/alloc_{ID}"),
        "/allocations/%20".into(),
        format!("/credentials/cred_{ID}"),
        format!("/verdicts/sla_{ID}"),
        format!("/verdicts/sla_{ID}/proof"),
        format!("/disputes/disp_{ID}"),
        format!("/jobs/job_{ID}"),
        format!("/oracles/orcl_{ID}"),
        format!("/providers/prov_{ID}"),
        format!("/consumers/cons_{ID}"),
        format!("/units/unit_{ID}/qos"),
        format!("/units/unit_{ID}/score"),
        format!("/units/unit_{ID}/prices"),
        format!("/accounts/consumer:cons_{ID}"),
        "/accounts/nobody".into(),
    ] {
        let answer = api.get(&api.operator, &path).await;
        assert_eq!(answer.status, 404, "{path}");
        answer.problem(404, "not_found", None);
    }
    api.post(&api.operator, "/triggers/none/fire", json!({})).await.problem(404, "not_found", None);
}

#[tokio::test]
async fn nobody_comes_in_without_a_key_and_every_wrong_key_gets_the_same_answer() {
    let api = Api::start().await;
    let bare = api.send(api.http.get(format!("{}/me", api.url))).await;
    bare.problem(401, "unauthenticated", None);
    assert_eq!(bare.headers["www-authenticate"], "Bearer");
    let wrong_secret = format!("{}0", &api.operator[..api.operator.len() - 1]);
    let unknown = format!("ork_{ID}_{}", "a".repeat(64));
    let mut details = Vec::new();
    for key in [wrong_secret.as_str(), unknown.as_str(), "junk"] {
        let answer = api.get(key, "/me").await;
        answer.problem(401, "unauthenticated", None);
        details.push(answer.body["detail"].clone());
    }
    details.dedup();
    assert_eq!(details.len(), 1);
    let basic = api.http.get(format!("{}/me", api.url)).basic_auth("a", Some("b"));
    api.send(basic).await.problem(401, "unauthenticated", None);
}

#[tokio::test]
async fn bodies_are_strict_and_a_refused_one_leaves_nothing_behind() {
    let api = Api::start().await;
    let consumer = api.consumer().await;
    let before = api.documents().await;
    let path = format!("{}/allocations/reserve", api.url);
    let send = |text: &str, kind: &str| {
        let request = api.http.post(&path).bearer_auth(&consumer.key);
        api.send(request.header("content-type", kind.to_owned()).body(text.to_owned()))
    };
    let json_kind = "application/json";
    send("{", json_kind).await.problem(400, "malformed_body", None);
    send("[1] x", json_kind).await.problem(400, "malformed_body", None);
    send(r#"{"bytes": 1, "period_ms": 1, "byts": 1}"#, json_kind).await.problem(
        400,
        "malformed_body",
        Some("byts"),
    );
    send(r#"{"bytes": 1, "period_ms": 1, "filter": {"regoin": "x"}}"#, json_kind).await.problem(
        400,
        "malformed_body",
        Some("filter.regoin"),
    );
    send(r#"{"period_ms": 1}"#, json_kind).await.problem(400, "malformed_body", Some("bytes"));
    send(r#"{"bytes": "1", "period_ms": 1}"#, json_kind).await.problem(400, "malformed_body", Some("bytes"));
    send(r#"{"bytes": -1, "period_ms": 1}"#, json_kind).await.problem(400, "malformed_body", Some("bytes"));
    let large = send(r#"{"bytes": 99999999999999999999999, "period_ms": 1}"#, json_kind).await;
    large.problem(400, "malformed_body", Some("bytes"));
    assert!(large.body["detail"].as_str().unwrap().contains("too large"), "{}", large.body);
    let missing = send("", json_kind).await;
    missing.problem(400, "malformed_body", None);
    assert!(missing.body["detail"].as_str().unwrap().contains("the body is missing"), "{}", missing.body);
    send(r#"{"bytes": 1, "period_ms": 18446744073709551615}"#, json_kind).await.problem(
        400,
        "malformed_body",
        Some("period_ms"),
    );
    send(r#"{"bytes": 1, "period_ms": 1, "filter": {"max_price": "-5"}}"#, json_kind).await.problem(
        400,
        "malformed_body",
        Some("filter.max_price"),
    );
    send(r#"{"bytes": 1, "period_ms": 1, "unit": "unit_7"}"#, json_kind).await.problem(
        400,
        "malformed_body",
        Some("unit"),
    );
    send(r#"{"bytes": 1, "period_ms": 1}"#, json_kind).await.problem(422, "invalid_field", Some("unit"));
    send("bytes=1", "application/x-www-form-urlencoded").await.problem(415, "unsupported_media_type", None);
    send("{}", "text/plain").await.problem(415, "unsupported_media_type", None);
    assert_eq!(api.documents().await, before);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let api = Api::with(ApiSettings { body_limit: 100, ..ApiSettings::default() }).await;
    let before = api.documents().await;
    let post = || api.http.post(format!("{}/consumers", api.url)).bearer_auth(&api.operator);
    let large = "x".repeat(200);
    api.send(post().json(&json!({"name": large}))).await.problem(413, "body_too_large", None);
    let chunks = futures::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>("x".repeat(10))));
    let body = reqwest::Body::wrap_stream(chunks);
    let request = post().header("content-type", "application/json").body(body);
    api.send(request).await.problem(413, "body_too_large", None);
    assert_eq!(api.documents().await, before);
}

#[tokio::test]
async fn unknown_and_wrong_parameters_are_refused_by_name() {
    let api = Api::start().await;
    for (path, field) in [
        ("/units?colour=red", "colour"),
        ("/units?limit=0", "limit"),
        ("/units?limit=1001", "limit"),
        ("/units?limit=many", "limit"),
        ("/units?cursor=junk", "cursor"),
        ("/units?provider=prov_1", "provider"),
        ("/market/offerings?limit=101", "limit"),
        ("/market/offerings?max_price=-1", "max_price"),
        ("/market/offerings?min_uptime_ppm=x", "min_uptime_ppm"),
        ("/market/offerings?cursor=abc", "cursor"),
        ("/market/offerings?sort=luck", "sort"),
        ("/jobs?kind=dance", "kind"),
        ("/allocations?state=odd", "state"),
        ("/audit?who=me", "who"),
    ] {
        let answer = api.get(&api.operator, path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        answer.problem(400, "invalid_parameter", Some(field));
    }
    api.post(&api.operator, "/consumers?name=x", json!({"name": "x"})).await.problem(
        400,
        "invalid_parameter",
        Some("name"),
    );
}

#[tokio::test]
async fn wrong_idempotency_keys_are_refused() {
    let api = Api::start().await;
    let before = api.documents().await;
    for key in ["", "two words", &"x".repeat(256)] {
        let answer = api.post_once(&api.operator, "/consumers", key, json!({"name": "x"})).await;
        answer.problem(400, "invalid_header", Some("idempotency-key"));
    }
    assert_eq!(api.documents().await, before);
    api.post_once(&api.operator, "/consumers", &"x".repeat(255), json!({"name": "x"})).await.ok(201);
}

#[tokio::test]
async fn a_key_has_so_many_requests_a_window_and_other_keys_are_not_touched() {
    let api = Api::with(ApiSettings { rate_limit: 5, ..ApiSettings::default() }).await;
    let second = api.key_for("operator").await;
    for _ in 0..4 {
        api.get(&api.operator, "/me").await.ok(200);
    }
    let answer = api.get(&api.operator, "/me").await;
    answer.problem(429, "rate_limited", None);
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=10).contains(&seconds));
    assert_eq!(answer.body["retryable"], true);
    api.get(&second, "/me").await.ok(200);
    api.clock.advance(orchestrator::core::market::quantity::Micros::from_secs(seconds));
    api.get(&api.operator, "/me").await.ok(200);
}

#[tokio::test]
async fn without_a_cache_nobody_is_limited() {
    let api = Api::with(ApiSettings { rate_limit: 1, ..ApiSettings::default() }).await;
    api.cache.broken.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        api.get(&api.operator, "/me").await.ok(200);
    }
}

#[tokio::test]
async fn health_and_metrics_need_no_key() {
    let api = Api::start().await;
    let bare = |path: &str| api.send(api.http.get(format!("{}{path}", api.url)));
    assert_eq!(bare("/health/live").await.ok(200)["status"], "live");
    let ready = bare("/health/ready").await.ok(200);
    assert_eq!(ready["dependencies"][0]["name"], "database");
    assert!(ready["dependencies"][0]["latency_ms"].is_number());
    api.aside_down.store(true, Ordering::Relaxed);
    let without = bare("/health/ready").await.ok(200);
    let aside = &without["dependencies"][1];
    assert_eq!(
        (&without["status"], &aside["ok"], &aside["needed"]),
        (&json!("ready"), &json!(false), &json!(false))
    );
    api.down.store(true, Ordering::Relaxed);
    let not = bare("/health/ready").await.ok(503);
    assert_eq!((&not["status"], &not["dependencies"][0]["ok"]), (&json!("not_ready"), &json!(false)));
    let metrics = bare("/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    assert_eq!(metrics.ok(200), "# metrics\n");
}

#[tokio::test]
async fn a_request_whose_body_never_comes_is_given_up() {
    let api = Api::with(ApiSettings { timeout: Duration::from_millis(50), ..ApiSettings::default() }).await;
    let body = reqwest::Body::wrap_stream(futures::stream::pending::<Result<String, std::io::Error>>());
    let request = api.http.post(format!("{}/consumers", api.url)).bearer_auth(&api.operator);
    let answer = api.send(request.header("content-type", "application/json").body(body)).await;
    answer.problem(503, "unavailable", None);
    assert_eq!(answer.body["retryable"], true);
}

#[tokio::test]
async fn an_entity_has_an_etag_that_changes_with_it() {
    let api = Api::start().await;
    let provider = api.provider().await;
    let unit = api.unit(&provider).await;
    let path = format!("/units/{unit}");
    let first = api.get(&provider.key, &path).await;
    let tag = first.headers["etag"].to_str().unwrap().to_owned();
    let again = || api.http.get(format!("{}{path}", api.url)).bearer_auth(&provider.key);
    let same = api.send(again().header("if-none-match", &tag)).await;
    assert_eq!((same.status, same.body.as_str()), (304, Some("")));
    let price = json!({"price": {"per_gib_month": "7", "per_gib_egress": "1"}});
    api.post(&provider.key, &format!("{path}/price"), price).await.ok(200);
    let changed = api.send(again().header("if-none-match", &tag)).await;
    assert_eq!(changed.ok(200)["price"]["per_gib_month"], "7");
}

#[tokio::test]
async fn a_trace_id_that_comes_in_goes_through() {
    let api = Api::start().await;
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = api.http.get(format!("{}/nowhere", api.url));
    let answer = api.send(request.header("traceparent", format!("00-{id}-00f067aa0ba902b7-01"))).await;
    assert_eq!(answer.body["trace_id"], id);
}
