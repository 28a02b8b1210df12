//! The admin API: JSON over HTTP behind a bearer token. Calls that change something are idempotent and fenced by a
//! generation.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::to_bytes,
    extract::{Path, Query, Request, State, rejection::JsonRejection},
    http::{
        StatusCode,
        header::{ALLOW, AUTHORIZATION, CONTENT_TYPE},
    },
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    live::{LiveAllocation, LiveKey},
    s3::Shared,
    store::{AllocationRow, KeyRow, StoreError},
    wire::{
        Allocate, Allocations, AtGeneration, Description, Effects, Faults, Level, Problem, PutKey, Qos,
        Restrict, Routing, Usage,
    },
};

/// What the admin API needs.
pub struct Admin {
    /// What it shares with the S3 endpoint.
    pub shared: Arc<Shared>,
    /// SHA-256 of the token, so that comparing takes the same time for every length.
    pub token_sha256: [u8; 32],
    /// Base address of the S3 endpoint, as clients reach it.
    pub endpoint: String,
    /// Bytes that may be allocated in all.
    pub capacity: u64,
    /// How long making an allocation takes, in microseconds.
    pub provision_delay_us: i64,
    /// Whether faults may be injected.
    pub allow_faults: bool,
    /// Changes of the maps in memory follow those of the store in the same order.
    pub order: tokio::sync::Mutex<()>,
}

type Context = State<Arc<Admin>>;
type Answer<T> = Result<Json<T>, Refusal>;

/// An answer that is not 2xx.
struct Refusal(StatusCode, &'static str, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(Problem { code: self.1.to_owned(), detail: self.2 })).into_response()
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self(rejection.status(), "invalid", rejection.body_text())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let (status, code) = match &error {
            StoreError::Stale { .. } => (StatusCode::CONFLICT, "stale_generation"),
            StoreError::Gone => (StatusCode::GONE, "gone"),
            StoreError::Unknown => (StatusCode::NOT_FOUND, "unknown"),
            StoreError::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
            StoreError::Mismatch(_) => (StatusCode::CONFLICT, "mismatch"),
            StoreError::NoCapacity => (StatusCode::INSUFFICIENT_STORAGE, "no_capacity"),
            StoreError::Full => (StatusCode::INSUFFICIENT_STORAGE, "full"),
            StoreError::Quota | StoreError::Precondition | StoreError::NoUpload | StoreError::Part(_) => {
                (StatusCode::BAD_REQUEST, "invalid")
            }
            StoreError::Sqlite(cause) => {
                tracing::error!(error = %cause, "the store failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
            StoreError::Damaged(cause) => {
                tracing::error!(error = %cause, "a stored row is damaged");
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        };
        Self(status, code, error.to_string())
    }
}

/// The longest text of the framework's own that is passed on.
const LONGEST_TEXT: usize = 4 << 10;

/// What the framework refuses by itself (a query, an address, a method) comes in the same form as our own refusals.
async fn in_one_form(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let ours = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, LONGEST_TEXT).await.unwrap_or_default();
    let text = match String::from_utf8_lossy(&text) {
        text if text.is_empty() => status.canonical_reason().unwrap_or("refused").to_owned(),
        text => text.into_owned(),
    };
    let mut refusal = Refusal(status, "invalid", text).into_response();
    if let Some(allowed) = parts.headers.get(ALLOW) {
        refusal.headers_mut().insert(ALLOW, allowed.clone());
    }
    refusal
}

/// The admin API's routes.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/describe", get(describe))
        .route("/allocations", get(allocations))
        .route("/allocations/{id}", put(allocate).delete(deallocate))
        .route("/allocations/{id}/keys/{key}", put(put_key).delete(delete_key))
        .route("/allocations/{id}/access", put(restrict))
        .route("/allocations/{id}/usage", get(usage))
        .route("/allocations/{id}/effects", get(effects))
        .route("/qos", get(qos))
        .route("/faults", get(get_faults).put(put_faults))
        .fallback(|| async { Refusal(StatusCode::NOT_FOUND, "not_found", "there is no such address".into()) })
        .layer(from_fn_with_state(admin.clone(), guard))
        .route("/health", get(health))
        .layer(from_fn(in_one_form))
        .with_state(admin)
}

