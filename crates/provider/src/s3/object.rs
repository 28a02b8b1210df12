//! Single objects: write, read, look, copy, delete.

use std::{ops::Range, sync::Arc};

use s3s::{
    S3Error, S3ErrorCode, S3Request, S3Result,
    dto::{
        ChecksumMode, ChecksumType, CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource,
        DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETag,
        GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, MetadataDirective,
        ObjectCannedACL, PutObjectInput, PutObjectOutput, Timestamp, TimestampFormat,
    },
};

use super::{
    Shared,
    body::{self, Expected, Received},
    shape::{self, ReadConditions, Said, given_checksums, refuse, set_checksums},
};
use crate::{
    live::LiveKey,
    store::{Meta, NewObject, Object, Precondition, Segment},
};

/// A read that finds its file replaced looks the object up again, so many times.
const READ_ATTEMPTS: usize = 5;

/// Fills the fields that describe an object.
macro_rules! describe {
    ($output:expr, $object:expr) => {{
        let header = |name: &str| $object.meta.headers.get(name).cloned();
        $output.accept_ranges = Some("bytes".to_owned());
        $output.cache_control = header("cache-control");
        $output.content_disposition = header("content-disposition");
        $output.content_encoding = header("content-encoding");
        $output.content_language = header("content-language");
        $output.content_type = header("content-type").or_else(|| Some("binary/octet-stream".to_owned()));
        $output.expires = expires(&$object);
        $output.e_tag = Some(ETag::Strong($object.etag.clone()));
        $output.last_modified = Some(shape::timestamp($object.modified));
        $output.metadata = Some($object.meta.user.clone().into_iter().collect());
    }};
}

/// Writes an object.
pub(super) async fn put(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<PutObjectInput>,
) -> S3Result<PutObjectOutput> {
    let input = request.input;
    refuse!(input; grant_full_control, grant_read, grant_read_acp, grant_write_acp, object_lock_legal_hold_status,
        object_lock_mode, object_lock_retain_until_date, sse_customer_algorithm, sse_customer_key,
        ssekms_key_id, server_side_encryption, tagging, website_redirect_location, write_offset_bytes);
    private(input.acl.as_ref())?;
    let checksums = given_checksums!(input);
    let expected = Expected::new(
        &request.headers,
        request.trailing_headers,
        input.content_length,
        input.content_md5,
        checksums,
    )?;
    let said = Said {
        headers: [
            ("cache-control", input.cache_control),
            ("content-disposition", input.content_disposition),
            ("content-encoding", input.content_encoding),
            ("content-language", input.content_language),
            ("content-type", input.content_type),
        ],
        expires: input.expires,
        user: input.metadata,
    };
    let (meta, condition) = (said.into_meta()?, shape::precondition(input.if_match, input.if_none_match)?);
    let room = room(shared, grant, Some(&input.key), expected.length).await?;
    let received = body::receive(shared, grant, input.body, room, expected).await?;
    let sums = received.checksums.clone();
    let etag = received.md5.clone();
    commit(shared, grant, input.key, received, meta, condition).await?;
    let mut output = PutObjectOutput { e_tag: Some(ETag::Strong(etag)), ..Default::default() };
    if !sums.is_empty() {
        output.checksum_type = Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT));
    }
    set_checksums!(output, sums);
    Ok(output)
}

/// How many bytes a write may bring, or an error when the announced length does not fit.
pub(super) async fn room(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    key: Option<&str>,
    length: Option<u64>,
) -> S3Result<u64> {
    let (id, key) = (grant.allocation.id.clone(), key.map(str::to_owned));
    let found = shared.store(move |s| s.store.room(&id, key.as_deref(), length.unwrap_or(0))).await;
    found.map_err(shape::store)
}

/// Names a received body in the store.
async fn commit(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    key: String,
    received: Received,
    meta: Meta,
    condition: Precondition,
) -> S3Result<Object> {
    let Received { draft, size, md5, checksums } = received;
    let object = Object {
        size,
        etag: md5,
        modified: shared.clock.now(),
        segments: vec![Segment(draft.id.clone(), size)],
        meta: Meta { checksums, ..meta },
    };
    let new = NewObject { allocation: grant.allocation.id.clone(), key, object: object.clone(), condition };
    let freed = shared.store(move |s| s.store.put_object(&new)).await.map_err(shape::store)?;
    draft.keep();
    shared.discard(freed).await;
    Ok(object)
}

