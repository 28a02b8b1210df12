//! Between the store's shapes and those of the S3 dispatcher.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use s3s::{
    S3Error, S3ErrorCode, S3Result,
    dto::{ETag, ETagCondition, Owner, Timestamp, TimestampFormat},
};

use crate::{
    live::LiveKey,
    store::{Meta, Object, Precondition, StoreError},
};

/// User metadata may take this much, names and values together.
const MAX_USER_METADATA: usize = 2048;

/// An instant of the store.
pub(super) fn timestamp(micros: i64) -> Timestamp {
    let since = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    Timestamp::from(UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH))
}

/// The owner that listings show.
pub(super) fn owner(grant: &LiveKey) -> Owner {
    Owner { id: Some(grant.allocation.id.clone()), display_name: Some(grant.allocation.id.clone()) }
}

/// A size as S3 counts it.
pub(super) fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// An error with a text.
pub(super) fn error(code: S3ErrorCode, text: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::with_message(code, text)
}

/// An error whose code the dispatcher does not know.
pub(super) fn custom(code: &'static str, status: http::StatusCode, text: &'static str) -> S3Error {
    let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
    let mut error = S3Error::with_message(code, text);
    error.set_status_code(status);
    error
}

/// The disk is full.
pub(super) fn full() -> S3Error {
    custom("InsufficientStorage", http::StatusCode::INSUFFICIENT_STORAGE, "the disk of the provider is full")
}

/// A failed file operation.
pub(super) fn io(error: std::io::Error) -> S3Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull
        | std::io::ErrorKind::QuotaExceeded
        | std::io::ErrorKind::FileTooLarge => full(),
        _ => S3Error::internal_error(error),
    }
}

/// What the store did not do.
pub(super) fn store(error: StoreError) -> S3Error {
    let code = match &error {
        StoreError::Quota => {
            return custom(
                "QuotaExceeded",
                http::StatusCode::FORBIDDEN,
                "the allocation's quota would be exceeded; delete objects or unfinished uploads first",
            );
        }
        StoreError::Full => return full(),
        StoreError::Unknown | StoreError::Gone | StoreError::NotReady => S3ErrorCode::NoSuchBucket,
        StoreError::Precondition => S3ErrorCode::PreconditionFailed,
        StoreError::NoUpload => S3ErrorCode::NoSuchUpload,
        StoreError::Part(_) => S3ErrorCode::InvalidPart,
        StoreError::Stale { .. } | StoreError::Mismatch(_) | StoreError::NoCapacity => {
            S3ErrorCode::OperationAborted
        }
        StoreError::Sqlite(_) | StoreError::Damaged(_) => return S3Error::internal_error(error),
    };
    S3Error::with_message(code, error.to_string())
}

