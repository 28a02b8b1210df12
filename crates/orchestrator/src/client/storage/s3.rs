//! Storage in one bucket of S3. The port's buckets are the first segments of the keys: names of real buckets are shared with
//! the whole world and few, an operator can give one that exists, and a policy names one. A bucket of the port exists when its
//! marker does, an object with the key `<bucket>/`, which no object of the port can have.
//!
//! An object up to a part long is one request; a longer one is a multipart upload, of which nothing is left when it fails or
//! is given up. (What a crash leaves, the bucket's lifecycle rule removes after a day.)

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::{create_multipart_upload::CreateMultipartUploadError, upload_part::UploadPartOutput},
    presigning::PresigningConfig,
    primitives::{ByteStream as Body, DateTime},
    types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart},
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::RwLock;

use super::{check_bucket, check_key};
use crate::{
    client::aws::{AwsClients, AwsError, Fault},
    core::{
        client::storage::{ByteStream, ObjectInfo, ObjectPage, StorageClient, StorageError},
        market::quantity::{Micros, Timestamp},
    },
};

/// Bytes of a part; S3 takes 10,000 of them, so an object has at most 80 GB.
const PART: usize = 8 << 20;
/// Most keys of one request.
const PAGE: usize = 1_000;
/// Longest that S3 signs for.
const LONGEST_LINK: Duration = Duration::from_secs(7 * 86_400);
/// The last character of a marker's key.
pub const MARKER: &str = "/";

/// Storage in one bucket of S3.
pub struct S3Storage {
    client: Client,
    bucket: String,
    /// Buckets of the port that are known to exist. Another process may remove one; nothing of ours does.
    known: RwLock<HashSet<String>>,
}

fn unavailable(error: AwsError) -> StorageError {
    StorageError::Unavailable(Box::new(error))
}

impl S3Storage {
    /// Storage in the bucket `bucket`, which `setup` has made or checked.
    #[must_use]
    pub fn new(clients: &AwsClients, bucket: impl Into<String>) -> Self {
        Self { client: clients.s3().clone(), bucket: bucket.into(), known: RwLock::default() }
    }

    /// The error of a call that named no object.
    fn failed<E>(&self, operation: &'static str, error: SdkError<E, HttpResponse>) -> StorageError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        unavailable(AwsError::new(operation, error))
    }

    /// The error of a call that named an object: a missing one is told apart from a missing bucket.
    fn object_failed<E>(
        &self,
        operation: &'static str,
        key: &str,
        error: SdkError<E, HttpResponse>,
    ) -> StorageError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let error = AwsError::new(operation, error);
        match (error.fault, error.code.as_deref()) {
            (Fault::Missing, Some("NoSuchBucket")) => unavailable(error),
            (Fault::Missing, _) => StorageError::NoObject(key.to_owned()),
            _ => unavailable(error),
        }
    }

    /// Checks that a bucket of the port exists.
    async fn require(&self, bucket: &str) -> Result<(), StorageError> {
        check_bucket(bucket)?;
        if self.known.read().contains(bucket) {
            return Ok(());
        }
        let head = self.client.head_object().bucket(&self.bucket).key(format!("{bucket}{MARKER}"));
        match head.send().await {
            Ok(_) => {
                self.known.write().insert(bucket.to_owned());
                Ok(())
            }
            Err(error) => match self.object_failed("s3:GetObject", bucket, error) {
                StorageError::NoObject(bucket) => Err(StorageError::NoBucket(bucket)),
                error => Err(error),
            },
        }
    }

    async fn object(&self, bucket: &str, key: &str) -> Result<String, StorageError> {
        check_key(key)?;
        self.require(bucket).await?;
        Ok(format!("{bucket}/{key}"))
    }

    async fn put_whole(&self, key: String, body: Bytes) -> Result<(), StorageError> {
        let put = self.client.put_object().bucket(&self.bucket).key(key).body(Body::from(body));
        put.send().await.map_err(|error| self.failed("s3:PutObject", error))?;
        Ok(())
    }

    /// Begins an upload. In a task of its own: whoever waits for it may go away while S3 has begun it already, and then it
    /// must be aborted, too.
    async fn begin(&self, key: String) -> Result<Upload, StorageError> {
        let (client, bucket) = (self.client.clone(), self.bucket.clone());
        let begin = async move {
            let create = client.create_multipart_upload().bucket(&bucket).key(&key);
            // The parts' own checksums are those of the whole, so that S3 checks what it puts together.
            let created = create.checksum_algorithm(ChecksumAlgorithm::Crc32).send().await?;
            let id = created.upload_id.unwrap_or_default();
            Ok(Upload { client, bucket, key, id, open: true })
        };
        let begun = tokio::spawn(begin).await.map_err(|lost| StorageError::Unavailable(Box::new(lost)))?;
        begun.map_err(|error: SdkError<CreateMultipartUploadError, _>| self.failed("s3:PutObject", error))
    }

    /// Uploads `first` and what follows in parts.
    async fn put_parts(&self, key: String, first: Bytes, mut rest: Parts) -> Result<u64, StorageError> {
        let upload = self.begin(key).await?;
        let sent = async {
            let (mut size, mut done, mut part) = (0_u64, Vec::new(), Some(first));
            while let Some(bytes) = part {
                size = size.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                let number = i32::try_from(done.len() + 1).unwrap_or(i32::MAX);
                done.push(upload.part(number, bytes).await.map_err(unavailable)?);
                part = rest.next().await?;
            }
            Ok((size, done))
        };
        match sent.await {
            Ok((size, done)) => {
                upload.complete(done).await.map_err(unavailable)?;
                Ok(size)
            }
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }
}

