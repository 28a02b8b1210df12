//! `/credentials` and `/allocations/{id}/credentials`: S3 keys. A secret is in the answer of the POST that makes it, and
//! nowhere else.

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
        allocation::{CredentialView, Issue, IssuedView, Rotate},
        common::Nothing,
    },
};
use crate::core::market::ids::{AllocationId, CredentialId};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_credentials, issue_credential))
        .routes(routes!(get_credential))
        .routes(routes!(rotate_credential))
        .routes(routes!(revoke_credential))
}

/// The allocation's credentials, without secrets.
#[utoipa::path(get, path = "/allocations/{id}/credentials", tag = "credentials",
    params(("id" = String, Path, description = "Allocation id"), PageQuery),
    responses((status = 200, body = PageView<CredentialView>)))]
async fn list_credentials(
    State(state): State<ApiState>,
    caller: Caller,
    Named(id): Named<AllocationId>,
    Params(page): Params<PageQuery>,
) -> Result<Json<PageView<CredentialView>>> {
    Ok(Json(state.credentials.list(&caller.call, id, page.request()?).await?.into()))
}

/// Issues a credential. The secret is shown this once; a replay of the same idempotency key within ten minutes repeats
/// it. While its state is `pending`, because the provider has not taken it within five seconds, the key does not work yet:
/// `GET /credentials/{id}` tells when it does.
#[utoipa::path(post, path = "/allocations/{id}/credentials", tag = "credentials",
    params(("id" = String, Path, description = "Allocation id")),
    request_body = Issue, responses((status = 201, body = IssuedView)))]
async fn issue_credential(
    State(state): State<ApiState>,
    Named(id): Named<AllocationId>,
    posted: Posted<Issue>,
) -> Result<Response> {
    let issued = state.credentials.issue(&posted.call, id, posted.body.into()).await?;
    Ok(accepted(StatusCode::CREATED, IssuedView::from(issued)))
}

/// One credential, without its secret.
#[utoipa::path(get, path = "/credentials/{id}", tag = "credentials", params(("id" = String, Path, description = "Credential id")),
    responses((status = 200, body = CredentialView)))]
async fn get_credential(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(id): Named<CredentialId>,
) -> Result<Response> {
    tagged(&headers, &CredentialView::from(state.credentials.get(&caller.call, id).await?))
}

/// Replaces a credential: the answer is the new one, the old one works until the overlap ends.
#[utoipa::path(post, path = "/credentials/{id}/rotate", tag = "credentials", params(("id" = String, Path, description = "Credential id")),
    request_body = inline(Option<Rotate>), responses((status = 201, body = IssuedView)))]
async fn rotate_credential(
    State(state): State<ApiState>,
    Named(id): Named<CredentialId>,
    posted: Posted<Rotate>,
) -> Result<Response> {
    let issued = state.credentials.rotate(&posted.call, id, posted.body.into()).await?;
    Ok(accepted(StatusCode::CREATED, IssuedView::from(issued)))
}

/// Takes a credential away; it works no more within a second.
#[utoipa::path(post, path = "/credentials/{id}/revoke", tag = "credentials", params(("id" = String, Path, description = "Credential id")),
    request_body = inline(Option<Nothing>), responses((status = 200, body = CredentialView)))]
async fn revoke_credential(
    State(state): State<ApiState>,
    Named(id): Named<CredentialId>,
    posted: Posted<Nothing>,
) -> Result<Json<CredentialView>> {
    Ok(Json(state.credentials.revoke(&posted.call, id).await?.value.into()))
}
