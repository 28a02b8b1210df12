//! Tells the projection which units a commit of this process has touched, counters included.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::core::client::{
    database::{Changeset, Committer, Result},
    schema,
};

/// The ids of units that have changed and were not looked at again yet.
#[derive(Clone, Default)]
pub struct ChangeFeed {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    units: Mutex<BTreeSet<String>>,
    dirty: AtomicBool,
    /// Changes were missed.
    all: AtomicBool,
}

impl ChangeFeed {
    /// A feed without changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a change of the unit.
    pub fn note(&self, unit: String) {
        self.inner.units.lock().insert(unit);
        self.inner.dirty.store(true, Ordering::Release);
    }

    /// Notes that any unit may have changed.
    pub fn note_all(&self) {
        self.inner.all.store(true, Ordering::Release);
        self.inner.dirty.store(true, Ordering::Release);
    }

    /// Takes whether any unit may have changed.
    #[must_use]
    pub fn take_all(&self) -> bool {
        self.inner.all.swap(false, Ordering::AcqRel)
    }

    /// Whether any unit may have changed, without taking it.
    #[must_use]
    pub fn has_missed(&self) -> bool {
        self.inner.all.load(Ordering::Acquire)
    }

    /// Whether anything was noted since the last [`ChangeFeed::take`].
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.inner.dirty.load(Ordering::Acquire)
    }

    /// Takes what was noted.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        let mut units = self.inner.units.lock();
        self.inner.dirty.store(false, Ordering::Release);
        std::mem::take(&mut *units).into_iter().collect()
    }
}

/// A committer that notes touched units and reputations in a feed, once the commit is durable, or may be.
pub struct WatchedCommitter {
    inner: Arc<dyn Committer>,
    feed: ChangeFeed,
}

impl WatchedCommitter {
    /// Watches `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Committer>, feed: ChangeFeed) -> Self {
        Self { inner, feed }
    }

    /// A failed commit may have happened all the same; looking once too often does no harm.
    fn note(&self, touched: Vec<String>) {
        for unit in touched {
            self.feed.note(unit);
        }
    }
}

/// The units that a changeset touches, by their ids.
fn touched(changeset: &Changeset) -> Vec<String> {
    let writes = changeset.writes.iter();
    let of_units = writes.filter(|w| w.collection == schema::UNITS || w.collection == schema::REPUTATIONS);
    of_units.map(|w| w.id.clone()).collect()
}

#[async_trait]
impl Committer for WatchedCommitter {
    async fn commit(&self, changeset: Changeset) -> Result<()> {
        let touched = touched(&changeset);
        let result = self.inner.commit(changeset).await;
        self.note(touched);
        result
    }

    async fn commit_each(&self, changesets: Vec<Changeset>) -> Vec<Result<()>> {
        let touched = changesets.iter().flat_map(touched).collect();
        let results = self.inner.commit_each(changesets).await;
        self.note(touched);
        results
    }
}
