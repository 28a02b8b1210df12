//! `/health/live`, `/health/ready` and `/metrics`: for machines that watch this one; they need no key.

use std::time::{Duration, Instant};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    problem::{Problem, Result},
    state::{ApiState, Dependency},
    view::common::Millis,
};
use crate::{core::market::quantity::Micros, error::ErrorCode};

/// A dependency that takes longer than this counts as down.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready)).routes(routes!(metrics))
}

/// Whether the process runs.
#[derive(Debug, Serialize, ToSchema)]
pub struct LiveView {
    /// `live`.
    status: &'static str,
    /// The version that runs.
    version: &'static str,
}

/// Whether the process answers at all.
#[utoipa::path(get, path = "/health/live", tag = "health", security(()), responses((status = 200, body = LiveView)))]
async fn live() -> Json<LiveView> {
    Json(LiveView { status: "live", version: env!("CARGO_PKG_VERSION") })
}

/// One thing that must answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct DependencyView {
    /// Its name.
    name: String,
    /// Whether it answered in time.
    ok: bool,
    /// Whether the service is not ready without it. What is not needed slows when it is away, or is made up for later.
    needed: bool,
    /// How long that took.
    latency_ms: Millis,
}

/// Whether the service can do its work.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadyView {
    /// `ready` or `not_ready`.
    status: &'static str,
    /// What was asked.
    dependencies: Vec<DependencyView>,
}

/// Whether everything that the service needs answers; 503 if not.
#[utoipa::path(get, path = "/health/ready", tag = "health", security(()),
    responses((status = 200, body = ReadyView), (status = 503, body = ReadyView)))]
async fn ready(State(state): State<ApiState>) -> Response {
    let checks = state.dependencies.iter().map(|dependency| check(dependency.as_ref()));
    let dependencies = futures::future::join_all(checks).await;
    let ok = dependencies.iter().all(|one| one.ok || !one.needed) && !state.closing.is_cancelled();
    let (code, status) =
        if ok { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not_ready") };
    let mut response = (code, Json(ReadyView { status, dependencies })).into_response();
    super::problem::keep_as_is(&mut response);
    response
}

async fn check(dependency: &dyn Dependency) -> DependencyView {
    let started = Instant::now();
    let outcome = tokio::time::timeout(CHECK_TIMEOUT, dependency.check()).await;
    let ok = match outcome {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            let error = crate::error::chain(error.as_ref());
            tracing::warn!(dependency = dependency.name(), error, "a dependency does not answer");
            false
        }
        Err(_) => {
            tracing::warn!(dependency = dependency.name(), "a dependency did not answer in time");
            false
        }
    };
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    DependencyView {
        name: dependency.name().to_owned(),
        ok,
        needed: dependency.needed(),
        latency_ms: Millis(Micros(micros)),
    }
}

/// Metrics in Prometheus' text form.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()),
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn metrics(State(state): State<ApiState>) -> Result<Response> {
    let render = state
        .metrics
        .as_ref()
        .ok_or_else(|| Problem::new(ErrorCode::NotSupported, "no metrics recorder is installed"))?;
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, render()).into_response())
}
