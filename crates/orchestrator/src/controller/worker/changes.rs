//! Follows what other replicas write to the shared database: offerings that they changed, work and messages that they added.
//! In a process that is alone the committers tell all of it.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{
        client::{
            changes::{Change, ChangeSource, Told},
            clock::Clock,
            schema::{self, Collection},
        },
        market::quantity::Micros,
    },
    error,
    service::{job::Wake, scoring::ChangeFeed},
};

/// Pause after changes were missed.
const PAUSE: Micros = Micros::from_secs(1);
/// Changes that wait to be looked at.
const PENDING: usize = 1_024;

/// Follows changes.
pub struct ChangeFollower {
    source: Arc<dyn ChangeSource>,
    offerings: ChangeFeed,
    wake: Arc<Wake>,
    clock: Arc<dyn Clock>,
    collections: Vec<Collection>,
}

impl ChangeFollower {
    /// A follower; `hinted` tells that workers learn of jobs in another way.
    #[must_use]
    pub fn new(
        source: Arc<dyn ChangeSource>,
        offerings: ChangeFeed,
        wake: Arc<Wake>,
        clock: Arc<dyn Clock>,
        hinted: bool,
    ) -> Self {
        let mut collections = vec![schema::UNITS, schema::REPUTATIONS, schema::OUTBOX];
        if !hinted {
            collections.push(schema::JOBS);
        }
        Self { source, offerings, wake, clock, collections }
    }

    /// Follows until `shutdown` is cancelled.
    pub async fn run(self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let (sender, mut receiver) = mpsc::channel(PENDING);
            let listening = async {
                while let Some(told) = receiver.recv().await {
                    match told {
                        Told::Following => self.look_anew(),
                        Told::Changed(change) => self.take(change),
                    }
                }
            };
            // Both to their ends: what was told before the stream broke off is still to be taken.
            let (ended, ()) = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                both = async { tokio::join!(self.source.follow(&self.collections, sender), listening) } => both,
            };
            if let Err(error) = ended {
                tracing::warn!(
                    error = error::chain(&error),
                    "changes of other replicas may have been missed"
                );
            }
            // Nothing is told until the stream is there again.
            self.look_anew();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.clock.sleep(PAUSE) => {}
            }
        }
    }

    /// Anything may have been written: all of it is looked at.
    fn look_anew(&self) {
        self.offerings.note_all();
        self.wake.outbox.notify_one();
        if self.collections.contains(&schema::JOBS) {
            self.wake.jobs.notify_one();
        }
    }

    fn take(&self, change: Change) {
        match change.collection {
            schema::UNITS | schema::REPUTATIONS => self.offerings.note(change.id),
            schema::OUTBOX if change.inserted => self.wake.outbox.notify_one(),
            schema::JOBS if change.inserted => self.wake.jobs.notify_one(),
            _ => {}
        }
    }
}
