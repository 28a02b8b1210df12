//! The description of the API: `/openapi.json`, the page at `/docs` that shows it without any outside help, and the
//! pages of the error codes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::get,
};
use utoipa::openapi::{
    ContentBuilder, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required,
    Response as ApiResponse, ResponseBuilder,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn},
    schema::{ArrayItems, ObjectBuilder, Schema, SchemaType, Type},
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

/// The described addresses whose GET has no parameters in the query.
pub(super) fn paths_without_query(api: &OpenApi) -> BTreeSet<String> {
    let takes_one = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(parameter) if matches!(parameter.parameter_in, ParameterIn::Query));
    let without = api.paths.paths.iter().filter(|(_, item)| {
        let parameters = item.get.as_ref().and_then(|get| get.parameters.as_ref());
        item.get.is_some() && !parameters.is_some_and(|all| all.iter().any(takes_one))
    });
    without.map(|(path, _)| path.clone()).collect()
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
    refer_to_items(&mut components.schemas);
    for (status, description) in PROBLEMS {
        components.responses.insert(problem_name(*status), RefOr::T(problem_response(*status, description)));
    }
    for (path, item) in &mut api.paths.paths {
        let operations = [(HttpMethod::Get, &mut item.get), (HttpMethod::Post, &mut item.post)];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                describe(path, &method, operation);
            }
        }
    }
}

/// Lets pages refer to the schema of their entries, where each would hold a copy of it.
fn refer_to_items(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    let names: BTreeSet<String> = schemas.keys().cloned().collect();
    for (name, schema) in schemas {
        let Some(entry) = name.strip_prefix("PageView_").filter(|entry| names.contains(*entry)) else {
            continue;
        };
        if let RefOr::T(Schema::Object(page)) = schema
            && let Some(RefOr::T(Schema::Array(list))) = page.properties.get_mut("items")
        {
            list.items = ArrayItems::RefOrSchema(Box::new(RefOr::Ref(Ref::from_schema_name(entry))));
        }
    }
}

/// The problems that operations may answer, by status.
const PROBLEMS: &[(u16, &str)] = &[
    (400, "The body, a parameter or a header is malformed; `field` names what is wrong."),
    (401, "The API key is missing, unknown, wrong or revoked."),
    (403, "The key's role may not do this."),
    (404, "It does not exist, or belongs to another tenant."),
    (409, "The present state does not allow it, or the idempotency key was used with another body."),
    (410, "The secret was shown and can't be shown again."),
    (413, "The body is too large."),
    (415, "The content type of the body is not `application/json`."),
    (422, "A field is out of its range, or nothing fits what was asked for; `field` names what is wrong."),
    (429, "Too many requests; `retry-after` says when to come again."),
    (500, "A fault of ours; `trace_id` leads to the log."),
    (503, "Something that is needed does not answer; try again with the same idempotency key."),
];

/// Which of them an operation may answer.
fn problems_of(path: &str, method: &HttpMethod, open: bool) -> Vec<u16> {
    let mut all = vec![400, 500, 503];
    if !open {
        all.extend([401, 403, 429]);
    }
    if path.contains('{') {
        all.push(404);
    }
    if matches!(method, HttpMethod::Post) {
        all.extend([409, 413, 415, 422]);
        if path == "/keys" || path.ends_with("/credentials") || path.ends_with("/rotate") {
            all.push(410);
        }
    }
    all
}

fn problem_name(status: u16) -> String {
    format!("Problem{status}")
}

fn problem_response(status: u16, description: &str) -> ApiResponse {
    let code = ErrorCode::ALL.iter().find(|code| code.status() == status);
    let example = code.map(|code| {
        serde_json::json!({
            "type": format!("/docs/errors/{}", code.as_str()),
            "code": code.as_str(),
            "title": code.title(),
            "status": status,
            "detail": description,
            "retryable": code.retryable(),
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        })
    });
    let content = ContentBuilder::new()
        .schema(Some(RefOr::Ref(Ref::from_schema_name("Problem"))))
        .example(example)
        .build();
    ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build()
}

fn describe(path: &str, method: &HttpMethod, operation: &mut Operation) {
    let open = operation.security.as_ref().is_some_and(|all| all == &[SecurityRequirement::default()]);
    let responses = &mut operation.responses.responses;
    for (status, response) in responses.iter_mut() {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            response.description = success(status).to_owned();
        }
    }
    for status in problems_of(path, method, open) {
        let reference = Ref::from_response_name(problem_name(status));
        responses.entry(status.to_string()).or_insert(RefOr::Ref(reference));
    }
    responses.insert("default".into(), RefOr::T(problem_response(0, "Another problem.")));
    if matches!(method, HttpMethod::Post) {
        operation.parameters.get_or_insert_default().push(RefOr::T(idempotency_key()));
    }
}

fn success(status: &str) -> &'static str {
    match status {
        "200" => "As asked.",
        "201" => "Made.",
        "202" => "Accepted; it goes on in the background.",
        _ => "Not ready; says what does not answer.",
    }
}

fn idempotency_key() -> Parameter {
    let text = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .min_length(Some(1))
        .max_length(Some(255))
        .build();
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Makes the request happen once: a second one with the same key and body is answered from the first; with \
             another body it is refused with `idempotency_key_reused`.",
        ))
        .schema(Some(text))
        .build()
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
