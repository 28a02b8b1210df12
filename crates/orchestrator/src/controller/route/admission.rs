//! What is let in when more comes than can be done: a bound on requests that are worked on at once, and on jobs that wait.
//! Both answer at once with 429 and the time to try again; nothing of such a request was done.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{problem::Problem, state::ApiState};
use crate::error::{Error, ErrorCode};

/// When to come again after too many requests at once: they take milliseconds.
const SOON: u64 = 1;

/// Middleware: refuses what exceeds the bound on requests at once. Health and metrics are always let in: they are asked for
/// most when there is too much of everything else.
pub async fn admit(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.starts_with("/health") || path == "/metrics" {
        return next.run(request).await;
    }
    let Ok(_place) = state.places().try_acquire() else {
        metrics::counter!("orchestrator_requests_refused_total", "why" => "in_flight").increment(1);
        let detail =
            format!("{} requests are being worked on; try again in {SOON} s", state.settings.max_in_flight);
        return too_many(detail, SOON).into_response();
    };
    next.run(request).await
}

/// Refuses new work while more jobs wait than may.
pub async fn check_backlog(state: &ApiState) -> Result<(), Problem> {
    let Some(full) = state.backlog.is_full().await else { return Ok(()) };
    metrics::counter!("orchestrator_requests_refused_total", "why" => "backlog").increment(1);
    let seconds = full.retry_after.get().div_ceil(1_000_000).max(1);
    let detail = format!("{} jobs wait, {} may; try again in {seconds} s", full.waiting, full.limit);
    Err(too_many(detail, seconds))
}

/// The answer to those who are to come again after so many seconds.
pub(super) fn too_many(detail: String, seconds: u64) -> Problem {
    let error = Error::new(ErrorCode::RateLimited, detail).extra(json!({ "retry_after_s": seconds }));
    Problem::from(error).retry_after(seconds)
}
