//! The HTTP API: one file per noun. [`router`] is what is served, [`openapi`] what is said about it.

mod accounts;
mod admission;
mod allocations;
mod blocks;
mod body;
mod caller;
mod choices;
mod credentials;
mod docs;
mod etag;
mod events;
mod health;
mod jobs;
mod keys;
mod large;
mod offerings;
mod page;
mod params;
mod parties;
mod payouts;
mod problem;
mod proofs;
mod root;
mod serve;
mod state;
mod trace;
mod units;
mod verdicts;
pub mod view;

use std::sync::Arc;

use axum::{Router, middleware};
pub use problem::{PROBLEM_JSON, ProblemView};
pub use serve::{Peer, ServeSettings, serve};
pub use state::{ApiSettings, ApiState, Dependency, RenderMetrics, Services};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::error::ErrorCode;

/// Every described route.
fn described() -> (Router<ApiState>, OpenApi) {
    let (router, mut api) = OpenApiRouter::with_openapi(docs::frame())
        .merge(root::routes())
        .merge(health::routes())
        .merge(keys::routes())
        .merge(events::routes())
        .merge(offerings::routes())
        .merge(parties::routes())
        .merge(units::routes())
        .merge(allocations::routes())
        .merge(credentials::routes())
        .merge(verdicts::routes())
        .merge(accounts::routes())
        .merge(proofs::routes())
        .merge(payouts::routes())
        .merge(blocks::routes())
        .merge(jobs::routes())
        .split_for_parts();
    docs::complete(&mut api);
    choices::name(&mut api);
    (router, api)
}

/// The API's description.
#[must_use]
pub fn openapi() -> OpenApi {
    described().1
}

/// The whole API over its services.
pub fn router(state: ApiState) -> Router {
    let (router, api) = described();
    let without_query: params::WithoutQuery = Arc::new(docs::paths_without_query(&api));
    router
        .merge(docs::routes(&api))
        .fallback(nothing_here)
        .layer(middleware::from_fn_with_state(without_query, params::refuse_query))
        .layer(middleware::from_fn_with_state(state.clone(), trace::limit_time))
        .layer(middleware::from_fn_with_state(state.clone(), admission::admit))
        .layer(middleware::from_fn(problem::render))
        .layer(middleware::from_fn_with_state(state.clone(), trace::observe))
        .with_state(state)
}

async fn nothing_here() -> problem::Problem {
    problem::Problem::new(ErrorCode::NotFound, "there is nothing at this address; see /docs")
}
