//! `/blocks`: what was sealed, and how far each block is on its way to finality. Blocks are public to every key.

use axum::{
    Json,
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    caller::Caller,
    etag::tagged,
    page::{PageQuery, PageView},
    params::{Params, parse_id},
    problem::Result,
    state::ApiState,
    view::block::BlockView,
};
use crate::core::market::terms::DomainId;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_blocks)).routes(routes!(get_block))
}

/// Which blocks.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct BlocksQuery {
    /// The settlement domain; `local` unless said otherwise.
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
    let domain = query.domain.map_or_else(DomainId::local, DomainId);
    let (blocks, next) = state.blocks.list(&caller.call, &domain, page.limit()?, page.after()?).await?;
    Ok(Json(PageView::new(blocks, next)))
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
