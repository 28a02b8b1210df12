//! What the writer does inside its transaction: changesets and claims. Everything that can be computed without the
//! database — that bodies are objects, what their indexed fields are — was computed before, by the caller.

use std::{cell::RefCell, fmt::Write as _, sync::Arc};

use rusqlite::{
    CachedStatement, Connection, ErrorCode, OptionalExtension, Row, Statement, params_from_iter, types::ToSql,
};

use super::{
    layout::{Layout, Table, column, same},
    query, room,
};
use crate::{
    client::db::{
        scan,
        value::{self, Key, PlainChange},
    },
    core::client::{
        database::{
            Changeset, Claim, DatabaseError, Document, Expect, Query, Result, Scalar, Write, WriteOp,
        },
        schema::Collection,
    },
};

/// Why something was not applied.
pub(super) enum Failure {
    /// The request is refused; whatever else is in the transaction stands.
    Refused(DatabaseError),
    /// The database is in trouble; the transaction can't go on.
    Broken(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        Self::Refused(error)
    }
}

type Applied<T> = std::result::Result<T, Failure>;

/// Statements that are kept at hand for the length of a batch.
const KEPT: usize = 8;

/// The connection inside a transaction, with the statements that the batch used last: to give each back to the connection's
/// cache and to look it up there again would hash its text twice for every write.
pub(super) struct Open<'c> {
    connection: &'c Connection,
    /// By the place of their texts, which belong to tables that outlive the batch.
    kept: RefCell<Vec<(*const u8, CachedStatement<'c>)>>,
}

impl<'c> Open<'c> {
    pub(super) const fn new(connection: &'c Connection) -> Self {
        Self { connection, kept: RefCell::new(Vec::new()) }
    }