/// What clients said of an object in the headers of a write.
pub(super) struct Said {
    /// Standard headers by name.
    pub(super) headers: [(&'static str, Option<String>); 5],
    /// When it expires from caches.
    pub(super) expires: Option<Timestamp>,
    /// User metadata.
    pub(super) user: Option<std::collections::HashMap<String, String>>,
}

impl Said {
    /// As it is stored.
    pub(super) fn into_meta(self) -> S3Result<Meta> {
        let user: BTreeMap<_, _> = self.user.unwrap_or_default().into_iter().collect();
        if user.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_USER_METADATA {
            return Err(error(S3ErrorCode::MetadataTooLarge, "user metadata may take 2 KiB"));
        }
        let mut headers = BTreeMap::new();
        for (name, value) in self.headers {
            let value =
                value.map(|value| if name == "content-encoding" { without_chunking(&value) } else { value });
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                headers.insert(name.to_owned(), value);
            }
        }
        if let Some(expires) = self.expires {
            let mut text = Vec::new();
            let format = TimestampFormat::HttpDate;
            if expires.format(format, &mut text).is_ok() {
                headers.insert("expires".to_owned(), String::from_utf8_lossy(&text).into_owned());
            }
        }
        Ok(Meta { headers, user, checksums: BTreeMap::new() })
    }
}

/// `aws-chunked` is how the body was sent, not how the object is encoded.
fn without_chunking(encoding: &str) -> String {
    encoding.split(',').map(str::trim).filter(|part| *part != "aws-chunked").collect::<Vec<_>>().join(",")
}

/// The condition of a conditional write.
pub(super) fn precondition(
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> S3Result<Precondition> {
    let etag = match if_match {
        None => None,
        Some(ETagCondition::ETag(etag)) => Some(etag.into_value()),
        Some(ETagCondition::Any) => {
            return Err(error(S3ErrorCode::NotImplemented, "If-Match: * is not implemented"));
        }
    };
    match if_none_match {
        None => Ok(Precondition { absent: false, etag }),
        Some(ETagCondition::Any) => Ok(Precondition { absent: true, etag }),
        Some(ETagCondition::ETag(_)) => {
            Err(error(S3ErrorCode::NotImplemented, "If-None-Match of a write takes * only"))
        }
    }
}

/// The conditions of a read.
pub(super) struct ReadConditions {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
    pub(super) if_modified_since: Option<Timestamp>,
    pub(super) if_unmodified_since: Option<Timestamp>,
}

impl ReadConditions {
    /// Checks them in the order of RFC 9110: an entity tag counts more than a time.
    pub(super) fn check(&self, object: &Object) -> S3Result<()> {
        let matches = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(etag) => etag.value() == object.etag,
        };
        // Times in headers are whole seconds.
        let modified = timestamp(object.modified / 1_000_000 * 1_000_000);
        let unmet = match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => !matches(condition),
            (None, Some(time)) => modified > *time,
            (None, None) => false,
        };
        if unmet {
            return Err(S3ErrorCode::PreconditionFailed.into());
        }
        let unchanged = match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => matches(condition),
            (None, Some(time)) => modified <= *time,
            (None, None) => false,
        };
        if unchanged {
            let mut error = S3Error::new(S3ErrorCode::NotModified);
            let mut headers = http::HeaderMap::new();
            if let Ok(etag) = ETag::Strong(object.etag.clone()).to_http_header() {
                headers.insert(http::header::ETAG, etag);
            }
            error.set_headers(headers);
            return Err(error);
        }
        Ok(())
    }
}

/// Answers `NotImplemented` when a header is there whose wish would not be kept.
macro_rules! refuse {
    ($input:expr; $($field:ident),+ $(,)?) => {
        $(if $input.$field.is_some() {
            return Err($crate::s3::shape::error(
                s3s::S3ErrorCode::NotImplemented,
                concat!("the header for `", stringify!($field), "` is not implemented"),
            ));
        })+
    };
}

/// Fills the checksum fields of an answer.
macro_rules! set_checksums {
    ($output:expr, $checksums:expr) => {{
        let checksums = &$checksums;
        $output.checksum_crc32 = checksums.get("crc32").cloned();
        $output.checksum_crc32c = checksums.get("crc32c").cloned();
        $output.checksum_crc64nvme = checksums.get("crc64nvme").cloned();
        $output.checksum_sha1 = checksums.get("sha1").cloned();
        $output.checksum_sha256 = checksums.get("sha256").cloned();
    }};
}

/// The checksum fields of a request.
macro_rules! given_checksums {
    ($input:expr) => {
        [
            ("crc32", $input.checksum_crc32.clone()),
            ("crc32c", $input.checksum_crc32c.clone()),
            ("crc64nvme", $input.checksum_crc64nvme.clone()),
            ("sha1", $input.checksum_sha1.clone()),
            ("sha256", $input.checksum_sha256.clone()),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)))
        .collect::<std::collections::BTreeMap<String, String>>()
    };
}

pub(super) use {given_checksums, refuse, set_checksums};
