//! MongoDB: a replica set or a sharded cluster, never a single server without transactions.
//!
//! **What is acknowledged is durable**: every write waits until a majority of the servers has it in its journal.
//!
//! **What is read was acknowledged**: reads go to the primary and return what a majority has; since a write is
//! acknowledged only after the primary counted its majority, every read that begins later on that primary sees it. One
//! case is left: a primary that was cut off and does not know yet that another one was elected may answer, for seconds,
//! without the newest writes. No decision rests on such a read: each write is guarded by the version or the field that
//! was read, and is carried out by the one primary that can still reach a majority, where a stale guard does not hold. A
//! process that has spoken with the new primary never goes back to the old one.
//!
//! **Claims and single writes** rest on compare-and-set of single documents alone. **Changesets** are transactions; what
//! snapshot isolation leaves open (two that require what the other one changes) is closed by requirements that write:
//! see [`statement`].
//!
//! A document has its body in the field `b`, its version in `v`; `l`, `c` and `x` are the adapter's own: see [`encode`].

mod claim;
mod commit;
mod doctor;
mod encode;
mod fault;
mod filter;
mod layout;
mod statement;
mod transaction;
mod watch;

use std::{collections::HashMap, sync::Arc, time::Duration};

use ::mongodb::{
    Client, Collection as MongoCollection, Database,
    bson::{Document as BsonDocument, doc},
    options::{ClientOptions, ReadConcern, ReadPreference, SelectionCriteria},
};
use async_trait::async_trait;
use parking_lot::RwLock;

use self::{
    claim::Rivals,
    fault::{TimedOut, fault},
    transaction::Turns,
};
pub use self::{
    doctor::{Inspection, Topology},
    layout::{Drift, DriftKind},
};
use crate::{
    client::db::{asked, closed, scan, unknown, value},
    core::client::{
        database::{
            Changeset, Claim, Claimer, Committer, Cursor, DatabaseClient, DatabaseError, Document, Filter,
            Page, Query, Reader, Result,
        },
        schema::{Collection, CollectionSpec, Expiry},
    },
};

/// How the database is reached.
#[derive(Clone)]
pub struct MongoSettings {
    /// The connection string, `mongodb://…` or `mongodb+srv://…`.
    pub url: String,
    /// The name of the database.
    pub name: String,
    /// How the server's logs name this client.
    pub app_name: String,
    /// The most connections to each server.
    pub pool: u32,
    /// The longest that a call takes, retries included.
    pub timeout: Duration,
    /// The longest that a connection, or a server that can be written to, is waited for.
    pub connect_timeout: Duration,
    /// Whether the server expires what the schema lets expire. Not for tests whose clock is not the server's.
    pub expire: bool,
}

impl MongoSettings {
    /// The defaults: 64 connections, 30 s a call, 5 s to connect, with expiry.
    #[must_use]
    pub fn new(url: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            name: name.into(),
            app_name: "orchestrator".to_owned(),
            pool: 64,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            expire: true,
        }
    }
}

/// Without the connection string, which may hold a password.
impl std::fmt::Debug for MongoSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url: _, name, app_name, pool, timeout, connect_timeout, expire } = self;
        f.debug_struct("MongoSettings")
            .field("name", name)
            .field("app_name", app_name)
            .field("pool", pool)
            .field("timeout", timeout)
            .field("connect_timeout", connect_timeout)
            .field("expire", expire)
            .finish_non_exhaustive()
    }
}

/// A database on MongoDB.
#[derive(Debug)]
pub struct MongoDatabase {
    settings: MongoSettings,
    options: ClientOptions,
    client: RwLock<Option<Client>>,
    running: RwLock<Option<Arc<Running>>>,
}

/// What an open database works with.
#[derive(Debug)]
struct Running {
    client: Client,
    database: Database,
    tables: HashMap<Collection, Arc<Table>>,
    turns: Turns,
    timeout: Duration,
}

/// A collection.
#[derive(Debug)]
struct Table {
    spec: CollectionSpec,
    expiry: Option<&'static Expiry>,
    documents: MongoCollection<BsonDocument>,
    rivals: Rivals,
    timeout: Duration,
}

impl Table {
    /// Whether a field is the first of a unique index.
    fn leads_unique(&self, path: &str) -> bool {
        self.spec.indexes.iter().any(|index| index.unique && index.fields.first() == Some(&path))
    }
}

/// What to say of a connection string that the driver refuses. The driver quotes the part that it can't read, which may be a
/// password with signs that should have been encoded.
fn unreadable(url: &str, error: ::mongodb::error::Error) -> DatabaseError {
    let refused = matches!(*error.kind, ::mongodb::error::ErrorKind::InvalidArgument { .. });
    match refused && url.contains('@') {
        true => DatabaseError::Invalid(
            "the connection string can't be read; it has the form mongodb://user:password@host:port/?options, \
             with user and password percent-encoded"
                .to_owned(),
        ),
        false => fault(error),
    }
}

