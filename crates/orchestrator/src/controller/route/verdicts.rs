//! `/evidence`, `/units/{id}/qos` and verdicts: what was seen, and what it came to.

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
        common::Time,
        sla::{QosView, ReceiptView, VerdictProofView, VerdictView},
    },
};
use crate::core::market::{
    evidence::EvidenceReport,
    ids::{AllocationId, UnitId, VerdictId},
    quantity::Micros,
};

/// The span of a history when none is named.
const DEFAULT_SPAN: Micros = Micros::from_days(1);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(submit_evidence))
        .routes(routes!(unit_qos))
        .routes(routes!(unit_verdicts))
        .routes(routes!(allocation_verdicts))
        .routes(routes!(get_verdict))
        .routes(routes!(verdict_proof))
        .routes(routes!(verdict_bundle))
}

/// Takes a signed report of an oracle. The statement is in the canonical form that is signed: instants are integers of
/// microseconds since the epoch.
#[utoipa::path(post, path = "/evidence", tag = "sla", request_body(content = Object, content_type = "application/json",
    description = "`{\"statement\": {version, oracle, key_id, subject, from, to, nonce, body}, \"signature\": hex}`; signed is \
        the line `orchestrator.evidence.v1` followed by the statement as compact JSON with sorted keys, in ASCII",
    example = json!({
        "statement": {
            "version": 1, "oracle": "orcl_01890a5d96e27e3bbd1a2f3c4d5e6f70", "key_id": "k1",
            "subject": {"unit": "unit_01890a5d96e27e3bbd1a2f3c4d5e6f70"},
            "from": 1_790_000_000_000_000_u64, "to": 1_790_000_060_000_000_u64, "nonce": 1,
            "body": {"type": "qos", "operations": {"get": {
                "attempts": 10, "failures": {"timeout": 1}, "latency_sum_us": 0, "latency": {},
                "bulk_bytes": 0, "bulk_us": 0
            }}}
        },
        "signature": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
    })),
    responses((status = 201, body = ReceiptView)))]
async fn submit_evidence(State(state): State<ApiState>, posted: Posted<EvidenceReport>) -> Result<Response> {
    let receipt = state.evidence.submit(&posted.call, posted.body).await?;
    Ok(accepted(StatusCode::CREATED, ReceiptView::from(receipt.value)))
}

/// Which part of a history.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct QosQuery {
    /// First instant; a day before `to` unless said otherwise.
    from: Option<Time>,
    /// First instant after it; now unless said otherwise.
    to: Option<Time>,
    /// Buckets at most, 1 to 1,000. Go on with `from` after the last one's start.
    limit: Option<u32>,
}

/// What oracles saw of the unit, oldest first; open to everybody with a key. Without `from` and `to` the last day, at most a
/// second behind.
#[utoipa::path(get, path = "/units/{id}/qos", tag = "sla", params(("id" = String, Path, description = "Unit id"), QosQuery),
    responses((status = 200, body = PageView<QosView>)))]
async fn unit_qos(
    State(state): State<ApiState>,
    caller: Caller,
    Named(id): Named<UnitId>,
    Params(query): Params<QosQuery>,
) -> Result<Json<PageView<QosView>>> {
    let limit = PageQuery::new(query.limit, None).limit()?;
    let buckets = if query.from.is_none() && query.to.is_none() {
        state.evidence.recent_qos(&caller.call, id, DEFAULT_SPAN, limit).await?
    } else {
        let to = query.to.map_or_else(|| state.work.now(), |to| to.0);
        let from = query.from.map_or_else(|| to.minus(DEFAULT_SPAN), |from| from.0);
        state.evidence.qos_history(&caller.call, id, from, to, limit).await?
    };
    Ok(Json(PageView::new(buckets, None)))
}

/// Verdicts on the unit; for its provider.
#[utoipa::path(get, path = "/units/{id}/verdicts", tag = "sla", params(("id" = String, Path, description = "Unit id"), PageQuery),
    responses((status = 200, body = PageView<VerdictView>)))]
async fn unit_verdicts(
    State(state): State<ApiState>,
    caller: Caller,
    Named(id): Named<UnitId>,
    Params(page): Params<PageQuery>,
) -> Result<Json<PageView<VerdictView>>> {
    Ok(Json(state.sla.of_unit(&caller.call, id, page.request()?).await?.into()))
}

/// Verdicts on the allocation's billing periods; for its consumer and its provider.
#[utoipa::path(get, path = "/allocations/{id}/verdicts", tag = "sla",
    params(("id" = String, Path, description = "Allocation id"), PageQuery),
    responses((status = 200, body = PageView<VerdictView>)))]
async fn allocation_verdicts(
    State(state): State<ApiState>,
    caller: Caller,
    Named(id): Named<AllocationId>,
    Params(page): Params<PageQuery>,
) -> Result<Json<PageView<VerdictView>>> {
    Ok(Json(state.sla.of_allocation(&caller.call, id, page.request()?).await?.into()))
}

/// One verdict.
#[utoipa::path(get, path = "/verdicts/{id}", tag = "sla", params(("id" = String, Path, description = "Verdict id")),
    responses((status = 200, body = VerdictView)))]
async fn get_verdict(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(id): Named<VerdictId>,
) -> Result<Response> {
    tagged(&headers, &VerdictView::from(state.sla.get(&caller.call, id).await?))
}

/// The verdict with its evidence, judged again.
#[utoipa::path(get, path = "/verdicts/{id}/proof", tag = "sla", params(("id" = String, Path, description = "Verdict id")),
    responses((status = 200, body = VerdictProofView)))]
async fn verdict_proof(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(id): Named<VerdictId>,
) -> Result<Response> {
    tagged(&headers, &VerdictProofView::from(state.sla.proof(&caller.call, id).await?))
}

/// How a verdict's record on the chain names it: 32 lower-case hex digits.
struct RecordSubject([u8; 16]);

impl std::str::FromStr for RecordSubject {
    type Err = ();
    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ())?;
        // One spelling only: a mirror has one file for each.
        if hex::encode(bytes) == text { Ok(Self(bytes)) } else { Err(()) }
    }
}

/// Everything that anybody needs to check the verdict with this record on the chain, and the credit that follows from it:
/// what the record's subject is the hash of, the parties' addresses, the allocation's terms, and the evidence. Open to
/// everybody, as the chain is: it has no secrets, and who can't read it can't check anything. `orchestrator verify
/// --evidence` reads it here or from a mirror, which is any web server that has the answers as files `evidence/<subject>`.
#[utoipa::path(get, path = "/evidence/{subject}", tag = "sla", security(()),
    params(("subject" = String, Path, description = "Subject of the verdict's record, 32 hex digits")),
    responses((status = 200, body = Object, content_type = "application/json",
        description = "`{version, domain, unit, period_key, payment, allocation: {consumer_owner, provider_owner, terms, earlier}, \
            file: {window, provider, terms, rules, reputation, evidence}}`; instants and durations are integers of microseconds")))]
async fn verdict_bundle(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Named(RecordSubject(subject)): Named<RecordSubject>,
) -> Result<Response> {
    let place = state.large().place()?;
    place.send(tagged(&headers, &state.sla.bundle(&subject).await?)?).await
}
