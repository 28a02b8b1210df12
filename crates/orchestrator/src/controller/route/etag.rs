//! Single entities with an etag, so that a client that has the newest sends no bytes twice.

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::problem::Result;
use crate::error::Error;

/// The entity with its etag, or 304 when `if-none-match` names it. The tag is a hash over what is shown: it changes
/// when, and only when, the answer does, derived fields included.
///
/// # Errors
/// When the view does not serialise.
pub fn tagged<T: Serialize>(headers: &HeaderMap, view: &T) -> Result<Response> {
    let body = serde_json::to_vec(view).map_err(Error::internal)?;
    let digest = hex::encode(Sha256::digest(&body));
    let tag = format!("\"{}\"", digest.get(..32).unwrap_or(&digest));
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|one| matches!(one.trim(), "*") || one.trim().trim_start_matches("W/") == tag);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

/// An answer to a POST that made something or set it going.
pub fn accepted<T: Serialize>(status: StatusCode, view: T) -> Response {
    (status, Json(view)).into_response()
}
