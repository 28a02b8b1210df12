//! Filters, sorts and cursors as SQL. A comparison never leaves its type: beside the bound that was asked for stands the
//! edge of the type's range.

use std::fmt::Write as _;

use rusqlite::{Connection, params_from_iter};

use super::{
    layout::{Table, column},
    room,
};
use crate::{
    client::db::{
        scan,
        value::{self, Key},
    },
    core::client::database::{Cursor, Document, Filter, Page, Query, Scalar, Sort},
};

/// SQL in the making.
struct Sql<'a> {
    table: &'a Table,
    text: String,
    values: Vec<Key>,
}

impl Sql<'_> {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn bind(&mut self, key: Key) {
        self.values.push(key);
        let _ = write!(self.text, "?{}", self.values.len());
    }

    fn field(&self, path: &str) -> String {
        // Paths were checked: they hold no quotes.
        if self.table.has_column(path) { column(path) } else { format!("pick(body, '{path}')") }
    }

    fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::All => self.push("1"),
            Filter::Eq(path, Scalar::Null) => {
                let field = self.field(path);
                let _ = write!(self.text, "{field} IS NULL");
            }
            Filter::Eq(path, scalar) => {
                let field = self.field(path);
                let _ = write!(self.text, "({field} = ");
                self.bind(Key::from(scalar));
                if let Scalar::Text(text) = scalar
                    && let Some(condition) = self.table.not_passing(path, text)
                {
                    let _ = write!(self.text, " AND {condition}");
                }
                self.push(")");
            }
            Filter::Lt(path, scalar) => self.below(path, "<", scalar),
            Filter::Le(path, scalar) => self.below(path, "<=", scalar),
            Filter::Gt(path, scalar) => self.above(path, ">", scalar),
            Filter::Ge(path, scalar) => self.above(path, ">=", scalar),
            Filter::In(path, list) => self.is_in(path, list),
            Filter::Ids(ids) => {
                self.push("id IN (");
                self.list(ids.iter().map(|id| Key::Text(id.clone())));
                self.push(")");
            }
            Filter::IdPrefix(prefix) => {
                self.push("(id >= ");
                self.bind(Key::Text(prefix.clone()));
                if let Some(end) = value::after_prefix(prefix) {
                    self.push(" AND id < ");
                    self.bind(Key::Text(end));
                }
                self.push(")");
            }
            Filter::And(parts) => self.parts(parts, " AND ", "1"),
            Filter::Or(parts) => self.parts(parts, " OR ", "0"),
        }
    }

    fn parts(&mut self, parts: &[Filter], between: &str, none: &str) {
        if parts.is_empty() {
            self.push(none);
            return;
        }
        for (place, part) in parts.iter().enumerate() {
            self.push(if place == 0 { "(" } else { between });
            self.filter(part);
        }
        self.push(")");
    }

    fn list(&mut self, keys: impl Iterator<Item = Key>) {
        for (place, key) in keys.enumerate() {
            if place > 0 {
                self.push(", ");
            }
            self.bind(key);
        }
    }

    fn is_in(&mut self, path: &str, list: &[Scalar]) {
        let field = self.field(path);
        let _ = write!(self.text, "({field} IN (");
        self.list(list.iter().filter(|scalar| **scalar != Scalar::Null).map(Key::from));
        self.push(")");
        if list.contains(&Scalar::Null) {
            let _ = write!(self.text, " OR {field} IS NULL");
        }
        self.push(")");
    }

    /// Below the scalar, and not below its type.
    fn below(&mut self, path: &str, operator: &str, scalar: &Scalar) {
        let least = match scalar {
            // Nothing compares with null.
            Scalar::Null => return self.push("0"),
            Scalar::Int(_) => "",
            Scalar::Text(_) => "''",
            Scalar::Bool(_) => "x''",
        };
        let field = self.field(path);
        let _ = write!(self.text, "({field} {operator} ");
        self.bind(Key::from(scalar));
        if !least.is_empty() {
            let _ = write!(self.text, " AND {field} >= {least}");
        }
        self.push(")");
    }

    /// Above the scalar, and not above its type.
    fn above(&mut self, path: &str, operator: &str, scalar: &Scalar) {
        let beyond = match scalar {
            Scalar::Null => return self.push("0"),
            Scalar::Int(_) => "''",
            Scalar::Text(_) => "x''",
            Scalar::Bool(_) => "x'02'",
        };
        let field = self.field(path);
        let _ = write!(self.text, "({field} {operator} ");
        self.bind(Key::from(scalar));
        let _ = write!(self.text, " AND {field} < {beyond})");
    }
}

