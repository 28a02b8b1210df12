//! Objects: which key holds which bytes. An object is a list of segments, one per file, so that completing a multipart
//! upload moves no bytes.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::{Result, Store, StoreError, allocations, signed, unsigned};
use crate::blobs::BlobId;

/// One file of an object, and its length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment(pub BlobId, pub u64);

/// What clients say of an object beside its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// Standard headers by name.
    pub headers: BTreeMap<String, String>,
    /// User metadata.
    pub user: BTreeMap<String, String>,
    /// Checksums of the whole object by algorithm, in base64.
    pub checksums: BTreeMap<String, String>,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its size in bytes.
    pub size: u64,
    /// Its entity tag, without quotes.
    pub etag: String,
    /// When it was written: microseconds since the epoch.
    pub modified: i64,
    /// Its files, in order.
    pub segments: Vec<Segment>,
    /// What was said of it.
    pub meta: Meta,
}

/// An object to be written.
#[derive(Debug, Clone)]
pub struct NewObject {
    /// The allocation.
    pub allocation: String,
    /// Its key.
    pub key: String,
    /// The object.
    pub object: Object,
    /// What must hold of the present one.
    pub condition: Precondition,
}

/// What must hold of the present object for a write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Precondition {
    /// There must be none.
    pub absent: bool,
    /// It must have this entity tag.
    pub etag: Option<String>,
}

impl Precondition {
    fn check(&self, present: Option<&Object>) -> Result<()> {
        let etag_holds =
            self.etag.as_ref().is_none_or(|etag| present.is_some_and(|object| object.etag == *etag));
        if (self.absent && present.is_some()) || !etag_holds {
            return Err(StoreError::Precondition);
        }
        Ok(())
    }
}

/// A row of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// An object.
    Object(String, Object),
    /// A common prefix, rolled up by the delimiter.
    Prefix(String),
}

impl Listed {
    /// The key or the prefix, by which a listing is sorted and continued.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Object(key, _) => key,
            Self::Prefix(prefix) => prefix,
        }
    }
}

/// A page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In byte order of the names.
    pub rows: Vec<Listed>,
    /// Whether more follow.
    pub truncated: bool,
}

impl Store {
    /// An object.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`], [`StoreError::Damaged`].
    pub fn object(&self, allocation: &str, key: &str) -> Result<Option<Object>> {
        self.read(|connection| find(connection, allocation, key))
    }

    /// Whether `size` more bytes fit beside what is stored, when they replace the object at `key`, if one is given.
    ///
    /// # Errors
    /// [`StoreError::Quota`] when not.
    pub fn room(&self, allocation: &str, key: Option<&str>, size: u64) -> Result<u64> {
        self.read(|connection| {
            let row = allocations::existing(connection, allocation)?;
            let old = match key {
                Some(key) => find(connection, allocation, key)?.map_or(0, |object| object.size),
                None => 0,
            };
            let room = (row.quota + old).saturating_sub(row.used);
            if size > room { Err(StoreError::Quota) } else { Ok(room) }
        })
    }

    /// Writes an object whose single file is durable already. Tells which files are free now.
    ///
    /// # Errors
    /// As the variants of [`StoreError`] say; nothing is changed then.
    pub fn put_object(&self, new: &NewObject) -> Result<Vec<BlobId>> {
        self.write(|tx| {
            for Segment(file, _) in &new.object.segments {
                tx.execute("INSERT INTO files (id, allocation) VALUES (?1, ?2)", [file, &new.allocation])?;
            }
            replace(tx, new, 0)
        })
    }

    /// Removes objects; missing ones are fine. Tells which files are free now.
    ///
    /// # Errors
    /// As the variants of [`StoreError`] say; nothing is changed then.
    pub fn delete_objects(&self, allocation: &str, keys: &[String], now: i64) -> Result<Vec<BlobId>> {
        self.write(|tx| {
            allocations::existing(tx, allocation)?;
            let (mut freed, mut bytes) = (Vec::new(), 0_i64);
            for key in keys {
                if let Some(old) = find(tx, allocation, key)? {
                    tx.execute(
                        "DELETE FROM objects WHERE allocation = ?1 AND key = ?2",
                        params![allocation, key.as_bytes()],
                    )?;
                    bytes = bytes.saturating_add(signed(old.size));
                    freed.extend(release(tx, old.segments)?);
                }
            }
            allocations::meter(tx, allocation, -bytes, now)?;
            Ok(freed)
        })
    }

