//! Requests as inputs: a line `WHO METHOD TARGET`, lines `name: value`, an empty line, and the body.

use http::{HeaderName, HeaderValue, Method, Request, Uri};

/// A request that some client could send.
pub(crate) struct Wanted {
    /// Who sends it, in the words of the target.
    pub(crate) who: String,
    pub(crate) request: Request<Vec<u8>>,
}

/// The request that an input describes; `None` when no HTTP server would let it through to us.
pub(crate) fn read(data: &[u8]) -> Option<Wanted> {
    let (head, body) = match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (data.get(..at)?, data.get(at + 2..)?),
        None => (data, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut words = lines.next()?.splitn(3, |byte| *byte == b' ');
    let who = String::from_utf8(words.next()?.to_vec()).ok()?;
    let method = Method::from_bytes(words.next()?).ok()?;
    let target = words.next()?;
    // What proxies are asked for reaches no server of ours.
    let uri = Uri::try_from(target).ok().filter(|_| target.starts_with(b"/"))?;
    let mut request = Request::new(body.to_vec());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    for line in lines {
        let at = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line.get(..at)?).ok()?;
        let value = HeaderValue::from_bytes(line.get(at + 1..)?.trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(Wanted { who, request })
}
