//! `/accounts` and `/disputes`: money, and quarrels about it.

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
    problem::{Problem, Result},
    state::ApiState,
    view::{
        common::Nothing,
        ledger::{
            AccountView, ClaimView, Contest, Decide, DepositView, DisputeView, FundingView, LedgerView,
            MarketProofView, MoveCollateral, MoveMoney, PayingInView, ProofView, TransferView,
        },
    },
};
use crate::{
    core::{
        client::{database::Filter, schema},
        market::{
            account::AccountKey,
            event::Audience,
            ids::{AllocationId, DisputeId, UnitId},
            money::Amount,
            terms::DomainId,
        },
    },
    error::ErrorCode,
    service::{outbox, proof::ProofAt, work::Draft},
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(get_account))
        .routes(routes!(list_transfers))
        .routes(routes!(deposit, paying_in))
        .routes(routes!(funding))
        .routes(routes!(collateral))
        .routes(routes!(withdraw))
        .routes(routes!(account_proof))
        .routes(routes!(unit_proof))
        .routes(routes!(allocation_proof))
        .routes(routes!(claim))
        .routes(routes!(ledger))
        .routes(routes!(open_dispute))
        .routes(routes!(list_disputes))
        .routes(routes!(get_dispute))
        .routes(routes!(decide_dispute))
}

/// An account: `consumer:<id>`, `provider:<id>`, `collateral:<id>`, `escrow:<id>`, `held:<id>`, `fees` or `external`.
#[utoipa::path(get, path = "/accounts/{id}", tag = "money", params(("id" = String, Path, description = "Account name")),
    responses((status = 200, body = AccountView)))]
async fn get_account(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(key): Named<AccountKey>,
) -> Result<Response> {
    tagged(&headers, &AccountView::from(state.accounts.account(&caller.call, key).await?))
}

/// The account's transfers, newest first.
#[utoipa::path(get, path = "/accounts/{id}/transfers", tag = "money",
    params(("id" = String, Path, description = "Account name"), PageQuery),
    responses((status = 200, body = PageView<TransferView>)))]
async fn list_transfers(
    State(state): State<ApiState>,
    caller: Caller,
    Named(key): Named<AccountKey>,
    Params(page): Params<PageQuery>,
) -> Result<Json<PageView<TransferView>>> {
    Ok(Json(state.accounts.transfers(&caller.call, key, page.request()?).await?.into()))
}

/// Deposits money on the local chain, as the chain watcher does elsewhere; for operators.
#[utoipa::path(post, path = "/accounts/{id}/deposits", tag = "money", params(("id" = String, Path, description = "Account name")),
    request_body = MoveMoney, responses((status = 201, body = DepositView)))]
async fn deposit(
    State(state): State<ApiState>,
    Named(key): Named<AccountKey>,
    posted: Posted<MoveMoney>,
) -> Result<Response> {
    let receipt = state.accounts.deposit(&posted.call, key, posted.body.amount.0).await?;
    Ok(accepted(StatusCode::CREATED, DepositView::from(receipt)))
}

/// How much.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PayingInQuery {
    /// How much is to be paid in, in base units; without it only what is on its way is told.
    #[param(value_type = Option<String>)]
    amount: Option<Amount>,
}

/// What the owner signs to pay in on a chain, and which deposits are on their way.
#[utoipa::path(get, path = "/accounts/{id}/deposits", tag = "money",
    params(("id" = String, Path, description = "`consumer:<id>` or `provider:<id>`"), PayingInQuery),
    responses((status = 200, body = PayingInView)))]
async fn paying_in(
    State(state): State<ApiState>,
    caller: Caller,
    Named(key): Named<AccountKey>,
    Params(query): Params<PayingInQuery>,
) -> Result<Json<PayingInView>> {
    let amount = query.amount.unwrap_or(Amount::ZERO);
    Ok(Json(state.accounts.paying_in(&caller.call, key, amount).await?.into()))
}

/// What funding the allocation takes, and what its consumer signs when money is missing.
#[utoipa::path(get, path = "/allocations/{id}/funding", tag = "allocations",
    params(("id" = String, Path, description = "Allocation id")), responses((status = 200, body = FundingView)))]
