//! What happened, in the order in which it happened: every commit with its time, for the model, and a hash over all of it,
//! by which two runs of one seed are compared.

use orchestrator::core::{
    client::{
        database::{Changeset, Document, Expect, Write, WriteOp},
        schema::{self, Collection},
    },
    market::quantity::Timestamp,
};
use parking_lot::Mutex;

use crate::time::LaneId;

/// Collections that the model looks at.
const WATCHED: [Collection; 7] = [
    schema::JOBS,
    schema::UNITS,
    schema::ALLOCATIONS,
    schema::TRANSFERS,
    schema::DISPUTES,
    schema::VERDICTS,
    schema::AUDIT,
];

/// A commit.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The true time.
    pub at: Timestamp,
    /// Who.
    pub lane: LaneId,
    /// The writes to collections that the model looks at.
    pub writes: Vec<Write>,
}

/// A running hash.
#[derive(Debug, Clone, Copy)]
pub struct Trail(u64);

impl Default for Trail {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Trail {
    /// Takes in bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0_u8; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.0 = (self.0 ^ u64::from_le_bytes(word)).wrapping_mul(0x9FB2_1C65_1E98_DF25);
            self.0 ^= self.0 >> 29;
        }
        self.0 = self.0.wrapping_add(bytes.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    /// The hash so far.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

#[derive(Default)]
struct Inner {
    trail: Trail,
    commits: Vec<Commit>,
    calls: u64,
}

/// The journal of a run.
#[derive(Default)]
pub struct Journal {
    inner: Mutex<Inner>,
}

fn add_write(trail: &mut Trail, write: &Write) {
    trail.add(write.collection.0.as_bytes());
    trail.add(write.id.as_bytes());
    match &write.op {
        WriteOp::Insert { body } => trail.add(body.as_bytes()),
        WriteOp::Replace { body, expect } => {
            trail.add(body.as_bytes());
            if let Expect::Version(version) = expect {
                trail.add(&version.to_le_bytes());
            }
        }
        WriteOp::Add { field, delta, .. } => {
            trail.add(field.as_bytes());
            trail.add(&delta.to_le_bytes());
        }
        WriteOp::Delete { .. } => trail.add(b"delete"),
        WriteOp::Require { .. } => trail.add(b"require"),
    }
}

impl Journal {
    /// Takes down a commit that was made.
    pub fn commit(&self, at: Timestamp, lane: LaneId, changes: Changeset) {
        let mut inner = self.inner.lock();
        inner.calls += 1;
        inner.trail.add(&at.as_micros().to_le_bytes());
        inner.trail.add(&lane.to_le_bytes());
        for write in &changes.writes {
            add_write(&mut inner.trail, write);
        }
        let mut writes = changes.writes;
        writes.retain(|write| WATCHED.contains(&write.collection));
        if !writes.is_empty() {
            inner.commits.push(Commit { at, lane, writes });
        }
    }

    /// Takes down a document that was claimed, as it is after that.
    pub fn claim(&self, at: Timestamp, lane: LaneId, collection: Collection, document: &Document) {
        let mut inner = self.inner.lock();
        inner.calls += 1;
        inner.trail.add(&at.as_micros().to_le_bytes());
        inner.trail.add(&lane.to_le_bytes());
        inner.trail.add(document.body.as_bytes());
        if WATCHED.contains(&collection) {
            let op =
                WriteOp::Replace { expect: Expect::Version(document.version), body: document.body.clone() };
            let writes = vec![Write::new(collection, document.id.clone(), op)];
            inner.commits.push(Commit { at, lane, writes });
        }
    }

    /// Takes down something else that happened, by its text.
    pub fn note(&self, at: Timestamp, lane: LaneId, what: &[&str]) {
        let mut inner = self.inner.lock();
        inner.calls += 1;
        inner.trail.add(&at.as_micros().to_le_bytes());
        inner.trail.add(&lane.to_le_bytes());
        for part in what {
            inner.trail.add(part.as_bytes());
        }
    }

    /// The hash over everything so far.
    #[must_use]
    pub fn trail(&self) -> u64 {
        self.inner.lock().trail.value()
    }

    /// How much was taken down.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.inner.lock().calls
    }

    /// The commits.
    #[must_use]
    pub fn take_commits(&self) -> Vec<Commit> {
        std::mem::take(&mut self.inner.lock().commits)
    }
}
