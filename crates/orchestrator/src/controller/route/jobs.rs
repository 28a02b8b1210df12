//! `/jobs` and `/triggers`: what the daemon does in the background; for operators.

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    caller::{Caller, Posted},
    etag::tagged,
    page::{PageQuery, PageView},
    params::{Named, Params},
    problem::Result,
    state::ApiState,
    view::{
        common::Nothing,
        job::{CountsView, DeadLettersView, JobView, RedriveBody, RedrivenView, ReportView, TriggerView},
    },
};
use crate::{
    core::{
        client::database::Changeset,
        job::{JobKind, JobState},
        market::{event::Audience, ids::JobId},
    },
    service::{job::admin::JobFilter, outbox, work::Draft},
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_jobs))
        .routes(routes!(count_jobs))
        .routes(routes!(count_dead_letters))
        .routes(routes!(redrive))
        .routes(routes!(get_job))
        .routes(routes!(retry_job))
        .routes(routes!(verify_job))
        .routes(routes!(cancel_job))
        .routes(routes!(list_triggers))
        .routes(routes!(fire_trigger))
}

/// Which jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct JobsQuery {
    /// Of this kind.
    #[param(value_type = Option<String>)]
    kind: Option<JobKind>,
    /// In this state.
    #[param(value_type = Option<String>)]
    state: Option<JobState>,
    /// About this id.
    subject: Option<String>,
    /// Entries at most, 1 to 1,000.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Jobs, newest first.
#[utoipa::path(get, path = "/jobs", tag = "jobs", params(JobsQuery),
    responses((status = 200, body = PageView<JobView>)))]
async fn list_jobs(
    State(state): State<ApiState>,
    caller: Caller,
    Params(query): Params<JobsQuery>,
) -> Result<Json<PageView<JobView>>> {
    let page = PageQuery::new(query.limit, query.cursor);
    let filter = JobFilter { kind: query.kind, state: query.state, subject: query.subject };
    Ok(Json(state.jobs.list(&caller.call, filter, page.request()?).await?.into()))
}

/// How many jobs there are, by state and kind.
#[utoipa::path(get, path = "/jobs/counts", tag = "jobs", responses((status = 200, body = CountsView)))]
async fn count_jobs(State(state): State<ApiState>, caller: Caller) -> Result<Json<CountsView>> {
    Ok(Json(state.jobs.counts(&caller.call).await?.into()))
}

/// How many dead letters wait, and how much was set aside because it could not be read.
#[utoipa::path(get, path = "/jobs/dead-letters", tag = "jobs", responses((status = 200, body = DeadLettersView)))]
async fn count_dead_letters(State(state): State<ApiState>, caller: Caller) -> Result<Json<DeadLettersView>> {
    Ok(Json(state.jobs.dead_letters(&caller.call).await?.into()))
}

/// Gives the jobs behind dead letters their attempts back, in one go; jobs that are no longer failed are left alone.
#[utoipa::path(post, path = "/jobs/dead-letters/redrive", tag = "jobs",
    request_body = inline(Option<RedriveBody>), responses((status = 200, body = RedrivenView)))]
async fn redrive(State(state): State<ApiState>, posted: Posted<RedriveBody>) -> Result<Json<RedrivenView>> {
    let max = usize::try_from(posted.body.max).unwrap_or(usize::MAX);
    Ok(Json(state.jobs.redrive(&posted.call, max).await?.into()))
}

/// One job.
#[utoipa::path(get, path = "/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "Job id")),
    responses((status = 200, body = JobView)))]
async fn get_job(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Named(id): Named<JobId>,
) -> Result<Response> {
    tagged(&headers, &JobView::from(state.jobs.show(&caller.call, id).await?))
}

/// Gives a failed job its attempts back.
#[utoipa::path(post, path = "/jobs/{id}/retry", tag = "jobs", params(("id" = String, Path, description = "Job id")),
    request_body = inline(Option<Nothing>), responses((status = 200, body = JobView)))]
async fn retry_job(
    State(state): State<ApiState>,
    Named(id): Named<JobId>,
    posted: Posted<Nothing>,
) -> Result<Json<JobView>> {
    Ok(Json(state.jobs.retry(&posted.call, id).await?.into()))
}

/// Makes a job that waits for its verification due at once.
#[utoipa::path(post, path = "/jobs/{id}/verify", tag = "jobs", params(("id" = String, Path, description = "Job id")),
    request_body = inline(Option<Nothing>), responses((status = 200, body = JobView)))]
async fn verify_job(
    State(state): State<ApiState>,
    Named(id): Named<JobId>,
    posted: Posted<Nothing>,
) -> Result<Json<JobView>> {
    Ok(Json(state.jobs.verify_now(&posted.call, id).await?.into()))
}

/// Calls a job off that does not run.
#[utoipa::path(post, path = "/jobs/{id}/cancel", tag = "jobs", params(("id" = String, Path, description = "Job id")),
    request_body = inline(Option<Nothing>), responses((status = 200, body = JobView)))]
async fn cancel_job(
    State(state): State<ApiState>,
    Named(id): Named<JobId>,
    posted: Posted<Nothing>,
) -> Result<Json<JobView>> {
    Ok(Json(state.jobs.cancel(&posted.call, id).await?.into()))
}

/// The triggers of this process and what they did.
#[utoipa::path(get, path = "/triggers", tag = "jobs", responses((status = 200, body = PageView<TriggerView>)))]
async fn list_triggers(State(state): State<ApiState>, caller: Caller) -> Result<Json<PageView<TriggerView>>> {
    caller.call.operators_only("see triggers")?;
    Ok(Json(PageView::new(state.triggers.statuses(), None)))
}

/// Fires a trigger now and waits for its report. With an idempotency key, a second request is answered with the first
/// one's report and fires nothing.
#[utoipa::path(post, path = "/triggers/{id}/fire", tag = "jobs", params(("id" = String, Path, description = "Trigger name")),
    request_body = inline(Option<Nothing>), responses((status = 200, body = ReportView)))]
async fn fire_trigger(
    State(state): State<ApiState>,
    Named(name): Named<String>,
    posted: Posted<Nothing>,
) -> Result<Json<ReportView>> {
    posted.call.operators_only("fire triggers")?;
    let fire = || async {
        let report = state.triggers.fire(&name).await?;
        let mut changes = Changeset::new();
        let data = serde_json::json!({ "examined": report.examined, "changed": report.changed });
        outbox::event(&mut changes, &state.work.ids, "trigger.fired", &name, Audience::Operators, data);
        Ok(Draft::new(changes, report))
    };
    Ok(Json(state.work.run(&posted.call, "trigger.fire", fire).await?.value.into()))
}