async fn funding(
    State(state): State<ApiState>,
    caller: Caller,
    Named(id): Named<AllocationId>,
) -> Result<Json<FundingView>> {
    Ok(Json(state.accounts.funding(&caller.call, id).await?.into()))
}

/// Posts a provider's collateral out of its earnings, or takes it back.
#[utoipa::path(post, path = "/accounts/{id}/collateral", tag = "money",
    params(("id" = String, Path, description = "`provider:<id>`")),
    request_body = MoveCollateral, responses((status = 201, body = TransferView)))]
async fn collateral(
    State(state): State<ApiState>,
    Named(key): Named<AccountKey>,
    posted: Posted<MoveCollateral>,
) -> Result<Response> {
    let (AccountKey::Provider(provider) | AccountKey::Collateral(provider)) = key else {
        return Err(Problem::at(
            ErrorCode::InvalidField,
            "account",
            "collateral is a provider's: `provider:<id>`",
        ));
    };
    let Posted { call, body } = posted;
    let moved = if body.release {
        state.accounts.release_collateral(&call, provider, body.amount.0).await?
    } else {
        state.accounts.post_collateral(&call, provider, body.amount.0).await?
    };
    Ok(accepted(StatusCode::CREATED, TransferView::from(moved.value)))
}

/// Releases money for withdrawal: the next settled block lets its owner pull it from the chain.
#[utoipa::path(post, path = "/accounts/{id}/withdrawals", tag = "money", params(("id" = String, Path, description = "Account name")),
    request_body = MoveMoney, responses((status = 201, body = TransferView)))]
async fn withdraw(
    State(state): State<ApiState>,
    Named(key): Named<AccountKey>,
    posted: Posted<MoveMoney>,
) -> Result<Response> {
    let moved = state.accounts.withdraw(&posted.call, key, posted.body.amount.0).await?;
    Ok(accepted(StatusCode::CREATED, TransferView::from(moved.value)))
}

/// Which state a proof is of.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ProofQuery {
    /// `final` unless said otherwise, or `sealed`.
    #[param(value_type = Option<String>)]
    at: Option<ProofAt>,
}

/// The inclusion proof of the account in the last final block: what it held, and the hashes that lead to the state root.
#[utoipa::path(get, path = "/accounts/{id}/proof", tag = "money",
    params(("id" = String, Path, description = "Account name"), ProofQuery),
    responses((status = 200, body = ProofView)))]
async fn account_proof(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(key): Named<AccountKey>,
    Params(query): Params<ProofQuery>,
) -> Result<Response> {
    let proved = state.proofs.account_proof(&caller.call, key, query.at.unwrap_or_default()).await?;
    tagged(&headers, &ProofView::from(proved))
}

/// The inclusion proof of the unit's terms in the last final block.
#[utoipa::path(get, path = "/units/{id}/proof", tag = "units",
    params(("id" = String, Path, description = "Unit id"), ProofQuery),
    responses((status = 200, body = MarketProofView)))]
async fn unit_proof(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(id): Named<UnitId>,
    Params(query): Params<ProofQuery>,
) -> Result<Response> {
    let proved = state.proofs.unit_proof(&caller.call, id, query.at.unwrap_or_default()).await?;
    tagged(&headers, &MarketProofView::from(proved))
}

/// The inclusion proof of the allocation's frozen terms and its state in the last final block.
#[utoipa::path(get, path = "/allocations/{id}/proof", tag = "allocations",
    params(("id" = String, Path, description = "Allocation id"), ProofQuery),
    responses((status = 200, body = MarketProofView)))]
async fn allocation_proof(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(id): Named<AllocationId>,
    Params(query): Params<ProofQuery>,
) -> Result<Response> {
    let proved = state.proofs.allocation_proof(&caller.call, id, query.at.unwrap_or_default()).await?;
    tagged(&headers, &MarketProofView::from(proved))
}

/// Pulls what was released for withdrawal from the settlement layer, by the inclusion proof of a final block. On a chain where the
/// daemon pays out it asks for that, also when the payout was set aside before.
#[utoipa::path(post, path = "/accounts/{id}/claims", tag = "money", params(("id" = String, Path, description = "Account name")),
    request_body = inline(Option<Nothing>), responses((status = 200, body = ClaimView)))]
