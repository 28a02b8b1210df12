//! `/units`: data units, their terms and their lifecycle.

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
        common::Nothing,
        terms::SlaView,
        unit::{AnnounceMaintenance, BeginMaintenance, RegisterUnit, SetPrice, UnitView},
    },
};
use crate::{
    core::market::{
        ids::{ProviderId, UnitId},
        unit::UnitMode,
    },
    service::market::{MaintenanceRequest, TermsUpdate, UnitQuery},
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_units, register_unit))
        .routes(routes!(get_unit))
        .routes(routes!(set_price))
        .routes(routes!(set_sla))
        .routes(routes!(announce_maintenance))
        .routes(routes!(begin_maintenance))
        .routes(routes!(end_maintenance))
        .routes(routes!(decommission_unit))
}

/// Which units.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UnitsQuery {
    /// Only this provider's.
    #[param(value_type = Option<String>)]
    provider: Option<ProviderId>,
    /// Only in this mode: `open`, `maintenance`, `decommissioning` or `decommissioned`.
    #[param(value_type = Option<String>)]
    mode: Option<UnitMode>,
    /// Entries at most, 1 to 1,000.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Units by id.
#[utoipa::path(get, path = "/units", tag = "units", params(UnitsQuery),
    responses((status = 200, body = PageView<UnitView>)))]
async fn list_units(
    State(state): State<ApiState>,
    caller: Caller,
    Params(query): Params<UnitsQuery>,
) -> Result<Json<PageView<UnitView>>> {
    let page = PageQuery::new(query.limit, query.cursor).request()?;
    let query = UnitQuery { provider: query.provider, mode: query.mode };
    Ok(Json(state.market.units(&caller.call, query, page).await?.into()))
}

/// Registers a unit; for its provider.
#[utoipa::path(post, path = "/units", tag = "units", request_body = RegisterUnit,
    responses((status = 201, body = UnitView)))]
async fn register_unit(State(state): State<ApiState>, posted: Posted<RegisterUnit>) -> Result<Response> {
    let made = state.market.register_unit(&posted.call, posted.body.into()).await?;
    Ok(accepted(StatusCode::CREATED, UnitView::from(made.value)))
}

/// One unit.
#[utoipa::path(get, path = "/units/{id}", tag = "units", params(("id" = String, Path, description = "Unit id")),
    responses((status = 200, body = UnitView)))]
async fn get_unit(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(id): Named<UnitId>,
) -> Result<Response> {
    tagged(&headers, &UnitView::from(state.market.unit(&caller.call, id).await?))
}

/// Sets the price of reservations from now on; for the unit's provider.
#[utoipa::path(post, path = "/units/{id}/price", tag = "units", params(("id" = String, Path, description = "Unit id")),
    request_body = SetPrice, responses((status = 200, body = UnitView)))]
async fn set_price(
    State(state): State<ApiState>,
    Named(id): Named<UnitId>,
    posted: Posted<SetPrice>,
) -> Result<Json<UnitView>> {
    Ok(Json(state.market.update_terms(&posted.call, id, posted.body.into()).await?.value.into()))
}

/// Sets the promise of reservations from now on; for the unit's provider.
#[utoipa::path(post, path = "/units/{id}/sla", tag = "units", params(("id" = String, Path, description = "Unit id")),
    request_body = SlaView, responses((status = 200, body = UnitView)))]
async fn set_sla(
    State(state): State<ApiState>,
    Named(id): Named<UnitId>,
    posted: Posted<SlaView>,
) -> Result<Json<UnitView>> {
    let update = TermsUpdate { sla: Some(posted.body.into()), ..TermsUpdate::default() };
    Ok(Json(state.market.update_terms(&posted.call, id, update).await?.value.into()))
}

/// Announces a maintenance window; for the unit's provider.
#[utoipa::path(post, path = "/units/{id}/maintenance", tag = "units", params(("id" = String, Path, description = "Unit id")),
    request_body = AnnounceMaintenance, responses((status = 200, body = UnitView)))]
async fn announce_maintenance(
    State(state): State<ApiState>,
    Named(id): Named<UnitId>,
    posted: Posted<AnnounceMaintenance>,
) -> Result<Json<UnitView>> {
    let window = MaintenanceRequest { from: posted.body.from.0, to: posted.body.to.0 };
    Ok(Json(state.market.announce_maintenance(&posted.call, id, window).await?.value.into()))
}

/// Begins maintenance now: no new reservations.
#[utoipa::path(post, path = "/units/{id}/maintenance/begin", tag = "units", params(("id" = String, Path, description = "Unit id")),
    request_body = BeginMaintenance, responses((status = 200, body = UnitView)))]
async fn begin_maintenance(
    State(state): State<ApiState>,
    Named(id): Named<UnitId>,
    posted: Posted<BeginMaintenance>,
) -> Result<Json<UnitView>> {
    Ok(Json(state.market.begin_maintenance(&posted.call, id, posted.body.until.0).await?.value.into()))
}

/// Ends maintenance now.
#[utoipa::path(post, path = "/units/{id}/maintenance/end", tag = "units", params(("id" = String, Path, description = "Unit id")),
    request_body = inline(Option<Nothing>), responses((status = 200, body = UnitView)))]
async fn end_maintenance(
    State(state): State<ApiState>,
    Named(id): Named<UnitId>,
    posted: Posted<Nothing>,
) -> Result<Json<UnitView>> {
    Ok(Json(state.market.end_maintenance(&posted.call, id).await?.value.into()))
}

/// Takes the unit out: no new reservations, and it is gone when the last allocation is.
#[utoipa::path(post, path = "/units/{id}/decommission", tag = "units", params(("id" = String, Path, description = "Unit id")),
    request_body = inline(Option<Nothing>), responses((status = 202, body = UnitView)))]
async fn decommission_unit(
    State(state): State<ApiState>,
    Named(id): Named<UnitId>,
    posted: Posted<Nothing>,
) -> Result<Response> {
    let unit = state.market.decommission(&posted.call, id).await?;
    Ok(accepted(StatusCode::ACCEPTED, UnitView::from(unit.value)))
}
