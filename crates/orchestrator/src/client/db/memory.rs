//! A database in memory: for tests, and the model that the others are compared with. Everything happens under one lock,
//! so a changeset is seen as a whole or not at all.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::RwLock;

use super::{
    scan,
    value::{self, Key},
};
use crate::core::client::{
    database::{
        Changeset, Claim, Claimer, Committer, Cursor, DatabaseClient, DatabaseError, Document, Filter, Page,
        Query, Reader, Result, Scalar, Sort, Write, WriteOp,
    },
    schema::{self, Collection, CollectionSpec},
};

/// A database that lives as long as the process.
#[derive(Debug, Default)]
pub struct MemoryDatabase {
    state: RwLock<State>,
}

impl MemoryDatabase {
    /// An empty database that is not connected.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty database with all collections of [`schema::ALL`], ready for use.
    #[must_use]
    pub fn with_schema() -> Arc<Self> {
        let database = Self::new();
        database.state.write().open(schema::ALL);
        Arc::new(database)
    }
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    tables: BTreeMap<Collection, Table>,
}

#[derive(Debug)]
struct Table {
    collection: Collection,
    /// Every path that an index names, each once.
    paths: Vec<&'static str>,
    rows: BTreeMap<Arc<str>, Arc<Row>>,
    unique: Vec<Unique>,
    /// Ids by the value of the first field of each index, null left out: where a search may begin. The field is named by its
    /// place in `paths`.
    leading: Vec<(usize, BTreeMap<Key, BTreeSet<Arc<str>>>)>,
}

/// A unique index.
#[derive(Debug)]
struct Unique {
    name: &'static str,
    /// The places of its fields in the table's `paths`.
    places: Vec<usize>,
    holders: BTreeMap<Vec<Key>, Arc<str>>,
}

/// A document, with the keys at the table's `paths`. Whatever else is asked for is read from the text.
#[derive(Debug)]
struct Row {
    version: u64,
    text: String,
    keys: Vec<Key>,
}

/// What a write took away, so that it can be put back.
type Undo = Vec<(Collection, String, Option<Arc<Row>>)>;

impl State {
    fn open(&mut self, schema: &'static [CollectionSpec]) {
        self.open = true;
        for spec in schema {
            self.tables.entry(spec.collection).or_insert_with(|| Table::new(spec));
        }
    }

    fn ready(&self) -> Result<()> {
        if self.open {
            return Ok(());
        }
        Err(DatabaseError::Unavailable("the database is not connected".into()))
    }

    fn table(&self, collection: Collection) -> Result<&Table> {
        self.ready()?;
        self.tables.get(&collection).ok_or_else(|| unknown(collection))
    }

    fn table_mut(&mut self, collection: Collection) -> Result<&mut Table> {
        self.ready()?;
        self.tables.get_mut(&collection).ok_or_else(|| unknown(collection))
    }

    /// Runs `work`; when it fails, everything that it wrote is put back.
    fn atomically<T>(&mut self, work: impl FnOnce(&mut Self, &mut Undo) -> Result<T>) -> Result<T> {
        let mut undo = Undo::new();
        let result = work(self, &mut undo);
        if result.is_err() {
            for (collection, id, row) in undo.into_iter().rev() {
                if let Some(table) = self.tables.get_mut(&collection) {
                    table.restore(&id, row);
                }
            }
        }
        result
    }

    fn put(&mut self, collection: Collection, id: &str, row: Option<Row>, undo: &mut Undo) -> Result<()> {
        let before = self.table_mut(collection)?.put(id, row)?;
        undo.push((collection, id.to_owned(), before));
        Ok(())
    }

    /// Refuses a write that is wrong in itself; answers the keys of the body that it brings, if it brings one.
    fn check(&self, write: &Write) -> Result<Vec<Key>> {
        let table = self.table(write.collection)?;
        let (WriteOp::Insert { body } | WriteOp::Replace { body, .. }) = &write.op else {
            return Ok(Vec::new());
        };
        value::check_object(write.collection, &write.id, body)?;
        let keys = scan::keys(body, &table.paths);
        for index in &table.unique {
            index.key(table.collection, &keys)?;
        }
        Ok(keys)
    }

