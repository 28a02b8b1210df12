//! `/`: what this is, and where to go on.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::state::ApiState;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(about))
}

/// What this is.
#[derive(Debug, Serialize, ToSchema)]
pub struct AboutView {
    /// `orchestrator`.
    #[schema(example = "orchestrator")]
    name: &'static str,
    /// In a sentence.
    description: &'static str,
    /// The version that runs.
    version: &'static str,
    /// The description of the API, to be read and tried out in a browser.
    #[schema(example = "/docs/")]
    docs: &'static str,
    /// The same for machines.
    #[schema(example = "/openapi.json")]
    openapi: &'static str,
    /// Whether everything that is needed answers.
    #[schema(example = "/health/ready")]
    health: &'static str,
    /// Metrics in Prometheus' text form.
    #[schema(example = "/metrics")]
    metrics: &'static str,
    /// How to come in.
    authentication: &'static str,
}

/// What this is, and where to go on.
#[utoipa::path(get, path = "/", tag = "health", security(()), responses((status = 200, body = AboutView)))]
async fn about() -> Json<AboutView> {
    Json(AboutView {
        name: "orchestrator",
        description: "a storage market that is run, measured and settled",
        version: env!("CARGO_PKG_VERSION"),
        docs: "/docs/",
        openapi: "/openapi.json",
        health: "/health/ready",
        metrics: "/metrics",
        authentication: "send an API key as `authorization: Bearer ork_…`; an operator makes them",
    })
}