async fn find(shared: &Arc<Shared>, grant: &Arc<LiveKey>, key: &str) -> S3Result<Object> {
    let (id, key) = (grant.allocation.id.clone(), key.to_owned());
    let found = shared.store(move |s| s.store.object(&id, &key)).await.map_err(shape::store)?;
    found.ok_or_else(|| shape::error(S3ErrorCode::NoSuchKey, "there is no such object"))
}

/// Reads an object, or a range of it.
pub(super) async fn get(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<GetObjectInput>,
) -> S3Result<GetObjectOutput> {
    let input = request.input;
    refuse!(input; part_number, version_id, sse_customer_algorithm, sse_customer_key);
    let conditions = ReadConditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    for _ in 0..READ_ATTEMPTS {
        let object = find(shared, grant, &input.key).await?;
        conditions.check(&object)?;
        let range = input.range.map(|range| range.check(object.size)).transpose().map_err(S3Error::from)?;
        let wanted = range.clone().unwrap_or(0..object.size);
        let length = wanted.end - wanted.start;
        let Some(bytes) = body::read(shared, &object.segments, wanted).await? else { continue };
        let mut output = GetObjectOutput {
            body: Some(body::metered(shared, grant, bytes)),
            content_length: Some(shape::size(length)),
            content_range: range.as_ref().map(|range| content_range(range, object.size)),
            ..Default::default()
        };
        if range.is_none() && wants_checksums(input.checksum_mode.as_ref()) {
            set_checksums!(output, object.meta.checksums);
            output.checksum_type = checksum_type(&object);
        }
        describe!(output, object);
        return Ok(output);
    }
    Err(S3ErrorCode::SlowDown.into())
}

/// Looks at an object.
pub(super) async fn head(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<HeadObjectInput>,
) -> S3Result<HeadObjectOutput> {
    let input = request.input;
    refuse!(input; part_number, version_id, sse_customer_algorithm, sse_customer_key);
    let object = find(shared, grant, &input.key).await?;
    let conditions = ReadConditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    conditions.check(&object)?;
    let range = input.range.map(|range| range.check(object.size)).transpose().map_err(S3Error::from)?;
    let length = range.as_ref().map_or(object.size, |range| range.end - range.start);
    let mut output = HeadObjectOutput {
        content_length: Some(shape::size(length)),
        content_range: range.as_ref().map(|range| content_range(range, object.size)),
        ..Default::default()
    };
    if range.is_none() && wants_checksums(input.checksum_mode.as_ref()) {
        set_checksums!(output, object.meta.checksums);
        output.checksum_type = checksum_type(&object);
    }
    describe!(output, object);
    Ok(output)
}

fn checksum_type(object: &Object) -> Option<ChecksumType> {
    let kind = match object.meta.checksums.values().next()? {
        sum if sum.contains('-') => ChecksumType::COMPOSITE,
        _ => ChecksumType::FULL_OBJECT,
    };
    Some(ChecksumType::from_static(kind))
}

