//! Listings of objects, in both versions.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use s3s::{
    S3ErrorCode, S3Request, S3Result,
    dto::{
        CommonPrefix, ETag, EncodingType, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
        ListObjectsV2Output, Object, ObjectStorageClass, Owner,
    },
};

use super::{Shared, shape};
use crate::{
    live::LiveKey,
    store::{Listed, Page},
};

/// A page has at most this many rows.
pub(super) const MAX_KEYS: i32 = 1000;

/// How many rows a page may have: as wished for, within bounds.
pub(super) fn limit(wish: Option<i32>) -> S3Result<(i32, usize)> {
    let wish = wish.unwrap_or(MAX_KEYS);
    let limit = usize::try_from(wish.min(MAX_KEYS))
        .map_err(|_| shape::error(S3ErrorCode::InvalidArgument, "the size of a page must not be negative"))?;
    Ok((wish, limit))
}

/// How names are shown: as they are, or percent-encoded, because XML can't carry every character.
#[derive(Clone, Copy)]
pub(super) struct Names(bool);

impl Names {
    /// As the request wishes.
    pub(super) fn new(encoding: Option<&EncodingType>) -> Self {
        Self(encoding.is_some_and(|encoding| encoding.as_str() == EncodingType::URL))
    }

    /// What the answer says of it.
    pub(super) fn kind(self) -> Option<EncodingType> {
        self.0.then(|| EncodingType::from_static(EncodingType::URL))
    }

    /// A name.
    pub(super) fn show(self, name: &str) -> String {
        if !self.0 {
            return name.to_owned();
        }
        let mut text = String::with_capacity(name.len());
        for byte in name.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                    text.push(char::from(byte));
                }
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
        text
    }
}

async fn page(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    prefix: &str,
    delimiter: &str,
    after: &str,
    limit: usize,
) -> S3Result<Page> {
    if limit == 0 {
        return Ok(Page::default());
    }
    let (id, prefix) = (grant.allocation.id.clone(), prefix.to_owned());
    let (delimiter, after) = (delimiter.to_owned(), after.to_owned());
    let listed = shared.store(move |s| s.store.list(&id, &prefix, &delimiter, &after, limit)).await;
    listed.map_err(shape::store)
}

fn split(page: Page, names: Names, owner: Option<&Owner>) -> (Vec<Object>, Vec<CommonPrefix>) {
    let (mut objects, mut prefixes) = (Vec::new(), Vec::new());
    for row in page.rows {
        match row {
            Listed::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(names.show(&prefix)) }),
            Listed::Object(key, object) => objects.push(Object {
                key: Some(names.show(&key)),
                e_tag: Some(ETag::Strong(object.etag)),
                last_modified: Some(shape::timestamp(object.modified)),
                size: Some(shape::size(object.size)),
                owner: owner.cloned(),
                storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                ..Default::default()
            }),
        }
    }
    (objects, prefixes)
}

/// Lists objects, version 1.
pub(super) async fn objects(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<ListObjectsInput>,
) -> S3Result<ListObjectsOutput> {
    let input = request.input;
    let (max_keys, limit) = limit(input.max_keys)?;
    let names = Names::new(input.encoding_type.as_ref());
    let prefix = input.prefix.unwrap_or_default();
    let delimiter = input.delimiter.unwrap_or_default();
    let marker = input.marker.unwrap_or_default();
    let page = page(shared, grant, &prefix, &delimiter, &marker, limit).await?;
    let truncated = page.truncated;
    let next = page.rows.last().filter(|_| truncated).map(|row| names.show(row.name()));
    let (contents, common_prefixes) = split(page, names, Some(&shape::owner(grant)));
    Ok(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(names.show(&prefix)),
        marker: Some(names.show(&marker)),
        max_keys: Some(max_keys),
        is_truncated: Some(truncated),
        contents: Some(contents),
        common_prefixes: Some(common_prefixes),
        delimiter: (!delimiter.is_empty()).then(|| names.show(&delimiter)),
        next_marker: next,
        encoding_type: names.kind(),
        ..Default::default()
    })
}

/// Lists objects, version 2.
pub(super) async fn objects_v2(
    shared: &Arc<Shared>,
    grant: &Arc<LiveKey>,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<ListObjectsV2Output> {
    let input = request.input;
    let (max_keys, limit) = limit(input.max_keys)?;
    let names = Names::new(input.encoding_type.as_ref());
    let prefix = input.prefix.unwrap_or_default();
    let delimiter = input.delimiter.unwrap_or_default();
    let after = match &input.continuation_token {
        Some(token) => decode(token)?,
        None => input.start_after.clone().unwrap_or_default(),
    };
    let page = page(shared, grant, &prefix, &delimiter, &after, limit).await?;
    let truncated = page.truncated;
    let next = page.rows.last().filter(|_| truncated).map(|row| URL_SAFE_NO_PAD.encode(row.name()));
    let owner = input.fetch_owner.unwrap_or(false).then(|| shape::owner(grant));
    let (contents, common_prefixes) = split(page, names, owner.as_ref());
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(names.show(&prefix)),
        max_keys: Some(max_keys),
        key_count: i32::try_from(contents.len() + common_prefixes.len()).ok(),
        continuation_token: input.continuation_token,
        is_truncated: Some(truncated),
        next_continuation_token: next,
        contents: Some(contents),
        common_prefixes: Some(common_prefixes),
        delimiter: (!delimiter.is_empty()).then(|| names.show(&delimiter)),
        encoding_type: names.kind(),
        start_after: input.start_after.map(|after| names.show(&after)),
        ..Default::default()
    })
}

fn decode(token: &str) -> S3Result<String> {
    let wrong = || shape::error(S3ErrorCode::InvalidArgument, "the continuation token is not one of ours");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    String::from_utf8(bytes).map_err(|_| wrong())
}
