//! `/market/offerings`, and what is behind a unit's place in it: `/units/{id}/score` and `/units/{id}/prices`, and
//! `/providers/{id}/score`.

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    caller::Caller,
    etag::tagged,
    page::{PageQuery, PageView},
    params::{Named, Params},
    problem::{Problem, Result},
    state::ApiState,
    view::{
        common::{Millis, Money},
        offering::{FilterView, OfferingsView, PriceChangeView, ProviderStandingView, StandingView},
    },
};
use crate::{
    core::market::{
        ids::{ProviderId, UnitId},
        offering::OfferingFilter,
    },
    error::ErrorCode,
    service::scoring::OfferingSort,
};

/// Offerings per page when no limit is named, and at most.
const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 100;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_offerings))
        .routes(routes!(unit_score))
        .routes(routes!(provider_score))
        .routes(routes!(unit_prices))
}

/// What is looked for. Units of the numbers are in their names.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OfferingsQuery {
    /// Kind of unit; `storage` unless said otherwise.
    kind: Option<String>,
    /// Compatibility profile.
    profile: Option<String>,
    /// Region.
    region: Option<String>,
    /// Country, ISO 3166-1 alpha-2.
    country: Option<String>,
    /// Free bytes, at least.
    min_free_bytes: Option<u64>,
    /// Price per GiB-month, at most.
    #[param(value_type = Option<String>)]
    max_price: Option<Money>,
    /// Promised mean latency, at most.
    #[param(value_type = Option<u64>)]
    max_latency_ms: Option<Millis>,
    /// Promised uptime, at least.
    min_uptime_ppm: Option<u32>,
    /// Promised upload, at least.
    min_upload_bytes_per_s: Option<u64>,
    /// Promised download, at least.
    min_download_bytes_per_s: Option<u64>,
    /// Must keep versions.
    versioning: Option<bool>,
    /// Must encrypt at rest.
    encryption_at_rest: Option<bool>,
    /// Must lock objects.
    object_lock: Option<bool>,
    /// `score` unless said otherwise, `price`, `latency`, `uptime` or `free`.
    #[param(value_type = Option<String>)]
    sort: Option<OfferingSort>,
    /// Offerings at most, 1 to 100; 20 unless said otherwise.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

impl OfferingsQuery {
    fn filter(self) -> OfferingFilter {
        FilterView {
            kind: self.kind,
            profile: self.profile,
            region: self.region,
            country: self.country,
            min_free_bytes: self.min_free_bytes,
            max_price: self.max_price,
            max_latency_ms: self.max_latency_ms,
            min_uptime_ppm: self.min_uptime_ppm,
            min_upload_bytes_per_s: self.min_upload_bytes_per_s,
            min_download_bytes_per_s: self.min_download_bytes_per_s,
            versioning: self.versioning,
            encryption_at_rest: self.encryption_at_rest,
            object_lock: self.object_lock,
        }
        .into()
    }
}

/// Offerings that match, ranked, with what each filter removed. At most a second behind; a reservation checks again.
#[utoipa::path(get, path = "/market/offerings", tag = "market", params(OfferingsQuery),
    responses((status = 200, body = OfferingsView)))]
async fn list_offerings(
    State(state): State<ApiState>,
    caller: Caller,
    Params(mut query): Params<OfferingsQuery>,
) -> Result<Json<OfferingsView>> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::at(ErrorCode::InvalidParameter, "limit", "a limit is 1 to 100"));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (sort, cursor) = (query.sort.take().unwrap_or_default(), query.cursor.take());
    if cursor.as_ref().is_some_and(|text| text.parse::<u32>().is_err()) {
        return Err(Problem::at(
            ErrorCode::InvalidParameter,
            "cursor",
            "a cursor is `next` of an earlier page",
        ));
    }
    let filter = query.filter();
    let page = state.offerings.list(&caller.call, &filter, limit, cursor.as_deref(), sort).await?;
    Ok(Json(OfferingsView::from(page.as_ref())))
}

/// The unit's reputation, day by day, and its ranking score, both with their reasons. At most a second behind.
#[utoipa::path(get, path = "/units/{id}/score", tag = "market", params(("id" = String, Path, description = "Unit id")),
    responses((status = 200, body = StandingView)))]
async fn unit_score(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(id): Named<UnitId>,
) -> Result<Response> {
    let reputation = state.reputations.of_unit(&caller.call, id).await?;
    let offering = match state.offerings.explain(&caller.call, id).await {
        Ok(offering) => Some(offering),
        Err(error) if error.code == ErrorCode::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    tagged(&headers, &StandingView::new(reputation, offering))
}

/// The provider's reputation: the mean over its units. At most a second behind.
#[utoipa::path(get, path = "/providers/{id}/score", tag = "market", params(("id" = String, Path, description = "Provider id")),
    responses((status = 200, body = ProviderStandingView)))]
async fn provider_score(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(id): Named<ProviderId>,
) -> Result<Response> {
    tagged(&headers, &ProviderStandingView::from(state.reputations.of_provider(&caller.call, id).await?))
}

/// Changes of the unit's price by an advisor, latest first.
#[utoipa::path(get, path = "/units/{id}/prices", tag = "market", params(("id" = String, Path, description = "Unit id"), PageQuery),
    responses((status = 200, body = PageView<PriceChangeView>)))]
async fn unit_prices(
    State(state): State<ApiState>,
    caller: Caller,
    Named(id): Named<UnitId>,
    Params(page): Params<PageQuery>,
) -> Result<Json<PageView<PriceChangeView>>> {
    Ok(Json(state.pricing.history(&caller.call, id, page.request()?).await?.into()))
}
