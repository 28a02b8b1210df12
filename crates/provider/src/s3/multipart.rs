//! Multipart uploads. Completing one moves no bytes: the object is made of the files of its parts.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use s3s::{
    S3Error, S3ErrorCode, S3Request, S3Result,
    crypto::{Checksum as _, Md5},
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumType, CompleteMultipartUploadInput,
        CompleteMultipartUploadOutput, CompletedPart, CopyPartResult, CreateMultipartUploadInput,
        CreateMultipartUploadOutput, ETag, ListMultipartUploadsInput, ListMultipartUploadsOutput,
        ListPartsInput, ListPartsOutput, MultipartUpload, Part, Range, UploadPartCopyInput,
        UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
    },
};

use super::{
    Shared,
    body::{self, Expected, Received},
    list::{Names, limit},
    object,
    shape::{self, ReadConditions, Said, given_checksums, refuse, set_checksums},
};
use crate::{
    live::LiveKey,
    store::{Meta, NewObject, NewPart, Object, PartRow, Segment, UploadRow},
};

/// Every part but the last has at least this many bytes.
const MIN_PART: u64 = 5 * 1024 * 1024;
const MAX_PARTS: i32 = 10_000;

/// Begins an upload.
pub(super) async fn create(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<CreateMultipartUploadOutput> {
    let input = request.input;
    refuse!(input; grant_full_control, grant_read, grant_read_acp, grant_write_acp, object_lock_legal_hold_status,
        object_lock_mode, object_lock_retain_until_date, sse_customer_algorithm, sse_customer_key,
        ssekms_key_id, server_side_encryption, tagging, website_redirect_location);
    object::private(input.acl.as_ref())?;
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
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|_| S3Error::new(S3ErrorCode::InternalError))?;
    let upload = UploadRow {
        id: hex::encode(random),
        key: input.key.clone(),
        meta: said.into_meta()?,
        created_at: shared.clock.now(),
    };
    let (allocation, id) = (grant.allocation.id.clone(), upload.id.clone());
    shared.store(move |s| s.store.create_upload(&allocation, &upload)).await.map_err(shape::store)?;
    Ok(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id),
        checksum_algorithm: input.checksum_algorithm,
        checksum_type: input.checksum_type,
        ..Default::default()
    })
}

async fn find(shared: &Arc<Shared>, grant: &Arc<LiveKey>, key: &str, id: &str) -> S3Result<UploadRow> {
    let (allocation, key, id) = (grant.allocation.id.clone(), key.to_owned(), id.to_owned());
    shared.store(move |s| s.store.upload(&allocation, &key, &id)).await.map_err(shape::store)
}

fn part_number(number: i32) -> S3Result<u32> {
    u32::try_from(number)
        .ok()
        .filter(|_| (1..=MAX_PARTS).contains(&number))
        .ok_or_else(|| shape::error(S3ErrorCode::InvalidArgument, "part numbers are 1 to 10000"))
}

/// Takes a part in.
pub(super) async fn upload_part(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<UploadPartInput>,
) -> S3Result<UploadPartOutput> {
    let input = request.input;
    refuse!(input; sse_customer_algorithm, sse_customer_key);
    let number = part_number(input.part_number)?;
    find(shared, grant, &input.key, &input.upload_id).await?;
    let checksums = given_checksums!(input);
    let expected = Expected::new(
        &request.headers,
        request.trailing_headers,
        input.content_length,
        input.content_md5,
        checksums,
    )?;
    let room = object::room(shared, grant, None, expected.length).await?;
    let received = body::receive(shared, grant, input.body, room, expected).await?;
    let part = commit(shared, grant, (input.key, input.upload_id, number), received).await?;
    let mut output = UploadPartOutput { e_tag: Some(ETag::Strong(part.md5.clone())), ..Default::default() };
    set_checksums!(output, part.checksums);
    Ok(output)
}

async fn commit(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    (key, upload, number): (String, String, u32),
    received: Received,
) -> S3Result<PartRow> {
    let Received { draft, size, md5, checksums } = received;
    let segment = Segment(draft.id.clone(), size);
    let part = PartRow { number, segment, md5, checksums, modified: shared.clock.now() };
    let new = NewPart { allocation: grant.allocation.id.clone(), key, upload, part: part.clone() };
    let freed = shared.store(move |s| s.store.put_part(&new)).await.map_err(shape::store)?;
    draft.keep();
    shared.discard(freed).await;
    Ok(part)
}

