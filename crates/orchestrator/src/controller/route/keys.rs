//! `/keys`, `/me` and `/audit`.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    caller::{Caller, Posted},
    etag::accepted,
    page::{PageQuery, PageView},
    params::{Named, Params},
    problem::{Problem, Result},
    state::ApiState,
    view::{
        access::{AuditView, CreateKey, KeyView, MeView, NewKeyView},
        common::Nothing,
    },
};
use crate::{
    core::market::{
        ids::{ConsumerId, Id, KeyId, OperatorId, OracleId, ProviderId},
        party::Principal,
    },
    error::ErrorCode,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(me))
        .routes(routes!(list_keys, create_key))
        .routes(routes!(revoke_key))
        .routes(routes!(list_audit))
}

/// Who the key lets in.
#[utoipa::path(get, path = "/me", tag = "access", responses((status = 200, body = MeView)))]
async fn me(caller: Caller) -> Json<MeView> {
    Json(MeView { key: caller.key.to_string(), principal: caller.call.principal.into() })
}

/// API keys, newest first: every one for operators, the tenant's own for the others.
#[utoipa::path(get, path = "/keys", tag = "access", params(PageQuery),
    responses((status = 200, body = PageView<KeyView>)))]
async fn list_keys(
    State(state): State<ApiState>,
    caller: Caller,
    Params(page): Params<PageQuery>,
) -> Result<Json<PageView<KeyView>>> {
    Ok(Json(state.keys.list(&caller.call, page.request()?).await?.into()))
}

/// Makes a key. Its text is shown this once; a replay of the same idempotency key answers `secret_gone`.
#[utoipa::path(post, path = "/keys", tag = "access", request_body = CreateKey,
    responses((status = 201, body = NewKeyView)))]
async fn create_key(State(state): State<ApiState>, posted: Posted<CreateKey>) -> Result<Response> {
    let Posted { call, body } = posted;
    let principal = match body.tenant.as_deref() {
        None => call.principal,
        Some("operator") => Principal::Operator(state.work.ids.next()),
        Some(text) => tenant(text)?,
    };
    if body.role.is_some_and(|role| role != principal.role()) {
        return Err(Problem::at(ErrorCode::InvalidField, "role", "this is not the role of the tenant"));
    }
    let made = state.keys.create(&call, principal, &body.label).await?;
    Ok(accepted(StatusCode::CREATED, NewKeyView { key: made.key.into(), text: made.text }))
}

/// Takes a key away. It stops to work at once here, and within seconds on other replicas.
#[utoipa::path(post, path = "/keys/{id}/revoke", tag = "access", params(("id" = String, Path, description = "Key id")),
    request_body = inline(Option<Nothing>), responses((status = 200, body = KeyView)))]
async fn revoke_key(
    State(state): State<ApiState>,
    Named(id): Named<KeyId>,
    posted: Posted<Nothing>,
) -> Result<Json<KeyView>> {
    Ok(Json(state.keys.revoke(&posted.call, id).await?.into()))
}

/// Which entries of the audit log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Only those about this id.
    subject: Option<String>,
    /// Entries at most, 1 to 1,000.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Who did what, newest first; for operators.
#[utoipa::path(get, path = "/audit", tag = "access", params(AuditQuery),
    responses((status = 200, body = PageView<AuditView>)))]
async fn list_audit(
    State(state): State<ApiState>,
    caller: Caller,
    Params(query): Params<AuditQuery>,
) -> Result<Json<PageView<AuditView>>> {
    let page = PageQuery::new(query.limit, query.cursor);
    Ok(Json(state.audit.list(&caller.call, query.subject, page.request()?).await?.into()))
}

/// The principal behind a tenant's id; the prefix says of which kind it is.
fn tenant(text: &str) -> Result<Principal> {
    let parsed = match text.split('_').next() {
        Some(OperatorId::PREFIX) => text.parse().ok().map(Principal::Operator),
        Some(ProviderId::PREFIX) => text.parse().ok().map(Principal::Provider),
        Some(ConsumerId::PREFIX) => text.parse().ok().map(Principal::Consumer),
        Some(OracleId::PREFIX) => text.parse().ok().map(Principal::Oracle),
        _ => None,
    };
    parsed.ok_or_else(|| {
        Problem::at(
            ErrorCode::InvalidField,
            "tenant",
            "a tenant is the id of a provider, consumer, oracle or operator, or `operator` for a new one",
        )
    })
}
