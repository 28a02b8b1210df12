//! The daemon's HTTP API as a whole: bodies, addresses, query parameters, cursors, idempotency keys, bearer keys, trace and
//! cache headers, adapter specifications.

use axum::body::Body;
use http::{Method, header};
use orchestrator::error::ErrorCode;

use crate::{
    market::{Answer, Market, visit},
    request::{self, Wanted},
};

/// No input is our fault (5xx); what is refused says why in one form, and leaves nothing behind; reading changes nothing; and
/// what is accepted keeps the books.
///
/// The input is a request as in `request.rs`, by `operator`, `provider`, `consumer`, `oracle`, or anybody else.
pub fn api(data: &[u8]) {
    visit(async |market| {
        if let Some(wanted) = request::read(&market.filled(data)) {
            one_request(market, wanted).await;
        }
    });
}

async fn one_request(market: &Market, wanted: Wanted) {
    let Wanted { who, request } = wanted;
    let mut request = request.map(Body::from);
    if let Some(key) = market.key(&who) {
        let value = format!("Bearer {key}").parse().unwrap();
        request.headers_mut().entry(header::AUTHORIZATION).or_insert(value);
    }
    if request.method() == Method::POST {
        let json = header::HeaderValue::from_static("application/json");
        request.headers_mut().entry(header::CONTENT_TYPE).or_insert(json);
    }
    let (method, target) = (request.method().clone(), request.uri().clone());
    let before = market.fingerprint().await;
    let answer = market.send(request).await;
    let shown = || format!("{method} {target}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    assert!(answer.status < 500, "{}", shown());
    assert!(answer.headers.contains_key("x-trace-id"), "{}", shown());
    let reads = method.is_safe();
    if reads || answer.status >= 400 {
        assert_eq!(market.fingerprint().await, before, "something was left behind by {}", shown());
    } else {
        market.books_balance().await;
    }
    if answer.status >= 400 && method != Method::HEAD {
        problem(&answer, &shown());
    }
}

/// The form of every refusal.
fn problem(answer: &Answer, shown: &str) {
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json", "{shown}");
    let body = answer.json();
    assert_eq!(body["status"], answer.status, "{shown}");
    let code = body["code"].as_str().unwrap_or_default();
    assert!(ErrorCode::ALL.iter().any(|known| known.as_str() == code), "{shown}");
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{shown}");
    // What was sent comes back in parts only.
    assert!(answer.body.len() < 16 << 10, "{} bytes: {shown}", answer.body.len());
}
