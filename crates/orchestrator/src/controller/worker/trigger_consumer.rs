//! From schedule to trigger: declares one schedule per trigger, receives the names that they send, and fires.
//!
//! A message stays in its queue, hidden, until its trigger has run; while it runs the hiding is renewed. So a crash loses
//! no firing: the message comes back and the trigger, which is idempotent, runs again.

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    trigger::TriggerRegistry,
    visibility::{QueueMessage, VisibilityKeeper},
};
use crate::{
    core::{
        client::{
            clock::Clock,
            damaged::Damaged,
            database::{Changeset, DatabaseError, Document},
            queue::{Message, QueueClient, QueueError},
            schema,
        },
        madara::cron::{CronClient, CronError, CronTarget},
        market::quantity::Micros,
    },
    error::{self, Error, ErrorCode, Result, Source},
};

/// The queue that carries the names of triggers to fire.
pub const TRIGGER_QUEUE: &str = "triggers";

/// How the consumer behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerSettings {
    /// How long a message is hidden; renewed at a third of it while its trigger runs. After a crash the firing is late
    /// by as much at most.
    pub visibility: Micros,
    /// Longest wait of one receive.
    pub wait: Micros,
    /// How long running triggers may go on after the shutdown began. One that is cut short fires again later.
    pub patience: Micros,
}

impl Default for TriggerSettings {
    fn default() -> Self {
        Self {
            visibility: Micros::from_secs(30),
            wait: Micros::from_secs(10),
            patience: Micros::from_secs(10),
        }
    }
}

/// Receives the names of triggers and fires them. Clones share everything.
#[derive(Clone)]
pub struct TriggerConsumer {
    registry: Arc<TriggerRegistry>,
    queue: Arc<dyn QueueClient>,
    cron: Arc<dyn CronClient>,
    clock: Arc<dyn Clock>,
    keeper: VisibilityKeeper,
    settings: TriggerSettings,
}

/// A trigger to fire, and the receipts of all messages that ask for it.
type Firing = (String, Vec<String>);

impl TriggerConsumer {
    /// A consumer; nothing happens before [`TriggerConsumer::declare`] and [`TriggerConsumer::run`].
    #[must_use]
    pub fn new(
        registry: Arc<TriggerRegistry>,
        queue: Arc<dyn QueueClient>,
        cron: Arc<dyn CronClient>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let settings = TriggerSettings::default();
        let keeper = VisibilityKeeper::new(clock.clone(), settings.visibility);
        Self { registry, queue, cron, clock, keeper, settings }
    }

    /// With other settings.
    #[must_use]
    pub fn with_settings(self, settings: TriggerSettings) -> Self {
        let keeper = VisibilityKeeper::new(self.clock.clone(), settings.visibility);
        Self { settings, keeper, ..self }
    }

    /// Makes the queue and one schedule per trigger; twice is fine.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfig`] on a rate that the cron service can't keep; [`ErrorCode::Unavailable`].
    pub async fn declare(&self) -> Result<()> {
        let unavailable = |error: Source| {
            Error::new(ErrorCode::Unavailable, "the queue or the cron service does not answer").because(error)
        };
        self.queue.create(TRIGGER_QUEUE).await.map_err(|e| unavailable(e.into()))?;
        for (name, scheduled) in &self.registry.triggers {
            self.cron.create(name, scheduled.every).await.map_err(|error| match error {
                error @ CronError::Invalid { .. } => Error::new(ErrorCode::InvalidConfig, error.to_string()),
                error => unavailable(error.into()),
            })?;
            let target = CronTarget { queue: TRIGGER_QUEUE.into(), body: (*name).to_owned() };
            self.cron.add_target(name, target).await.map_err(|e| unavailable(e.into()))?;
            self.cron.set_enabled(name, true).await.map_err(|e| unavailable(e.into()))?;
        }
        Ok(())
    }

    /// Receives and fires until `shutdown` is cancelled; then waits for those that run, but not for ever.
    pub async fn run(&self, shutdown: CancellationToken) {
        let drained = CancellationToken::new();
        tokio::join!(self.keeper.run(drained.clone()), async {
            self.receive_until(shutdown).await;
            drained.cancel();
        });
    }

