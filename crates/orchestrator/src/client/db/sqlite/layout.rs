//! How collections lie in SQLite: one table each, with the document's text and, beside it, a column for every field that
//! an index needs. The columns are filled by us, not by JSON expressions: so a write that leaves a field as it was leaves
//! its index alone, and comparisons are by type. Integers and texts are stored as such, booleans as one-byte blobs, what
//! can't be indexed as another blob; SQLite's order over these is [`Key`]'s.

use std::{collections::HashMap, fmt::Write as _, sync::Arc};

use parking_lot::Mutex;
use rusqlite::{
    Connection, OptionalExtension,
    functions::FunctionFlags,
    types::{ToSql, ToSqlOutput, ValueRef},
};

use super::room;
use crate::{
    client::db::{scan, value::Key},
    core::client::schema::{Collection, CollectionSpec, IndexSpec},
    metadata,
};

/// What brings a file from one layout to the next; the first one starts from layout 1. Each is part of the transaction that
/// also makes tables and indexes, so that a file has one layout or the other. None is ever changed once it was released.
const MIGRATIONS: &[Migration] = &[keep_a_history, leave_passing_states_out];

type Migration = fn(&Connection) -> rusqlite::Result<()>;

/// The layout that this program writes; a file with a higher number is refused.
pub const LAYOUT: i64 = 1 + MIGRATIONS.len() as i64;

/// Layout 2: which program brought the file to which layout, and when, for those who look for the cause of something.
fn keep_a_history(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE layout_history (layout INTEGER PRIMARY KEY, program TEXT NOT NULL, at TEXT NOT NULL)",
    )
}

/// Layout 3: the index of jobs by state leaves out the states that every job passes through or ends in. [`Table::create`] has made it
/// anew when this runs; the number keeps an older program from making it back, and back again.
const fn leave_passing_states_out(_: &Connection) -> rusqlite::Result<()> {
    Ok(())
}

/// Brings a file of the layout `found`, which is 0 for a new one, to the present layout.
pub(super) fn migrate(connection: &Connection, found: i64) -> rusqlite::Result<()> {
    if found >= LAYOUT {
        return Ok(());
    }
    for (step, from) in MIGRATIONS.iter().zip(1_i64..) {
        if from >= found {
            step(connection)?;
        }
    }
    let program = format!("{} {}", metadata::NAME, metadata::VERSION);
    connection.execute("INSERT INTO layout_history VALUES (?1, ?2, datetime('now'))", (LAYOUT, program))?;
    connection.pragma_update(None, "user_version", LAYOUT)?;
    if found > 0 {
        tracing::info!(from = found, to = LAYOUT, "the database was brought to a newer layout");
    }
    Ok(())
}

impl ToSql for Key {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bool(false) => ValueRef::Blob(&[0]),
            Self::Bool(true) => ValueRef::Blob(&[1]),
            Self::Other => ValueRef::Blob(&[2]),
        }))
    }
}

/// Whether a column holds this key.
pub(super) fn same(column: ValueRef<'_>, key: &Key) -> bool {
    match (column, key) {
        (ValueRef::Null, Key::Null) => true,
        (ValueRef::Integer(a), Key::Int(b)) => a == *b,
        (ValueRef::Text(a), Key::Text(b)) => a == b.as_bytes(),
        (ValueRef::Blob(a), Key::Bool(b)) => a == [u8::from(*b)],
        (ValueRef::Blob(a), Key::Other) => a == [2],
        _ => false,
    }
}

/// A collection's table and the statements on it.
#[derive(Debug)]
pub(super) struct Table {
    /// The collection.
    pub(super) spec: CollectionSpec,
    /// The fields that have columns.
    pub(super) columns: Vec<&'static str>,
    /// The table's name, quoted.
    pub(super) name: String,
    /// `version, body` by id.
    pub(super) get: String,
    /// What [`Table::selected`] is, by id, and without it.
    pub(super) lookup: String,
    /// `rowid, id, version, body, columns…`.
    pub(super) selected: String,
    /// `id, version, body, columns…`.
    pub(super) insert: String,
    /// By rowid.
    pub(super) delete: String,
    /// Bytes that rows keep free behind their documents, if they do.
    pub(super) room: Option<usize>,
    updates: Mutex<HashMap<u64, Arc<str>>>,
}