async fn claim(
    State(state): State<ApiState>,
    Named(key): Named<AccountKey>,
    posted: Posted<Nothing>,
) -> Result<Json<ClaimView>> {
    let (work, tenants) = (&state.work, vec![posted.call.principal.tenant()]);
    // What the layer pays is cumulative, so that a claim that is computed twice pays once.
    let pull = || async {
        let (mut receipt, domain) = state.proofs.claim(&posted.call, key).await?;
        let mut changes = state.payouts.ask(&mut receipt, &domain).await?;
        let data = serde_json::json!({ "paid": receipt.paid, "block": receipt.claim.block });
        let audience = Audience::Tenants(tenants.clone());
        outbox::event(&mut changes, &work.ids, "account.claimed", key, audience, data);
        Ok(Draft::new(changes, receipt))
    };
    Ok(Json(work.run(&posted.call, "account.claim", pull).await?.value.into()))
}

/// The sum over all accounts, which is zero, and what waits for the next block; for operators.
#[utoipa::path(get, path = "/ledger", tag = "money", params(LedgerQuery), responses((status = 200, body = LedgerView)))]
async fn ledger(
    State(state): State<ApiState>,
    caller: Caller,
    Params(query): Params<LedgerQuery>,
) -> Result<Json<LedgerView>> {
    let domain = query.domain.map_or_else(|| state.accounts.default_domain(), |it| Ok(DomainId(it)))?;
    let audit = state.accounts.audit(&caller.call, &domain).await?;
    let waiting = Filter::eq("domain", domain.as_str());
    let unsealed = state.work.reader.count(schema::UNSEALED, waiting).await?;
    Ok(Json(LedgerView::new(audit, unsealed)))
}

/// Which ledger.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LedgerQuery {
    /// The settlement domain; the first one of the daemon unless said otherwise.
    domain: Option<String>,
}

/// Opens a dispute about the allocation; for its consumer and its provider.
#[utoipa::path(post, path = "/allocations/{id}/dispute", tag = "money", params(("id" = String, Path, description = "Allocation id")),
    request_body = Contest, responses((status = 201, body = DisputeView)))]
async fn open_dispute(
    State(state): State<ApiState>,
    Named(id): Named<AllocationId>,
    posted: Posted<Contest>,
) -> Result<Response> {
    let opened = state.disputes.open(&posted.call, posted.body.about(id)).await?;
    Ok(accepted(StatusCode::CREATED, DisputeView::from(opened.value)))
}

/// Which disputes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DisputesQuery {
    /// Only those about this allocation.
    #[param(value_type = Option<String>)]
    allocation: Option<AllocationId>,
    /// Entries at most, 1 to 1,000.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Disputes: one's own, or all for operators.
#[utoipa::path(get, path = "/disputes", tag = "money", params(DisputesQuery),
    responses((status = 200, body = PageView<DisputeView>)))]
async fn list_disputes(
    State(state): State<ApiState>,
    caller: Caller,
    Params(query): Params<DisputesQuery>,
) -> Result<Json<PageView<DisputeView>>> {
    let page = PageQuery::new(query.limit, query.cursor);
    Ok(Json(state.disputes.list(&caller.call, query.allocation, page.request()?).await?.into()))
}

/// One dispute.
#[utoipa::path(get, path = "/disputes/{id}", tag = "money", params(("id" = String, Path, description = "Dispute id")),
    responses((status = 200, body = DisputeView)))]
async fn get_dispute(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(id): Named<DisputeId>,
) -> Result<Response> {
    tagged(&headers, &DisputeView::from(state.disputes.get(&caller.call, id).await?))
}

/// Decides a dispute; for operators.
#[utoipa::path(post, path = "/disputes/{id}/decide", tag = "money", params(("id" = String, Path, description = "Dispute id")),
    request_body = Decide, responses((status = 200, body = DisputeView)))]
async fn decide_dispute(
    State(state): State<ApiState>,
    Named(id): Named<DisputeId>,
    posted: Posted<Decide>,
) -> Result<Json<DisputeView>> {
    let Posted { call, body } = posted;
    Ok(Json(state.disputes.decide(&call, id, body.decision, &body.reason).await?.value.into()))
}