/// A body, cut into parts.
struct Parts {
    body: ByteStream,
    held: BytesMut,
}

impl Parts {
    fn new(body: ByteStream) -> Self {
        Self { body, held: BytesMut::new() }
    }

    /// The next part, of [`PART`] bytes unless it is the last; `None` after that.
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        while self.held.len() < PART {
            match self.body.try_next().await? {
                Some(bytes) => self.held.extend_from_slice(&bytes),
                None => break,
            }
        }
        let size = self.held.len().min(PART);
        Ok((size > 0).then(|| self.held.split_to(size).freeze()))
    }
}

/// A multipart upload that is aborted unless it is completed, also when whoever waits for it goes away.
struct Upload {
    client: Client,
    bucket: String,
    key: String,
    id: String,
    open: bool,
}

impl Upload {
    async fn part(&self, number: i32, bytes: Bytes) -> Result<CompletedPart, AwsError> {
        let upload = self.client.upload_part().bucket(&self.bucket).key(&self.key).upload_id(&self.id);
        let upload = upload.part_number(number).checksum_algorithm(ChecksumAlgorithm::Crc32);
        let done = upload.body(Body::from(bytes)).send().await;
        let UploadPartOutput { e_tag, checksum_crc32, .. } =
            done.map_err(|error| AwsError::new("s3:PutObject", error))?;
        let part = CompletedPart::builder().part_number(number);
        Ok(part.set_e_tag(e_tag).set_checksum_crc32(checksum_crc32).build())
    }

    async fn complete(mut self, parts: Vec<CompletedPart>) -> Result<(), AwsError> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete =
            self.client.complete_multipart_upload().bucket(&self.bucket).key(&self.key).upload_id(&self.id);
        complete
            .multipart_upload(parts)
            .send()
            .await
            .map_err(|error| AwsError::new("s3:PutObject", error))?;
        self.open = false;
        Ok(())
    }

    async fn abort(mut self) {
        self.open = false;
        self.request_abort().await;
    }

    fn request_abort(&self) -> impl Future<Output = ()> + Send + 'static {
        let abort =
            self.client.abort_multipart_upload().bucket(&self.bucket).key(&self.key).upload_id(&self.id);
        let key = self.key.clone();
        async move {
            if let Err(error) = abort.send().await {
                let error = AwsError::new("s3:AbortMultipartUpload", error);
                tracing::warn!(
                    key,
                    error = crate::error::chain(&error),
                    "the parts of an upload are left behind"
                );
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.open
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(self.request_abort());
        }
    }
}

fn size(length: Option<i64>) -> u64 {
    length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0)
}

fn timestamp(at: Option<DateTime>) -> Timestamp {
    at.map_or(Timestamp::EPOCH, |at| Timestamp(i64::try_from(at.as_nanos() / 1_000).unwrap_or(i64::MAX)))
}

