//! Who may do what: a key opens its own bucket and nothing else. Looked up at each request.

use std::sync::{Arc, OnceLock};

use s3s::{
    S3Error, S3ErrorCode, S3Result,
    access::{S3Access, S3AccessContext},
    auth::{S3Auth, SecretKey},
};

use super::Shared;

/// Where the name of the operation is left for the meter.
pub type OperationSlot = Arc<OnceLock<&'static str>>;

/// Operations that change nothing.
const READING: &[&str] = &[
    "ListBuckets",
    "HeadBucket",
    "GetBucketLocation",
    // Answers that the bucket is there.
    "CreateBucket",
    "GetObject",
    "HeadObject",
    "ListObjects",
    "ListObjectsV2",
    "ListParts",
    "ListMultipartUploads",
];

/// Operations that change something.
const WRITING: &[&str] = &[
    "PutObject",
    "DeleteObject",
    "DeleteObjects",
    "CopyObject",
    "CreateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
];

/// Authenticates and authorises.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

impl Gate {
    /// A gate.
    #[must_use]
    pub const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[async_trait::async_trait]
impl S3Auth for Gate {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        self.shared.live.key(access_key).map(|key| key.secret.as_str().into()).ok_or_else(|| {
            S3Error::with_message(S3ErrorCode::InvalidAccessKeyId, "the access key id does not exist")
        })
    }
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let name = context.s3_op().name();
        let operation = READING.iter().chain(WRITING).copied().find(|known| *known == name);
        if let Some(slot) = context.extensions_mut().get::<OperationSlot>() {
            let _ = slot.set(operation.unwrap_or("Other"));
        }
        let denied = |text: &'static str| S3Error::with_message(S3ErrorCode::AccessDenied, text);
        if is_signature_v2(context) {
            return Err(denied("only signatures of version 4 are taken"));
        }
        let Some(credentials) = context.credentials() else { return Err(denied("a signature is needed")) };
        let Some(key) = self.shared.live.key(&credentials.access_key) else {
            return Err(denied("the key was revoked"));
        };
        let Some(operation) = operation else {
            return Err(S3Error::with_message(
                S3ErrorCode::NotImplemented,
                "this operation is not implemented",
            ));
        };
        // The answer does not tell whether the other bucket exists.
        if context.s3_path().get_bucket_name().is_some_and(|bucket| bucket != key.allocation.bucket) {
            return Err(denied("the key does not open this bucket"));
        }
        if !key.may_read() {
            return Err(denied("the allocation is closed"));
        }
        if WRITING.contains(&operation) && !key.may_write() {
            return Err(denied("the allocation or the key is read-only"));
        }
        context.extensions_mut().insert(key);
        Ok(())
    }
}

fn is_signature_v2(context: &S3AccessContext<'_>) -> bool {
    let header = context.headers().get(http::header::AUTHORIZATION);
    header.is_some_and(|value| value.as_bytes().starts_with(b"AWS "))
        || context.uri().query().is_some_and(|query| {
            query.split('&').any(|pair| pair.split('=').next().is_some_and(|name| name == "AWSAccessKeyId"))
        })
}
