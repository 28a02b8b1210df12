//! Multipart uploads: parts are files of their own and count as stored from the moment they are there.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{
    Result, Store, StoreError, allocations, objects,
    objects::{Meta, NewObject, Segment},
    signed, unsigned,
};
use crate::blobs::BlobId;

/// An unfinished upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRow {
    /// Its id.
    pub id: String,
    /// The key that it will become.
    pub key: String,
    /// What was said of the object.
    pub meta: Meta,
    /// When it began: microseconds since the epoch.
    pub created_at: i64,
}

/// A part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRow {
    /// 1 to 10,000.
    pub number: u32,
    /// Its file and size.
    pub segment: Segment,
    /// MD5 of its bytes, in hex: its entity tag.
    pub md5: String,
    /// Its checksums by algorithm, in base64.
    pub checksums: BTreeMap<String, String>,
    /// When it was written: microseconds since the epoch.
    pub modified: i64,
}

/// A part to be written.
#[derive(Debug, Clone)]
pub struct NewPart {
    /// The allocation.
    pub allocation: String,
    /// The key that the upload is for.
    pub key: String,
    /// The upload.
    pub upload: String,
    /// The part.
    pub part: PartRow,
}

impl Store {
    /// Begins an upload.
    ///
    /// # Errors
    /// As the variants of [`StoreError`] say.
    pub fn create_upload(&self, allocation: &str, upload: &UploadRow) -> Result<()> {
        self.write(|tx| {
            allocations::existing(tx, allocation)?;
            tx.execute(
                "INSERT INTO uploads (id, allocation, key, meta, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    upload.id,
                    allocation,
                    upload.key.as_bytes(),
                    serde_json::to_string(&upload.meta)?,
                    upload.created_at
                ],
            )?;
            Ok(())
        })
    }

    /// An upload of this allocation and key.
    ///
    /// # Errors
    /// [`StoreError::NoUpload`].
    pub fn upload(&self, allocation: &str, key: &str, id: &str) -> Result<UploadRow> {
        self.read(|connection| {
            connection
                .query_row(
                    "SELECT id, key, meta, created_at FROM uploads WHERE id = ?1 AND allocation = ?2 AND key = ?3",
                    params![id, allocation, key.as_bytes()],
                    upload_row,
                )
                .optional()?
                .ok_or(StoreError::NoUpload)
        })
    }

    /// Unfinished uploads whose key starts with `prefix`, after (key, id), by key and id.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn uploads(
        &self,
        allocation: &str,
        prefix: &str,
        after: (&str, &str),
        limit: usize,
    ) -> Result<Vec<UploadRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT id, key, meta, created_at FROM uploads
                 WHERE allocation = ?1 AND substr(key, 1, length(?2)) = ?2 AND (key, id) > (?3, ?4)
                 ORDER BY key, id LIMIT ?5",
            )?;
            let rows = statement.query_map(
                params![allocation, prefix.as_bytes(), after.0.as_bytes(), after.1, signed(limit as u64)],
                upload_row,
            )?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Writes a part whose file is durable already, replacing one of the same number. Tells which files are free now.
    ///
    /// # Errors
    /// As the variants of [`StoreError`] say; nothing is changed then.
    pub fn put_part(&self, new: &NewPart) -> Result<Vec<BlobId>> {
        self.write(|tx| {
            let row = allocations::existing(tx, &new.allocation)?;
            check(tx, &new.allocation, &new.key, &new.upload)?;
            let Segment(file, size) = &new.part.segment;
            let old: Option<Segment> = tx
                .query_row(
                    "SELECT file, size FROM parts WHERE upload = ?1 AND number = ?2",
                    params![new.upload, new.part.number],
                    |row| Ok(Segment(row.get(0)?, unsigned(row.get(1)?))),
                )
                .optional()?;
            let freed = old.as_ref().map_or(0, |segment| segment.1);
            let used = row.used.saturating_sub(freed).checked_add(*size).ok_or(StoreError::Quota)?;
            if used > row.quota {
                return Err(StoreError::Quota);
            }
            tx.execute("INSERT INTO files (id, allocation) VALUES (?1, ?2)", [file, &new.allocation])?;
            tx.execute(
                "INSERT OR REPLACE INTO parts (upload, number, file, size, md5, checksums, modified)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    new.upload,
                    new.part.number,
                    file,
                    signed(*size),
                    new.part.md5,
                    serde_json::to_string(&new.part.checksums)?,
                    new.part.modified
                ],
            )?;
            allocations::meter(tx, &new.allocation, signed(used) - signed(row.used), new.part.modified)?;
            objects::release(tx, old.into_iter().collect())
        })
    }

    /// The parts of an upload, by number.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn parts(&self, upload: &str) -> Result<Vec<PartRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT number, file, size, md5, checksums, modified FROM parts WHERE upload = ?1 ORDER BY number",
            )?;
            Ok(statement.query_map([upload], part_row)?.collect::<Result<_, _>>()?)
        })
    }

    /// Turns an upload into its object, whose segments are files of its parts; the other parts go. Tells which files
    /// are free now.
    ///
    /// # Errors
    /// [`StoreError::Part`] when a part was replaced meanwhile; as the variants of [`StoreError`] say. Nothing is
    /// changed then.
    pub fn complete_upload(&self, upload: &str, new: &NewObject) -> Result<Vec<BlobId>> {
        self.write(|tx| {
            check(tx, &new.allocation, &new.key, upload)?;
            let mut parts = segments(tx, upload)?;
            let counted = parts.iter().map(|segment| segment.1).sum();
            for segment in &new.object.segments {
                let at = parts.iter().position(|part| part == segment);
                parts.remove(
                    at.ok_or(StoreError::Part("a part was replaced while the upload was completed"))?,
                );
            }
            let mut freed = objects::replace(tx, new, counted)?;
            freed.extend(objects::release(tx, parts)?);
            forget(tx, upload)?;
            Ok(freed)
        })
    }

    /// Gives an upload up. Tells which files are free now.
    ///
    /// # Errors
    /// As the variants of [`StoreError`] say.
    pub fn abort_upload(&self, allocation: &str, key: &str, upload: &str, now: i64) -> Result<Vec<BlobId>> {
        self.write(|tx| {
            check(tx, allocation, key, upload)?;
            let parts = segments(tx, upload)?;
            let bytes = parts.iter().map(|segment| signed(segment.1)).sum::<i64>();
            allocations::meter(tx, allocation, -bytes, now)?;
            let freed = objects::release(tx, parts)?;
            forget(tx, upload)?;
            Ok(freed)
        })
    }
}

