//! Bodies: taking one in, hashed and counted, and sending one out, metered. The key's right is looked at with each
//! piece, so that a revocation ends transfers in flight.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use s3s::{
    S3Error, S3ErrorCode, S3Result, TrailingHeaders,
    checksum::ChecksumHasher,
    crypto::{Checksum as _, Md5},
    dto::StreamingBlob,
};
use tokio::{
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
    sync::mpsc,
};

use super::{Shared, shape};
use crate::{blobs::Draft, live::LiveKey, store::Segment};

/// A client that sends nothing for so long is given up.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes read from a file at once.
const CHUNK: usize = 256 * 1024;

/// What a body is checked against.
#[derive(Default)]
pub(super) struct Expected {
    /// Its length, when it is known ahead.
    pub(super) length: Option<u64>,
    /// Content-MD5, in base64.
    pub(super) md5: Option<String>,
    /// Checksums by algorithm, in base64.
    pub(super) checksums: BTreeMap<String, String>,
    /// Algorithms whose checksum comes after the body.
    pub(super) trailing: Vec<String>,
    /// Where it comes.
    pub(super) trailers: Option<TrailingHeaders>,
}

impl Expected {
    /// As the headers of a request say.
    pub(super) fn new(
        headers: &http::HeaderMap,
        trailers: Option<TrailingHeaders>,
        length: Option<i64>,
        md5: Option<String>,
        checksums: BTreeMap<String, String>,
    ) -> S3Result<Self> {
        let named = headers.get_all("x-amz-trailer").iter().filter_map(|value| value.to_str().ok());
        let trailing = named
            .flat_map(|names| names.split(','))
            .filter_map(|name| {
                name.trim().to_ascii_lowercase().strip_prefix("x-amz-checksum-").map(str::to_owned)
            })
            .collect();
        let length = length.map(u64::try_from).transpose().map_err(|_| S3ErrorCode::InvalidArgument)?;
        Ok(Self { length, md5, checksums, trailing, trailers })
    }
}

/// A body that is durable under a name that the store does not know yet.
pub(super) struct Received {
    pub(super) draft: Draft,
    pub(super) size: u64,
    /// In hex.
    pub(super) md5: String,
    pub(super) checksums: BTreeMap<String, String>,
}

/// Takes a body of at most `room` bytes in.
pub(super) async fn receive<S, E>(
    shared: &Arc<Shared>,
    grant: &LiveKey,
    body: Option<S>,
    room: u64,
    expected: Expected,
) -> S3Result<Received>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let blobs = shared.blobs.clone();
    let created = tokio::task::spawn_blocking(move || blobs.create()).await;
    let (mut draft, file) = created.map_err(S3Error::internal_error)?.map_err(shape::io)?;
    let mut file = tokio::fs::File::from_std(file);
    let (mut size, mut md5) = (0_u64, Md5::new());
    let mut hasher = hasher(expected.checksums.keys().chain(&expected.trailing))?;
    let mut body = body;
    while let Some(stream) = &mut body {
        let next = tokio::time::timeout(IDLE, stream.next()).await;
        let Some(piece) = next.map_err(|_| S3ErrorCode::RequestTimeout)? else { break };
        let piece = piece.map_err(|error| broken(error.into()))?;
        if !grant.may_write() {
            return Err(shape::error(S3ErrorCode::AccessDenied, "the right to write has ended"));
        }
        shared.faults.throttle(piece.len()).await;
        size = size.saturating_add(piece.len() as u64);
        if size > room {
            return Err(shape::store(crate::store::StoreError::Quota));
        }
        md5.update(&piece);
        hasher.update(&piece);
        file.write_all(&piece).await.map_err(shape::io)?;
    }
    if expected.length.is_some_and(|length| length != size) {
        return Err(S3ErrorCode::IncompleteBody.into());
    }
    let md5 = md5.finalize();
    let checksums = computed(hasher);
    verify(&expected, md5.as_ref(), &checksums)?;
    file.flush().await.map_err(shape::io)?;
    let file = file.into_std().await;
    let published = tokio::task::spawn_blocking(move || draft.publish(&file).map(|()| draft)).await;
    let draft = published.map_err(S3Error::internal_error)?.map_err(shape::io)?;
    if !grant.may_write() {
        return Err(shape::error(S3ErrorCode::AccessDenied, "the right to write has ended"));
    }
    Ok(Received { draft, size, md5: hex::encode(md5), checksums })
}

