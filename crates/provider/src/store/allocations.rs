//! Allocations, keys and meters. Every change carries a generation; one that is lower than the highest seen is refused.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{Result, Store, StoreError, signed, unsigned};
use crate::{
    blobs::BlobId,
    wire::{Level, Permissions, Usage},
};

const COLUMNS: &str =
    "id, bucket, generation, quota, level, gone, created_at, ready_at, used, byte_micros, metered_at, egress";

/// An allocation as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocationRow {
    /// Its id.
    pub id: String,
    /// Its bucket.
    pub bucket: String,
    /// The highest generation seen.
    pub generation: u64,
    /// Quota in bytes.
    pub quota: u64,
    /// How wide it is open.
    pub level: Level,
    /// Whether only the tombstone is left.
    pub gone: bool,
    /// When it was made, in microseconds since the epoch, as all times here.
    pub created_at: i64,
    /// When its making is done.
    pub ready_at: i64,
    /// Bytes stored.
    pub used: u64,
    /// Integral of the stored bytes up to `metered_at`, in byte-microseconds.
    pub byte_micros: u128,
    /// When `used` last changed.
    pub metered_at: i64,
    /// Bytes sent.
    pub egress: u64,
}

/// A key as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Access key id.
    pub id: String,
    /// What it opens.
    pub allocation: String,
    /// Secret access key.
    pub secret: String,
    /// What it may do.
    pub permissions: Permissions,
}

/// What became of `allocate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocated {
    /// The allocation.
    pub row: AllocationRow,
    /// Whether this call made it.
    pub made: bool,
}

impl Store {
    /// Makes an allocation, or finds the one made before.
    ///
    /// # Errors
    /// As the variants of [`StoreError`] say.
    pub fn allocate(&self, wish: &AllocationRow, capacity: u64) -> Result<Allocated> {
        self.write(|tx| {
            if let Some(row) = find(tx, &wish.id)? {
                fence(tx, &row, wish.generation)?;
                if row.gone {
                    return Err(StoreError::Gone);
                }
                if row.quota != wish.quota {
                    return Err(StoreError::Mismatch("the allocation exists with another size"));
                }
                return Ok(Allocated { row, made: false });
            }
            let taken = reserved(tx)?;
            if taken.checked_add(wish.quota).is_none_or(|total| total > capacity) {
                return Err(StoreError::NoCapacity);
            }
            insert(tx, wish)?;
            count(tx, &wish.id, "allocate")?;
            Ok(Allocated { row: wish.clone(), made: true })
        })
    }

    /// Removes an allocation with its keys, objects and uploads, and leaves a tombstone; also where nothing was. Tells
    /// which files are free now.
    ///
    /// # Errors
    /// As the variants of [`StoreError`] say.
    pub fn deallocate(&self, wish: &AllocationRow) -> Result<Vec<BlobId>> {
        self.write(|tx| {
            let Some(row) = find(tx, &wish.id)? else {
                insert(tx, &AllocationRow { gone: true, quota: 0, ..wish.clone() })?;
                return Ok(Vec::new());
            };
            fence(tx, &row, wish.generation)?;
            if row.gone {
                return Ok(Vec::new());
            }
            let mut statement = tx.prepare("SELECT id FROM files WHERE allocation = ?1")?;
            let files = statement.query_map([&wish.id], |row| row.get(0))?.collect::<Result<_, _>>()?;
            tx.execute(
                "DELETE FROM parts WHERE upload IN (SELECT id FROM uploads WHERE allocation = ?1)",
                [&wish.id],
            )?;
            for table in ["uploads", "objects", "files", "keys"] {
                tx.execute(&format!("DELETE FROM {table} WHERE allocation = ?1"), [&wish.id])?;
            }
            meter(tx, &wish.id, -signed(row.used), wish.metered_at)?;
            tx.execute("UPDATE allocations SET gone = 1, quota = 0 WHERE id = ?1", [&wish.id])?;
            count(tx, &wish.id, "deallocate")?;
            Ok(files)
        })
    }