impl MongoDatabase {
    /// Reads the connection string; [`DatabaseClient::connect`] must follow before anything but [`Self::inspect`].
    ///
    /// # Errors
    /// [`DatabaseError::Invalid`] when the connection string makes no sense; [`DatabaseError::Unavailable`] when the
    /// names that it holds can't be looked up.
    pub async fn open(settings: MongoSettings) -> Result<Arc<Self>> {
        let parsed = ClientOptions::parse(settings.url.as_str()).await;
        let mut options = parsed.map_err(|error| unreadable(&settings.url, error))?;
        options.app_name = Some(settings.app_name.clone());
        options.connect_timeout = Some(settings.connect_timeout);
        options.server_selection_timeout = Some(settings.connect_timeout);
        options.max_pool_size = Some(settings.pool.max(1));
        // A server that is thought to be gone is asked again so soon, and one that hangs is found out.
        options.heartbeat_freq = Some(Duration::from_secs(2));
        options.max_idle_time = Some(Duration::from_secs(300));
        options.retry_reads = Some(true);
        options.retry_writes = Some(true);
        options.read_concern = Some(ReadConcern::majority());
        options.write_concern = Some(transaction::majority());
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        Ok(Arc::new(Self { settings, options, client: RwLock::default(), running: RwLock::default() }))
    }

    /// The client; it connects when it is first asked for something.
    fn client(&self) -> Result<Client> {
        if let Some(client) = &*self.client.read() {
            return Ok(client.clone());
        }
        let mut client = self.client.write();
        match &*client {
            Some(client) => Ok(client.clone()),
            None => {
                let made = Client::with_options(self.options.clone()).map_err(fault)?;
                Ok(client.insert(made).clone())
            }
        }
    }

    fn running(&self) -> Result<Arc<Running>> {
        self.running.read().clone().ok_or_else(closed)
    }

    fn table(&self, collection: Collection) -> Result<(Arc<Running>, Arc<Table>)> {
        let running = self.running()?;
        let table = running.tables.get(&collection).ok_or_else(|| unknown(collection))?;
        Ok((Arc::clone(&running), Arc::clone(table)))
    }

    /// Bounds a call. Stopping in the middle leaves open what the server makes of it, as every lost answer does.
    async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        // Longer than what bounds the retries inside, so that these get to say why they failed.
        let limit = self.settings.timeout + Duration::from_secs(5);
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(DatabaseError::Unavailable(Box::new(TimedOut(limit)))),
        }
    }

    fn tables(
        &self,
        database: &Database,
        schema: &'static [CollectionSpec],
    ) -> HashMap<Collection, Arc<Table>> {
        let timeout = self.settings.timeout;
        let table = |spec: &CollectionSpec| {
            let collection = spec.collection;
            let expiry = layout::expiry(collection).filter(|_| self.settings.expire);
            let documents = database.collection(collection.0);
            (
                collection,
                Arc::new(Table { spec: *spec, expiry, documents, rivals: Rivals::default(), timeout }),
            )
        };
        schema.iter().map(table).collect()
    }
}

#[async_trait]
impl Reader for MongoDatabase {
    async fn get(&self, collection: Collection, id: &str) -> Result<Option<Document>> {
        asked("read");
        let (_running, table) = self.table(collection)?;
        self.within(async { Ok(filter::get(&table, id, None).await?) }).await
    }

    async fn find(&self, query: Query) -> Result<Page> {
        asked("read");
        value::check_query(&query)?;
        let (_running, table) = self.table(query.collection)?;
        // One more than asked for tells whether there is a next page.
        let page = async { Ok(filter::page(&table, &query, query.limit + 1, None).await?) };
        let mut documents = self.within(page).await?;
        let more = documents.len() > query.limit;
        documents.truncate(query.limit);
        let next = documents.last().filter(|_| more).map(|last| Cursor {
            key: value::sort_field(&query.sort)
                .map_or(serde_json::Value::Null, |field| scan::key(&last.body, field).to_json()),
            id: last.id.clone(),
        });
        Ok(Page { documents, next })
    }

    async fn count(&self, collection: Collection, filter: Filter) -> Result<u64> {
        asked("read");
        value::check_filter(&filter)?;
        let (_running, table) = self.table(collection)?;
        let filter = table.filter(&filter);
        self.within(async {
            table.documents.count_documents(filter).max_time(table.timeout).await.map_err(fault)
        })
        .await
    }
}

#[async_trait]
impl Claimer for MongoDatabase {
    async fn claim(&self, claim: Claim) -> Result<Vec<Document>> {
        asked("claim");
        value::check_claim(&claim)?;
        let (running, table) = self.table(claim.collection)?;
        self.within(claim::claim(&running, &table, claim)).await
    }
}

#[async_trait]
impl Committer for MongoDatabase {
    async fn commit(&self, changeset: Changeset) -> Result<()> {
        asked("commit");
        let running = self.running()?;
        let writes = commit::prepare(&running, changeset)?;
        self.within(commit::commit(&running, writes)).await
    }
}

#[async_trait]
impl DatabaseClient for MongoDatabase {
    async fn connect(&self, schema: &'static [CollectionSpec]) -> Result<()> {
        let client = self.client()?;
        let database = client.database(&self.settings.name);
        self.within(doctor::check_server(&database)).await?;
        // Indexes over what is there already take as long as they take.
        layout::make(&database, schema, self.settings.expire).await?;
        let tables = self.tables(&database, schema);
        let timeout = self.settings.timeout;
        *self.running.write() =
            Some(Arc::new(Running { client, database, tables, turns: Turns::default(), timeout }));
        Ok(())
    }

    async fn disconnect(&self) -> Result<()> {
        *self.running.write() = None;
        let Some(client) = self.client.write().take() else { return Ok(()) };
        // What is under way is waited for: it holds the client's parts until it is done.
        self.within(async {
            client.shutdown().await;
            Ok(())
        })
        .await
    }

    async fn health(&self) -> Result<()> {
        let running = self.running()?;
        let ping = async { running.database.run_command(doc! { "ping": 1 }).await.map(drop).map_err(fault) };
        self.within(ping).await
    }
}
