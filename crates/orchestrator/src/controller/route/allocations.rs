//! `/allocations`: from the reservation to the end.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    caller::{Caller, Posted},
    etag::{accepted, tagged},
    page::{PageQuery, PageView},
    params::{Named, Params},
    problem::Result,
    state::ApiState,
    view::{
        allocation::{AllocationView, Renew, Reserve},
        common::Nothing,
    },
};
use crate::{
    core::market::{
        allocation::AllocationState,
        ids::{AllocationId, ConsumerId, ProviderId, UnitId},
    },
    service::allocation::AllocationQuery,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(reserve))
        .routes(routes!(list_allocations))
        .routes(routes!(get_allocation))
        .routes(routes!(fund_allocation))
        .routes(routes!(cancel_allocation))
        .routes(routes!(close_allocation))
        .routes(routes!(renew_allocation))
}

/// Reserves a part of a unit, or of the best offering that a filter leaves. It is to be funded before
/// `reserved_until`.
#[utoipa::path(post, path = "/allocations/reserve", tag = "allocations", request_body = Reserve,
    responses((status = 202, body = AllocationView)))]
async fn reserve(State(state): State<ApiState>, posted: Posted<Reserve>) -> Result<Response> {
    let request = posted.body.request()?;
    let reserved = state.allocations.reserve(&posted.call, request).await?;
    Ok(accepted(StatusCode::ACCEPTED, AllocationView::from(reserved.value)))
}

/// Which allocations.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AllocationsQuery {
    /// Only this consumer's.
    #[param(value_type = Option<String>)]
    consumer: Option<ConsumerId>,
    /// Only on this provider's units.
    #[param(value_type = Option<String>)]
    provider: Option<ProviderId>,
    /// Only on this unit.
    #[param(value_type = Option<String>)]
    unit: Option<UnitId>,
    /// Only in this state.
    #[param(value_type = Option<String>)]
    state: Option<AllocationState>,
    /// Entries at most, 1 to 1,000.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Allocations by id: a consumer's own, those on a provider's units, or all for operators.
#[utoipa::path(get, path = "/allocations", tag = "allocations", params(AllocationsQuery),
    responses((status = 200, body = PageView<AllocationView>)))]
async fn list_allocations(
    State(state): State<ApiState>,
    caller: Caller,
    Params(query): Params<AllocationsQuery>,
) -> Result<Json<PageView<AllocationView>>> {
    let page = PageQuery::new(query.limit, query.cursor).request()?;
    let query = AllocationQuery {
        consumer: query.consumer,
        provider: query.provider,
        unit: query.unit,
        state: query.state,
    };
    Ok(Json(state.allocations.list(&caller.call, query, page).await?.into()))
}

/// One allocation: its status and, once it is provisioned, its routing.
#[utoipa::path(get, path = "/allocations/{id}", tag = "allocations", params(("id" = String, Path, description = "Allocation id")),
    responses((status = 200, body = AllocationView)))]
async fn get_allocation(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(id): Named<AllocationId>,
) -> Result<Response> {
    tagged(&headers, &AllocationView::from(state.allocations.get(&caller.call, id).await?))
}

/// Draws the escrow from the consumer's account and has the allocation provisioned.
#[utoipa::path(post, path = "/allocations/{id}/fund", tag = "allocations", params(("id" = String, Path, description = "Allocation id")),
    request_body = inline(Option<Nothing>), responses((status = 202, body = AllocationView)))]
async fn fund_allocation(
    State(state): State<ApiState>,
    Named(id): Named<AllocationId>,
    posted: Posted<Nothing>,
) -> Result<Response> {
    let funded = state.allocations.fund(&posted.call, id).await?;
    Ok(accepted(StatusCode::ACCEPTED, AllocationView::from(funded.value)))
}

/// Gives a reservation up before it is provisioned.
#[utoipa::path(post, path = "/allocations/{id}/cancel", tag = "allocations", params(("id" = String, Path, description = "Allocation id")),
    request_body = inline(Option<Nothing>), responses((status = 200, body = AllocationView)))]
async fn cancel_allocation(
    State(state): State<ApiState>,
    Named(id): Named<AllocationId>,
    posted: Posted<Nothing>,
) -> Result<Json<AllocationView>> {
    Ok(Json(state.allocations.cancel(&posted.call, id).await?.value.into()))
}

/// Begins the end: keys become read-only, usage is settled, the rest of the escrow comes back, data goes after a grace.
#[utoipa::path(post, path = "/allocations/{id}/close", tag = "allocations", params(("id" = String, Path, description = "Allocation id")),
    request_body = inline(Option<Nothing>), responses((status = 202, body = AllocationView)))]
async fn close_allocation(
    State(state): State<ApiState>,
    Named(id): Named<AllocationId>,
    posted: Posted<Nothing>,
) -> Result<Response> {
    let closing = state.allocations.close(&posted.call, id).await?;
    Ok(accepted(StatusCode::ACCEPTED, AllocationView::from(closing.value)))
}

/// Lets it run longer, at the frozen price.
#[utoipa::path(post, path = "/allocations/{id}/renew", tag = "allocations", params(("id" = String, Path, description = "Allocation id")),
    request_body = Renew, responses((status = 200, body = AllocationView)))]
async fn renew_allocation(
    State(state): State<ApiState>,
    Named(id): Named<AllocationId>,
    posted: Posted<Renew>,
) -> Result<Json<AllocationView>> {
    Ok(Json(state.allocations.renew(&posted.call, id, posted.body.into()).await?.value.into()))
}
