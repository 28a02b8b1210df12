//! A database in memory: for tests, and the model that the others are compared with. Everything happens under one lock,
//! so a changeset is seen as a whole or not at all.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::RwLock;
use serde_json::{Map, Value};

use super::value::{self, Key};
use crate::core::client::{
    database::{
        Changeset, Claim, Claimer, Committer, Cursor, DatabaseClient, DatabaseError, Document, Filter, Page,
        Query, Reader, Result, Scalar, Write, WriteOp,
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
    tables: HashMap<Collection, Table>,
}

#[derive(Debug)]
struct Table {
    spec: CollectionSpec,
    rows: BTreeMap<String, Arc<Row>>,
    unique: HashMap<&'static str, HashMap<Vec<Key>, String>>,
    /// Ids by the value of the first field of each index, null left out: where a search may begin.
    leading: Vec<(&'static str, BTreeMap<Key, BTreeSet<String>>)>,
}

#[derive(Debug)]
struct Row {
    version: u64,
    text: String,
    body: Map<String, Value>,
}

/// What a write took away, so that it can be put back.
type Undo = Vec<(Collection, String, Option<Arc<Row>>)>;

impl State {
    fn open(&mut self, schema: &'static [CollectionSpec]) {
        self.open = true;
        for spec in schema {
            self.tables.entry(spec.collection).or_insert_with(|| Table {
                spec: *spec,
                rows: BTreeMap::new(),
                unique: HashMap::new(),
                leading: leading(spec),
            });
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

    fn check(&self, write: &Write) -> Result<()> {
        let table = self.table(write.collection)?;
        if let WriteOp::Insert { body } | WriteOp::Replace { body, .. } = &write.op {
            let body = value::parse(write.collection, &write.id, body)?;
            value::unique_keys(&table.spec, &body)?;
        }
        Ok(())
    }

    fn write(&mut self, write: Write, undo: &mut Undo) -> Result<()> {
        let Write { collection, id, op, .. } = write;
        let present = self.table(collection)?.rows.get(&id).cloned();
        if let WriteOp::Insert { body: text } = op {
            if present.is_some() {
                return Err(DatabaseError::AlreadyExists { collection, id, index: "id".into() });
            }
            let row = Row::new(collection, &id, 1, text)?;
            return self.put(collection, &id, Some(row), undo);
        }
        let Some(present) = present else { return Err(DatabaseError::Missing { collection, id }) };
        match op {
            WriteOp::Insert { .. } => Ok(()),
            WriteOp::Replace { expect, .. } | WriteOp::Delete { expect } | WriteOp::Require { expect }
                if !value::holds(&expect, present.version, &present.body) =>
            {
                Err(DatabaseError::Conflict { collection, id })
            }
            WriteOp::Replace { body: text, .. } => {
                let row = Row::new(collection, &id, present.version + 1, text)?;
                self.put(collection, &id, Some(row), undo)
            }
            WriteOp::Delete { .. } => self.put(collection, &id, None, undo),
            WriteOp::Require { .. } => Ok(()),
            WriteOp::Add { field, delta, floor } => {
                let text = value::add((collection, &id), &present.text, &field, delta, floor)?;
                let row = Row::new(collection, &id, present.version + 1, text)?;
                self.put(collection, &id, Some(row), undo)
            }
        }
    }
}

impl Row {
    fn new(collection: Collection, id: &str, version: u64, text: String) -> Result<Self> {
        let body = value::parse(collection, id, &text)?;
        Ok(Self { version, text, body })
    }

    fn document(&self, id: &str) -> Document {
        Document { id: id.to_owned(), version: self.version, body: self.text.clone() }
    }
}

impl Table {
    /// Puts a row in place of the present one, or removes it, and returns what was there.
    fn put(&mut self, id: &str, row: Option<Row>) -> Result<Option<Arc<Row>>> {
        let keys = match &row {
            Some(row) => value::unique_keys(&self.spec, &row.body)?,
            None => Vec::new(),
        };
        for (name, key) in &keys {
            let holder = key.as_ref().and_then(|key| self.unique.get(name)?.get(key));
            if holder.is_some_and(|holder| holder != id) {
                let collection = self.spec.collection;
                let index = (*name).to_owned();
                return Err(DatabaseError::AlreadyExists { collection, id: id.to_owned(), index });
            }
        }
        let before = self.rows.get(id).cloned();
        self.restore(id, row.map(Arc::new));
        Ok(before)
    }

    /// As `put`, for rows that are known to fit.
    fn restore(&mut self, id: &str, row: Option<Arc<Row>>) {
        if let Some(before) = self.rows.remove(id) {
            for (field, ids) in &mut self.leading {
                let key = value::key(&before.body, field);
                if let Some(at) = ids.get_mut(&key) {
                    at.remove(id);
                    if at.is_empty() {
                        ids.remove(&key);
                    }
                }
            }
            for (name, key) in value::unique_keys(&self.spec, &before.body).unwrap_or_default() {
                if let (Some(key), Some(index)) = (key, self.unique.get_mut(name)) {
                    // In the middle of putting back, another document may hold the key already.
                    if index.get(&key).is_some_and(|holder| holder == id) {
                        index.remove(&key);
                    }
                }
            }
        }
        let Some(row) = row else { return };
        for (name, key) in value::unique_keys(&self.spec, &row.body).unwrap_or_default() {
            if let Some(key) = key {
                self.unique.entry(name).or_default().insert(key, id.to_owned());
            }
        }
        for (field, ids) in &mut self.leading {
            let key = value::key(&row.body, field);
            if key != Key::Null {
                ids.entry(key).or_default().insert(id.to_owned());
            }
        }
        self.rows.insert(id.to_owned(), row);
    }

    /// Ids among which everything is that the filter matches; `None`: anywhere.
    fn candidates(&self, filter: &Filter) -> Option<BTreeSet<&String>> {
        let index = |path: &String| self.leading.iter().find(|(field, _)| field == path).map(|(_, ids)| ids);
        let among = |path: &String, bounds: (Bound<Key>, Bound<Key>)| {
            Some(index(path)?.range(bounds).flat_map(|(_, ids)| ids).collect())
        };
        match filter {
            Filter::Ids(ids) => {
                Some(ids.iter().filter_map(|id| self.rows.get_key_value(id)).map(|(id, _)| id).collect())
            }
            Filter::Eq(_, Scalar::Null) => None,
            Filter::Eq(path, wanted) => {
                let at = index(path)?.get(&Key::from(wanted));
                Some(at.into_iter().flatten().collect())
            }
            Filter::In(path, wanted) if !wanted.contains(&Scalar::Null) => {
                let ids = index(path)?;
                Some(wanted.iter().filter_map(|wanted| ids.get(&Key::from(wanted))).flatten().collect())
            }
            // Values of other types are in the range, too, and are left out when each document is looked at.
            Filter::Lt(path, wanted) | Filter::Le(path, wanted) => {
                among(path, (Bound::Unbounded, Bound::Included(Key::from(wanted))))
            }
            Filter::Gt(path, wanted) | Filter::Ge(path, wanted) => {
                among(path, (Bound::Included(Key::from(wanted)), Bound::Unbounded))
            }
            Filter::And(all) => {
                all.iter().filter_map(|filter| self.candidates(filter)).min_by_key(BTreeSet::len)
            }
            Filter::All | Filter::In(..) | Filter::IdPrefix(_) | Filter::Or(_) => None,
        }
    }

    /// The documents that the filter matches, by id.
    fn matching<'a>(
        &'a self,
        filter: &'a Filter,
    ) -> Box<dyn Iterator<Item = (&'a String, &'a Arc<Row>)> + 'a> {
        let fits = |(id, row): &(&String, &Arc<Row>)| value::matches(filter, id, &row.body);
        match self.candidates(filter) {
            Some(ids) => Box::new(ids.into_iter().filter_map(|id| self.rows.get_key_value(id)).filter(fits)),
            None => Box::new(self.rows.iter().filter(fits)),
        }
    }

    /// The first `limit` matches after the cursor, in order.
    fn find<'a>(&'a self, query: &'a Query) -> Vec<(&'a String, &'a Arc<Row>)> {
        let Query { filter, sort, limit, after, .. } = query;
        let after = after.as_ref().map(|cursor| value::cursor_position(sort, cursor));
        let descending = value::descending(sort);
        let mut found: Vec<_> = self
            .matching(filter)
            .map(|(id, row)| (value::position(sort, id, &row.body), id, row))
            .filter(|(position, ..)| match &after {
                None => true,
                Some(after) if descending => position < after,
                Some(after) => position > after,
            })
            .collect();
        found.sort_by(|(a, ..), (b, ..)| if descending { b.cmp(a) } else { a.cmp(b) });
        found.truncate(*limit);
        found.into_iter().map(|(_, id, row)| (id, row)).collect()
    }
}

/// An empty index for each field that leads an index of the schema.
fn leading(spec: &CollectionSpec) -> Vec<(&'static str, BTreeMap<Key, BTreeSet<String>>)> {
    let fields: BTreeSet<&'static str> =
        spec.indexes.iter().filter_map(|index| index.fields.first().copied()).collect();
    fields.into_iter().map(|field| (field, BTreeMap::new())).collect()
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
        let found = state.table(query.collection)?.find(&query);
        let more = found.len() > limit;
        let next = found.get(limit - 1).filter(|_| more).map(|(id, row)| {
            let (key, id) = value::position(&query.sort, id, &row.body);
            Cursor { key: key.to_json(), id }
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
            let found: Vec<(String, Arc<Row>)> = {
                let table = state.table(collection)?;
                table.find(&query).into_iter().map(|(id, row)| (id.clone(), Arc::clone(row))).collect()
            };
            let mut documents = Vec::with_capacity(found.len());
            for (id, row) in found {
                let text = value::change(&row.text, &set, &increment)?;
                let row = Row::new(collection, &id, row.version + 1, text)?;
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
            for write in &changeset.writes {
                state.check(write)?;
            }
            for write in changeset.writes {
                state.write(write, undo)?;
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
