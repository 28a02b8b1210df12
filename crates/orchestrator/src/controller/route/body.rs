//! Strict JSON bodies: bounded, of the right content type, without unknown fields, and refused with the path of the
//! field that is wrong.

use std::borrow::Cow;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use futures::StreamExt;
use serde::de::DeserializeOwned;

use super::problem::{Problem, Result};
use crate::error::ErrorCode;

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// [`ErrorCode::BodyTooLarge`]; [`ErrorCode::MalformedBody`] when it breaks off.
pub async fn read(headers: &HeaderMap, content: Body, limit: usize) -> Result<Bytes> {
    let too_large = || {
        Problem::new(
            ErrorCode::BodyTooLarge,
            format!("a body of this request has at most {limit} bytes; send less at a time"),
        )
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(0);
    if announced > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    let mut stream = content.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Problem::new(ErrorCode::MalformedBody, "the body broke off"))?;
        if bytes.len().saturating_add(chunk.len()) > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

/// Reads JSON. An empty body counts as `{}`, for requests that need nothing.
///
/// # Errors
/// [`ErrorCode::UnsupportedMediaType`]; [`ErrorCode::MalformedBody`] with the field's path.
pub fn parse<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T> {
    if bytes.is_empty() {
        return decode(b"{}").map_err(|_| {
            Problem::new(ErrorCode::MalformedBody, "the body is missing: this request takes a JSON object")
        });
    }
    let json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split(';').next())
        .map(|text| text.trim().to_ascii_lowercase())
        .is_some_and(|kind| {
            kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
        });
    if !json {
        return Err(Problem::new(ErrorCode::UnsupportedMediaType, "send `content-type: application/json`"));
    }
    decode(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    // Left alone, an array would pass for an object whose fields come in order.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first == b'[') {
        return Err(Problem::new(ErrorCode::MalformedBody, "the body is a JSON object, not an array"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            wrong(ErrorCode::MalformedBody, &path, &plainly(&inner.to_string()))
        } else {
            Problem::new(ErrorCode::MalformedBody, format!("the body is not JSON: {inner}"))
        }
    })?;
    json.end().map_err(|_| Problem::new(ErrorCode::MalformedBody, "there is more after the JSON value"))?;
    Ok(value)
}

/// What is wrong with a field, without the place in the text, which says no more than the field's path. A whole number
/// that fits no type reaches us as a fraction, which it is not.
fn plainly(text: &str) -> Cow<'_, str> {
    let text = text.rsplit_once(" at line ").map_or(text, |(what, _)| what);
    let fraction =
        text.strip_prefix("invalid type: floating point `").and_then(|rest| rest.split_once("`, expected "));
    let Some((number, kind)) = fraction else { return text.into() };
    let (Ok(number), Some(most)) = (number.parse::<f64>(), largest(kind)) else { return text.into() };
    if number.fract() != 0.0 {
        return text.into();
    }
    if number < 0.0 {
        return "the number is too small".into();
    }
    format!("the number is too large: at most {most} fits").into()
}

/// The largest value of a type of whole numbers.
fn largest(kind: &str) -> Option<u64> {
    match kind {
        "u8" => Some(u8::MAX.into()),
        "u16" => Some(u16::MAX.into()),
        "u32" => Some(u32::MAX.into()),
        "u64" | "usize" => Some(u64::MAX),
        "i64" => Some(i64::MAX.unsigned_abs()),
        _ => None,
    }
}

/// A problem with the field that serde complained of: unknown, missing and double fields are named in its text only.
pub fn wrong(code: ErrorCode, path: &str, text: &str) -> Problem {
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| text.strip_prefix(start))
        .and_then(|rest| rest.split('`').next());
    let parent = if path == "." { "" } else { path };
    let field = match named {
        Some(name) if parent.is_empty() => name.to_owned(),
        Some(name) if parent == name || parent.ends_with(&format!(".{name}")) => parent.to_owned(),
        Some(name) => format!("{parent}.{name}"),
        None => parent.to_owned(),
    };
    if field.is_empty() { Problem::new(code, text.to_owned()) } else { Problem::at(code, field, text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_that_fit_nowhere_are_called_large_and_fractions_fractions() {
        #[derive(Debug, serde::Deserialize)]
        struct Ask {
            _bytes: u64,
        }
        let said = |number: &str| {
            let text =
                serde_json::from_str::<Ask>(&format!("{{\"_bytes\": {number}}}")).unwrap_err().to_string();
            plainly(&text).into_owned()
        };
        for large in ["18446744073709551616", "99999999999999999999999", "1e300"] {
            assert_eq!(said(large), "the number is too large: at most 18446744073709551615 fits", "{large}");
        }
        assert!(said("-1e30").starts_with("the number is too small"));
        assert_eq!(said("1.5"), "invalid type: floating point `1.5`, expected u64");
        assert_eq!(said("-1"), "invalid value: integer `-1`, expected u64");
    }
}