/// Quotes a name; names come from the schema and hold no quotes.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', ""))
}

/// The column of a field.
pub(super) fn column(field: &str) -> String {
    quoted(&format!("f_{field}"))
}

/// That a column has none of the values that an index leaves out. Not as a list: SQLite would build it anew for each row that
/// is written.
fn beyond(index: &IndexSpec, column: &str) -> String {
    let values = index.passing.iter().map(|value| format!("{column} <> '{}'", value.replace('\'', "")));
    values.collect::<Vec<_>>().join(" AND ")
}

impl Table {
    fn new(spec: CollectionSpec) -> Self {
        let mut columns: Vec<&'static str> = Vec::new();
        for field in spec.indexes.iter().flat_map(|index| index.fields) {
            if !columns.contains(field) {
                columns.push(field);
            }
        }
        let name = quoted(spec.collection.0);
        let names: String = columns.iter().fold(String::new(), |mut all, field| {
            let _ = write!(all, ", {}", column(field));
            all
        });
        let marks = ", ?".repeat(columns.len());
        let selected = format!("rowid, id, version, body{names}");
        Self {
            get: format!("SELECT version, body FROM {name} WHERE id = ?1"),
            lookup: format!("SELECT rowid, NULL, version, body{names} FROM {name} WHERE id = ?1"),
            insert: format!("INSERT INTO {name} (id, version, body{names}) VALUES (?, ?, ?{marks})"),
            delete: format!("DELETE FROM {name} WHERE rowid = ?1"),
            room: room::of(spec.collection),
            updates: Mutex::default(),
            spec,
            columns,
            name,
            selected,
        }
    }

    /// The statement that changes version, body, the columns whose bits are set, in that order, by rowid.
    pub(super) fn update(&self, changed: u64) -> Arc<str> {
        let mut updates = self.updates.lock();
        let text = updates.entry(changed).or_insert_with(|| {
            let mut text = format!("UPDATE {} SET version = ?, body = ?", self.name);
            for (bit, field) in self.columns.iter().enumerate() {
                if changed & (1 << bit) != 0 {
                    let _ = write!(text, ", {} = ?", column(field));
                }
            }
            text.push_str(" WHERE rowid = ?");
            text.into()
        });
        Arc::clone(text)
    }

    /// Whether a field has a column.
    pub(super) fn has_column(&self, field: &str) -> bool {
        self.columns.contains(&field)
    }

    /// The name of an index that is ordered by this field first, quoted.
    pub(super) fn index_on(&self, field: &str) -> Option<String> {
        let index = self.spec.indexes.iter().find(|index| index.fields == [field] && !index.unique)?;
        Some(self.index_name(index))
    }

    /// The condition under which a document is in an index that leaves some values of this field out; a query must repeat
    /// it to the letter for the index to be used. `None` when there is no such index, or when it leaves `value` out.
    pub(super) fn not_passing(&self, field: &str, value: &str) -> Option<String> {
        let of_field = |index: &&IndexSpec| index.fields.first() == Some(&field) && !index.passing.is_empty();
        let index = self.spec.indexes.iter().find(of_field)?;
        (!index.passing.contains(&value)).then(|| beyond(index, &column(field)))
    }

    fn index_name(&self, index: &IndexSpec) -> String {
        quoted(&format!("{}.{}", self.spec.collection.0, index.name))
    }

