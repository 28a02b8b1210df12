//! The S3 endpoint: authentication and scope in [`gate`], bodies in [`body`], single objects in [`object`], listings in
//! [`list`], multipart uploads in [`multipart`]. Operations that are not named here answer `NotImplemented`.

pub mod body;
pub mod gate;
mod list;
mod multipart;
mod object;
mod shape;

use std::sync::{Arc, atomic::Ordering};

use s3s::{
    S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, BucketLocationConstraint,
        CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput,
        CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput,
        DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput,
        GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput, GetObjectOutput, HeadBucketInput,
        HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput,
        ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput, ListObjectsOutput,
        ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput, PutObjectInput,
        PutObjectOutput, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
    },
};

use crate::{
    blobs::{BlobId, Blobs},
    fault::FaultState,
    live::{Live, LiveKey},
    qos::QosMeter,
    server::TimeSource,
    store::{Store, StoreError},
};

/// What the S3 endpoint and the admin API share.
pub struct Shared {
    /// What is known.
    pub store: Store,
    /// The bytes.
    pub blobs: Blobs,
    /// What requests look up.
    pub live: Live,
    /// What was measured.
    pub qos: QosMeter,
    /// What is made to fail.
    pub faults: FaultState,
    /// The region that clients sign for.
    pub region: String,
    /// What time meters go by.
    pub clock: TimeSource,
}

impl Shared {
    /// Runs a blocking call on the store off the event loop.
    ///
    /// # Errors
    /// As the call; an interrupted one counts as [`StoreError::Sqlite`].
    pub async fn store<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || call(&this))
            .await
            .unwrap_or(Err(StoreError::Sqlite(rusqlite::Error::InvalidQuery)))
    }

    /// Removes files that the store does not name any more, off the event loop.
    pub async fn discard(self: &Arc<Self>, files: Vec<BlobId>) {
        if !files.is_empty() {
            let this = self.clone();
            let _ = tokio::task::spawn_blocking(move || this.blobs.remove(&files)).await;
        }
    }

    /// Brings the bytes sent so far into the store. Blocks.
    ///
    /// # Errors
    /// As the store; what was not written is kept for the next time.
    pub fn flush_egress(&self) -> Result<(), StoreError> {
        let mut sent = Vec::new();
        for allocation in self.live.allocations() {
            match allocation.unflushed_egress.swap(0, Ordering::AcqRel) {
                0 => {}
                bytes => sent.push((allocation, bytes)),
            }
        }
        let rows: Vec<_> = sent.iter().map(|(allocation, bytes)| (allocation.id.clone(), *bytes)).collect();
        self.store.add_egress(&rows).inspect_err(|_| {
            for (allocation, bytes) in &sent {
                allocation.unflushed_egress.fetch_add(*bytes, Ordering::AcqRel);
            }
        })
    }
}

/// The service: each request comes with the [`LiveKey`] that the gate found.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

impl Service {
    /// A service.
    #[must_use]
    pub const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

/// The key that the gate let in.
fn grant<T>(request: &S3Request<T>) -> S3Result<Arc<LiveKey>> {
    request.extensions.get::<Arc<LiveKey>>().cloned().ok_or_else(|| S3Error::new(S3ErrorCode::AccessDenied))
}

/// Makes the trait's methods from functions of the submodules.
macro_rules! operations {
    ($($name:ident: $input:ident => $output:ident, $function:path;)+) => {
        #[async_trait::async_trait]
        impl S3 for Service {
            $(async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                let grant = grant(&request)?;
                $function(&self.shared, &grant, request).await.map(S3Response::new)
            })+
        }
    };
}

operations! {
    list_buckets: ListBucketsInput => ListBucketsOutput, list_buckets;
    head_bucket: HeadBucketInput => HeadBucketOutput, head_bucket;
    get_bucket_location: GetBucketLocationInput => GetBucketLocationOutput, get_bucket_location;
    create_bucket: CreateBucketInput => CreateBucketOutput, create_bucket;
    put_object: PutObjectInput => PutObjectOutput, object::put;
    get_object: GetObjectInput => GetObjectOutput, object::get;
    head_object: HeadObjectInput => HeadObjectOutput, object::head;
    delete_object: DeleteObjectInput => DeleteObjectOutput, object::delete;
    delete_objects: DeleteObjectsInput => DeleteObjectsOutput, object::delete_many;
    copy_object: CopyObjectInput => CopyObjectOutput, object::copy;
    list_objects: ListObjectsInput => ListObjectsOutput, list::objects;
    list_objects_v2: ListObjectsV2Input => ListObjectsV2Output, list::objects_v2;
    create_multipart_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput, multipart::create;
    upload_part: UploadPartInput => UploadPartOutput, multipart::upload_part;
    upload_part_copy: UploadPartCopyInput => UploadPartCopyOutput, multipart::upload_part_copy;
    complete_multipart_upload: CompleteMultipartUploadInput => CompleteMultipartUploadOutput, multipart::complete;
    abort_multipart_upload: AbortMultipartUploadInput => AbortMultipartUploadOutput, multipart::abort;
    list_parts: ListPartsInput => ListPartsOutput, multipart::list_parts;
    list_multipart_uploads: ListMultipartUploadsInput => ListMultipartUploadsOutput, multipart::list_uploads;
}

async fn list_buckets(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    _: S3Request<ListBucketsInput>,
) -> S3Result<ListBucketsOutput> {
    let bucket = Bucket {
        name: Some(grant.allocation.bucket.clone()),
        creation_date: Some(shape::timestamp(grant.allocation.created_at)),
        bucket_region: Some(shared.region.clone()),
    };
    Ok(ListBucketsOutput {
        buckets: Some(vec![bucket]),
        owner: Some(shape::owner(grant)),
        ..Default::default()
    })
}

async fn head_bucket(
    shared: &Arc<Shared>,
    _: &Arc<LiveKey>,
    _: S3Request<HeadBucketInput>,
) -> S3Result<HeadBucketOutput> {
    Ok(HeadBucketOutput { bucket_region: Some(shared.region.clone()), ..Default::default() })
}

async fn get_bucket_location(
    shared: &Arc<Shared>,
    _: &Arc<LiveKey>,
    _: S3Request<GetBucketLocationInput>,
) -> S3Result<GetBucketLocationOutput> {
    // The region that S3 calls us-east-1 has an empty location.
    let location =
        (shared.region != "us-east-1").then(|| BucketLocationConstraint::from(shared.region.clone()));
    Ok(GetBucketLocationOutput { location_constraint: location })
}

async fn create_bucket(
    _: &Arc<Shared>,
    _: &Arc<LiveKey>,
    _: S3Request<CreateBucketInput>,
) -> S3Result<CreateBucketOutput> {
    // The gate lets nobody in who names another bucket than his own.
    Err(S3Error::with_message(S3ErrorCode::BucketAlreadyOwnedByYou, "the allocation's bucket exists already"))
}
