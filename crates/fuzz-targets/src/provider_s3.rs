//! The built-in provider's S3 endpoint: signatures in headers and addresses, chunked bodies, XML, listings and their tokens.

use http::{Method, Request, header};
use serde_json::Value;

use crate::{
    request,
    sign::{decoded, presign, sign},
    storage::{ALLOCATION, Answer, KEY, QUOTA, SECRET, Storage, visit},
};

/// No input is the provider's fault; nothing is done without a signature of just that request, nor outside of the key's own
/// bucket, nor beyond the quota.
///
/// The input is a request as in `request.rs`. By `signed` and `presigned` it gets a good signature, by `borrowed` one that was
/// made for `GET /alloc-1`, by anybody else none but its own.
pub fn provider_s3(data: &[u8]) {
    let Some(wanted) = request::read(data) else { return };
    visit(async |storage| {
        let mut request = wanted.request;
        let who = wanted.who.as_str();
        // Without a length a server would read until the client hangs up.
        let length = request.body().len().into();
        request.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length);
        match who {
            "signed" => sign(&mut request, KEY, SECRET),
            "presigned" => presign(&mut request, KEY, SECRET),
            "borrowed" => borrow(&mut request),
            _ => {}
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let Some(answer) = storage.s3(request).await else { return true };
        let shown = format!("{who} {method} {uri}: {}", answer.shown());
        assert!(answer.status < 500 || answer.status == 501, "{shown}");
        let done = answer.status < 300;
        if done {
            let own = format!("/{ALLOCATION}");
            let path = decoded(uri.path());
            let inside = path == own.as_bytes() || path.starts_with(format!("{own}/").as_bytes());
            match who {
                "signed" | "presigned" => assert!(inside || path == b"/", "{shown}"),
                "borrowed" => {
                    assert!(
                        method == Method::GET && path == own.as_bytes() && uri.query().is_none(),
                        "{shown}"
                    );
                }
                _ => panic!("nobody signed {shown}"),
            }
        }
        within_quota(storage, &shown).await;
        whole(&answer, &method, &shown);
        !(done && !method.is_safe())
    });
}

/// A signature that was made for a listing of the bucket.
fn borrow(request: &mut Request<Vec<u8>>) {
    let mut other = Request::new(Vec::new());
    *other.uri_mut() = format!("/{ALLOCATION}").parse().unwrap();
    sign(&mut other, KEY, SECRET);
    for (name, value) in other.headers() {
        request.headers_mut().insert(name, value.clone());
    }
}

async fn within_quota(storage: &Storage, shown: &str) {
    let usage = storage.tell(Method::GET, &format!("/allocations/{ALLOCATION}/usage"), Value::Null).await;
    assert!(usage["stored"].as_u64().is_some_and(|stored| stored <= QUOTA), "{usage} after {shown}");
}

/// A refusal names its code, where it has a body.
fn whole(answer: &Answer, method: &Method, shown: &str) {
    if answer.status >= 400 && *method != Method::HEAD {
        let body = String::from_utf8_lossy(&answer.body);
        assert!(body.contains("<Code>"), "{shown}");
    }
}
