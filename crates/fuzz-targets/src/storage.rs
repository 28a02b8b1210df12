//! A provider without listeners, over a directory in memory where there is one and nobody asks for another.

use std::{cell::RefCell, env, path::Path};

use axum::body::Body;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use orchestrator_provider::{ProviderOptions, fuzzing::InProcess};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::{market::block_on, sign::sign};

/// Where syncing costs nothing.
const IN_MEMORY: &str = "/dev/shm";
pub(crate) const TOKEN: &str = "a token for the admin";
pub(crate) const ALLOCATION: &str = "alloc-1";
pub(crate) const KEY: &str = "AKIAFUZZ1";
pub(crate) const SECRET: &str = "a secret of the consumer";
/// Bytes of the allocation, and of all.
pub(crate) const QUOTA: u64 = 1 << 20;
pub(crate) const CAPACITY: u64 = 1 << 24;

thread_local! {
    static STORAGE: RefCell<Option<Storage>> = const { RefCell::new(None) };
}

/// A provider with one allocation, one key, and one object.
pub(crate) struct Storage {
    pub(crate) provider: InProcess,
    _directory: TempDir,
}

/// An answer of either endpoint.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn shown(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

/// Runs `visit` at a provider that nobody has changed; `visit` says whether it is still so.
pub(crate) fn visit(visit: impl AsyncFnOnce(&Storage) -> bool) {
    let kept = STORAGE.with(RefCell::take);
    let kept = block_on(async {
        let storage = match kept {
            Some(storage) => storage,
            None => Storage::new().await,
        };
        visit(&storage).await.then_some(storage)
    });
    STORAGE.with(|slot| slot.replace(kept));
}

impl Storage {
    async fn new() -> Self {
        let directory = match Path::new(IN_MEMORY) {
            place if place.is_dir() && env::var_os("TMPDIR").is_none() => TempDir::new_in(place),
            _ => TempDir::new(),
        };
        let directory = directory.unwrap();
        let mut options = ProviderOptions::new(directory.path(), TOKEN);
        options.capacity = CAPACITY;
        options.allow_faults = false;
        let storage = Self { provider: InProcess::open(&options).unwrap(), _directory: directory };
        let path = format!("/allocations/{ALLOCATION}");
        storage.tell(Method::PUT, &path, json!({"generation": 1, "bytes": QUOTA})).await;
        let key = json!({"generation": 1, "secret": SECRET, "permissions": "read_write"});
        storage.tell(Method::PUT, &format!("{path}/keys/{KEY}"), key).await;
        let mut object = Request::put(format!("/{ALLOCATION}/a")).body(b"bytes".to_vec()).unwrap();
        sign(&mut object, KEY, SECRET);
        let stored = storage.s3(object).await.unwrap();
        assert_eq!(stored.status, 200, "{}", stored.shown());
        storage
    }

    /// A call of the admin API that goes well.
    pub(crate) async fn tell(&self, method: Method, path: &str, body: Value) -> Value {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let request = request.header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
        let answer = self.admin(request.body(Body::from(body.to_string())).unwrap()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.shown());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// A request to the admin API.
    pub(crate) async fn admin(&self, request: Request<Body>) -> Answer {
        let response = self.provider.admin().oneshot(request).await.unwrap_or_else(|never| match never {});
        let (parts, body) = response.into_parts();
        Answer { status: parts.status.as_u16(), body: body.collect().await.unwrap().to_bytes().to_vec() }
    }

    /// A request to the S3 endpoint; `None` when the server would hang up.
    pub(crate) async fn s3(&self, request: Request<Vec<u8>>) -> Option<Answer> {
        let response = self.provider.s3(request.map(s3s::Body::from)).await.ok()?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map(|whole| whole.to_bytes().to_vec()).unwrap_or_default();
        Some(Answer { status: parts.status.as_u16(), body })
    }
}