    /// The columns of an index as it compares them. SQLite takes nulls for distinct, we don't: so within a unique
    /// index the later fields have a stand-in for null.
    pub(super) fn indexed(index: &IndexSpec) -> Vec<String> {
        let columns = index.fields.iter().enumerate().map(|(place, field)| match place {
            0 => column(field),
            _ if index.unique => format!("ifnull({}, x'03')", column(field)),
            _ => column(field),
        });
        // The id makes an index give whole sorts, with their ties, without sorting.
        let id = (!index.unique).then(|| "id".to_owned());
        columns.chain(id).collect()
    }

    fn create(&self, connection: &Connection) -> rusqlite::Result<()> {
        let columns: String = self.columns.iter().fold(String::new(), |mut all, field| {
            let _ = write!(all, "{}, ", column(field));
            all
        });
        // The body comes last, so that looking at the columns never reads overflow pages.
        connection.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {} (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, {columns}body TEXT NOT NULL)",
            self.name
        ))?;
        for field in &self.columns {
            let present: i64 = connection.query_row(
                "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2",
                (self.spec.collection.0, format!("f_{field}")),
                |row| row.get(0),
            )?;
            if present == 0 {
                let (name, column) = (&self.name, column(field));
                connection.execute_batch(&format!(
                    "ALTER TABLE {name} ADD COLUMN {column}; UPDATE {name} SET {column} = pick(body, '{field}');"
                ))?;
            }
        }
        for index in self.spec.indexes {
            self.create_index(connection, index)?;
        }
        Ok(())
    }

    fn create_index(&self, connection: &Connection, index: &IndexSpec) -> rusqlite::Result<()> {
        let Some(first) = index.fields.first() else { return Ok(()) };
        let name = self.index_name(index);
        let first = column(first);
        let beyond = match index.passing {
            [] => String::new(),
            _ => format!(" AND {}", beyond(index, &first)),
        };
        let wanted = format!(
            "CREATE {}INDEX {name} ON {} ({}) WHERE {first} IS NOT NULL{beyond}",
            if index.unique { "UNIQUE " } else { "" },
            self.name,
            Self::indexed(index).join(", "),
        );
        let present: Option<String> = connection
            .query_row(
                "SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?1",
                [name.trim_matches('"')],
                |row| row.get(0),
            )
            .optional()?;
        match present {
            Some(present) if present == wanted => Ok(()),
            Some(_) => connection.execute_batch(&format!("DROP INDEX {name}; {wanted}")),
            None => connection.execute_batch(&wanted),
        }
    }
}

/// All tables.
#[derive(Debug, Default)]
pub(super) struct Layout {
    tables: HashMap<Collection, Arc<Table>>,
}

impl Layout {
    /// The layout of a schema.
    pub(super) fn new(schema: &[CollectionSpec]) -> Self {
        let tables = schema.iter().map(|spec| (spec.collection, Arc::new(Table::new(*spec)))).collect();
        Self { tables }
    }

    /// A collection's table.
    pub(super) fn table(&self, collection: Collection) -> Option<&Arc<Table>> {
        self.tables.get(&collection)
    }

    /// Makes what is missing.
    pub(super) fn create(&self, connection: &Connection) -> rusqlite::Result<()> {
        for table in self.tables.values() {
            table.create(connection)?;
        }
        Ok(())
    }
}

/// Adds the function `pick(body, path)`, by which SQL reads fields that have no column.
pub(super) fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("pick", 2, flags, |context| {
        let text = |at: usize| context.get_raw(at).as_str().map_err(rusqlite::Error::from);
        let found = scan::key(text(0)?, text(1)?);
        Ok(match found {
            Key::Null => rusqlite::types::Value::Null,
            Key::Int(value) => rusqlite::types::Value::Integer(value),
            Key::Text(text) => rusqlite::types::Value::Text(text),
            Key::Bool(value) => rusqlite::types::Value::Blob(vec![u8::from(value)]),
            Key::Other => rusqlite::types::Value::Blob(vec![2]),
        })
    })
}
