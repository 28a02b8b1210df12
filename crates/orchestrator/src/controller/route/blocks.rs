//! `/blocks`: what was sealed, and how far each block is on its way to finality. Blocks are public to every key; what
//! stopped or could not be sealed is for operators.

use axum::{
    Json,
    extract::{Path, State},
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
    params::{Params, parse_id},
    problem::Result,
    state::ApiState,
    view::{
        attestation::{Attest, AttestationView, AttestedView},
        block::{BlockProofView, BlockView, QuarantinedView, RecordsView, ResumedView, RetriedView},
        common::Nothing,
    },
};
use crate::{core::market::terms::DomainId, service::block::ProofKind};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_blocks))
        .routes(routes!(list_quarantined))
        .routes(routes!(retry_quarantined))
        .routes(routes!(resume))
        .routes(routes!(get_block))
        .routes(routes!(list_records))
        .routes(routes!(block_proof))
        .routes(routes!(attestations, attest))
}

/// Which blocks.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct BlocksQuery {
    /// The settlement domain; the first one of the daemon unless said otherwise.
    domain: Option<String>,
    /// Entries at most, 1 to 1,000.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Blocks of a domain, newest first.
#[utoipa::path(get, path = "/blocks", tag = "blocks", params(BlocksQuery),
    responses((status = 200, body = PageView<BlockView>)))]
async fn list_blocks(
    State(state): State<ApiState>,
    caller: Caller,
    Params(query): Params<BlocksQuery>,
) -> Result<Json<PageView<BlockView>>> {
    let page = PageQuery::new(query.limit, query.cursor);
    let domain = query.domain.map_or_else(|| state.accounts.default_domain(), |it| Ok(DomainId(it)))?;
    Ok(Json(state.blocks.list(&caller.call, &domain, page.request()?).await?.into()))
}

/// One block.
#[utoipa::path(get, path = "/blocks/{domain}/{number}", tag = "blocks",
    params(("domain" = String, Path, description = "Settlement domain"), ("number" = u64, Path, description = "Block number")),
    responses((status = 200, body = BlockView)))]
async fn get_block(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Path((domain, number)): Path<(String, String)>,
) -> Result<Response> {
    let number = parse_id::<u64>(&number)?;
    tagged(&headers, &BlockView::from(state.blocks.get(&caller.call, &DomainId(domain), number).await?))
}

/// Which records.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RecordsQuery {
    /// Number of the first one within the block, from 0.
    from: Option<u32>,
    /// Entries at most, 1 to 1,000.
    limit: Option<u32>,
}

/// The event records of a block in the order of execution: what anyone can rebuild the ledger from.
#[utoipa::path(get, path = "/blocks/{domain}/{number}/records", tag = "blocks",
    params(("domain" = String, Path, description = "Settlement domain"), ("number" = u64, Path, description = "Block number"), RecordsQuery),
    responses((status = 200, body = RecordsView)))]
async fn list_records(
    State(state): State<ApiState>,
    caller: Caller,
    Path((domain, number)): Path<(String, String)>,
    Params(query): Params<RecordsQuery>,
) -> Result<Json<RecordsView>> {
    let limit = PageQuery::new(query.limit, None).limit()?;
    let from = usize::try_from(query.from.unwrap_or(0)).unwrap_or(usize::MAX);
    let number = parse_id::<u64>(&number)?;
    Ok(Json(state.blocks.records(&caller.call, &DomainId(domain), number, from, limit).await?.into()))
}

/// Which proof.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct BlockProofQuery {
    /// `reexecution` unless said otherwise, or `validity`.
    #[param(value_type = Option<String>)]
    kind: Option<ProofKind>,
}

/// The proof that the block follows from its parent. Validity proofs are not supported.
#[utoipa::path(get, path = "/blocks/{domain}/{number}/proof", tag = "blocks",
    params(("domain" = String, Path, description = "Settlement domain"), ("number" = u64, Path, description = "Block number"), BlockProofQuery),
    responses((status = 200, body = BlockProofView)))]