/// Whether only documents match that have a value at the path.
fn needs(filter: &Filter, path: &str) -> bool {
    match filter {
        Filter::Eq(field, scalar) => field == path && *scalar != Scalar::Null,
        Filter::Lt(field, _) | Filter::Le(field, _) | Filter::Gt(field, _) | Filter::Ge(field, _) => {
            field == path
        }
        Filter::In(field, list) => field == path && !list.contains(&Scalar::Null),
        Filter::And(parts) => parts.iter().any(|part| needs(part, path)),
        Filter::All | Filter::Ids(_) | Filter::IdPrefix(_) | Filter::Or(_) => false,
    }
}

/// A part of a sort by a field: an index leaves documents without the field out, so they are asked for apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// By id: everything at once.
    Whole,
    /// Those without the field.
    Absent,
    /// Those with it.
    Present,
}

/// The parts that a query needs, in order, each with its share of the cursor.
fn parts<'a>(
    filter: &Filter,
    sort: &Sort,
    after: Option<&'a Cursor>,
) -> Vec<(Part, Option<(Key, &'a Cursor)>)> {
    let Some(path) = value::sort_field(sort) else {
        return vec![(Part::Whole, after.map(|cursor| (Key::Null, cursor)))];
    };
    let after = after.map(|cursor| (Key::from(&cursor.key), cursor));
    let in_absent = after.as_ref().is_some_and(|(key, _)| *key == Key::Null);
    let in_present = after.is_some() && !in_absent;
    let mut parts = Vec::new();
    if value::descending(sort) {
        if !in_absent {
            parts.push((Part::Present, after.clone()));
        }
        parts.push((Part::Absent, after.filter(|_| in_absent)));
    } else {
        if !in_present {
            parts.push((Part::Absent, after.clone()));
        }
        parts.push((Part::Present, after.filter(|_| in_present)));
    }
    if needs(filter, path) {
        parts.retain(|(part, _)| *part == Part::Present);
    }
    parts
}

/// The statement of one part.
fn compose<'a>(
    table: &'a Table,
    columns: &str,
    (filter, sort): (&Filter, &Sort),
    (part, after): (Part, Option<(Key, &Cursor)>),
    limit: usize,
    force: bool,
) -> Sql<'a> {
    let path = value::sort_field(sort).unwrap_or_default();
    let down = value::descending(sort);
    let (beyond, direction) = if down { ("<", "DESC") } else { (">", "ASC") };
    let mut sql = Sql { table, text: format!("SELECT {columns} FROM {}", table.name), values: Vec::new() };
    let field = sql.field(path);
    // A range over the sort's own field, as in claims: left alone, the planner may take an equality on another index for
    // the better start, and sort all that it finds.
    let forced = table.index_on(path).filter(|_| force && part == Part::Present && needs(filter, path));
    if let Some(index) = forced {
        let _ = write!(sql.text, " INDEXED BY {index}");
    }
    sql.push(" WHERE ");
    sql.filter(filter);
    match part {
        Part::Whole => {}
        Part::Absent => {
            let _ = write!(sql.text, " AND {field} IS NULL");
        }
        Part::Present => {
            let _ = write!(sql.text, " AND {field} IS NOT NULL");
        }
    }
    if let Some((key, cursor)) = after {
        if part == Part::Present {
            // The first bound is what an index can begin at.
            let _ = write!(sql.text, " AND {field} {beyond}= ");
            sql.bind(key.clone());
            let _ = write!(sql.text, " AND ({field} {beyond} ");
            sql.bind(key);
            sql.push(" OR ");
        } else {
            sql.push(" AND (");
        }
        let _ = write!(sql.text, "id {beyond} ");
        sql.bind(Key::Text(cursor.id.clone()));
        sql.push(")");
    }
    sql.push(" ORDER BY ");
    if part == Part::Present {
        let _ = write!(sql.text, "{field} {direction}, ");
    }
    let _ = write!(sql.text, "id {direction} LIMIT ");
    sql.bind(Key::Int(i64::try_from(limit).unwrap_or(i64::MAX)));
    sql
}