    /// Runs a table's statement. What was bound stays bound: whoever runs it binds all its parameters.
    fn with<T>(&self, sql: &str, run: impl FnOnce(&mut Statement<'_>) -> Applied<T>) -> Applied<T> {
        let place = sql.as_ptr();
        let at = self.kept.borrow().iter().rposition(|(of, _)| *of == place);
        let mut statement = match at {
            Some(at) => self.kept.borrow_mut().swap_remove(at).1,
            None => self.connection.prepare_cached(sql)?,
        };
        let answer = run(&mut statement);
        let mut kept = self.kept.borrow_mut();
        if kept.len() == KEPT {
            kept.swap_remove(0);
        }
        kept.push((place, statement));
        answer
    }
}

/// A write that was checked as far as it can be without the database.
#[derive(Debug)]
pub(super) struct Prepared {
    table: Arc<Table>,
    write: Write,
    /// The columns of the body; empty for writes without one.
    keys: Vec<Key>,
}

/// A claim that was checked.
#[derive(Debug)]
pub(super) struct PreparedClaim {
    table: Arc<Table>,
    query: Query,
    set: Vec<(String, Scalar)>,
    increment: Vec<(String, i64)>,
    /// Whether it changes a field of a unique index, and so may be refused half-way.
    may_collide: bool,
    /// The change and the columns that it touches, if it is a plain one that can't collide.
    plain: Option<(PlainChange, Vec<Touched>)>,
}

impl PreparedClaim {
    /// How many documents it may change.
    pub(super) const fn limit(&self) -> usize {
        self.query.limit
    }
}

/// A column that a claim changes.
#[derive(Debug)]
struct Touched {
    /// Its place among the table's columns.
    column: usize,
    /// Its place among the fields that change.
    field: usize,
}

fn unknown(collection: Collection) -> DatabaseError {
    DatabaseError::Invalid(format!("there is no collection {collection}"))
}

/// Checks a changeset.
pub(super) fn prepare(layout: &Layout, changeset: Changeset) -> Result<Vec<Prepared>> {
    value::check_changeset(&changeset)?;
    let prepare = |mut write: Write| {
        let table = Arc::clone(layout.table(write.collection).ok_or_else(|| unknown(write.collection))?);
        let keys = match &write.op {
            WriteOp::Insert { body } | WriteOp::Replace { body, .. } => {
                let (keys, depth) = scan::keys_and_depth(body, &table.columns);
                let known = write.is_serialised() && depth < READ_AT_ANY_DEPTH && body.starts_with('{');
                if !known || cfg!(debug_assertions) {
                    value::check_object(write.collection, &write.id, body)?;
                }
                check_unique(&table, &keys)?;
                keys
            }
            _ => Vec::new(),
        };
        // By whoever asks, and not by the one thread that all wait for.
        if let (Some(room), WriteOp::Insert { body }) = (table.room, &mut write.op) {
            let length = room::length(room, body.len(), 0, None);
            room::pad(body, length);
        }
        Ok(Prepared { table, write, keys })
    };
    changeset.writes.into_iter().map(prepare).collect()
}

/// Checks a claim.
pub(super) fn prepare_claim(layout: &Layout, claim: Claim) -> Result<PreparedClaim> {
    value::check_claim(&claim)?;
    let Claim { collection, filter, sort, limit, set, increment } = claim;
    let table = Arc::clone(layout.table(collection).ok_or_else(|| unknown(collection))?);
    let touches = |field: &&str| {
        // A dotted path may lead into a field, or be led into.
        let root = |path: &str| path.split('.').next().map(str::to_owned);
        set.iter().map(|(p, _)| p).chain(increment.iter().map(|(p, _)| p)).any(|p| root(p) == root(field))
    };
    let unique = table.spec.indexes.iter().filter(|index| index.unique);
    let may_collide = unique.flat_map(|index| index.fields).any(touches);
    // A column of a dotted path changes with the field that the path begins at.
    let inside = |field: &&str| field.contains('.') && touches(field);
    let plain =
        PlainChange::new(&set, &increment).filter(|_| !may_collide && !table.columns.iter().any(inside));
    let plain = plain.map(|change| {
        let columns = table.columns.iter().enumerate();
        let touched = columns
            .filter_map(|(column, field)| change.position(field).map(|field| Touched { column, field }))
            .collect();
        (change, touched)
    });
    let query = Query { collection, filter, sort, limit, after: None };
    Ok(PreparedClaim { table, query, set, increment, may_collide, plain })
}

/// Refuses keys that a unique index can't hold.
fn check_unique(table: &Table, keys: &[Key]) -> Result<()> {
    for index in table.spec.indexes.iter().filter(|index| index.unique) {
        let mut fields = index.fields.iter().map(|field| key_of(table, keys, field));
        let absent = fields.next().is_none_or(|first| *first == Key::Null);
        if !absent && index.fields.iter().any(|field| *key_of(table, keys, field) == Key::Other) {
            return Err(value::not_indexable(table.spec.collection, index.name));
        }
    }
    Ok(())
}

fn key_of<'a>(table: &Table, keys: &'a [Key], field: &str) -> &'a Key {
    let at = table.columns.iter().position(|column| *column == field);
    at.and_then(|at| keys.get(at)).unwrap_or(&Key::Null)
}

/// A row as it lies in the table.
struct Found {
    rowid: i64,
    version: i64,
    /// Its text, where it is needed.
    body: String,
    /// Whether it is as the write expects it.
    expected: bool,
    /// The bits of the columns that differ from the new keys.
    changed: u64,
    /// Bytes that version, columns and text take, with the room behind the text; for tables whose rows have room.
    size: usize,
}

/// A text that was serialised is read back if its values nest no deeper: readers stop at 128.
const READ_AT_ANY_DEPTH: usize = 100;

/// Where the columns begin in [`Table::selected`].
const COLUMNS: usize = 4;

/// Bytes that a row takes.
fn size(table: &Table, row: &Row<'_>) -> rusqlite::Result<usize> {
    if table.room.is_none() {
        return Ok(0);
    }
    let columns = (2..COLUMNS + table.columns.len()).map(|at| row.get_ref(at).map(room::stored));
    columns.sum()
}