    async fn receive_until(&self, shutdown: CancellationToken) {
        let mut running = JoinSet::new();
        loop {
            let received = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                received = self.receive() => received,
            };
            match received {
                Ok(messages) => {
                    for firing in self.accept(messages).await {
                        let consumer = self.clone();
                        // Each in a task of its own: a slow trigger holds up no other.
                        running.spawn(async move { consumer.fire(firing).await });
                    }
                }
                Err(error) => {
                    tracing::error!(error = error::chain(&error), "triggers could not be received");
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => break,
                        () = self.clock.sleep(Micros::from_secs(1)) => {}
                    }
                }
            }
            while running.try_join_next().is_some() {}
        }
        tokio::select! {
            () = async { while running.join_next().await.is_some() {} } => {}
            () = self.clock.sleep(self.settings.patience) => {
                tracing::warn!(running = running.len(), "triggers were cut short; they fire again");
                running.shutdown().await;
            }
        }
    }

    /// Receives one batch and fires what it names, one after the other; returns how many were fired. For tests and tools.
    ///
    /// # Errors
    /// When the queue does not answer.
    pub async fn step(&self) -> Result<usize> {
        let messages = self.receive().await.map_err(Error::internal)?;
        let firings = self.accept(messages).await;
        let count = firings.len();
        let fired = async {
            for firing in firings {
                self.fire(firing).await;
            }
        };
        tokio::select! {
            () = fired => {}
            // Goes on for as long as it is let.
            () = self.keeper.run(CancellationToken::new()) => {}
        }
        Ok(count)
    }

    async fn receive(&self) -> Result<Vec<Message>, QueueError> {
        let TriggerSettings { visibility, wait, .. } = self.settings;
        self.queue.receive(TRIGGER_QUEUE, 32, visibility, wait).await
    }

    /// Fires a trigger, keeps its messages hidden meanwhile, and removes them at last. A run that failed counts, too: its
    /// status tells, and the schedule fires again.
    async fn fire(&self, (name, receipts): Firing) {
        let keep = |receipt: &String| {
            let (client, queue) = (self.queue.clone(), TRIGGER_QUEUE.to_owned());
            self.keeper.keep(QueueMessage { client, queue, receipt: receipt.clone() })
        };
        let kept: Vec<_> = receipts.iter().map(keep).collect();
        // What came of it is in the trigger's status.
        let _ = self.registry.fire(&name).await;
        drop(kept);
        for receipt in &receipts {
            match self.queue.delete(TRIGGER_QUEUE, receipt).await {
                // Stale: it was delivered again meanwhile, and the trigger runs once more, which does no harm.
                Ok(()) | Err(QueueError::StaleReceipt) => {}
                Err(error) => {
                    tracing::warn!(
                        trigger = name,
                        error = error::chain(&error),
                        "a trigger's message was not deleted"
                    );
                }
            }
        }
    }

    /// The triggers that a batch of messages names, each once. What names none is set aside with its bytes.
    async fn accept(&self, messages: Vec<Message>) -> Vec<Firing> {
        let mut firings: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for message in messages {
            if self.registry.knows(&message.body) {
                firings.entry(message.body).or_default().push(message.receipt);
            } else if let Err(error) = self.set_aside(&message).await {
                let error = error::chain(&error);
                tracing::error!(message = message.id, error, "a poison message could not be set aside");
            }
        }
        firings.into_iter().collect()
    }

    /// Keeps the bytes of a message that names no trigger, then removes it. A crash in between keeps them twice.
    async fn set_aside(&self, message: &Message) -> Result<()> {
        let Message { id, body, .. } = message.clone();
        let document = Document { id, version: 0, body };
        let reason = "the message names no trigger of this program";
        let mut changes = Changeset::new();
        changes.insert(&Damaged::new(schema::QUEUE_MESSAGES, &document, reason, self.clock.now()));
        match self.registry.committer.commit(changes).await {
            Ok(()) | Err(DatabaseError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        tracing::error!(alert = true, message = document.id, reason, "a poison message was set aside");
        self.queue.delete(TRIGGER_QUEUE, &message.receipt).await.map_err(Error::internal)
    }
}