    /// Carries out a write that was checked; `keys` are those that the check found.
    fn write(&mut self, write: Write, keys: Vec<Key>, undo: &mut Undo) -> Result<()> {
        let Write { collection, id, op, .. } = write;
        let table = self.table(collection)?;
        let present = table.rows.get(id.as_str()).cloned();
        if let WriteOp::Insert { body: text } = op {
            if present.is_some() {
                return Err(DatabaseError::AlreadyExists { collection, id, index: "id".into() });
            }
            return self.put(collection, &id, Some(Row { version: 1, text, keys }), undo);
        }
        let Some(present) = present else { return Err(DatabaseError::Missing { collection, id }) };
        let version = present.version + 1;
        match op {
            WriteOp::Insert { .. } => Ok(()),
            WriteOp::Replace { expect, .. } | WriteOp::Delete { expect } | WriteOp::Require { expect }
                if !value::holds(&expect, present.version, |path| table.field(&present, path)) =>
            {
                Err(DatabaseError::Conflict { collection, id })
            }
            WriteOp::Replace { body: text, .. } => {
                self.put(collection, &id, Some(Row { version, text, keys }), undo)
            }
            WriteOp::Delete { .. } => self.put(collection, &id, None, undo),
            WriteOp::Require { .. } => Ok(()),
            WriteOp::Add { field, delta, floor } => {
                let text = value::add((collection, &id), &present.text, &field, delta, floor)?;
                let row = table.row(version, text);
                self.put(collection, &id, Some(row), undo)
            }
        }
    }
}

impl Row {
    fn document(&self, id: &str) -> Document {
        Document { id: id.to_owned(), version: self.version, body: self.text.clone() }
    }
}

/// What a row has at a place, if it is there and not null.
fn key_at(row: Option<&Arc<Row>>, place: usize) -> Option<&Key> {
    row?.keys.get(place).filter(|key| **key != Key::Null)
}

impl Unique {
    /// The key of a document with these keys; `None` when it is not in the index.
    fn key(&self, collection: Collection, keys: &[Key]) -> Result<Option<Vec<Key>>> {
        let found: Vec<Key> = self.places.iter().filter_map(|place| keys.get(*place)).cloned().collect();
        match found.first() {
            None | Some(Key::Null) => Ok(None),
            Some(_) if found.contains(&Key::Other) => Err(value::not_indexable(collection, self.name)),
            Some(_) => Ok(Some(found)),
        }
    }
}

