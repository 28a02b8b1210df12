//! The one who kills: told of every boundary by the engine and its handlers, it notes them, and at the planned one the
//! process dies. From then on nothing of that process goes on: whatever comes to a boundary stays there for ever, and its
//! database answers nothing.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use orchestrator::{
    core::job::{JobKind, Phase},
    service::job::{Boundaries, Crossing, Side, Step},
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::promises::world::Mortal;

/// A boundary, whichever job comes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub step: Step,
    pub side: Side,
    pub kind: Option<JobKind>,
    pub phase: Option<Phase>,
}

impl Place {
    pub fn of(crossing: Crossing) -> Self {
        let Crossing { step, side, kind, phase, job: _ } = crossing;
        Self { step, side, kind, phase }
    }
}

/// What the processes of one run share: where they came by, and where they are to die, one after the other.
#[derive(Default)]
pub struct Watch {
    seen: Mutex<Vec<Place>>,
    deaths: Mutex<VecDeque<Place>>,
}

impl Watch {
    pub fn killing_at(deaths: impl IntoIterator<Item = Place>) -> Arc<Self> {
        Arc::new(Self { seen: Mutex::default(), deaths: Mutex::new(deaths.into_iter().collect()) })
    }

    /// Where processes came by, in order, since the last death that was planned.
    pub fn seen(&self) -> Vec<Place> {
        self.seen.lock().clone()
    }

    /// Deaths that were planned and did not come about.
    pub fn left(&self) -> usize {
        self.deaths.lock().len()
    }
}

/// One process.
pub struct Process {
    watch: Arc<Watch>,
    writes: Arc<Mortal>,
    /// Cancelled when it has died.
    pub died: CancellationToken,
}

impl Process {
    pub fn new(watch: Arc<Watch>, writes: Arc<Mortal>) -> Arc<Self> {
        Arc::new(Self { watch, writes, died: CancellationToken::new() })
    }

    /// Whether the process dies here.
    fn dies_at(&self, place: Place) -> bool {
        if self.died.is_cancelled() {
            return true;
        }
        let mut deaths = self.watch.deaths.lock();
        let mut seen = self.watch.seen.lock();
        if deaths.front() != Some(&place) {
            seen.push(place);
            return false;
        }
        deaths.pop_front();
        seen.clear();
        true
    }
}

#[async_trait]
impl Boundaries for Process {
    async fn reached(&self, crossing: Crossing) {
        if self.dies_at(Place::of(crossing)) {
            self.writes.kill();
            self.died.cancel();
            std::future::pending::<()>().await;
        }
        // Others go on in between: two jobs of one process are at it side by side.
        tokio::task::yield_now().await;
    }
}
