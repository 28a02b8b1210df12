//! The description of the API: `/openapi.json`, the page at `/docs` that shows it without any outside help, and the
//! pages of the error codes.

use std::sync::Arc;

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::get,
};
use utoipa::openapi::{
    HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required, ResponseBuilder,
    path::{Operation, ParameterBuilder, ParameterIn},
    schema::{ObjectBuilder, SchemaType, Type},
    security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{
    etag::tagged,
    problem::{PROBLEM_JSON, Problem, ProblemView, Result},
    state::ApiState,
};
use crate::error::ErrorCode;

const BEARER: &str = "api_key";

/// The frame that the routes are described in.
pub(super) fn frame() -> OpenApi {
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Orchestrator")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "A storage market that is run, measured and settled. Times are RFC 3339, money is a decimal string of \
                     base units, durations are milliseconds, sizes are bytes, ratios are parts per million. Lists come \
                     in pages; errors are problem details (RFC 9457) with a stable `code`.",
                ))
                .build(),
        )
        .security(Some([SecurityRequirement::new::<_, [&str; 0], &str>(BEARER, [])]))
        .build()
}

/// Adds what every operation has: the key, the problems, and the idempotency key of each POST.
pub(super) fn complete(api: &mut OpenApi) {
    let components = api.components.get_or_insert_default();
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key: `ork_<id>_<secret>`."))
        .build();
    components.schemas.insert("Problem".into(), <ProblemView as utoipa::PartialSchema>::schema());
    components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    for item in api.paths.paths.values_mut() {
        let operations = [(HttpMethod::Get, &mut item.get), (HttpMethod::Post, &mut item.post)];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                describe(&method, operation);
            }
        }
    }
}

fn describe(method: &HttpMethod, operation: &mut Operation) {
    let problem = utoipa::openapi::ContentBuilder::new()
        .schema(Some(RefOr::Ref(Ref::from_schema_name("Problem"))))
        .build();
    let response = ResponseBuilder::new().description("A problem.").content(PROBLEM_JSON, problem).build();
    operation.responses.responses.insert("default".into(), RefOr::T(response));
    if matches!(method, HttpMethod::Post) {
        let text = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .min_length(Some(1))
            .max_length(Some(255))
            .build();
        let key = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "Makes the request happen once: a second one with the same key and body is answered from the first; with \
                 another body it is refused with `idempotency_key_reused`.",
            ))
            .schema(Some(text))
            .build();
        operation.parameters.get_or_insert_default().push(RefOr::T(key));
    }
}

/// The routes that show the description; they are not part of it.
pub(super) fn routes(api: &OpenApi) -> Router<ApiState> {
    let shared = Arc::new(serde_json::to_value(api).unwrap_or_default());
    let json = get(move |headers: HeaderMap| {
        let shared = Arc::clone(&shared);
        async move { tagged(&headers, shared.as_ref()) }
    });
    let page = SwaggerUi::new("/docs").config(
        Config::from("/openapi.json")
            .use_base_layout()
            .validator_url("none")
            .try_it_out_enabled(true)
            .persist_authorization(false),
    );
    Router::new().route("/openapi.json", json).route("/docs/errors/{code}", get(error_page)).merge(Router::<
        ApiState,
    >::from(
        page
    ))
}

/// The page of an error code, where problem details point to.
async fn error_page(Path(code): Path<String>) -> Result<Response> {
    let page = ErrorCode::ALL
        .iter()
        .find(|known| known.as_str() == code)
        .and_then(|known| error_text(*known))
        .ok_or_else(|| Problem::new(ErrorCode::NotFound, "there is no such error code"))?;
    Ok(([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], page).into_response())
}

/// The text of a code's page, built in, so that it can be read offline.
fn error_text(code: ErrorCode) -> Option<&'static str> {
    let (_, text) = ERROR_PAGES.iter().find(|(name, _)| *name == code.as_str())?;
    Some(text)
}

macro_rules! error_pages {
    ($($code:literal),+ $(,)?) => {
        const ERROR_PAGES: &[(&str, &str)] =
            &[$(($code, include_str!(concat!("../../../../../docs/errors/", $code, ".md")))),+];
    };
}

error_pages! {
    "malformed_body",
    "invalid_parameter",
    "invalid_header",
    "invalid_field",
    "unauthenticated",
    "forbidden",
    "not_found",
    "method_not_allowed",
    "conflict",
    "already_exists",
    "idempotency_key_reused",
    "invalid_state",
    "reservation_expired",
    "insufficient_capacity",
    "no_matching_offering",
    "insufficient_funds",
    "overflow",
    "secret_gone",
    "bad_signature",
    "stale_nonce",
    "invalid_period",
    "overlapping_period",
    "body_too_large",
    "unsupported_media_type",
    "rate_limited",
    "not_supported",
    "provider_failed",
    "settlement_failed",
    "unavailable",
    "storage_full",
    "internal",
    "invalid_config",
    "data_dir_locked",
    "data_dir_unwritable",
}