impl Table {
    fn new(spec: &CollectionSpec) -> Self {
        let mut paths: Vec<&'static str> = Vec::new();
        let mut place = |field: &'static str| {
            let known = paths.iter().position(|known| *known == field);
            known.unwrap_or_else(|| {
                paths.push(field);
                paths.len() - 1
            })
        };
        let (mut unique, mut leading) = (Vec::new(), BTreeSet::new());
        for index in spec.indexes {
            let places: Vec<usize> = index.fields.iter().map(|field| place(field)).collect();
            leading.extend(places.first().copied());
            if index.unique {
                unique.push(Unique { name: index.name, places, holders: BTreeMap::new() });
            }
        }
        let leading = leading.into_iter().map(|place| (place, BTreeMap::new())).collect();
        Self { collection: spec.collection, paths, rows: BTreeMap::new(), unique, leading }
    }

    fn row(&self, version: u64, text: String) -> Row {
        let keys = scan::keys(&text, &self.paths);
        Row { version, text, keys }
    }

    /// The key of a row at a path.
    fn field<'a>(&self, row: &'a Row, path: &str) -> Cow<'a, Key> {
        let place = self.paths.iter().position(|known| *known == path);
        match place.and_then(|place| row.keys.get(place)) {
            Some(key) => Cow::Borrowed(key),
            None => Cow::Owned(scan::key(&row.text, path)),
        }
    }

    /// Where a row stands in a sort, before its id and the direction are looked at.
    fn position<'a>(&self, row: &'a Row, sort: &Sort) -> Cow<'a, Key> {
        value::sort_field(sort).map_or(Cow::Owned(Key::Null), |field| self.field(row, field))
    }

    /// Puts a row in place of the present one, or removes it, and returns what was there.
    fn put(&mut self, id: &str, row: Option<Row>) -> Result<Option<Arc<Row>>> {
        for index in &self.unique {
            let key = row.as_ref().map(|row| index.key(self.collection, &row.keys)).transpose()?.flatten();
            if key.and_then(|key| index.holders.get(&key)).is_some_and(|holder| **holder != *id) {
                let (collection, index) = (self.collection, index.name.to_owned());
                return Err(DatabaseError::AlreadyExists { collection, id: id.to_owned(), index });
            }
        }
        Ok(self.restore(id, row.map(Arc::new)))
    }

    /// As `put`, for rows that are known to fit.
    fn restore(&mut self, id: &str, row: Option<Arc<Row>>) -> Option<Arc<Row>> {
        let (id, before) = match self.rows.get_key_value(id) {
            Some((id, before)) => (id.clone(), Some(before.clone())),
            None => (Arc::from(id), None),
        };
        for (place, ids) in &mut self.leading {
            let (old, new) = (key_at(before.as_ref(), *place), key_at(row.as_ref(), *place));
            if old == new {
                continue;
            }
            if let Some(old) = old
                && let Some(at) = ids.get_mut(old)
            {
                at.remove(&id);
                if at.is_empty() {
                    ids.remove(old);
                }
            }
            if let Some(new) = new {
                ids.entry(new.clone()).or_default().insert(id.clone());
            }
        }
        for index in &mut self.unique {
            let of = |row: &Option<Arc<Row>>| {
                row.as_ref().and_then(|row| index.key(self.collection, &row.keys).ok().flatten())
            };
            let (old, new) = (of(&before), of(&row));
            if old == new {
                continue;
            }
            if let Some(old) = old {
                index.holders.remove(&old);
            }
            if let Some(new) = new {
                index.holders.insert(new, id.clone());
            }
        }
        match row {
            Some(row) => self.rows.insert(id, row),
            None => self.rows.remove(&id),
        }
    }

    /// Ids among which everything is that the filter matches, each once; `None`: anywhere.
    fn candidates(&self, filter: &Filter) -> Option<Vec<&Arc<str>>> {
        let index = |path: &String| {
            let place = self.paths.iter().position(|known| known == path)?;
            self.leading.iter().find(|(leading, _)| *leading == place).map(|(_, ids)| ids)
        };
        let among = |path: &String, bounds: (Bound<Key>, Bound<Key>)| {
            Some(index(path)?.range(bounds).flat_map(|(_, ids)| ids).collect())
        };
        let once = |mut ids: Vec<_>| {
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        match filter {
            Filter::Ids(ids) => {
                let known = ids.iter().filter_map(|id| self.rows.get_key_value(id.as_str()));
                Some(once(known.map(|(id, _)| id).collect()))
            }
            Filter::IdPrefix(prefix) => {
                let from = (Bound::Included(prefix.as_str()), Bound::<&str>::Unbounded);
                let ids = self.rows.range::<str, _>(from).map(|(id, _)| id);
                Some(ids.take_while(|id| id.starts_with(prefix.as_str())).collect())
            }
            Filter::Eq(_, Scalar::Null) => None,
            Filter::Eq(path, wanted) => {
                let at = index(path)?.get(&Key::from(wanted));
                Some(at.into_iter().flatten().collect())
            }
            Filter::In(path, wanted) if !wanted.contains(&Scalar::Null) => {
                let ids = index(path)?;
                let found = wanted.iter().filter_map(|wanted| ids.get(&Key::from(wanted)));
                Some(once(found.flatten().collect()))
            }
            // Values of other types are in the range, too, and are left out when each document is looked at.
            Filter::Lt(path, wanted) | Filter::Le(path, wanted) => {
                among(path, (Bound::Unbounded, Bound::Included(Key::from(wanted))))
            }
            Filter::Gt(path, wanted) | Filter::Ge(path, wanted) => {
                among(path, (Bound::Included(Key::from(wanted)), Bound::Unbounded))
            }
            Filter::And(all) => all.iter().filter_map(|filter| self.candidates(filter)).min_by_key(Vec::len),
            Filter::All | Filter::In(..) | Filter::Or(_) => None,
        }
    }

    /// The documents that the filter matches, in no order.
    fn matching<'a>(
        &'a self,
        filter: &'a Filter,
    ) -> Box<dyn Iterator<Item = (&'a Arc<str>, &'a Arc<Row>)> + 'a> {
        let fits = |(id, row): &(&'a Arc<str>, &'a Arc<Row>)| {
            value::matches(filter, id, &|path: &str| self.field(row, path))
        };
        match self.candidates(filter) {
            Some(ids) => Box::new(ids.into_iter().filter_map(|id| self.rows.get_key_value(id)).filter(fits)),
            None => Box::new(self.rows.iter().filter(fits)),
        }
    }

    /// The first `limit` matches after the cursor, in order.
    fn find<'a>(&'a self, query: &'a Query) -> Vec<(&'a Arc<str>, &'a Arc<Row>)> {
        let Query { filter, sort, limit, after, .. } = query;
        let after = after.as_ref().map(|cursor| value::cursor_position(sort, cursor));
        let descending = value::descending(sort);
        let mut found: Vec<_> = self
            .matching(filter)
            .map(|(id, row)| (self.position(row, sort), id, row))
            .filter(|(key, id, _)| {
                let Some((after_key, after_id)) = &after else { return true };
                let order = key.as_ref().cmp(after_key).then_with(|| str::cmp(id, after_id));
                if descending { order.is_lt() } else { order.is_gt() }
            })
            .collect();
        found.sort_unstable_by(|(a, a_id, _), (b, b_id, _)| {
            let order = a.cmp(b).then_with(|| a_id.cmp(b_id));
            if descending { order.reverse() } else { order }
        });
        found.truncate(*limit);
        found.into_iter().map(|(_, id, row)| (id, row)).collect()
    }
}

