//! What stands in the address: typed ids and strict query parameters.

use std::{collections::BTreeSet, str::FromStr, sync::Arc};

use axum::{
    extract::{FromRequestParts, MatchedPath, Path, Request, State},
    http::{Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;

use super::{
    body,
    problem::{Problem, Result},
    state::ApiState,
};
use crate::error::{Error, ErrorCode};

/// An id in the address. A text that is no id of the wanted kind names nothing: 404, as for an unknown one.
#[derive(Debug, Clone, Copy)]
pub struct Named<T>(pub T);

impl<T: FromStr + Send> FromRequestParts<ApiState> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::new(ErrorCode::NotFound, "there is nothing at this address"))?;
        parse_id(&text).map(Self)
    }
}

/// An id, or "not found".
///
/// # Errors
/// [`ErrorCode::NotFound`].
pub fn parse_id<T: FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        Error::new(ErrorCode::NotFound, format!("`{shown}` names nothing here")).into()
    })
}

/// The described addresses whose GET takes no query parameters; middleware state of [`refuse_query`].
pub type WithoutQuery = Arc<BTreeSet<String>>;

/// Middleware: refuses a query where none is taken. Addresses that take one refuse unknown names by [`Params`].
pub async fn refuse_query(
    State(without): State<WithoutQuery>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let query = request.uri().query().unwrap_or_default();
    if reads && !query.is_empty() && path.is_some_and(|path| without.contains(path.as_str())) {
        let name = url::form_urlencoded::parse(query.as_bytes()).next().map(|(name, _)| name.into_owned());
        let detail = "this address takes no query parameters";
        return Problem::at(ErrorCode::InvalidParameter, name.unwrap_or_default(), detail).into_response();
    }
    next.run(request).await
}

/// Query parameters, unknown ones refused by name.
#[derive(Debug, Clone)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<ApiState> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs)).map(Self).map_err(
            |error| {
                let path = error.path().to_string();
                body::wrong(ErrorCode::InvalidParameter, &path, &error.into_inner().to_string())
            },
        )
    }
}
