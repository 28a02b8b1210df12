//! Room in a row. A document that grows or shrinks a little with each write would be moved about in its page each time, and
//! soon out of it. So rows of some collections keep spaces behind the document's text, and a write uses them up or adds to
//! them: as long as the whole row stays as long as it was, SQLite writes it in place.

use rusqlite::types::ValueRef;

use crate::{
    client::db::value::Key,
    core::client::schema::{self, Collection},
};

/// Collections whose documents change several times soon after they were inserted, and by how many bytes they grow: a claimed
/// job names who holds it, and until when.
const ROOM: &[(Collection, usize)] = &[(schema::JOBS, 96)];
/// A row that became shorter by more than this gives the rest back.
const MOST: usize = 512;

/// The room of a collection's rows; nothing when rows are as long as they have to be.
pub(super) fn of(collection: Collection) -> Option<usize> {
    ROOM.iter().find(|(known, _)| *known == collection).map(|(_, room)| *room)
}

/// The document's text without the room behind it. A document is a JSON object, so spaces behind it are never its own.
pub(super) fn text(stored: &str) -> &str {
    stored.trim_end_matches(' ')
}

/// Bytes that a number takes in a row.
const fn width(number: i64) -> usize {
    match number {
        0 | 1 => 0,
        -0x80..=0x7F => 1,
        -0x8000..=0x7FFF => 2,
        -0x80_0000..=0x7F_FFFF => 3,
        -0x8000_0000..=0x7FFF_FFFF => 4,
        -0x8000_0000_0000..=0x7FFF_FFFF_FFFF => 6,
        _ => 8,
    }
}

/// Bytes that version and columns take in a row.
pub(super) fn beside<'a>(version: i64, keys: impl Iterator<Item = &'a Key>) -> usize {
    let column = |key: &Key| match key {
        Key::Null => 0,
        Key::Int(number) => width(*number),
        Key::Text(text) => text.len(),
        Key::Bool(_) | Key::Other => 1,
    };
    width(version) + keys.map(column).sum::<usize>()
}

/// Bytes that a value takes in a row.
pub(super) fn stored(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null => 0,
        ValueRef::Integer(number) => width(number),
        ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
    }
}

/// How long the text of a document is to be with its room. `before` is what the row took so far, the text with it; nothing
/// for a new one.
pub(super) fn length(room: usize, text: usize, beside: usize, before: Option<usize>) -> usize {
    match before.and_then(|before| before.checked_sub(beside)) {
        Some(same) if (text..=text + MOST).contains(&same) => same,
        _ => text + room,
    }
}

/// A text with spaces up to a length.
pub(super) fn padded(text: &str, length: usize) -> String {
    let mut padded = String::with_capacity(length.max(text.len()));
    padded.push_str(text);
    pad(&mut padded, length);
    padded
}

/// Adds spaces up to a length.
pub(super) fn pad(text: &mut String, length: usize) {
    text.extend(std::iter::repeat_n(' ', length.saturating_sub(text.len())));
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn a_row_stays_as_long_as_it_was_while_it_can() {
        assert_eq!(length(96, 500, 20, None), 596);
        // The columns have become shorter by five.
        assert_eq!(length(96, 570, 15, Some(616)), 601);
        assert_eq!(length(96, 700, 15, Some(616)), 796, "more than there was room for");
        assert_eq!(length(96, 20, 15, Some(6_000)), 116, "much shorter");
        assert_eq!(text(&padded("{\"a\":\" \"}", 30)), "{\"a\":\" \"}");
    }

    #[test]
    fn numbers_take_what_sqlite_stores_them_in() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (a); CREATE VIRTUAL TABLE temp.s USING dbstat").unwrap();
        let payload = || -> i64 {
            connection.query_row("SELECT payload FROM s WHERE name = 't'", [], |row| row.get(0)).unwrap()
        };
        for number in [0, 1, -1, 2, 127, 128, -129, 32_768, -8_388_609, 1 << 31, 1 << 47, i64::MAX, i64::MIN]
        {
            connection.execute("DELETE FROM t", []).unwrap();
            connection.execute("INSERT INTO t VALUES (?1)", [number]).unwrap();
            // The length of the header, and the type.
            assert_eq!(payload(), 2 + i64::try_from(width(number)).unwrap(), "{number}");
        }
    }
}