fn unknown(collection: Collection) -> DatabaseError {
    DatabaseError::Invalid(format!("there is no collection {collection}"))
}

#[async_trait]
impl Reader for MemoryDatabase {
    async fn get(&self, collection: Collection, id: &str) -> Result<Option<Document>> {
        let state = self.state.read();
        Ok(state.table(collection)?.rows.get(id).map(|row| row.document(id)))
    }

    async fn find(&self, mut query: Query) -> Result<Page> {
        value::check_query(&query)?;
        let limit = query.limit;
        // One more than asked for tells whether there is a next page.
        query.limit += 1;
        let state = self.state.read();
        let table = state.table(query.collection)?;
        let found = table.find(&query);
        let more = found.len() > limit;
        let next = found.get(limit - 1).filter(|_| more).map(|(id, row)| {
            let key = table.position(row, &query.sort).to_json();
            Cursor { key, id: id.to_string() }
        });
        let documents = found.into_iter().take(limit).map(|(id, row)| row.document(id)).collect();
        Ok(Page { documents, next })
    }

    async fn count(&self, collection: Collection, filter: Filter) -> Result<u64> {
        value::check_filter(&filter)?;
        let state = self.state.read();
        Ok(state.table(collection)?.matching(&filter).count() as u64)
    }
}

#[async_trait]
impl Claimer for MemoryDatabase {
    async fn claim(&self, claim: Claim) -> Result<Vec<Document>> {
        value::check_claim(&claim)?;
        let Claim { collection, filter, sort, limit, set, increment } = claim;
        let query = Query { collection, filter, sort, limit, after: None };
        self.state.write().atomically(|state, undo| {
            let found: Vec<(Arc<str>, Arc<Row>)> = {
                let table = state.table(collection)?;
                table.find(&query).into_iter().map(|(id, row)| (id.clone(), row.clone())).collect()
            };
            let mut documents = Vec::with_capacity(found.len());
            for (id, row) in found {
                let text = value::change(&row.text, &set, &increment)?;
                let row = state.table(collection)?.row(row.version + 1, text);
                documents.push(row.document(&id));
                state.put(collection, &id, Some(row), undo)?;
            }
            Ok(documents)
        })
    }
}

#[async_trait]
impl Committer for MemoryDatabase {
    async fn commit(&self, changeset: Changeset) -> Result<()> {
        value::check_changeset(&changeset)?;
        self.state.write().atomically(|state, undo| {
            state.ready()?;
            // What is wrong in itself is refused before anything is compared with what is stored.
            let checked: Vec<Vec<Key>> =
                changeset.writes.iter().map(|write| state.check(write)).collect::<Result<_>>()?;
            for (write, keys) in changeset.writes.into_iter().zip(checked) {
                state.write(write, keys, undo)?;
            }
            Ok(())
        })
    }
}

#[async_trait]
impl DatabaseClient for MemoryDatabase {
    async fn connect(&self, schema: &'static [CollectionSpec]) -> Result<()> {
        self.state.write().open(schema);
        Ok(())
    }

    async fn disconnect(&self) -> Result<()> {
        self.state.write().open = false;
        Ok(())
    }

    async fn health(&self) -> Result<()> {
        self.state.read().ready()
    }
}