/// Lets those with the token in, and injects faults; faults can always be taken back.
async fn guard(State(admin): Context, request: Request, next: Next) -> Response {
    let token =
        request.headers().get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let known: bool = token.is_some_and(|token| {
        let digest: [u8; 32] = Sha256::digest(token).into();
        digest.ct_eq(&admin.token_sha256).into()
    });
    if !known {
        return Refusal(StatusCode::UNAUTHORIZED, "unauthorized", "an admin token is needed".into())
            .into_response();
    }
    if request.uri().path() == "/faults" {
        return next.run(request).await;
    }
    let injected = || Refusal(StatusCode::INTERNAL_SERVER_ERROR, "injected", "an injected fault".into());
    let (fails, lost) = admin.shared.faults.admin_call().await;
    if fails {
        return injected().into_response();
    }
    let answer = next.run(request).await;
    if lost { injected().into_response() } else { answer }
}

async fn health(State(admin): Context) -> Answer<serde_json::Value> {
    admin.shared.store(|s| s.store.reserved()).await?;
    Ok(Json(serde_json::json!({ "status": "ok" })))
}

async fn describe(State(admin): Context) -> Answer<Description> {
    let reserved = admin.shared.store(|s| s.store.reserved()).await?;
    Ok(Json(Description {
        software: concat!("orchestrator-provider ", env!("CARGO_PKG_VERSION")).to_owned(),
        profiles: vec!["s3".to_owned()],
        capacity: admin.capacity,
        free: admin.capacity.saturating_sub(reserved),
        region: admin.shared.region.clone(),
        endpoint: admin.endpoint.clone(),
    }))
}

async fn allocations(State(admin): Context) -> Answer<Allocations> {
    let (rows, _) = admin.shared.store(|s| s.store.everything()).await?;
    Ok(Json(Allocations { allocations: rows.into_iter().map(|row| row.id).collect() }))
}

/// An id becomes a bucket name by one rule, hence its narrow form.
fn bucket(id: &str) -> Result<String, Refusal> {
    let fits = (3..=63).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-')
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && id.ends_with(|c: char| c.is_ascii_alphanumeric());
    let text = "an allocation id has 3 to 63 of a-z, 0-9, _ and -, begins with a letter and ends with none of _ and -";
    if fits { Ok(id.replace('_', "-")) } else { Err(invalid(text)) }
}

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, "invalid", text.into())
}

fn wish(admin: &Admin, id: &str, generation: u64, quota: u64) -> Result<AllocationRow, Refusal> {
    let now = admin.shared.clock.now();
    Ok(AllocationRow {
        bucket: bucket(id)?,
        id: id.to_owned(),
        generation,
        quota,
        level: Level::Full,
        gone: false,
        created_at: now,
        ready_at: TimeNow::wall().saturating_add(admin.provision_delay_us),
        used: 0,
        byte_micros: 0,
        metered_at: now,
        egress: 0,
    })
}

/// Making an allocation takes real time, whatever time the meters go by.
struct TimeNow;

impl TimeNow {
    fn wall() -> i64 {
        crate::server::TimeSource::system().now()
    }
}

async fn allocate(
    State(admin): Context,
    Path(id): Path<String>,
    body: Result<Json<Allocate>, JsonRejection>,
) -> Result<Response, Refusal> {
    let Json(body) = body?;
    if !body.region.is_empty() && body.region != admin.shared.region {
        return Err(invalid(format!("this provider is in region `{}`", admin.shared.region)));
    }
    if body.bytes == 0 || body.bytes > 1 << 53 {
        return Err(invalid("`bytes` must be 1 to 2^53"));
    }
    let wish = wish(&admin, &id, body.generation, body.bytes)?;
    let _order = admin.order.lock().await;
    let capacity = admin.capacity;
    let done = admin.shared.store(move |s| s.store.allocate(&wish, capacity)).await?;
    let row = done.row;
    if row.ready_at > TimeNow::wall() {
        return Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))).into_response());
    }
    if admin.shared.live.allocation(&row.id).is_none() {
        admin.shared.live.add(live(&row));
    }
    let routing =
        Routing { endpoint: admin.endpoint.clone(), region: admin.shared.region.clone(), bucket: row.bucket };
    Ok(Json(routing).into_response())
}