/// Takes a part in from another object of the bucket.
pub(super) async fn upload_part_copy(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<UploadPartCopyOutput> {
    let input = request.input;
    refuse!(input; sse_customer_algorithm, sse_customer_key, copy_source_sse_customer_algorithm,
        copy_source_sse_customer_key);
    let number = part_number(input.part_number)?;
    find(shared, grant, &input.key, &input.upload_id).await?;
    let from = object::source(shared, grant, &input.copy_source).await?;
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    conditions.check(&from).map_err(|_| S3Error::new(S3ErrorCode::PreconditionFailed))?;
    let range = match &input.copy_source_range {
        None => 0..from.size,
        Some(text) => {
            let range = Range::parse(text).map_err(|_| {
                shape::error(S3ErrorCode::InvalidArgument, "the range of the source is malformed")
            })?;
            range.check(from.size).map_err(S3Error::from)?
        }
    };
    let length = range.end - range.start;
    let room = object::room(shared, grant, None, Some(length)).await?;
    let bytes = body::read(shared, &from.segments, range).await?.ok_or(S3ErrorCode::SlowDown)?;
    let expected = Expected { length: Some(length), ..Expected::default() };
    let received = body::receive(shared, grant, Some(bytes), room, expected).await?;
    let part = commit(shared, grant, (input.key, input.upload_id, number), received).await?;
    let result = CopyPartResult {
        e_tag: Some(ETag::Strong(part.md5)),
        last_modified: Some(shape::timestamp(part.modified)),
        ..Default::default()
    };
    Ok(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() })
}

/// Makes the object.
pub(super) async fn complete(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<CompleteMultipartUploadOutput> {
    let input = request.input;
    refuse!(input; sse_customer_algorithm, sse_customer_key);
    let upload = find(shared, grant, &input.key, &input.upload_id).await?;
    let condition = shape::precondition(input.if_match.clone(), input.if_none_match.clone())?;
    let id = upload.id.clone();
    let present = shared.store(move |s| s.store.parts(&id)).await.map_err(shape::store)?;
    let named =
        input.multipart_upload.as_ref().and_then(|upload| upload.parts.as_deref()).unwrap_or_default();
    let parts = choose(present, named)?;
    let size = parts.iter().map(|part| part.segment.1).sum();
    if input.mpu_object_size.is_some_and(|wish| wish != shape::size(size)) {
        return Err(shape::error(
            S3ErrorCode::InvalidRequest,
            "the parts do not add up to the announced size",
        ));
    }
    let segments: Vec<_> = parts.iter().map(|part| part.segment.clone()).collect();
    let given = given_checksums!(input);
    let checksums = checksums(shared, &parts, &segments, size, given).await?;
    let etag = etag(&parts)?;
    let kind = checksums.values().next().map(|sum| match sum.contains('-') {
        true => ChecksumType::from_static(ChecksumType::COMPOSITE),
        false => ChecksumType::from_static(ChecksumType::FULL_OBJECT),
    });
    let mut output = CompleteMultipartUploadOutput {
        bucket: Some(input.bucket.clone()),
        key: Some(input.key.clone()),
        location: Some(format!("/{}/{}", input.bucket, Names::new(None).show(&input.key))),
        e_tag: Some(ETag::Strong(etag.clone())),
        checksum_type: kind,
        ..Default::default()
    };
    set_checksums!(output, checksums);
    let meta = Meta { checksums, ..upload.meta };
    let object = Object { size, etag, modified: shared.clock.now(), segments, meta };
    let new = NewObject { allocation: grant.allocation.id.clone(), key: input.key, object, condition };
    let id = upload.id;
    let freed = shared.store(move |s| s.store.complete_upload(&id, &new)).await.map_err(shape::store)?;
    shared.discard(freed).await;
    Ok(output)
}

/// The named parts, in ascending order, as they were uploaded.
fn choose(present: Vec<PartRow>, named: &[CompletedPart]) -> S3Result<Vec<PartRow>> {
    let mut present: BTreeMap<u32, PartRow> = present.into_iter().map(|part| (part.number, part)).collect();
    let (mut chosen, mut last) = (Vec::with_capacity(named.len()), 0);
    for part in named {
        let number = part_number(part.part_number.unwrap_or(0))?;
        if number <= last {
            return Err(S3ErrorCode::InvalidPartOrder.into());
        }
        last = number;
        let missing =
            || shape::error(S3ErrorCode::InvalidPart, "a named part was not uploaded, or is another one");
        let row = present.remove(&number).ok_or_else(missing)?;
        let given = given_checksums!(part);
        let differs =
            given.iter().any(|(name, sum)| row.checksums.get(name).is_some_and(|known| known != sum));
        if part.e_tag.as_ref().is_some_and(|etag| etag.value() != row.md5) || differs {
            return Err(missing());
        }
        chosen.push(row);
    }
    let Some((_, all_but_last)) = chosen.split_last() else {
        return Err(shape::error(S3ErrorCode::MalformedXML, "an upload is completed with at least one part"));
    };
    if all_but_last.iter().any(|part| part.segment.1 < MIN_PART) {
        return Err(shape::error(S3ErrorCode::EntityTooSmall, "every part but the last has at least 5 MiB"));
    }
    Ok(chosen)
}

fn etag(parts: &[PartRow]) -> S3Result<String> {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(&hex::decode(&part.md5).map_err(S3Error::internal_error)?);
    }
    Ok(format!("{}-{}", hex::encode(md5.finalize()), parts.len()))
}