fn check(tx: &Transaction<'_>, allocation: &str, key: &str, upload: &str) -> Result<()> {
    let found = tx
        .query_row(
            "SELECT 1 FROM uploads WHERE id = ?1 AND allocation = ?2 AND key = ?3",
            params![upload, allocation, key.as_bytes()],
            |_| Ok(()),
        )
        .optional()?;
    found.ok_or(StoreError::NoUpload)
}

fn segments(tx: &Transaction<'_>, upload: &str) -> Result<Vec<Segment>> {
    let mut statement = tx.prepare("SELECT file, size FROM parts WHERE upload = ?1 ORDER BY number")?;
    let rows = statement.query_map([upload], |row| Ok(Segment(row.get(0)?, unsigned(row.get(1)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn forget(tx: &Transaction<'_>, upload: &str) -> Result<()> {
    tx.execute("DELETE FROM parts WHERE upload = ?1", [upload])?;
    tx.execute("DELETE FROM uploads WHERE id = ?1", [upload])?;
    Ok(())
}

fn upload_row(row: &Row<'_>) -> rusqlite::Result<UploadRow> {
    Ok(UploadRow {
        id: row.get(0)?,
        key: String::from_utf8_lossy(&row.get::<_, Vec<u8>>(1)?).into_owned(),
        meta: json(row, 2)?,
        created_at: row.get(3)?,
    })
}

fn part_row(row: &Row<'_>) -> rusqlite::Result<PartRow> {
    Ok(PartRow {
        number: row.get(0)?,
        segment: Segment(row.get(1)?, unsigned(row.get(2)?)),
        md5: row.get(3)?,
        checksums: json(row, 4)?,
        modified: row.get(5)?,
    })
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    serde_json::from_str(&row.get::<_, String>(index)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
    })
}