/// An allocation as requests see it.
#[must_use]
pub fn live(row: &AllocationRow) -> LiveAllocation {
    LiveAllocation::new(row.id.clone(), row.bucket.clone(), row.quota, row.created_at, row.level)
}

async fn deallocate(
    State(admin): Context,
    Path(id): Path<String>,
    Query(at): Query<AtGeneration>,
) -> Answer<serde_json::Value> {
    let wish = wish(&admin, &id, at.generation, 0)?;
    let _order = admin.order.lock().await;
    let freed = admin.shared.store(move |s| s.store.deallocate(&wish)).await?;
    admin.shared.live.remove(&id);
    admin.shared.discard(freed).await;
    Ok(Json(serde_json::json!({})))
}

async fn put_key(
    State(admin): Context,
    Path((id, key)): Path<(String, String)>,
    body: Result<Json<PutKey>, JsonRejection>,
) -> Answer<serde_json::Value> {
    let Json(body) = body?;
    let fits = (8..=128).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !fits {
        return Err(invalid("an access key id has 8 to 128 letters and digits"));
    }
    if !(16..=256).contains(&body.secret.len()) {
        return Err(invalid("a secret has 16 to 256 characters"));
    }
    let row = KeyRow {
        id: key.clone(),
        allocation: id.clone(),
        secret: body.secret,
        permissions: body.permissions,
    };
    let _order = admin.order.lock().await;
    let stored = row.clone();
    let changed =
        admin.shared.store(move |s| s.store.put_key(&stored, body.generation, TimeNow::wall())).await?;
    if changed || admin.shared.live.key(&key).is_none() {
        let allocation = match admin.shared.live.allocation(&id) {
            Some(allocation) => allocation,
            None => {
                // Made in the meantime, and nobody polled.
                let wanted = id.clone();
                let found = admin.shared.store(move |s| s.store.allocation(&wanted)).await?;
                admin.shared.live.add(live(&found));
                admin.shared.live.allocation(&id).ok_or(StoreError::Unknown)?
            }
        };
        admin.shared.live.put_key(&key, LiveKey::new(row.secret, row.permissions, allocation));
    }
    Ok(Json(serde_json::json!({})))
}

async fn delete_key(
    State(admin): Context,
    Path((id, key)): Path<(String, String)>,
    Query(at): Query<AtGeneration>,
) -> Answer<serde_json::Value> {
    let _order = admin.order.lock().await;
    let (allocation, name) = (id, key.clone());
    let removed = admin.shared.store(move |s| s.store.delete_key(&allocation, at.generation, &name)).await?;
    if removed {
        admin.shared.live.remove_key(&key);
    }
    Ok(Json(serde_json::json!({})))
}

async fn restrict(
    State(admin): Context,
    Path(id): Path<String>,
    body: Result<Json<Restrict>, JsonRejection>,
) -> Answer<serde_json::Value> {
    let Json(body) = body?;
    let _order = admin.order.lock().await;
    let wanted = id.clone();
    admin.shared.store(move |s| s.store.restrict(&wanted, body.generation, body.level)).await?;
    if let Some(allocation) = admin.shared.live.allocation(&id) {
        allocation.set_level(body.level);
    }
    Ok(Json(serde_json::json!({})))
}

async fn usage(State(admin): Context, Path(id): Path<String>) -> Answer<Usage> {
    let now = admin.shared.clock.now();
    let read = admin.shared.store(move |s| {
        s.flush_egress()?;
        s.store.usage(&id, now)
    });
    Ok(Json(read.await?))
}

async fn effects(State(admin): Context, Path(id): Path<String>) -> Answer<Effects> {
    Ok(Json(Effects { effects: admin.shared.store(move |s| s.store.effects(&id)).await? }))
}

async fn qos(State(admin): Context) -> Json<Qos> {
    Json(admin.shared.qos.snapshot())
}

async fn get_faults(State(admin): Context) -> Json<Faults> {
    Json(admin.shared.faults.get())
}

async fn put_faults(State(admin): Context, body: Result<Json<Faults>, JsonRejection>) -> Answer<Faults> {
    let Json(faults) = body?;
    if !admin.allow_faults {
        let text = "this server was started without `allow_faults`";
        return Err(Refusal(StatusCode::FORBIDDEN, "forbidden", text.into()));
    }
    admin.shared.faults.set(faults);
    Ok(Json(faults))
}