/// The bits of the columns that differ from `keys`, if there are any, and the bytes that the row takes where that counts.
fn compared(table: &Table, row: &Row<'_>, keys: &[Key]) -> rusqlite::Result<(u64, usize)> {
    let (mut bits, mut size) = (0, 0);
    let sized = table.room.is_some();
    if sized {
        size = room::stored(row.get_ref(2)?) + room::stored(row.get_ref(3)?);
    }
    for (bit, key) in keys.iter().enumerate() {
        let column = row.get_ref(COLUMNS + bit)?;
        if !same(column, key) {
            bits |= 1 << bit;
        }
        if sized {
            size += room::stored(column);
        }
    }
    Ok((bits, size))
}

/// Applies all writes of a changeset or none.
pub(super) fn changeset(open: &Open<'_>, writes: &[Prepared]) -> Applied<()> {
    match writes {
        [] => Ok(()),
        // One statement is all or nothing by itself.
        [one] => apply(open, one),
        many => undoing(open.connection, || many.iter().try_for_each(|one| apply(open, one))),
    }
}

/// Runs `work`, and takes back what it wrote when it is refused.
fn undoing<T>(connection: &Connection, work: impl FnOnce() -> Applied<T>) -> Applied<T> {
    connection.prepare_cached("SAVEPOINT one")?.execute([])?;
    let result = work();
    if let Err(Failure::Refused(_)) = &result {
        connection.prepare_cached("ROLLBACK TO one")?.execute([])?;
    }
    if !matches!(result, Err(Failure::Broken(_))) {
        connection.prepare_cached("RELEASE one")?.execute([])?;
    }
    result
}

fn apply(open: &Open<'_>, prepared: &Prepared) -> Applied<()> {
    let Prepared { table, write, keys } = prepared;
    let (collection, id) = (write.collection, write.id.as_str());
    if let WriteOp::Insert { body } = &write.op {
        return open.with(&table.insert, |statement| {
            statement.raw_bind_parameter(1, id)?;
            statement.raw_bind_parameter(2, 1)?;
            statement.raw_bind_parameter(3, body)?;
            bind(statement, 4, keys.iter())?;
            execute(open.connection, statement, (table, id, keys), true)
        });
    }
    let Some(found) = lookup(open, table, write, keys)? else {
        return Err(DatabaseError::Missing { collection, id: id.to_owned() }.into());
    };
    if !found.expected {
        return Err(DatabaseError::Conflict { collection, id: id.to_owned() }.into());
    }
    match &write.op {
        WriteOp::Replace { body, .. } => replace(open, table, id, &found, body, keys),
        WriteOp::Delete { .. } => open.with(&table.delete, |statement| {
            statement.execute([found.rowid])?;
            Ok(())
        }),
        WriteOp::Add { field, delta, floor } => {
            let body = value::add((collection, id), &found.body, field, *delta, *floor)?;
            rewrite(open, table, id, found, &body)
        }
        WriteOp::Require { .. } | WriteOp::Insert { .. } => Ok(()),
    }
}

fn expected(expect: &Expect, version: i64, row: &Row<'_>) -> rusqlite::Result<bool> {
    Ok(match expect {
        Expect::Version(wanted) => version.unsigned_abs() == *wanted,
        Expect::Field(path, wanted) => scan::key(row.get_ref(3)?.as_str()?, path) == Key::from(wanted),
    })
}

/// Finds the row that a write is about. Bodies are long: what can be told from the row in place is not copied out of it.
fn lookup(open: &Open<'_>, table: &Table, write: &Write, keys: &[Key]) -> Applied<Option<Found>> {
    let (expect, needs_body) = match &write.op {
        WriteOp::Replace { expect, .. } | WriteOp::Delete { expect } | WriteOp::Require { expect } => {
            (Some(expect), false)
        }
        WriteOp::Add { .. } => (None, true),
        WriteOp::Insert { .. } => (None, false),
    };
    let find = |row: &Row<'_>| {
        let version = row.get(2)?;
        // What is added to is compared when its new text is known.
        let (changed, size) = if needs_body { (0, size(table, row)?) } else { compared(table, row, keys)? };
        Ok(Found {
            rowid: row.get(0)?,
            version,
            body: if needs_body { room::text(row.get_ref(3)?.as_str()?).to_owned() } else { String::new() },
            expected: expect.map_or(Ok(true), |expect| expected(expect, version, row))?,
            changed,
            size,
        })
    };
    open.with(&table.lookup, |statement| Ok(statement.query_row([&write.id], find).optional()?))
}

