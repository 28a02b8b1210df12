//! `/proofs`: one inclusion proof of several accounts, as a batch of claims on a chain needs it.

use axum::{extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    caller::Caller,
    etag::tagged,
    params::Params,
    problem::{Problem, Result},
    state::ApiState,
    view::ledger::ProofsView,
};
use crate::{core::market::account::AccountKey, error::ErrorCode, service::proof::ProofAt};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(accounts_proof))
}

/// Which accounts, in which state.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ProofsQuery {
    /// Account names with commas between them, 1 to 1,000 of one settlement domain.
    #[param(example = "consumer:cons_…,provider:prov_…")]
    accounts: String,
    /// `final` unless said otherwise, or `sealed`.
    #[param(value_type = Option<String>)]
    at: Option<ProofAt>,
}

/// One inclusion proof of several accounts in the last final block; hashes that their ways to the state root share are there
/// once.
#[utoipa::path(get, path = "/proofs", tag = "money", params(ProofsQuery), responses((status = 200, body = ProofsView)))]
async fn accounts_proof(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Params(query): Params<ProofsQuery>,
) -> Result<Response> {
    let wrong = |error: crate::core::market::account::InvalidAccount| {
        Problem::at(ErrorCode::InvalidField, "accounts", error.to_string())
    };
    let names = query.accounts.split(',').filter(|name| !name.is_empty());
    let accounts = names.map(|name| name.parse::<AccountKey>().map_err(wrong)).collect::<Result<Vec<_>>>()?;
    let proved = state.proofs.accounts_proof(&caller.call, &accounts, query.at.unwrap_or_default()).await?;
    tagged(&headers, &ProofsView::from(proved))
}
