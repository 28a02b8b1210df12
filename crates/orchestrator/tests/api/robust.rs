//! What a bad client can't do: hold connections, guess keys without end, fire twice, be surprised by a method or a page.

use std::time::Duration;

use orchestrator::{
    controller::route::{ApiSettings, ServeSettings},
    core::market::quantity::Micros,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::harness::Api;

async fn impatient() -> Api {
    let serving = ServeSettings { header_timeout: Duration::from_millis(100), ..ServeSettings::default() };
    Api::serving(ApiSettings::default(), serving).await
}

/// Reads until the other side hangs up.
async fn to_the_end(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_client_that_never_ends_its_header_is_hung_up_on() {
    let api = impatient().await;
    for start in ["", "GET /health/live HTTP/1.1\r\n", "GET /health/live HTTP/1.1\r\nhost: x\r\nx-a: b"] {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        // The client's own time-out would fail this test: the server ends it.
        let answer = to_the_end(stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
}

#[tokio::test]
async fn a_connection_that_idles_after_its_answer_is_closed() {
    let api = impatient().await;
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = to_the_end(stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"live\""), "{answer}");
}

#[tokio::test]
async fn connections_over_the_limit_wait_until_others_end() {
    let serving = ServeSettings { connections: 1, ..ServeSettings::default() };
    let api = Api::serving(ApiSettings::default(), serving).await;
    let mut first = TcpStream::connect(api.address).await.unwrap();
    first.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut begin = [0; 12];
    first.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    let mut second = TcpStream::connect(api.address).await.unwrap();
    second.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut nothing = [0; 1];
    let early = tokio::time::timeout(Duration::from_millis(100), second.read(&mut nothing)).await;
    assert!(early.is_err(), "the second was served while the first was there");
    drop(first);
    assert!(to_the_end(second).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn failed_authentications_are_limited_by_address_and_good_keys_are_not_touched() {
    let api = Api::with(ApiSettings { auth_failures: 3, ..ApiSettings::default() }).await;
    let wrong = format!("ork_{:032x}_{}", 1, "a".repeat(64));
    for _ in 0..2 {
        api.get(&wrong, "/me").await.problem(401, "unauthenticated", None);
    }
    api.send(api.http.get(format!("{}/me", api.url))).await.problem(401, "unauthenticated", None);
    let limited = api.get(&wrong, "/me").await;
    limited.problem(429, "rate_limited", None);
    let seconds: u64 = limited.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=10).contains(&seconds));
    api.get(&api.operator, "/me").await.ok(200);
    api.clock.advance(Micros::from_secs(seconds));
    api.get(&wrong, "/me").await.problem(401, "unauthenticated", None);
}

#[tokio::test]
async fn head_and_options_are_answered() {
    let api = Api::start().await;
    let head = api.send(api.http.head(format!("{}/me", api.url)).bearer_auth(&api.operator)).await;
    assert_eq!((head.status, head.body.as_str()), (200, Some("")));
    assert_eq!(head.headers["content-type"], "application/json");
    let refused = api.send(api.http.head(format!("{}/me", api.url))).await;
    assert_eq!((refused.status, refused.body.as_str()), (401, Some("")));
    for (path, methods) in [("/units", vec!["GET", "HEAD", "POST"]), ("/allocations/reserve", vec!["POST"])] {
        let request = api.http.request(reqwest::Method::OPTIONS, format!("{}{path}", api.url));
        let answer = api.send(request).await;
        assert_eq!((answer.status, answer.body.as_str()), (204, Some("")), "{path}");
        let allow = answer.headers["allow"].to_str().unwrap();
        assert!(methods.iter().all(|method| allow.contains(method)), "{allow}");
    }
    let nowhere = api.http.request(reqwest::Method::OPTIONS, format!("{}/nowhere", api.url));
    api.send(nowhere).await.problem(404, "not_found", None);
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_keep_browsers_safe() {
    let api = Api::start().await;
    for path in ["/", "/docs/", "/docs/swagger-ui-bundle.js", "/openapi.json", "/nowhere", "/me"] {
        let answer = api.send(api.http.get(format!("{}{path}", api.url))).await;
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(answer.headers["x-frame-options"], "DENY", "{path}");
        assert_eq!(answer.headers["referrer-policy"], "no-referrer", "{path}");
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}"
        );
        assert_eq!(policy.contains("script-src 'self'"), path.starts_with("/docs"), "{path}");
    }
}

#[tokio::test]
async fn the_root_says_what_this_is_and_its_addresses_are_there() {
    let api = Api::start().await;
    let about = api.send(api.http.get(format!("{}/", api.url))).await.ok(200);
    assert_eq!(about["name"], "orchestrator");
    for name in ["docs", "openapi", "health", "metrics"] {
        let path = about[name].as_str().unwrap();
        api.send(api.http.get(format!("{}{path}", api.url))).await.ok(200);
    }
}

#[tokio::test]
async fn a_trigger_fired_with_a_key_is_fired_once() {
    let api = Api::start().await;
    let path = "/triggers/expire_reservations/fire";
    let first = api.post_once(&api.operator, path, "f", json!({})).await.ok(200);
    let before = api.documents().await;
    assert_eq!(api.post_once(&api.operator, path, "f", json!({})).await.ok(200), first);
    assert_eq!(api.documents().await, before);
    let runs = |listed: serde_json::Value| {
        let all = listed["items"].as_array().unwrap().clone();
        let one = all.into_iter().find(|one| one["name"] == "expire_reservations").unwrap();
        one["runs"].as_u64().unwrap()
    };
    assert_eq!(runs(api.get(&api.operator, "/triggers").await.ok(200)), 1);
    api.post_once(&api.operator, path, "g", json!({})).await.ok(200);
    assert_eq!(runs(api.get(&api.operator, "/triggers").await.ok(200)), 2);
    let log = api.get(&api.operator, "/audit").await.ok(200);
    // The clock stands still here: entries of one instant are in no order.
    let fired = log["items"].as_array().unwrap().iter().filter(|entry| entry["action"] == "trigger.fire");
    assert_eq!(fired.count(), 2);
}