    /// A page of the keys that start with `prefix` and come after `after`, rolled up by `delimiter`.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`], [`StoreError::Damaged`].
    pub fn list(
        &self,
        allocation: &str,
        prefix: &str,
        delimiter: &str,
        after: &str,
        limit: usize,
    ) -> Result<Page> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT key, size, etag, modified, segments, meta FROM objects
                 WHERE allocation = ?1 AND key >= ?2 ORDER BY key LIMIT 1",
            )?;
            let mut page = Page::default();
            let mut from = prefix.as_bytes().to_vec();
            if after.as_bytes() >= from.as_slice() && !after.is_empty() {
                from = [after.as_bytes(), b"\0"].concat();
            }
            loop {
                let Some((key, object)) = statement.query_row(params![allocation, from], keyed).optional()?
                else {
                    return Ok(page);
                };
                let Some(rest) = key.strip_prefix(prefix) else { return Ok(page) };
                let rolled = (!delimiter.is_empty())
                    .then(|| rest.find(delimiter))
                    .flatten()
                    .and_then(|at| key.get(..prefix.len() + at + delimiter.len()))
                    .map(str::to_owned);
                if page.rows.len() == limit && rolled.as_deref() != Some(after) {
                    page.truncated = true;
                    return Ok(page);
                }
                match rolled {
                    Some(common) => {
                        let Some(next) = successor(common.as_bytes()) else { return Ok(page) };
                        from = next;
                        // The page before ended with this prefix.
                        if common != after {
                            page.rows.push(Listed::Prefix(common));
                        }
                    }
                    None => {
                        from = [key.as_bytes(), b"\0"].concat();
                        page.rows.push(Listed::Object(key, object));
                    }
                }
            }
        })
    }
}

/// Puts an object in its place, where `counted` of its bytes are in the meter already. Tells which files are free now.
pub(super) fn replace(tx: &Transaction<'_>, new: &NewObject, counted: u64) -> Result<Vec<BlobId>> {
    let row = allocations::existing(tx, &new.allocation)?;
    let old = find(tx, &new.allocation, &new.key)?;
    new.condition.check(old.as_ref())?;
    let freed = old.as_ref().map_or(0, |object| object.size).saturating_add(counted);
    let used = row.used.saturating_sub(freed).checked_add(new.object.size).ok_or(StoreError::Quota)?;
    if used > row.quota && used > row.used {
        return Err(StoreError::Quota);
    }
    tx.execute(
        "INSERT OR REPLACE INTO objects (allocation, key, size, etag, modified, segments, meta)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            new.allocation,
            new.key.as_bytes(),
            signed(new.object.size),
            new.object.etag,
            new.object.modified,
            serde_json::to_string(&new.object.segments)?,
            serde_json::to_string(&new.object.meta)?,
        ],
    )?;
    allocations::meter(tx, &new.allocation, signed(used) - signed(row.used), new.object.modified)?;
    release(tx, old.map(|object| object.segments).unwrap_or_default())
}

/// Forgets files; they are to be removed after the commit.
pub(super) fn release(tx: &Transaction<'_>, segments: Vec<Segment>) -> Result<Vec<BlobId>> {
    let mut freed = Vec::with_capacity(segments.len());
    for Segment(file, _) in segments {
        tx.execute("DELETE FROM files WHERE id = ?1", [&file])?;
        freed.push(file);
    }
    Ok(freed)
}

pub(super) fn find(connection: &Connection, allocation: &str, key: &str) -> Result<Option<Object>> {
    let query =
        "SELECT key, size, etag, modified, segments, meta FROM objects WHERE allocation = ?1 AND key = ?2";
    let found =
        connection.prepare_cached(query)?.query_row(params![allocation, key.as_bytes()], keyed).optional()?;
    Ok(found.map(|(_, object)| object))
}

/// The least text that sorts after everything that starts with `prefix`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if let Some(more) = last.checked_add(1) {
            next.push(more);
            return Some(next);
        }
    }
    None
}

fn keyed(row: &Row<'_>) -> rusqlite::Result<(String, Object)> {
    let json = |index: usize, error: serde_json::Error| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
    };
    let object = Object {
        size: unsigned(row.get(1)?),
        etag: row.get(2)?,
        modified: row.get(3)?,
        segments: serde_json::from_str(&row.get::<_, String>(4)?).map_err(|error| json(4, error))?,
        meta: serde_json::from_str(&row.get::<_, String>(5)?).map_err(|error| json(5, error))?,
    };
    Ok((String::from_utf8_lossy(&row.get::<_, Vec<u8>>(0)?).into_owned(), object))
}