/// Checks what the client says of the whole: a checksum over the checksums of the parts (`…-N`), or over all bytes.
async fn checksums(
    shared: &Arc<Shared>,
    parts: &[PartRow],
    segments: &[Segment],
    size: u64,
    given: BTreeMap<String, String>,
) -> S3Result<BTreeMap<String, String>> {
    for (name, sum) in &given {
        let mut hasher = body::hasher(std::iter::once(name))?;
        let suffix = if sum.contains('-') {
            for part in parts {
                let known = part.checksums.get(name).and_then(|sum| STANDARD.decode(sum).ok());
                hasher.update(&known.ok_or(S3ErrorCode::InvalidPart)?);
            }
            format!("-{}", parts.len())
        } else {
            let bytes = body::read(shared, segments, 0..size).await?;
            let mut bytes = bytes.ok_or(S3ErrorCode::InvalidPart)?;
            while let Some(piece) = bytes.next().await {
                hasher.update(&piece.map_err(shape::io)?);
            }
            String::new()
        };
        let computed = body::computed(hasher);
        if computed.get(name).map(|known| format!("{known}{suffix}")).as_ref() != Some(sum) {
            return Err(shape::error(S3ErrorCode::BadDigest, "the object does not match its checksum"));
        }
    }
    Ok(given)
}

/// Gives an upload up.
pub(super) async fn abort(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<AbortMultipartUploadOutput> {
    let input = request.input;
    refuse!(input; if_match_initiated_time);
    let (allocation, now) = (grant.allocation.id.clone(), shared.clock.now());
    let freed = shared
        .store(move |s| s.store.abort_upload(&allocation, &input.key, &input.upload_id, now))
        .await
        .map_err(shape::store)?;
    shared.discard(freed).await;
    Ok(AbortMultipartUploadOutput::default())
}

/// Lists the parts of an upload.
pub(super) async fn list_parts(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<ListPartsInput>,
) -> S3Result<ListPartsOutput> {
    let input = request.input;
    find(shared, grant, &input.key, &input.upload_id).await?;
    let (max_parts, limit) = limit(input.max_parts)?;
    let id = input.upload_id.clone();
    let mut rows = shared.store(move |s| s.store.parts(&id)).await.map_err(shape::store)?;
    let marker = u32::try_from(input.part_number_marker.unwrap_or(0)).unwrap_or(0);
    rows.retain(|part| part.number > marker);
    let truncated = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| truncated).and_then(|part| i32::try_from(part.number).ok());
    let parts = rows.into_iter().map(|row| {
        let mut part = Part {
            e_tag: Some(ETag::Strong(row.md5)),
            last_modified: Some(shape::timestamp(row.modified)),
            part_number: i32::try_from(row.number).ok(),
            size: Some(shape::size(row.segment.1)),
            ..Default::default()
        };
        set_checksums!(part, row.checksums);
        part
    });
    Ok(ListPartsOutput {
        parts: Some(parts.collect()),
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        owner: Some(shape::owner(grant)),
        max_parts: Some(max_parts),
        part_number_marker: input.part_number_marker,
        next_part_number_marker: next,
        is_truncated: Some(truncated),
        ..Default::default()
    })
}

/// Lists unfinished uploads.
pub(super) async fn list_uploads(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<ListMultipartUploadsOutput> {
    let input = request.input;
    refuse!(input; delimiter);
    let (max_uploads, limit) = limit(input.max_uploads)?;
    let names = Names::new(input.encoding_type.as_ref());
    let (allocation, prefix) = (grant.allocation.id.clone(), input.prefix.clone().unwrap_or_default());
    let key = input.key_marker.clone().unwrap_or_default();
    // Without an id to go on from, every upload of the marker's key was shown.
    let id = input.upload_id_marker.clone().unwrap_or_else(|| "~".to_owned());
    let listed = shared.store(move |s| s.store.uploads(&allocation, &prefix, (&key, &id), limit + 1)).await;
    let mut rows = listed.map_err(shape::store)?;
    let truncated = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| truncated).map(|row| (names.show(&row.key), row.id.clone()));
    let (next_key_marker, next_upload_id_marker) = next.unzip();
    let uploads = rows.into_iter().map(|row| MultipartUpload {
        key: Some(names.show(&row.key)),
        upload_id: Some(row.id),
        initiated: Some(shape::timestamp(row.created_at)),
        owner: Some(shape::owner(grant)),
        ..Default::default()
    });
    Ok(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        uploads: Some(uploads.collect()),
        prefix: input.prefix.map(|prefix| names.show(&prefix)),
        key_marker: input.key_marker.map(|key| names.show(&key)),
        upload_id_marker: input.upload_id_marker,
        max_uploads: Some(max_uploads),
        is_truncated: Some(truncated),
        next_key_marker,
        next_upload_id_marker,
        encoding_type: names.kind(),
        ..Default::default()
    })
}