/// Calls `take` with each row of the answer, in order, `columns` selected; at most `limit` rows.
pub(super) fn each_row(
    connection: &Connection,
    table: &Table,
    columns: &str,
    query: &Query,
    limit: usize,
    mut take: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut left = limit;
    for part in parts(&query.filter, &query.sort, query.after.as_ref()) {
        if left == 0 {
            break;
        }
        let asked = (&query.filter, &query.sort);
        let mut sql = compose(table, columns, asked, part.clone(), left, true);
        let mut statement = match connection.prepare_cached(&sql.text) {
            Ok(statement) => statement,
            // Conditions that can't hold are folded away, and with them what lets the index be used.
            Err(_) => {
                sql = compose(table, columns, asked, part, left, false);
                connection.prepare_cached(&sql.text)?
            }
        };
        let mut rows = statement.query(params_from_iter(&sql.values))?;
        while let Some(row) = rows.next()? {
            take(row)?;
            left -= 1;
        }
    }
    Ok(())
}

/// One page.
pub(super) fn find(connection: &Connection, table: &Table, query: &Query) -> rusqlite::Result<Page> {
    let mut documents: Vec<Document> = Vec::new();
    // The parts of a sort are read from one snapshot; the transaction ends when it is dropped.
    let snapshot = connection.unchecked_transaction()?;
    each_row(&snapshot, table, "id, version, body", query, query.limit + 1, |row| {
        documents.push(document(row, 0)?);
        Ok(())
    })?;
    let more = documents.len() > query.limit;
    documents.truncate(query.limit);
    let next = documents.last().filter(|_| more).map(|last| Cursor {
        key: value::sort_field(&query.sort)
            .map_or(serde_json::Value::Null, |field| scan::key(&last.body, field).to_json()),
        id: last.id.clone(),
    });
    Ok(Page { documents, next })
}

/// A document from the columns `id, version, body`, the first of which is at `from`.
pub(super) fn document(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<Document> {
    let version: i64 = row.get(from + 1)?;
    let body = room::text(row.get_ref(from + 2)?.as_str()?).to_owned();
    Ok(Document { id: row.get(from)?, version: version.unsigned_abs(), body })
}

/// How many match.
pub(super) fn count(connection: &Connection, table: &Table, filter: &Filter) -> rusqlite::Result<u64> {
    let mut sql =
        Sql { table, text: format!("SELECT count(*) FROM {} WHERE ", table.name), values: Vec::new() };
    sql.filter(filter);
    let count: i64 =
        connection.prepare_cached(&sql.text)?.query_row(params_from_iter(&sql.values), |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::db::sqlite::layout, core::client::schema};

    /// How the database would answer.
    fn plan(filter: &Filter) -> String {
        let connection = Connection::open_in_memory().unwrap();
        layout::add_functions(&connection).unwrap();
        let layout = layout::Layout::new(schema::ALL);
        layout.create(&connection).unwrap();
        let table = layout.table(schema::JOBS).unwrap();
        let mut sql = Sql {
            table,
            text: "EXPLAIN QUERY PLAN SELECT count(*) FROM jobs WHERE ".into(),
            values: Vec::new(),
        };
        sql.filter(filter);
        let mut statement = connection.prepare(&sql.text).unwrap();
        let lines =
            statement.query_map(params_from_iter(&sql.values), |row| row.get::<_, String>("detail")).unwrap();
        lines.map(Result::unwrap).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn an_index_that_leaves_values_out_answers_for_the_others() {
        let in_state = |state: &str| Filter::eq("state", state);
        assert!(plan(&in_state("failed")).contains("jobs.by_state"), "{}", plan(&in_state("failed")));
        let of_kind = in_state("failed").and(Filter::eq("kind", "purge"));
        assert!(plan(&of_kind).contains("f_kind=?"), "{}", plan(&of_kind));
        assert!(!plan(&in_state("running")).contains("jobs.by_state"));
        let waiting = in_state("created").and(Filter::Ge("due".into(), i64::MIN.into()));
        assert!(plan(&waiting).contains("jobs.by_due"), "{}", plan(&waiting));
        let waiting = in_state("created").and(Filter::Ge("due".into(), i64::MIN.into()));
        assert!(plan(&waiting).contains("jobs.by_due"), "{}", plan(&waiting));
        let held = in_state("running").and(Filter::Ge("lease_until".into(), i64::MIN.into()));
        assert!(plan(&held).contains("jobs.by_lease"), "{}", plan(&held));
    }
}