/// A hasher for the named algorithms.
pub(super) fn hasher<'a>(names: impl Iterator<Item = &'a String>) -> S3Result<ChecksumHasher> {
    use s3s::crypto::{Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
    let mut hasher = ChecksumHasher::default();
    for name in names {
        match name.as_str() {
            "crc32" => hasher.crc32 = Some(Crc32::new()),
            "crc32c" => hasher.crc32c = Some(Crc32c::new()),
            "crc64nvme" => hasher.crc64nvme = Some(Crc64Nvme::new()),
            "sha1" => hasher.sha1 = Some(Sha1::new()),
            "sha256" => hasher.sha256 = Some(Sha256::new()),
            _ => {
                return Err(shape::error(S3ErrorCode::InvalidRequest, "the checksum algorithm is not known"));
            }
        }
    }
    Ok(hasher)
}

/// The checksums that a hasher came to, by algorithm.
pub(super) fn computed(hasher: ChecksumHasher) -> BTreeMap<String, String> {
    let sums = hasher.finalize();
    shape::given_checksums!(sums)
}

fn verify(expected: &Expected, md5: &[u8], checksums: &BTreeMap<String, String>) -> S3Result<()> {
    if let Some(given) = &expected.md5 {
        let given = STANDARD.decode(given).map_err(|_| S3ErrorCode::InvalidDigest)?;
        if given.len() != md5.len() {
            return Err(S3ErrorCode::InvalidDigest.into());
        }
        if given != md5 {
            return Err(shape::error(S3ErrorCode::BadDigest, "the body does not match its Content-MD5"));
        }
    }
    let trailers = expected.trailers.as_ref().and_then(TrailingHeaders::take).unwrap_or_default();
    for (name, sum) in checksums {
        let header = trailers.get(format!("x-amz-checksum-{name}")).and_then(|value| value.to_str().ok());
        let given = expected.checksums.get(name).map(String::as_str).or(header);
        if given != Some(sum) {
            return Err(shape::error(S3ErrorCode::BadDigest, "the body does not match its checksum"));
        }
    }
    Ok(())
}

/// A body that broke off, or whose signature or hash was wrong.
fn broken(error: Box<dyn std::error::Error + Send + Sync>) -> S3Error {
    let text = error.to_string();
    let (code, text) = if text.contains("Sha256Mismatch") {
        (
            S3ErrorCode::from_bytes(b"XAmzContentSHA256Mismatch").unwrap_or(S3ErrorCode::BadDigest),
            "the body does not match x-amz-content-sha256",
        )
    } else if text.contains("SignatureMismatch") {
        (S3ErrorCode::SignatureDoesNotMatch, "the signature of a chunk does not match")
    } else {
        (S3ErrorCode::IncompleteBody, "the body broke off")
    };
    let mut mapped = shape::error(code, text);
    mapped.set_status_code(http::StatusCode::BAD_REQUEST);
    mapped.set_source(error);
    mapped
}

/// Opens the file that `offset` lies in and leaves the rest for later.
type Plan = VecDeque<(Segment, u64, u64)>;

/// Which bytes of which files make `range`.
fn plan(segments: &[Segment], range: std::ops::Range<u64>) -> Plan {
    let (mut plan, mut start) = (Plan::new(), 0_u64);
    for segment in segments {
        let end = start.saturating_add(segment.1);
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from < to {
            plan.push_back((segment.clone(), from - start, to - from));
        }
        start = end;
    }
    plan
}

/// The bytes of an object as they are read. `None` when its first file is gone: the object was replaced meanwhile.
pub(super) async fn read(
    shared: &Arc<Shared>,
    segments: &[Segment],
    range: std::ops::Range<u64>,
) -> S3Result<Option<impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + Unpin + 'static>> {
    let mut plan = plan(segments, range);
    let mut first = match plan.front() {
        None => None,
        Some((segment, ..)) => match tokio::fs::File::open(shared.blobs.path(&segment.0)).await {
            Ok(file) => Some(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(shape::io(error)),
        },
    };
    let (sender, mut receiver) = mpsc::channel(2);
    let shared = shared.clone();
    tokio::spawn(async move {
        while let Some((segment, offset, length)) = plan.pop_front() {
            let sent = send(&shared, first.take(), &segment, offset, length, &sender).await;
            if let Err(error) = sent {
                // The reader may be gone, which is why we are here.
                let _ = sender.send(Err(error)).await;
                return;
            }
        }
    });
    Ok(Some(stream::poll_fn(move |context| receiver.poll_recv(context))))
}

async fn send(
    shared: &Arc<Shared>,
    open: Option<tokio::fs::File>,
    segment: &Segment,
    offset: u64,
    length: u64,
    sender: &mpsc::Sender<std::io::Result<Bytes>>,
) -> std::io::Result<()> {
    let mut file = match open {
        Some(file) => file,
        None => tokio::fs::File::open(shared.blobs.path(&segment.0)).await?,
    };
    file.seek(std::io::SeekFrom::Start(offset)).await?;
    let mut file = file.take(length);
    let mut left = length;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let mut buffer = bytes::BytesMut::with_capacity(wanted);
        let got = file.read_buf(&mut buffer).await?;
        if got == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        left -= got as u64;
        sender.send(Ok(buffer.freeze())).await.map_err(|_| std::io::ErrorKind::BrokenPipe)?;
    }
    Ok(())
}

/// A body for a client: metered, throttled, and cut off when the key's right ends.
pub(super) fn metered(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    bytes: impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + Unpin + 'static,
) -> StreamingBlob {
    let (sender, mut receiver) = mpsc::channel::<std::io::Result<Bytes>>(1);
    let (shared, grant) = (shared.clone(), grant.clone());
    let gate = grant.clone();
    tokio::spawn(async move {
        let mut bytes = bytes;
        while let Some(piece) = bytes.next().await {
            shared.faults.throttle(piece.as_ref().map_or(0, Bytes::len)).await;
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    StreamingBlob::wrap(stream::poll_fn(move |context| {
        let next = receiver.poll_recv(context);
        next.map(|piece| {
            piece.map(|piece| {
                let piece = piece?;
                if !gate.may_read() {
                    return Err(std::io::Error::other("the right to read has ended"));
                }
                grant.allocation.unflushed_egress.fetch_add(piece.len() as u64, Ordering::AcqRel);
                Ok(piece)
            })
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_from_the_segments_it_touches() {
        let segments = [Segment("a".into(), 10), Segment("b".into(), 0), Segment("c".into(), 5)];
        let cut = |range| plan(&segments, range).into_iter().map(|(s, o, l)| (s.0, o, l)).collect::<Vec<_>>();
        assert_eq!(cut(0..15), [("a".to_owned(), 0, 10), ("c".to_owned(), 0, 5)]);
        assert_eq!(cut(9..11), [("a".to_owned(), 9, 1), ("c".to_owned(), 0, 1)]);
        assert_eq!(cut(12..13), [("c".to_owned(), 2, 1)]);
        assert_eq!(cut(0..0), []);
    }
}
