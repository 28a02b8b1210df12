//! From hint to work: one loop for each kind and phase takes hints from the job queue, no more than there are free slots,
//! and has the engine claim what they name. A hint stays in its queue, hidden, until its job's attempt has ended; while it
//! runs the hiding is renewed by a [`VisibilityKeeper`], apart from the work. So a crash brings the hint back, and the job's document tells
//! whether there is anything left to do.

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::visibility::{Hint, VisibilityKeeper};
use crate::{
    core::{
        client::{
            clock::Clock,
            damaged::Damaged,
            database::{Changeset, Committer, DatabaseError, Document},
            queue::{Message, QueueError},
            schema,
        },
        job::{JobKind, Phase},
        madara::job_queue::{JobMessage, JobQueueClient},
        market::{ids::JobId, quantity::Micros},
    },
    error::{self, Error, Result},
    service::job::Engine,
};

/// How the consumer behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HintSettings {
    /// How long a hint is hidden; renewed at a third of it while its job runs.
    pub visibility: Micros,
    /// Longest wait of one receive.
    pub wait: Micros,
    /// Most hints of one receive.
    pub batch: usize,
    /// Pause after a failure of the queue or the database.
    pub pause: Micros,
}

impl Default for HintSettings {
    fn default() -> Self {
        Self {
            visibility: Micros::from_secs(60),
            wait: Micros::from_secs(20),
            batch: 10,
            pause: Micros::from_secs(1),
        }
    }
}

/// Takes hints. Clones share everything.
#[derive(Clone)]
pub struct HintConsumer {
    engine: Engine,
    queue: Arc<dyn JobQueueClient>,
    committer: Arc<dyn Committer>,
    clock: Arc<dyn Clock>,
    keeper: VisibilityKeeper,
    settings: HintSettings,
}

/// A queue of hints.
#[derive(Debug, Clone, Copy)]
struct Lane {
    kind: JobKind,
    phase: Phase,
}

impl HintConsumer {
    /// A consumer; nothing happens before [`HintConsumer::run`].
    #[must_use]
    pub fn new(
        engine: Engine,
        queue: Arc<dyn JobQueueClient>,
        committer: Arc<dyn Committer>,
        settings: HintSettings,
    ) -> Self {
        let clock = engine.clock();
        let keeper = VisibilityKeeper::new(clock.clone(), settings.visibility);
        Self { engine, queue, committer, clock, keeper, settings }
    }

    /// Runs until `shutdown` is cancelled and the hints in work were released; the engine's own drain ends the work.
    pub async fn run(self, shutdown: CancellationToken) {
        let drained = CancellationToken::new();
        tokio::join!(self.keeper.run(drained.clone()), async {
            self.serve_all(shutdown).await;
            drained.cancel();
        });
    }

    async fn serve_all(&self, shutdown: CancellationToken) {
        let mut lanes = JoinSet::new();
        for kind in self.engine.kinds() {
            for phase in [Phase::Process, Phase::Verify] {
                let (consumer, stop) = (self.clone(), shutdown.clone());
                lanes.spawn(async move { consumer.serve(Lane { kind, phase }, stop).await });
            }
        }
        while lanes.join_next().await.is_some() {}
    }

    async fn serve(&self, lane: Lane, stop: CancellationToken) {
        let mut working = JoinSet::new();
        while !stop.is_cancelled() {
            let served = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                served = self.step(lane, &mut working) => served,
            };
            // A batch whose claim failed counts like a receive that failed: both wait before they ask again.
            let begun = std::iter::from_fn(|| working.try_join_next());
            let failed = begun.filter_map(|batch| batch.ok()?.err()).last();
            if let Err(error) = served.and(failed.map_or(Ok(()), Err)) {
                let Lane { kind, phase } = lane;
                let phase = phase.as_str();
                tracing::warn!(%kind, phase, error = error::chain(&error), "hints could not be taken");
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = self.clock.sleep(self.settings.pause) => {}
                }
            }
        }
        while working.join_next().await.is_some() {}
    }

    /// Takes one batch of hints and has what they name claimed, while the next batch is taken: a lane is not bound to one
    /// claim after the other.
    async fn step(&self, lane: Lane, working: &mut JoinSet<Result<()>>) -> Result<()> {
        let free = self.engine.free(lane.kind).await;
        if free == 0 {
            // The engine stops; so will this loop.
            self.clock.sleep(self.settings.pause).await;
            return Ok(());
        }
        let HintSettings { visibility, wait, batch, .. } = self.settings;
        let received = self.queue.receive(lane.kind, lane.phase, free.min(batch), visibility, wait).await;
        let received = received.map_err(Error::internal)?;
        let mut named: BTreeMap<JobId, Vec<Message>> = BTreeMap::new();
        for JobMessage { job, message } in received {
            match job {
                // Hints may come twice: the job is run once, and all of them wait for it.
                Some(job) => named.entry(job).or_default().push(message),
                None => self.set_aside(lane, message).await?,
            }
        }
        if named.is_empty() {
            return Ok(());
        }
        let started = self.engine.run_named(lane.kind, lane.phase, named.keys().copied().collect());
        let consumer = self.clone();
        working.spawn(async move {
            // An error leaves the hints hidden: they come again.
            let mut started = started.await?;
            let seen = named.into_iter().map(|(job, messages)| {
                let run = started.remove(&job);
                consumer.see_through(lane, messages, run)
            });
            futures::future::join_all(seen).await;
            Ok(())
        });
        Ok(())
    }

    /// Keeps the hints of a job hidden while it runs, and removes them then.
    async fn see_through(&self, lane: Lane, messages: Vec<Message>, run: Option<JoinHandle<()>>) {
        if let Some(run) = run {
            let keep = |message: &Message| {
                let Lane { kind, phase } = lane;
                self.keeper.keep(Hint { client: self.queue.clone(), kind, phase, message: message.clone() })
            };
            let kept: Vec<_> = messages.iter().map(keep).collect();
            // How it ended is in the job's document.
            let _ = run.await;
            drop(kept);
        }
        for message in &messages {
            match self.queue.acknowledge(lane.kind, lane.phase, message).await {
                // Stale: it was delivered again meanwhile, and the job's document tells that it is done.
                Ok(()) | Err(QueueError::StaleReceipt) => {}
                Err(error) => {
                    let error = error::chain(&error);
                    tracing::warn!(kind = %lane.kind, error, "a hint was not removed and will come again");
                }
            }
        }
    }

    /// Keeps the bytes of a message that names no job, then removes it. A crash in between keeps them once: by the
    /// message's id.
    async fn set_aside(&self, lane: Lane, message: Message) -> Result<()> {
        let document = Document { id: message.id.clone(), version: 0, body: message.body.clone() };
        let reason = format!("the message in the queue of `{}` names no job", lane.kind);
        let mut changes = Changeset::new();
        changes.insert(&Damaged::new(schema::QUEUE_MESSAGES, &document, &reason, self.clock.now()));
        match self.committer.commit(changes).await {
            Ok(()) | Err(DatabaseError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        tracing::error!(alert = true, message = message.id, reason, "a poison message was set aside");
        self.queue.acknowledge(lane.kind, lane.phase, &message).await.map_err(Error::internal)
    }
}
