//! `/payouts`: what the daemon pays out on a chain, and what it could not.

use axum::{Json, extract::State};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    caller::Caller,
    page::{PageQuery, PageView},
    params::{Named, Params},
    problem::{Problem, Result},
    state::ApiState,
    view::payout::PayoutView,
};
use crate::{
    core::market::{account::AccountKey, terms::DomainId},
    error::ErrorCode,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_payouts)).routes(routes!(account_payout))
}

/// Which payouts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PayoutsQuery {
    /// The settlement domain; the first one of the daemon unless said otherwise.
    domain: Option<String>,
    /// Only those in this state: `waiting`, `sent`, `paid` or `set_aside`.
    state: Option<String>,
    /// Entries at most, 1 to 1,000.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Payouts of all accounts that ever released money, on a chain where the daemon pays out; for operators. `state=set_aside` shows what
/// could not be paid, and why.
#[utoipa::path(get, path = "/payouts", tag = "money", params(PayoutsQuery),
    responses((status = 200, body = PageView<PayoutView>)))]
async fn list_payouts(
    State(state): State<ApiState>,
    caller: Caller,
    Params(query): Params<PayoutsQuery>,
) -> Result<Json<PageView<PayoutView>>> {
    let states = ["waiting", "sent", "paid", "set_aside"];
    if query.state.as_deref().is_some_and(|state| !states.contains(&state)) {
        let detail = format!("a payout's state is one of {}", states.join(", "));
        return Err(Problem::at(ErrorCode::InvalidParameter, "state", detail));
    }
    let page = PageQuery::new(query.limit, query.cursor).request()?;
    let domain = query.domain.map(DomainId);
    let found = state.payouts.payouts(&caller.call, domain, query.state.as_deref(), page).await?;
    Ok(Json(found.into()))
}

/// How far the payout of what the account has released is; for its owner.
#[utoipa::path(get, path = "/accounts/{id}/payout", tag = "money", params(("id" = String, Path, description = "Account name")),
    responses((status = 200, body = PayoutView)))]
async fn account_payout(
    State(state): State<ApiState>,
    caller: Caller,
    Named(key): Named<AccountKey>,
) -> Result<Json<PayoutView>> {
    Ok(Json(state.payouts.payout(&caller.call, key).await?.into()))
}
