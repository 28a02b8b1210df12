//! The database: one store for all replicas, seen by each through its own faults. Every commit is taken down.

use std::sync::Arc;

use async_trait::async_trait;
use orchestrator::{
    client::db::memory::MemoryDatabase,
    core::client::{
        changes::{Change, ChangeSource, Told},
        database::{
            Changeset, Claim, Claimer, Committer, DatabaseClient, DatabaseError, Document, Expect, Filter,
            Page, Query, Reader, Result, WriteOp,
        },
        schema::{self, Collection, CollectionSpec},
    },
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{
    chance::Dice,
    faults::{Faults, Injected, Port, through},
    journal::Journal,
    sabotage::Sabotage,
    time::LaneId,
};

/// Who follows the changes.
struct Follower {
    lane: LaneId,
    collections: Vec<Collection>,
    sender: mpsc::Sender<Told>,
    /// Ends the stream when it is dropped.
    _alive: mpsc::Sender<()>,
}

/// The store that all replicas share.
pub struct SharedStore {
    /// The documents.
    pub memory: Arc<MemoryDatabase>,
    /// What happened.
    pub journal: Arc<Journal>,
    followers: Mutex<Vec<Follower>>,
    sabotage: Sabotage,
    dice: Mutex<Dice>,
}

impl SharedStore {
    /// An empty store.
    #[must_use]
    pub fn new(journal: Arc<Journal>, sabotage: Sabotage, dice: Dice) -> Self {
        let memory = MemoryDatabase::with_schema();
        Self { memory, journal, followers: Mutex::default(), sabotage, dice: Mutex::new(dice) }
    }

    /// The bug of this run, if it strikes now.
    fn strikes(&self, bug: Sabotage, one_in: u64) -> bool {
        self.sabotage == bug && self.dice.lock().below(one_in) == 0
    }

    async fn commit(&self, faults: &Faults, mut changes: Changeset) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        if self.strikes(Sabotage::LostCommit, 60) {
            return Ok(());
        }
        self.tamper(&mut changes).await?;
        self.memory.commit(changes.clone()).await?;
        self.tell(faults, &changes);
        self.journal.commit(faults.time().now(), faults.lane(), changes);
        Ok(())
    }

    /// Puts the bug of this run into a commit.
    async fn tamper(&self, changes: &mut Changeset) -> Result<()> {
        match self.sabotage {
            Sabotage::NoToken => {
                for write in &mut changes.writes {
                    let WriteOp::Replace { expect: expect @ Expect::Field(..), .. } = &mut write.op else {
                        continue;
                    };
                    if write.collection == schema::JOBS {
                        let found = self.memory.get(write.collection, &write.id).await?;
                        *expect = Expect::Version(found.map_or(0, |found| found.version));
                    }
                }
            }
            Sabotage::NoFloor => {
                for write in &mut changes.writes {
                    if let WriteOp::Add { floor, .. } = &mut write.op {
                        *floor = i64::MIN;
                    }
                }
            }
            Sabotage::WrongAmount => {
                for write in &mut changes.writes {
                    if let WriteOp::Insert { body } = &mut write.op
                        && write.collection == schema::TRANSFERS
                        && self.dice.lock().below(20) == 0
                        && let Ok(mut value) = serde_json::from_str::<serde_json::Value>(body)
                    {
                        let amount = value["amount"].as_str().and_then(|text| text.parse::<u128>().ok());
                        value["amount"] = (amount.unwrap_or(0) + 1).to_string().into();
                        *body = value.to_string();
                    }
                }
            }
            Sabotage::NoMarker => changes.writes.retain(|write| write.collection != schema::REQUESTS),
            _ => {}
        }
        Ok(())
    }

    /// Tells the followers of all replicas.
    fn tell(&self, faults: &Faults, changes: &Changeset) {
        let mut followers = self.followers.lock();
        followers.retain(|follower| {
            for write in &changes.writes {
                if !follower.collections.contains(&write.collection) {
                    continue;
                }
                let inserted = matches!(write.op, WriteOp::Insert { .. });
                let change = Change { collection: write.collection, id: write.id.clone(), inserted };
                // One that lags behind, or is gone, has missed changes: its stream ends.
                if follower.sender.try_send(Told::Changed(change)).is_err() {
                    faults.time().mark(follower.lane);
                    return false;
                }
                faults.time().mark(follower.lane);
            }
            true
        });
    }

    /// Breaks the streams of a lane off.
    pub fn break_streams(&self, lane: LaneId) {
        self.followers.lock().retain(|follower| follower.lane != lane);
    }
}

/// The database as one process sees it.
#[derive(Clone)]
pub struct SimDatabase {
    store: Arc<SharedStore>,
    faults: Faults,
}

impl SimDatabase {
    /// The store behind the faults of a lane.
    #[must_use]
    pub const fn new(store: Arc<SharedStore>, faults: Faults) -> Self {
        Self { store, faults }
    }
}

fn lost() -> DatabaseError {
    DatabaseError::Unavailable(Box::new(Injected))
}

#[async_trait]
impl Reader for SimDatabase {
    async fn get(&self, collection: Collection, id: &str) -> Result<Option<Document>> {
        through!(self.faults, Port::Db, self.store.memory.get(collection, id), lost())
    }

    async fn find(&self, query: Query) -> Result<Page> {
        through!(self.faults, Port::Db, self.store.memory.find(query), lost())
    }

    async fn count(&self, collection: Collection, filter: Filter) -> Result<u64> {
        through!(self.faults, Port::Db, self.store.memory.count(collection, filter), lost())
    }
}

#[async_trait]
impl Claimer for SimDatabase {
    async fn claim(&self, claim: Claim) -> Result<Vec<Document>> {
        let claimed = async {
            let collection = claim.collection;
            let documents = self.store.memory.claim(claim).await?;
            for document in &documents {
                let (now, lane) = (self.faults.time().now(), self.faults.lane());
                self.store.journal.claim(now, lane, collection, document);
            }
            Ok(documents)
        };
        through!(self.faults, Port::Db, claimed, lost())
    }
}

#[async_trait]
impl Committer for SimDatabase {
    async fn commit(&self, changeset: Changeset) -> Result<()> {
        through!(self.faults, Port::Db, self.store.commit(&self.faults, changeset), lost())
    }
}

#[async_trait]
impl DatabaseClient for SimDatabase {
    async fn connect(&self, _: &'static [CollectionSpec]) -> Result<()> {
        Ok(())
    }

    async fn disconnect(&self) -> Result<()> {
        Ok(())
    }

    async fn health(&self) -> Result<()> {
        through!(self.faults, Port::Db, self.store.memory.health(), lost())
    }
}

#[async_trait]
impl ChangeSource for SimDatabase {
    async fn follow(&self, collections: &[Collection], changes: mpsc::Sender<Told>) -> Result<()> {
        let (alive, mut ended) = mpsc::channel(1);
        // Before the first change: the channel is new and has room.
        let _ = changes.try_send(Told::Following);
        let lane = self.faults.lane();
        let collections = collections.to_vec();
        let follower = Follower { lane, collections, sender: changes, _alive: alive };
        self.store.followers.lock().push(follower);
        // Nothing is ever sent: the channel closes when the stream breaks off.
        ended.recv().await;
        Err(lost())
    }
}
