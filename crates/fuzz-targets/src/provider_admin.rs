//! The built-in provider's admin API.

use axum::body::Body;
use http::{Method, Request, header};
use orchestrator_provider::wire::{Description, Problem};
use serde_json::{Value, json};

use crate::{
    request,
    storage::{CAPACITY, Storage, TOKEN, visit},
};

/// No input is the provider's fault; what is refused says why in one form; nobody gets in without the token; a generation that
/// was seen keeps lower ones out; never is more given away than there is.
///
/// The input is a request as in `request.rs`, by `admin` or anybody else.
pub fn provider_admin(data: &[u8]) {
    let Some(wanted) = request::read(data) else { return };
    let fence = fence(&wanted.request);
    visit(async |storage| {
        let mut request = wanted.request.map(Body::from);
        let known = wanted.who == "admin";
        if known {
            request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {TOKEN}").parse().unwrap());
        } else if request
            .headers()
            .get(header::AUTHORIZATION)
            .is_some_and(|v| v.as_bytes().ends_with(TOKEN.as_bytes()))
        {
            return true;
        }
        let json = header::HeaderValue::from_static("application/json");
        request.headers_mut().entry(header::CONTENT_TYPE).or_insert(json);
        let shown = format!("{} {}", request.method(), request.uri());
        let (reads, open) = (request.method().is_safe(), request.uri().path() == "/health");
        let answer = storage.admin(request).await;
        let shown = format!("{shown}: {}", answer.shown());
        assert!(answer.status < 500 || answer.status == 507, "{shown}");
        assert!(known || open || answer.status >= 400, "{shown}");
        if answer.status >= 400 && !answer.body.is_empty() {
            let problem: Problem =
                serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {shown}"));
            assert!(!problem.code.is_empty() && !problem.detail.is_empty(), "{shown}");
        }
        let changed = !reads && answer.status < 300;
        if changed {
            sound(storage, &shown).await;
            if let Some((allocation, generation)) = fence {
                fenced(storage, &allocation, generation, &shown).await;
            }
        }
        !changed
    });
}

/// The allocation that a request names, and its generation.
fn fence(request: &Request<Vec<u8>>) -> Option<(String, u64)> {
    let allocation = request.uri().path().split('/').nth(2)?.to_owned();
    let query = request.uri().query().unwrap_or_default();
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("generation=")?.parse().ok());
    let body = || serde_json::from_slice::<Value>(request.body()).ok()?.get("generation")?.as_u64();
    Some((allocation, asked.or_else(body)?))
}

/// A generation that was seen keeps lower ones out.
async fn fenced(storage: &Storage, allocation: &str, generation: u64, shown: &str) {
    let Some(lower) = generation.checked_sub(1) else { return };
    let request = Request::put(format!("/allocations/{allocation}/access"));
    let request = request.header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let body = json!({"generation": lower, "level": "none"}).to_string();
    let answer = storage.admin(request.body(Body::from(body)).unwrap()).await;
    assert!(answer.status >= 400, "generation {lower} was let in after {shown}");
}

/// What is given away and what is free are what there is.
async fn sound(storage: &Storage, shown: &str) {
    let said = storage.tell(Method::GET, "/describe", Value::Null).await;
    let said: Description = serde_json::from_value(said).unwrap();
    assert!(said.free <= said.capacity && said.capacity == CAPACITY, "{shown}");
    for id in storage.tell(Method::GET, "/allocations", Value::Null).await["allocations"].as_array().unwrap()
    {
        let id = id.as_str().unwrap();
        storage.tell(Method::GET, &format!("/allocations/{id}/usage"), Value::Null).await;
    }
}