/// Writes a body of which the columns are not known yet.
fn rewrite(open: &Open<'_>, table: &Table, id: &str, mut found: Found, body: &str) -> Applied<()> {
    let keys = scan::keys(body, &table.columns);
    let before = scan::keys(&found.body, &table.columns);
    found.changed = 0;
    for (bit, (before, after)) in before.iter().zip(&keys).enumerate() {
        if before != after {
            found.changed |= 1 << bit;
        }
    }
    check_unique(table, &keys)?;
    replace(open, table, id, &found, body, &keys)
}

fn replace(open: &Open<'_>, table: &Table, id: &str, found: &Found, body: &str, keys: &[Key]) -> Applied<()> {
    let version = found.version + 1;
    open.with(&table.update(found.changed), |statement| {
        statement.raw_bind_parameter(1, version)?;
        match table.room {
            Some(room) => {
                let beside = room::beside(version, keys.iter());
                let length = room::length(room, body.len(), beside, Some(found.size));
                statement.raw_bind_parameter(2, room::padded(body, length))?;
            }
            None => statement.raw_bind_parameter(2, body)?,
        }
        let moved =
            keys.iter().enumerate().filter(|(bit, _)| found.changed & (1 << bit) != 0).map(|(_, key)| key);
        let next = bind(statement, 3, moved)?;
        statement.raw_bind_parameter(next, found.rowid)?;
        execute(open.connection, statement, (table, id, keys), false)
    })
}

fn bind<'a>(
    statement: &mut Statement<'_>,
    from: usize,
    keys: impl Iterator<Item = &'a Key>,
) -> rusqlite::Result<usize> {
    let mut at = from;
    for key in keys {
        statement.raw_bind_parameter(at, key)?;
        at += 1;
    }
    Ok(at)
}