fn wants_checksums(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

/// Removes an object; a missing one is fine.
pub(super) async fn delete(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<DeleteObjectOutput> {
    let input = request.input;
    refuse!(input; version_id, if_match, if_match_last_modified_time, if_match_size);
    remove(shared, grant, vec![input.key]).await?;
    Ok(DeleteObjectOutput::default())
}

/// Removes up to 1,000 objects at once.
pub(super) async fn delete_many(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<DeleteObjectsOutput> {
    let input = request.input.delete;
    if input.objects.len() > 1000 {
        return Err(S3ErrorCode::MalformedXML.into());
    }
    for object in &input.objects {
        refuse!(object; version_id, e_tag, last_modified_time, size);
    }
    let keys: Vec<String> = input.objects.into_iter().map(|object| object.key).collect();
    remove(shared, grant, keys.clone()).await?;
    let deleted = (!input.quiet.unwrap_or(false)).then(|| {
        keys.into_iter().map(|key| DeletedObject { key: Some(key), ..Default::default() }).collect()
    });
    Ok(DeleteObjectsOutput { deleted, ..Default::default() })
}

async fn remove(shared: &Arc<Shared>, grant: &Arc<LiveKey>, keys: Vec<String>) -> S3Result<()> {
    let (id, now) = (grant.allocation.id.clone(), shared.clock.now());
    let freed = shared.store(move |s| s.store.delete_objects(&id, &keys, now)).await.map_err(shape::store)?;
    shared.discard(freed).await;
    Ok(())
}

/// The source of a copy: an object of the same bucket.
pub(super) async fn source(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    source: &CopySource,
) -> S3Result<Object> {
    match source {
        CopySource::Bucket { bucket, key, version_id: None } if **bucket == *grant.allocation.bucket => {
            find(shared, grant, key).await
        }
        CopySource::Bucket { version_id: Some(_), .. } => {
            Err(shape::error(S3ErrorCode::NotImplemented, "versions are not implemented"))
        }
        _ => Err(shape::error(S3ErrorCode::AccessDenied, "the source of a copy must lie in the same bucket")),
    }
}

/// Copies an object within the bucket.
pub(super) async fn copy(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<CopyObjectInput>,
) -> S3Result<CopyObjectOutput> {
    let input = request.input;
    refuse!(input; grant_full_control, grant_read, grant_read_acp, grant_write_acp, object_lock_legal_hold_status,
        object_lock_mode, object_lock_retain_until_date, sse_customer_algorithm, sse_customer_key,
        ssekms_key_id, server_side_encryption, tagging, website_redirect_location,
        copy_source_sse_customer_algorithm, copy_source_sse_customer_key);
    private(input.acl.as_ref())?;
    let from = source(shared, grant, &input.copy_source).await?;
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    conditions.check(&from).map_err(|_| S3Error::new(S3ErrorCode::PreconditionFailed))?;
    let replace = input.metadata_directive.is_some_and(|wish| wish.as_str() == MetadataDirective::REPLACE);
    let meta = if replace {
        let said = Said {
            headers: [
                ("cache-control", input.cache_control),
                ("content-disposition", input.content_disposition),
                ("content-encoding", input.content_encoding),
                ("content-language", input.content_language),
                ("content-type", input.content_type),
            ],
            expires: input.expires,
            user: input.metadata,
        };
        said.into_meta()?
    } else {
        from.meta.clone()
    };
    let room = room(shared, grant, Some(&input.key), Some(from.size)).await?;
    let bytes = body::read(shared, &from.segments, 0..from.size).await?.ok_or(S3ErrorCode::SlowDown)?;
    // A copy is one piece, so that checksums over its parts no longer apply.
    let checksums = from.meta.checksums.into_iter().filter(|(_, sum)| !sum.contains('-')).collect();
    let expected = Expected { length: Some(from.size), checksums, ..Expected::default() };
    let received = body::receive(shared, grant, Some(bytes), room, expected).await?;
    let object = commit(shared, grant, input.key, received, meta, Precondition::default()).await?;
    let mut result = CopyObjectResult {
        e_tag: Some(ETag::Strong(object.etag.clone())),
        last_modified: Some(shape::timestamp(object.modified)),
        ..Default::default()
    };
    set_checksums!(result, object.meta.checksums);
    Ok(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() })
}

/// Every object is private; a wish for anything wider is refused.
pub(super) fn private(acl: Option<&ObjectCannedACL>) -> S3Result<()> {
    match acl.map(ObjectCannedACL::as_str) {
        None | Some(ObjectCannedACL::PRIVATE | ObjectCannedACL::BUCKET_OWNER_FULL_CONTROL) => Ok(()),
        Some(_) => Err(shape::error(S3ErrorCode::NotImplemented, "objects are private")),
    }
}

/// Reads a stored `expires` header back.
fn expires(object: &Object) -> Option<Timestamp> {
    Timestamp::parse(TimestampFormat::HttpDate, object.meta.headers.get("expires")?).ok()
}