#[async_trait]
impl StorageClient for S3Storage {
    async fn create_bucket(&self, bucket: &str) -> Result<(), StorageError> {
        match self.require(bucket).await {
            Err(StorageError::NoBucket(_)) => {}
            result => return result,
        }
        self.put_whole(format!("{bucket}{MARKER}"), Bytes::new()).await?;
        self.known.write().insert(bucket.to_owned());
        Ok(())
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), StorageError> {
        check_bucket(bucket)?;
        let any = match self.list(bucket, "", None, 1).await {
            Ok(page) => !page.objects.is_empty(),
            Err(StorageError::NoBucket(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        if any {
            return Err(StorageError::NotEmpty(bucket.to_owned()));
        }
        let delete = self.client.delete_object().bucket(&self.bucket).key(format!("{bucket}{MARKER}"));
        delete.send().await.map_err(|error| self.failed("s3:DeleteObject", error))?;
        self.known.write().remove(bucket);
        Ok(())
    }

    async fn put(&self, bucket: &str, key: &str, body: ByteStream) -> Result<u64, StorageError> {
        let key = self.object(bucket, key).await?;
        let mut parts = Parts::new(body);
        let first = parts.next().await?.unwrap_or_default();
        if first.len() < PART {
            let size = u64::try_from(first.len()).unwrap_or(u64::MAX);
            self.put_whole(key, first).await?;
            return Ok(size);
        }
        self.put_parts(key, first, parts).await
    }

    async fn get(&self, bucket: &str, key: &str) -> Result<ByteStream, StorageError> {
        let path = self.object(bucket, key).await?;
        let got = self.client.get_object().bucket(&self.bucket).key(path).send().await;
        let body = got.map_err(|error| self.object_failed("s3:GetObject", key, error))?.body;
        let read = |mut body: Body| async move {
            match body.try_next().await {
                Ok(bytes) => Ok(bytes.map(|bytes| (bytes, body))),
                Err(error) => Err(StorageError::Unavailable(Box::new(error))),
            }
        };
        Ok(stream::try_unfold(body, read).boxed())
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectInfo, StorageError> {
        let path = self.object(bucket, key).await?;
        let found = self.client.head_object().bucket(&self.bucket).key(path).send().await;
        let found = found.map_err(|error| self.object_failed("s3:GetObject", key, error))?;
        let modified = timestamp(found.last_modified);
        Ok(ObjectInfo { key: key.to_owned(), size: size(found.content_length), modified })
    }

    async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ObjectPage, StorageError> {
        self.require(bucket).await?;
        let mut objects: Vec<ObjectInfo> = Vec::new();
        // The marker is the first key of its bucket, and comes before what is asked for.
        let mut start = format!("{bucket}/{}", after.unwrap_or_default());
        while objects.len() < limit {
            let page = (limit - objects.len()).min(PAGE);
            let listed = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(format!("{bucket}/{prefix}"))
                .start_after(&start)
                .max_keys(i32::try_from(page).unwrap_or(1))
                .send()
                .await
                .map_err(|error| self.failed("s3:ListBucket", error))?;
            let more = listed.is_truncated.unwrap_or(false);
            for object in listed.contents.unwrap_or_default() {
                let path = object.key.unwrap_or_default();
                if let Some(key) = path.strip_prefix(bucket).and_then(|key| key.strip_prefix('/')) {
                    let modified = timestamp(object.last_modified);
                    objects.push(ObjectInfo { key: key.to_owned(), size: size(object.size), modified });
                }
                start = path;
            }
            if !more {
                return Ok(ObjectPage { objects, next: None });
            }
        }
        let next = objects.last().map(|last| last.key.clone());
        Ok(ObjectPage { objects, next })
    }

    async fn delete(&self, bucket: &str, key: &str) -> Result<(), StorageError> {
        let path = self.object(bucket, key).await?;
        let delete = self.client.delete_object().bucket(&self.bucket).key(path);
        delete.send().await.map_err(|error| self.failed("s3:DeleteObject", error))?;
        Ok(())
    }

    async fn presign_get(&self, bucket: &str, key: &str, expires: Micros) -> Result<String, StorageError> {
        let path = self.object(bucket, key).await?;
        // With temporary credentials the link ends with them, if that is sooner.
        let expires = expires.to_std().clamp(Duration::from_secs(1), LONGEST_LINK);
        let odd = |error: String| unavailable(AwsError::odd("s3:GetObject", error));
        let expires = PresigningConfig::expires_in(expires).map_err(|error| odd(error.to_string()))?;
        let get = self.client.get_object().bucket(&self.bucket).key(path);
        let signed = get.presigned(expires).await.map_err(|error| self.failed("s3:GetObject", error))?;
        Ok(signed.uri().to_owned())
    }
}
