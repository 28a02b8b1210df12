//! The one place where errors become HTTP: problem details as in RFC 9457, with a stable code. A handler answers
//! [`Problem`]; the text is written by [`render`], which knows the trace id and logs the whole chain, once. Answers that
//! the framework makes by itself (405, time-outs) come out in the same form; OPTIONS is answered with what is allowed.

use std::sync::Arc;

use axum::{
    Json,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::trace::TraceId;
use crate::{
    core::market::quantity::Micros,
    error::{Error, ErrorCode, chain},
};

/// The media type of problem details.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What a handler answers when it can't do as asked.
#[derive(Debug)]
pub struct Problem {
    error: Error,
}

/// The result of a handler.
pub type Result<T, E = Problem> = std::result::Result<T, E>;

impl Problem {
    /// A problem with a text for the caller.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Error::new(code, detail).into()
    }

    /// A problem with a named field, parameter or header.
    #[must_use]
    pub fn at(code: ErrorCode, field: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut error = Error::new(code, detail.into());
        error.field = Some(field.into());
        error.into()
    }

    /// Its stable code.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        self.error.code
    }

    /// With the seconds after which another try may do.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u64) -> Self {
        self.error.retry_after = Some(Micros::from_secs(seconds));
        self
    }
}

impl<E: Into<Error>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self { error: error.into() }
    }
}

/// Carries the problem from the handler to [`render`].
#[derive(Clone)]
struct Carried(Arc<Problem>);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = status_of(self.error.code).into_response();
        response.extensions_mut().insert(Carried(Arc::new(self)));
        response
    }
}

/// Problem details.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemView {
    /// Address of the page that explains the code.
    #[serde(rename = "type")]
    #[schema(example = "/docs/errors/not_found")]
    kind: String,
    /// The stable code.
    #[schema(example = "not_found")]
    code: &'static str,
    /// A short title, the same for every problem of this code.
    #[schema(example = "Not found")]
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// What is wrong here, and how to mend it.
    #[schema(example = "there is no unit `unit_01…`")]
    detail: String,
    /// The field, parameter or header that is wrong, as a dotted path.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Whether the same request may succeed later, unchanged.
    retryable: bool,
    /// Names this request in the logs.
    trace_id: String,
    /// More, by code.
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<serde_json::Value>,
}

/// Marks an error answer that is no problem, such as a readiness report.
#[derive(Clone)]
struct AsIs;

/// Keeps [`render`] from touching an error answer that says what it has to say by itself.
pub fn keep_as_is(response: &mut Response) {
    response.extensions_mut().insert(AsIs);
}

/// Middleware: writes problems, and logs those that have a cause or are ours.
pub async fn render(trace: TraceId, request: Request, next: Next) -> Response {
    let asks_for_methods = request.method() == Method::OPTIONS;
    let response = next.run(request).await;
    if asks_for_methods && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        // The router adds `allow` on the way out.
        return StatusCode::NO_CONTENT.into_response();
    }
    let carried = response.extensions().get::<Carried>().cloned();
    if let Some(Carried(problem)) = carried {
        return write(&problem, &trace.0, response);
    }
    match framework_problem(&response) {
        Some(problem) => write(&problem, &trace.0, response),
        None => response,
    }
}

/// The problem behind an error answer that no handler made.
fn framework_problem(response: &Response) -> Option<Problem> {
    let status = response.status();
    let is_problem = response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == PROBLEM_JSON);
    if is_problem
        || response.extensions().get::<AsIs>().is_some()
        || !(status.is_client_error() || status.is_server_error())
    {
        return None;
    }
    Some(match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(ErrorCode::MethodNotAllowed, "this address does not take this method; see `allow`")
        }
        StatusCode::NOT_FOUND => Problem::new(ErrorCode::NotFound, "there is nothing at this address"),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(ErrorCode::BodyTooLarge, "the body is too large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Problem::new(ErrorCode::UnsupportedMediaType, "send `content-type: application/json`")
        }
        status if status.is_client_error() => {
            Problem::new(ErrorCode::MalformedBody, "the request could not be understood")
        }
        status => Error::internal(format!("the framework answered {status}")).into(),
    })
}

fn write(problem: &Problem, trace_id: &str, from: Response) -> Response {
    let error = &problem.error;
    log(error, trace_id);
    let status = status_of(error.code);
    let view = ProblemView {
        kind: format!("/docs/errors/{}", error.code.as_str()),
        code: error.code.as_str(),
        title: error.code.title(),
        status: status.as_u16(),
        detail: public_detail(error),
        field: error.field.clone(),
        retryable: error.retryable(),
        trace_id: trace_id.to_owned(),
        extra: error.extra.clone(),
    };
    let mut response = (status, Json(view)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Some(allow) = from.headers().get(header::ALLOW) {
        headers.insert(header::ALLOW, allow.clone());
    }
    if error.code == ErrorCode::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(after) = error.retry_after {
        let seconds = after.get().div_ceil(1_000_000);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Our own faults say nothing about what went wrong inside; the trace id leads to the log.
fn public_detail(error: &Error) -> String {
    if error.code == ErrorCode::Internal {
        "something went wrong on our side; the trace id leads to the log".into()
    } else {
        error.detail.to_string()
    }
}

fn log(error: &Error, trace_id: &str) {
    let code = error.code.as_str();
    if error.code.status() >= 500 {
        tracing::error!(code, trace_id, error = chain(error), "request failed");
    } else if error.source.is_some() {
        tracing::info!(code, trace_id, error = chain(error), "request refused");
    } else {
        tracing::debug!(code, trace_id, error = %error, "request refused");
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_that_http_knows_as_an_error() {
        for code in ErrorCode::ALL {
            assert_eq!(status_of(*code).as_u16(), code.status(), "{code:?}");
            assert!(code.status() >= 400, "{code:?}");
        }
    }

    #[test]
    fn an_internal_error_keeps_its_text_to_itself() {
        let error = Error::internal("the password is hunter2");
        assert!(!public_detail(&error).contains("hunter2"));
        let mut worse = Error::new(ErrorCode::Internal, "table users is broken");
        worse.extra = None;
        assert!(!public_detail(&worse).contains("users"));
    }
}
