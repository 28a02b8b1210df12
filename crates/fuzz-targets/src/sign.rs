//! AWS signatures, version 4, for S3: written here anew, so that the server's own code is not its own judge.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Request};
use orchestrator::core::market::quantity::Timestamp;
use sha2::{Digest, Sha256};

const REGION: &str = "local";

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner).finalize().into()
}

/// The present instant as `20261121T213704Z`.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = Timestamp(i64::try_from(since.as_secs()).unwrap_or(0) * 1_000_000).to_rfc3339();
    text.chars().filter(|c| !"-:".contains(*c)).collect()
}

/// Percent-decodes, and encodes again what is not unreserved.
pub(crate) fn encoded(text: &str, keep: &[u8]) -> String {
    let mut out = String::new();
    for byte in decoded(text) {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || keep.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Percent-decodes.
pub(crate) fn decoded(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let Some((first, behind)) = rest.split_first() {
        let hex = (*first == b'%').then(|| behind.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        (rest, _) = match byte {
            Some(byte) => (behind.get(2..).unwrap_or_default(), out.push(byte)),
            None => (behind, out.push(*first)),
        };
    }
    out
}

/// The pairs of a query, encoded and sorted.
fn query(pairs: &str) -> String {
    let mut pairs: Vec<_> = pairs
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (encoded(&name.replace('+', " "), b""), encoded(&value.replace('+', " "), b""))
        })
        .collect();
    pairs.sort();
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn signature(secret: &str, date: &str, canonical: &str) -> String {
    let day = date.get(..8).unwrap_or_default();
    let scope = format!("{day}/{REGION}/s3/aws4_request");
    let hash = hex::encode(Sha256::digest(canonical.as_bytes()));
    let key = hmac(format!("AWS4{secret}").as_bytes(), day.as_bytes());
    let key = hmac(&hmac(&hmac(&key, REGION.as_bytes()), b"s3"), b"aws4_request");
    hex::encode(hmac(&key, format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}").as_bytes()))
}

fn credential(key: &str, date: &str) -> String {
    format!("{key}/{}/{REGION}/s3/aws4_request", date.get(..8).unwrap_or_default())
}

/// Signs a request in its headers; a hash of the body that it names already is left as it is.
pub(crate) fn sign(request: &mut Request<Vec<u8>>, key: &str, secret: &str) {
    let date = now();
    let hash = hex::encode(Sha256::digest(request.body()));
    let (method, uri) = (request.method().to_string(), request.uri().clone());
    let headers = request.headers_mut();
    headers.insert("host", HeaderValue::from_static("127.0.0.1"));
    headers.insert("x-amz-date", date.parse().unwrap());
    headers.entry("x-amz-content-sha256").or_insert(hash.parse().unwrap());
    let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
    names.retain(|name| {
        name == "host" || name == "content-type" || name == "content-md5" || name.starts_with("x-amz-")
    });
    names.sort();
    let mut lines = String::new();
    for name in &names {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        lines.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    let (names, hash) =
        (names.join(";"), headers["x-amz-content-sha256"].to_str().unwrap_or_default().to_owned());
    let (path, pairs) = (encoded(uri.path(), b"/"), query(uri.query().unwrap_or_default()));
    let canonical = format!("{method}\n{path}\n{pairs}\n{lines}\n{names}\n{hash}");
    let value = format!(
        "AWS4-HMAC-SHA256 Credential={}, SignedHeaders={names}, Signature={}",
        credential(key, &date),
        signature(secret, &date, &canonical)
    );
    headers.insert("authorization", value.parse().unwrap());
}

/// Signs a request in its address, as presigned ones are.
pub(crate) fn presign(request: &mut Request<Vec<u8>>, key: &str, secret: &str) {
    let date = now();
    let uri = request.uri().clone();
    let given = uri.query().unwrap_or_default();
    let expires = if given.contains("X-Amz-Expires=") { "" } else { "&X-Amz-Expires=60" };
    let unsigned = format!(
        "{given}&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Date={date}{expires}&X-Amz-SignedHeaders=host",
        encoded(&credential(key, &date), b"")
    );
    let unsigned = unsigned.trim_start_matches('&');
    let (method, path, pairs) = (request.method(), encoded(uri.path(), b"/"), query(unsigned));
    let canonical = format!("{method}\n{path}\n{pairs}\nhost:127.0.0.1\n\nhost\nUNSIGNED-PAYLOAD");
    let signature = signature(secret, &date, &canonical);
    if let Ok(signed) = format!("{}?{unsigned}&X-Amz-Signature={signature}", uri.path()).parse() {
        *request.uri_mut() = signed;
    }
    request.headers_mut().insert("host", HeaderValue::from_static("127.0.0.1"));
}