    /// Installs a key, or changes what it may do. Tells whether anything changed.
    ///
    /// # Errors
    /// As the variants of [`StoreError`] say.
    pub fn put_key(&self, key: &KeyRow, generation: u64, now: i64) -> Result<bool> {
        self.write(|tx| {
            let row = fenced(tx, &key.allocation, generation)?;
            if row.ready_at > now {
                return Err(StoreError::NotReady);
            }
            let old: Option<KeyRow> = tx
                .query_row(
                    "SELECT id, allocation, secret, permissions FROM keys WHERE id = ?1",
                    [&key.id],
                    key_row,
                )
                .optional()?;
            match old {
                Some(old) if old == *key => return Ok(false),
                Some(old) if old.allocation != key.allocation || old.secret != key.secret => {
                    return Err(StoreError::Mismatch("the access key id is taken, or has another secret"));
                }
                _ => {}
            }
            tx.execute(
                "INSERT OR REPLACE INTO keys (id, allocation, secret, permissions) VALUES (?1, ?2, ?3, ?4)",
                params![key.id, key.allocation, key.secret, text(&key.permissions)?],
            )?;
            count(tx, &key.allocation, "put_key")?;
            Ok(true)
        })
    }

    /// Takes a key away; a missing one, or one of a deallocated allocation, is fine. Tells whether anything changed.
    ///
    /// # Errors
    /// As the variants of [`StoreError`] say.
    pub fn delete_key(&self, allocation: &str, generation: u64, id: &str) -> Result<bool> {
        self.write(|tx| {
            match fenced(tx, allocation, generation) {
                Ok(_) => {}
                Err(StoreError::Gone | StoreError::Unknown) => return Ok(false),
                Err(error) => return Err(error),
            }
            let removed =
                tx.execute("DELETE FROM keys WHERE id = ?1 AND allocation = ?2", [id, allocation])? > 0;
            if removed {
                count(tx, allocation, "delete_key")?;
            }
            Ok(removed)
        })
    }

    /// Opens or narrows an allocation.
    ///
    /// # Errors
    /// As the variants of [`StoreError`] say.
    pub fn restrict(&self, allocation: &str, generation: u64, level: Level) -> Result<()> {
        self.write(|tx| {
            let row = fenced(tx, allocation, generation)?;
            if row.level != level {
                tx.execute("UPDATE allocations SET level = ?2 WHERE id = ?1", [allocation, &text(&level)?])?;
                count(tx, allocation, "restrict")?;
            }
            Ok(())
        })
    }

    /// An allocation that exists; a tombstone answers [`StoreError::Gone`].
    ///
    /// # Errors
    /// As the variants of [`StoreError`] say.
    pub fn allocation(&self, id: &str) -> Result<AllocationRow> {
        self.read(|connection| existing(connection, id))
    }

    /// The meter at `now`.
    ///
    /// # Errors
    /// As the variants of [`StoreError`] say.
    pub fn usage(&self, id: &str, now: i64) -> Result<Usage> {
        self.read(|connection| {
            let row = existing(connection, id)?;
            let now = now.max(row.metered_at);
            Ok(Usage {
                stored: row.used,
                byte_seconds: (integral(&row, now) / 1_000_000).to_string(),
                egress: row.egress,
                read_at_us: now,
            })
        })
    }