/// Runs a write; when a unique index objects, finds out which.
fn execute(
    connection: &Connection,
    statement: &mut Statement<'_>,
    (table, id, keys): (&Table, &str, &[Key]),
    inserting: bool,
) -> Applied<()> {
    match statement.raw_execute() {
        Ok(_) => Ok(()),
        Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::ConstraintViolation => {
            let index = collision(connection, (table, id, keys), inserting)?;
            let collection = table.spec.collection;
            Err(DatabaseError::AlreadyExists { collection, id: id.to_owned(), index }.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// The name of the first unique index that objects; `id` when an insertion meets its id.
fn collision(
    connection: &Connection,
    (table, id, keys): (&Table, &str, &[Key]),
    inserting: bool,
) -> Applied<String> {
    let exists = |conditions: &str, values: &[&dyn ToSql]| {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {} WHERE {conditions})", table.name);
        connection.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| row.get::<_, bool>(0))
    };
    if inserting && exists("id = ?", &[&id])? {
        return Ok("id".to_owned());
    }
    for index in table.spec.indexes.iter().filter(|index| index.unique) {
        let Some(first) = index.fields.first() else { continue };
        let mut conditions = format!("id <> ? AND {} IS NOT NULL", column(first));
        let mut values: Vec<&dyn ToSql> = vec![&id];
        for field in index.fields {
            let _ = write!(conditions, " AND {} IS ?", column(field));
            values.push(key_of(table, keys, field));
        }
        if exists(&conditions, &values)? {
            return Ok(index.name.to_owned());
        }
    }
    Err(rusqlite::Error::QueryReturnedNoRows.into())
}

/// Claims documents.
pub(super) fn claim(open: &Open<'_>, claim: &PreparedClaim) -> Applied<Vec<Document>> {
    if claim.may_collide { undoing(open.connection, || take(open, claim)) } else { take(open, claim) }
}

fn take(open: &Open<'_>, claim: &PreparedClaim) -> Applied<Vec<Document>> {
    let PreparedClaim { table, query, set, increment, .. } = claim;
    if let Some((change, touched)) = &claim.plain {
        return take_plainly(open, (table, query), change, touched);
    }
    let mut taken: Vec<(Found, Document)> = Vec::with_capacity(query.limit.min(256));
    query::each_row(open.connection, table, &table.selected, query, query.limit, |row| {
        let version: i64 = row.get(2)?;
        let body = room::text(row.get_ref(3)?.as_str()?).to_owned();
        let size = size(table, row)?;
        let found = Found { rowid: row.get(0)?, version, body, expected: true, changed: 0, size };
        let document = Document { id: row.get(1)?, version: version.unsigned_abs() + 1, body: String::new() };
        taken.push((found, document));
        Ok(())
    })?;
    // All bodies before the first write: a field that can't be added to refuses the whole claim.
    for (found, document) in &mut taken {
        document.body = value::change(&found.body, set, increment)?;
    }
    let mut documents = Vec::with_capacity(taken.len());
    for (found, document) in taken {
        rewrite(open, table, &document.id, found, &document.body)?;
        documents.push(document);
    }
    Ok(documents)
}

/// A document that is about to be taken.
struct Taken {
    rowid: i64,
    /// The bits of the columns that change.
    changed: u64,
    /// The keys of the fields that change.
    keys: Vec<Key>,
    /// Length of the document's text, which has the row's room behind it until it is written.
    text: usize,
    /// As it will be.
    document: Document,
}

/// The claim whose fields are known by name: one pass over each body, and one statement for all rows that change alike.
fn take_plainly(
    open: &Open<'_>,
    (table, query): (&Table, &Query),
    change: &PlainChange,
    touched: &[Touched],
) -> Applied<Vec<Document>> {
    let mut taken: Vec<Taken> = Vec::with_capacity(query.limit.min(256));
    let mut refused = None;
    query::each_row(open.connection, table, &table.selected, query, query.limit, |row| {
        let version: i64 = row.get(2)?;
        let (mut body, keys) = match change.apply(room::text(row.get_ref(3)?.as_str()?)) {
            Ok(changed) => changed,
            Err(error) => {
                refused = Some(error);
                return Ok(());
            }
        };
        let mut changed = 0;
        // What version and changed columns take, before and after.
        let (mut before, mut after) =
            (room::beside(version, [].iter()), room::beside(version + 1, [].iter()));
        for Touched { column, field } in touched {
            let (old, Some(new)) = (row.get_ref(COLUMNS + column)?, keys.get(*field)) else { continue };
            if !same(old, new) {
                changed |= 1 << column;
                before += room::stored(old);
                after += room::beside(0, [new].into_iter());
            }
        }
        let text = body.len();
        if let Some(room) = table.room {
            let stored = room::stored(row.get_ref(3)?);
            room::pad(&mut body, room::length(room, text, after, Some(stored + before)));
        }
        let document = Document { id: row.get(1)?, version: version.unsigned_abs() + 1, body };
        taken.push(Taken { rowid: row.get(0)?, changed, keys, text, document });
        Ok(())
    })?;
    // Before the first write: a field that can't be added to refuses the whole claim.
    if let Some(error) = refused {
        return Err(error.into());
    }
    for one in &taken {
        open.with(&table.update(one.changed), |statement| {
            statement.raw_bind_parameter(1, one.document.version.cast_signed())?;
            statement.raw_bind_parameter(2, &one.document.body)?;
            let moved = touched.iter().filter(|at| one.changed & (1 << at.column) != 0);
            let next = bind(statement, 3, moved.filter_map(|at| one.keys.get(at.field)))?;
            statement.raw_bind_parameter(next, one.rowid)?;
            statement.raw_execute()?;
            Ok(())
        })?;
    }
    let bare = |Taken { text, mut document, .. }: Taken| {
        document.body.truncate(text);
        document
    };
    Ok(taken.into_iter().map(bare).collect())
}
