//! Who calls: bearer authentication, the limits on requests per key and on failures per address, and the idempotency
//! key of POST requests.

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, header, request::Parts},
};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{
    admission, body,
    problem::{Problem, Result},
    serve::Peer,
    state::ApiState,
    trace::TraceId,
};
use crate::{
    core::market::{ids::KeyId, party::Principal},
    error::ErrorCode,
    service::{
        access::Authenticated,
        work::{Call, RequestKey},
    },
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The caller of a request that changes nothing.
#[derive(Debug, Clone)]
pub struct Caller {
    /// For the services.
    pub call: Call,
    /// The key that came in.
    pub key: KeyId,
}

impl FromRequestParts<ApiState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self> {
        let trace_id =
            TraceId::from_request_parts(parts, state).await.unwrap_or_else(|never| match never {}).0;
        let Authenticated { key, principal } = match authenticate(&parts.headers, state).await {
            Ok(known) => known,
            Err(problem) => return Err(refuse(state, parts.extensions.get::<Peer>(), problem).await),
        };
        let settings = &state.settings;
        limit_rate(state, &format!("rate:{key}"), settings.rate_limit).await?;
        Ok(Self { call: Call { principal, request: None, trace_id }, key })
    }
}

/// A POST: its caller, with the idempotency key if one was given, and its body.
#[derive(Debug)]
pub struct Posted<T> {
    /// For the services.
    pub call: Call,
    /// The body; for `T` without fields it may be left out.
    pub body: T,
}

impl<T: DeserializeOwned + Send> FromRequest<ApiState> for Posted<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self> {
        let (mut parts, content) = request.into_parts();
        let Caller { mut call, .. } = Caller::from_request_parts(&mut parts, state).await?;
        // Operators may be about to mend the cause, and evidence makes no jobs.
        if matches!(call.principal, Principal::Consumer(_) | Principal::Provider(_)) {
            admission::check_backlog(state).await?;
        }
        if let Some(query) = parts.uri.query().filter(|query| !query.is_empty()) {
            let name = query.split(['=', '&']).next().unwrap_or_default();
            return Err(Problem::at(
                ErrorCode::InvalidParameter,
                name,
                "this request takes its input in the body, not in the address",
            ));
        }
        let key = idempotency_key(&parts.headers)?.map(str::to_owned);
        let bytes = body::read(&parts.headers, content, state.settings.body_limit).await?;
        if let Some(key) = key {
            let id = request_id(&call.principal, parts.method.as_str(), parts.uri.path(), &key);
            call.request = Some(RequestKey { id, fingerprint: hex::encode(Sha256::digest(&bytes)) });
        }
        let body = body::parse(&parts.headers, &bytes)?;
        Ok(Self { call, body })
    }
}

/// A hash over tenant, method, address and key: each part goes in with its length, so that none runs into the next.
fn request_id(principal: &Principal, method: &str, path: &str, key: &str) -> String {
    let mut hash = Sha256::new();
    for part in [principal.tenant().as_str(), method, path, key] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize())
}

async fn authenticate(headers: &HeaderMap, state: &ApiState) -> Result<Authenticated> {
    Ok(state.keys.authenticate(bearer(headers)?).await?)
}

/// Counts a failed authentication against the address that it came from. A good key from the same address is not
/// touched: behind a proxy, one client's mistakes must not lock the others out.
async fn refuse(state: &ApiState, peer: Option<&Peer>, problem: Problem) -> Problem {
    if problem.code() != ErrorCode::Unauthenticated {
        return problem;
    }
    let Some(Peer(address)) = peer else { return problem };
    match limit_rate(state, &format!("refused:{address}"), state.settings.auth_failures).await {
        Ok(()) => problem,
        Err(limited) => limited,
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str> {
    let missing =
        || Problem::new(ErrorCode::Unauthenticated, "send your API key as `authorization: Bearer ork_…`");
    let text = headers.get(header::AUTHORIZATION).ok_or_else(missing)?.to_str().map_err(|_| missing())?;
    let (scheme, key) = text.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    Ok(key.trim())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>> {
    let wrong = || {
        Problem::at(
            ErrorCode::InvalidHeader,
            IDEMPOTENCY_KEY,
            "an idempotency key is given once and has 1 to 255 visible ASCII characters",
        )
    };
    let mut all = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(wrong());
    }
    let text = value.to_str().map_err(|_| wrong())?;
    if text.is_empty() || text.len() > 255 || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong());
    }
    Ok(Some(text))
}

/// Counts in fixed windows. A cache that can't be reached limits nobody.
async fn limit_rate(state: &ApiState, counter: &str, limit: u64) -> Result<()> {
    let settings = &state.settings;
    let window = i64::try_from(settings.rate_window.get().max(1)).unwrap_or(i64::MAX);
    let now = state.work.now().as_micros();
    let number = now.div_euclid(window);
    match state.cache.increment(&format!("{counter}:{number}"), settings.rate_window).await {
        Ok(count) if count > limit => {
            let left = number.saturating_add(1).saturating_mul(window).saturating_sub(now);
            let seconds = u64::try_from(left).unwrap_or(0).div_ceil(1_000_000).max(1);
            let detail = format!(
                "more than {limit} of these within {} s are too many; try again in {seconds} s",
                settings.rate_window.get() / 1_000_000
            );
            Err(admission::too_many(detail, seconds))
        }
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(error = crate::error::chain(&error), "requests are not limited: no cache");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::market::ids::{ConsumerId, Id};

    #[test]
    fn a_request_id_separates_tenants_addresses_and_keys() {
        let a = Principal::Consumer(ConsumerId::from_uuid(uuid::Uuid::from_u128(1)));
        let b = Principal::Consumer(ConsumerId::from_uuid(uuid::Uuid::from_u128(2)));
        let base = request_id(&a, "POST", "/x", "k");
        assert_eq!(base, request_id(&a, "POST", "/x", "k"));
        assert_ne!(base, request_id(&b, "POST", "/x", "k"));
        assert_ne!(base, request_id(&a, "POST", "/xk", ""));
        assert_ne!(base, request_id(&a, "POST", "/", "xk"));
    }
}