    /// Adds sent bytes to the meters of several allocations.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn add_egress(&self, sent: &[(String, u64)]) -> Result<()> {
        if sent.is_empty() {
            return Ok(());
        }
        self.write(|tx| {
            for (id, bytes) in sent {
                tx.execute(
                    "UPDATE allocations SET egress = egress + ?2 WHERE id = ?1",
                    params![id, signed(*bytes)],
                )?;
            }
            Ok(())
        })
    }

    /// Every allocation that exists, with every key.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn everything(&self) -> Result<(Vec<AllocationRow>, Vec<KeyRow>)> {
        self.read(|connection| {
            let mut statement = connection
                .prepare(&format!("SELECT {COLUMNS} FROM allocations WHERE gone = 0 ORDER BY id"))?;
            let allocations = statement.query_map([], allocation_row)?.collect::<Result<_, _>>()?;
            let mut statement = connection.prepare("SELECT id, allocation, secret, permissions FROM keys")?;
            let keys = statement.query_map([], key_row)?.collect::<Result<_, _>>()?;
            Ok((allocations, keys))
        })
    }

    /// Bytes given out.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn reserved(&self) -> Result<u64> {
        self.read(reserved)
    }

    /// How often each operation changed something.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn effects(&self, allocation: &str) -> Result<BTreeMap<String, u64>> {
        self.read(|connection| {
            let mut statement =
                connection.prepare("SELECT operation, count FROM effects WHERE allocation = ?1")?;
            let rows = statement.query_map([allocation], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// Brings the integral of an allocation up to `now` and changes its stored bytes.
pub(super) fn meter(tx: &Transaction<'_>, id: &str, delta: i64, now: i64) -> Result<()> {
    let row = find(tx, id)?.ok_or(StoreError::Unknown)?;
    let now = now.max(row.metered_at);
    tx.execute(
        "UPDATE allocations SET used = ?2, byte_micros = ?3, metered_at = ?4 WHERE id = ?1",
        params![id, signed(row.used.saturating_add_signed(delta)), integral(&row, now).to_string(), now],
    )?;
    Ok(())
}

/// An allocation that exists.
pub(super) fn existing(connection: &Connection, id: &str) -> Result<AllocationRow> {
    match find(connection, id)? {
        None => Err(StoreError::Unknown),
        Some(row) if row.gone => Err(StoreError::Gone),
        Some(row) => Ok(row),
    }
}

fn integral(row: &AllocationRow, now: i64) -> u128 {
    let elapsed = unsigned(now.saturating_sub(row.metered_at));
    row.byte_micros.saturating_add(u128::from(row.used) * u128::from(elapsed))
}

fn reserved(connection: &Connection) -> Result<u64> {
    let sum: i64 =
        connection.query_row("SELECT COALESCE(SUM(quota), 0) FROM allocations", [], |row| row.get(0))?;
    Ok(unsigned(sum))
}

fn find(connection: &Connection, id: &str) -> Result<Option<AllocationRow>> {
    let query = format!("SELECT {COLUMNS} FROM allocations WHERE id = ?1");
    Ok(connection.prepare_cached(&query)?.query_row([id], allocation_row).optional()?)
}

fn fence(tx: &Transaction<'_>, row: &AllocationRow, generation: u64) -> Result<()> {
    if generation < row.generation {
        return Err(StoreError::Stale { seen: row.generation });
    }
    if generation > row.generation {
        tx.execute(
            "UPDATE allocations SET generation = ?2 WHERE id = ?1",
            params![row.id, signed(generation)],
        )?;
    }
    Ok(())
}

fn fenced(tx: &Transaction<'_>, id: &str, generation: u64) -> Result<AllocationRow> {
    let row = find(tx, id)?.ok_or(StoreError::Unknown)?;
    fence(tx, &row, generation)?;
    if row.gone { Err(StoreError::Gone) } else { Ok(row) }
}

fn insert(tx: &Transaction<'_>, row: &AllocationRow) -> Result<()> {
    let inserted = tx.execute(
        &format!(
            "INSERT INTO allocations ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
        ),
        params![
            row.id,
            row.bucket,
            signed(row.generation),
            signed(row.quota),
            text(&row.level)?,
            row.gone,
            row.created_at,
            row.ready_at,
            signed(row.used),
            row.byte_micros.to_string(),
            row.metered_at,
            signed(row.egress),
        ],
    );
    match inserted {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
            Err(StoreError::Mismatch("the bucket name is taken by another allocation"))
        }
        other => Ok(other.map(|_| ())?),
    }
}

fn count(tx: &Transaction<'_>, allocation: &str, operation: &str) -> Result<()> {
    tx.execute(
        "INSERT INTO effects (allocation, operation, count) VALUES (?1, ?2, 1)
         ON CONFLICT DO UPDATE SET count = count + 1",
        [allocation, operation],
    )?;
    Ok(())
}

fn text<T: serde::Serialize>(value: &T) -> Result<String> {
    Ok(serde_json::to_string(value)?)
}

fn parsed<T: serde::de::DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    let text: String = row.get(index)?;
    serde_json::from_str(&text).map_err(|error| damaged(index, error))
}

fn damaged(index: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
}

fn allocation_row(row: &Row<'_>) -> rusqlite::Result<AllocationRow> {
    Ok(AllocationRow {
        id: row.get(0)?,
        bucket: row.get(1)?,
        generation: unsigned(row.get(2)?),
        quota: unsigned(row.get(3)?),
        level: parsed(row, 4)?,
        gone: row.get(5)?,
        created_at: row.get(6)?,
        ready_at: row.get(7)?,
        used: unsigned(row.get(8)?),
        byte_micros: row.get::<_, String>(9)?.parse().map_err(|error| damaged(9, error))?,
        metered_at: row.get(10)?,
        egress: unsigned(row.get(11)?),
    })
}

fn key_row(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    Ok(KeyRow { id: row.get(0)?, allocation: row.get(1)?, secret: row.get(2)?, permissions: parsed(row, 3)? })
}