async fn block_proof(
    State(state): State<ApiState>,
    caller: Caller,
    Path((domain, number)): Path<(String, String)>,
    Params(query): Params<BlockProofQuery>,
) -> Result<Json<BlockProofView>> {
    let (domain, number) = (DomainId(domain), parse_id::<u64>(&number)?);
    let kind = query.kind.unwrap_or_default();
    Ok(Json(state.blocks.proof(&caller.call, &domain, number, kind).await?.into()))
}

/// What oracles are asked to sign of the block's evidence before the settlement layer takes it, and who did.
#[utoipa::path(get, path = "/blocks/{domain}/{number}/attestations", tag = "blocks",
    params(("domain" = String, Path, description = "Settlement domain"), ("number" = u64, Path, description = "Block number")),
    responses((status = 200, body = AttestedView)))]
async fn attestations(
    State(state): State<ApiState>,
    caller: Caller,
    Path((domain, number)): Path<(String, String)>,
) -> Result<Json<AttestedView>> {
    let number = parse_id::<u64>(&number)?;
    Ok(Json(state.attestations.attested(&caller.call, &DomainId(domain), number).await?.into()))
}

/// Takes an oracle's signature of the block's evidence; for oracles and operators.
#[utoipa::path(post, path = "/blocks/{domain}/{number}/attestations", tag = "blocks",
    params(("domain" = String, Path, description = "Settlement domain"), ("number" = u64, Path, description = "Block number")),
    request_body = Attest, responses((status = 201, body = AttestationView)))]
async fn attest(
    State(state): State<ApiState>,
    Path((domain, number)): Path<(String, String)>,
    posted: Posted<Attest>,
) -> Result<Response> {
    let number = parse_id::<u64>(&number)?;
    let Posted { call, body } = posted;
    let taken = state.attestations.attest(&call, &DomainId(domain), number, &body.signature).await?;
    Ok(accepted(StatusCode::CREATED, AttestationView::from(taken.value)))
}

/// What no block could carry, by id; for operators.
#[utoipa::path(get, path = "/blocks/quarantine", tag = "blocks", params(BlocksQuery),
    responses((status = 200, body = PageView<QuarantinedView>)))]
async fn list_quarantined(
    State(state): State<ApiState>,
    caller: Caller,
    Params(query): Params<BlocksQuery>,
) -> Result<Json<PageView<QuarantinedView>>> {
    let page = PageQuery::new(query.limit, query.cursor);
    let domain = query.domain.map_or_else(|| state.accounts.default_domain(), |it| Ok(DomainId(it)))?;
    Ok(Json(state.blocks.quarantined(&caller.call, &domain, page.request()?).await?.into()))
}

/// Puts a quarantined item back, to be sealed with what waits for it; for operators.
#[utoipa::path(post, path = "/blocks/quarantine/{id}/retry", tag = "blocks",
    params(("id" = String, Path, description = "Id of the item")),
    request_body = inline(Option<Nothing>), responses((status = 200, body = RetriedView)))]
async fn retry_quarantined(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    posted: Posted<Nothing>,
) -> Result<Json<RetriedView>> {
    Ok(Json(state.blocks.retry(&posted.call, &id).await?.value.into()))
}

/// Lets sealing go on after it had stopped because blocks were refused; for operators.
#[utoipa::path(post, path = "/blocks/{domain}/resume", tag = "blocks",
    params(("domain" = String, Path, description = "Settlement domain")),
    request_body = inline(Option<Nothing>), responses((status = 200, body = ResumedView)))]
async fn resume(
    State(state): State<ApiState>,
    Path(domain): Path<String>,
    posted: Posted<Nothing>,
) -> Result<Json<ResumedView>> {
    Ok(Json(state.blocks.resume(&posted.call, &DomainId(domain)).await?.value.into()))
}
