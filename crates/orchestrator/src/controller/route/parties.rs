//! `/providers`, `/consumers` and `/oracles`: who takes part.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    caller::{Caller, Posted},
    etag::{accepted, tagged},
    page::{PageQuery, PageView},
    params::{Named, Params},
    problem::Result,
    state::ApiState,
    view::{
        common::Nothing,
        party::{
            ConsumerView, OracleView, ProviderView, RegisterConsumer, RegisterOracle, RegisterProvider,
            TeardownsView,
        },
    },
};
use crate::core::market::ids::{ConsumerId, OracleId, ProviderId};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_providers, register_provider))
        .routes(routes!(get_provider))
        .routes(routes!(resume_teardowns))
        .routes(routes!(list_consumers, register_consumer))
        .routes(routes!(get_consumer))
        .routes(routes!(list_oracles, register_oracle))
        .routes(routes!(get_oracle))
        .routes(routes!(enable_oracle))
        .routes(routes!(disable_oracle))
}

/// Providers by id.
#[utoipa::path(get, path = "/providers", tag = "parties", params(PageQuery),
    responses((status = 200, body = PageView<ProviderView>)))]
async fn list_providers(
    State(state): State<ApiState>,
    caller: Caller,
    Params(page): Params<PageQuery>,
) -> Result<Json<PageView<ProviderView>>> {
    Ok(Json(state.market.providers(&caller.call, page.request()?).await?.into()))
}

/// Registers a provider; for operators.
#[utoipa::path(post, path = "/providers", tag = "parties", request_body = RegisterProvider,
    responses((status = 201, body = ProviderView)))]
async fn register_provider(
    State(state): State<ApiState>,
    posted: Posted<RegisterProvider>,
) -> Result<Response> {
    let made = state.market.register_provider(&posted.call, posted.body.into()).await?;
    Ok(accepted(StatusCode::CREATED, ProviderView::from(made.value)))
}

/// Lets teardowns at a provider go on after too many of them had stopped all; for operators.
#[utoipa::path(post, path = "/providers/{id}/teardowns/resume", tag = "parties",
    params(("id" = String, Path, description = "Provider id")),
    request_body = inline(Option<Nothing>), responses((status = 200, body = TeardownsView)))]
async fn resume_teardowns(
    State(state): State<ApiState>,
    Named(id): Named<ProviderId>,
    posted: Posted<Nothing>,
) -> Result<Json<TeardownsView>> {
    Ok(Json(state.allocations.resume_teardowns(&posted.call, id).await?.value.into()))
}

/// One provider.
#[utoipa::path(get, path = "/providers/{id}", tag = "parties", params(("id" = String, Path, description = "Provider id")),
    responses((status = 200, body = ProviderView)))]
async fn get_provider(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(id): Named<ProviderId>,
) -> Result<Response> {
    tagged(&headers, &ProviderView::from(state.market.provider(&caller.call, id).await?))
}

/// Consumers by id.
#[utoipa::path(get, path = "/consumers", tag = "parties", params(PageQuery),
    responses((status = 200, body = PageView<ConsumerView>)))]
async fn list_consumers(
    State(state): State<ApiState>,
    caller: Caller,
    Params(page): Params<PageQuery>,
) -> Result<Json<PageView<ConsumerView>>> {
    Ok(Json(state.market.consumers(&caller.call, page.request()?).await?.into()))
}

/// Registers a consumer; for operators.
#[utoipa::path(post, path = "/consumers", tag = "parties", request_body = RegisterConsumer,
    responses((status = 201, body = ConsumerView)))]
async fn register_consumer(
    State(state): State<ApiState>,
    posted: Posted<RegisterConsumer>,
) -> Result<Response> {
    let made = state.market.register_consumer(&posted.call, posted.body.into()).await?;
    Ok(accepted(StatusCode::CREATED, ConsumerView::from(made.value)))
}

/// One consumer.
#[utoipa::path(get, path = "/consumers/{id}", tag = "parties", params(("id" = String, Path, description = "Consumer id")),
    responses((status = 200, body = ConsumerView)))]
async fn get_consumer(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(id): Named<ConsumerId>,
) -> Result<Response> {
    tagged(&headers, &ConsumerView::from(state.market.consumer(&caller.call, id).await?))
}

/// Oracles by id: all for operators, itself for an oracle.
#[utoipa::path(get, path = "/oracles", tag = "parties", params(PageQuery),
    responses((status = 200, body = PageView<OracleView>)))]
async fn list_oracles(
    State(state): State<ApiState>,
    caller: Caller,
    Params(page): Params<PageQuery>,
) -> Result<Json<PageView<OracleView>>> {
    Ok(Json(state.oracles.list(&caller.call, page.request()?).await?.into()))
}

/// Registers an oracle by its signing key; for operators.
#[utoipa::path(post, path = "/oracles", tag = "parties", request_body = RegisterOracle,
    responses((status = 201, body = OracleView)))]
async fn register_oracle(State(state): State<ApiState>, posted: Posted<RegisterOracle>) -> Result<Response> {
    let made = state.oracles.register(&posted.call, posted.body.into()).await?;
    Ok(accepted(StatusCode::CREATED, OracleView::from(made.value)))
}

/// One oracle.
#[utoipa::path(get, path = "/oracles/{id}", tag = "parties", params(("id" = String, Path, description = "Oracle id")),
    responses((status = 200, body = OracleView)))]
async fn get_oracle(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(id): Named<OracleId>,
) -> Result<Response> {
    tagged(&headers, &OracleView::from(state.oracles.get(&caller.call, id).await?))
}

/// Takes the oracle's reports from now on; for operators.
#[utoipa::path(post, path = "/oracles/{id}/enable", tag = "parties", params(("id" = String, Path, description = "Oracle id")),
    request_body = inline(Option<Nothing>), responses((status = 200, body = OracleView)))]
async fn enable_oracle(
    State(state): State<ApiState>,
    Named(id): Named<OracleId>,
    posted: Posted<Nothing>,
) -> Result<Json<OracleView>> {
    Ok(Json(state.oracles.set_enabled(&posted.call, id, true).await?.value.into()))
}

/// Refuses the oracle's reports from now on; for operators.
#[utoipa::path(post, path = "/oracles/{id}/disable", tag = "parties", params(("id" = String, Path, description = "Oracle id")),
    request_body = inline(Option<Nothing>), responses((status = 200, body = OracleView)))]
async fn disable_oracle(
    State(state): State<ApiState>,
    Named(id): Named<OracleId>,
    posted: Posted<Nothing>,
) -> Result<Json<OracleView>> {
    Ok(Json(state.oracles.set_enabled(&posted.call, id, false).await?.value.into()))
}
