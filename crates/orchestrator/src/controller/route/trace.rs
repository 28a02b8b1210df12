//! The trace id of a request, its log span, its metrics, its time-out, and the headers that every answer carries.

use std::{convert::Infallible, time::Instant};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument;

use super::{problem::Problem, state::ApiState};
use crate::{
    core::market::ids::{EventId, Id},
    error::ErrorCode,
};

/// Names the request in logs, jobs, events and problems: 32 hex digits, taken from `traceparent` if one came.
#[derive(Debug, Clone)]
pub struct TraceId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for TraceId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self("0".repeat(32))))
    }
}

/// A request that is being worked on, in the gauge for as long as this lives: a client that hangs up has its request dropped,
/// wherever it is.
struct InFlight(metrics::Gauge);

impl InFlight {
    fn begin() -> Self {
        let gauge = metrics::gauge!("http_requests_in_flight");
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

const TRACE_HEADER: HeaderName = HeaderName::from_static("x-trace-id");

/// Middleware, outermost: gives the request its trace id, a span and a time limit, and counts it.
pub async fn observe(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let trace_id = incoming(request.headers())
        .unwrap_or_else(|| state.work.ids.next::<EventId>().uuid().simple().to_string());
    request.extensions_mut().insert(TraceId(trace_id.clone()));
    let method = known_method(request.method());
    // The pattern, never the address itself: labels must stay few.
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", method, path, trace_id);
    let shows_pages = request.uri().path().starts_with("/docs");
    let started = Instant::now();
    let in_flight = InFlight::begin();
    let mut response = next.run(request).instrument(span).await;
    drop(in_flight);
    let status = response.status().as_u16().to_string();
    metrics::counter!("http_requests_total", "method" => method, "path" => path.clone(), "status" => status)
        .increment(1);
    metrics::histogram!("http_request_duration_seconds", "method" => method, "path" => path)
        .record(started.elapsed().as_secs_f64());
    finish(response.headers_mut(), &trace_id, shows_pages);
    response
}

/// Middleware, inside of the problem writer: bounds the time until an answer begins.
pub async fn limit_time(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(state.settings.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            ErrorCode::Unavailable,
            "the request took too long and was given up; send it again with the same idempotency key",
        )
        .into_response(),
    }
}

/// What a browser may do with an answer that is data: nothing.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// What the pages of `/docs` may do: use their own scripts and styles, and talk to this API.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
     form-action 'none'";

fn finish(headers: &mut HeaderMap, trace_id: &str, shows_pages: bool) {
    if let Ok(value) = HeaderValue::from_str(trace_id) {
        headers.insert(TRACE_HEADER, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let policy = if shows_pages { PAGE_POLICY } else { DATA_POLICY };
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    // Answers belong to one key; nothing between may keep them. With an etag, a client may keep and ask again.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// The trace id of a well-formed `traceparent` header.
fn incoming(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let (_, id) = (parts.next()?, parts.next()?);
    let hex = id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (hex && id.bytes().any(|b| b != b'0')).then(|| id.to_owned())
}

fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_traceparent_is_taken() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_str(text).unwrap());
            incoming(&headers)
        };
        assert_eq!(with(&format!("00-{id}-00f067aa0ba902b7-01")).as_deref(), Some(id));
        assert_eq!(with(&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32))), None);
        assert_eq!(with("00-evil\"}-x"), None);
        assert_eq!(with("junk"), None);
    }

    #[test]
    fn a_request_that_is_dropped_is_no_longer_in_flight() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let shown = || {
            let text = recorder.handle().render();
            let line = text.lines().find(|line| line.starts_with("http_requests_in_flight "));
            line.and_then(|line| line.split(' ').nth(1)).map(str::to_owned)
        };
        let mut request = Box::pin(async {
            let _in_flight = InFlight::begin();
            std::future::pending::<()>().await;
        });
        metrics::with_local_recorder(&recorder, || {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(request.as_mut().poll(&mut context).is_pending());
        });
        assert_eq!(shown().as_deref(), Some("1"));
        drop(request);
        assert_eq!(shown().as_deref(), Some("0"));
    }
}
