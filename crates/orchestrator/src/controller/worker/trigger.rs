//! Triggers: the schedules that fire them, the queue that carries their names, and what they did the last time.
//!
//! cron → queue `triggers` → [`TriggerConsumer`] → [`TriggerRegistry::fire`]. The status of each trigger is kept in memory, and
//! in the database now and then, so that a restart knows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use futures::FutureExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    core::{
        client::{
            clock::Clock,
            database::{Changeset, Committer, Entity, Reader, ReaderExt},
            queue::{Message, QueueClient},
            schema::{self, Collection},
        },
        madara::cron::{CronClient, CronTarget},
        market::quantity::{Micros, Timestamp},
    },
    error::{self, Error, ErrorCode, Result, Source},
    service::job::{Trigger, TriggerReport},
};

/// The queue that carries the names of triggers to fire.
pub const TRIGGER_QUEUE: &str = "triggers";

/// How often a status that says nothing new is written down.
const PERSIST_EVERY: Micros = Micros::from_secs(60);

/// A trigger with its rate.
pub struct ScheduledTrigger {
    /// What is fired.
    pub trigger: Arc<dyn Trigger>,
    /// Time from one firing to the next.
    pub every: Micros,
}

impl ScheduledTrigger {
    /// A trigger that fires every so often.
    #[must_use]
    pub const fn new(trigger: Arc<dyn Trigger>, every: Micros) -> Self {
        Self { trigger, every }
    }
}

/// What is known of a trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerStatus {
    /// Its name.
    pub name: String,
    /// Time from one firing to the next.
    pub every: Micros,
    /// Whether it runs in this process just now.
    #[serde(default)]
    pub running: bool,
    /// Runs that ended, since the store was made.
    pub runs: u64,
    /// Failed runs in a row, up to the last one.
    pub failures_in_a_row: u32,
    /// When the last run began.
    pub last_run: Option<Timestamp>,
    /// How long it took.
    pub last_duration: Option<Micros>,
    /// What the last run that came through did.
    pub last_report: Option<TriggerReport>,
    /// Why the last run failed, if it did.
    pub last_error: Option<String>,
}

impl Entity for TriggerStatus {
    const NAME: &'static str = "trigger_status";
    const COLLECTION: Collection = schema::META;
    fn document_id(&self) -> String {
        format!("trigger-{}", self.name)
    }
}

/// The triggers of this process and what they did.
pub struct TriggerRegistry {
    triggers: BTreeMap<&'static str, ScheduledTrigger>,
    statuses: Mutex<BTreeMap<&'static str, TriggerStatus>>,
    persisted: Mutex<BTreeMap<&'static str, Timestamp>>,
    reader: Arc<dyn Reader>,
    committer: Arc<dyn Committer>,
    clock: Arc<dyn Clock>,
}

impl TriggerRegistry {
    /// A registry; of two triggers of one name the later counts.
    #[must_use]
    pub fn new(
        reader: Arc<dyn Reader>,
        committer: Arc<dyn Committer>,
        clock: Arc<dyn Clock>,
        triggers: Vec<ScheduledTrigger>,
    ) -> Self {
        let triggers: BTreeMap<_, _> = triggers.into_iter().map(|s| (s.trigger.name(), s)).collect();
        let statuses = triggers.iter().map(|(name, scheduled)| {
            let status = TriggerStatus {
                name: (*name).to_owned(),
                every: scheduled.every,
                running: false,
                runs: 0,
                failures_in_a_row: 0,
                last_run: None,
                last_duration: None,
                last_report: None,
                last_error: None,
            };
            (*name, status)
        });
        let statuses = Mutex::new(statuses.collect());
        Self { triggers, statuses, persisted: Mutex::default(), reader, committer, clock }
    }

    /// Takes up the statuses that an earlier process wrote down.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn load(&self) -> Result<()> {
        for (name, scheduled) in &self.triggers {
            if let Some(found) = self.reader.load::<TriggerStatus>(&format!("trigger-{name}")).await? {
                let status = TriggerStatus { every: scheduled.every, running: false, ..found.value };
                self.statuses.lock().insert(*name, status);
            }
        }
        Ok(())
    }

    /// What is known of each trigger, by name.
    #[must_use]
    pub fn statuses(&self) -> Vec<TriggerStatus> {
        self.statuses.lock().values().cloned().collect()
    }

    /// Whether there is such a trigger.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.triggers.contains_key(name)
    }

    /// Fires a trigger now and waits for its report. While it runs in this process already, that run is enough: the last report is
    /// returned.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`]; what the trigger answers; [`ErrorCode::Internal`] when it panics.
    pub async fn fire(&self, name: &str) -> Result<TriggerReport> {
        let (name, scheduled) =
            self.triggers.get_key_value(name).ok_or_else(|| Error::not_found("trigger", name))?;
        let started = self.clock.now();
        if let Some(status) = self.statuses.lock().get_mut(name) {
            if status.running {
                let mut report = status.last_report.clone().unwrap_or_default();
                report.note = Some("it is running already".into());
                return Ok(report);
            }
            status.running = true;
            status.last_run = Some(started);
        }
        // Takes the mark off also when this call is dropped half way.
        let _running = Running { registry: self, name };
        let answer = AssertUnwindSafe(scheduled.trigger.fire()).catch_unwind().await;
        let answer = answer.unwrap_or_else(|_| Err(Error::new(ErrorCode::Internal, "the trigger panicked")));
        let took = self.clock.now().since(started);
        let news = self.note(name, took, &answer);
        let outcome = if answer.is_ok() { "done" } else { "failed" };
        metrics::counter!("orchestrator_trigger_runs_total", "trigger" => *name, "outcome" => outcome)
            .increment(1);
        if let Err(error) = &answer {
            tracing::error!(trigger = name, error = error::chain(error), "a trigger failed");
        }
        self.persist(name, news).await;
        answer
    }

    /// Notes a run; says whether that is news: a failure, the end of one, or something changed.
    fn note(&self, name: &'static str, took: Micros, answer: &Result<TriggerReport>) -> bool {
        let mut statuses = self.statuses.lock();
        let Some(status) = statuses.get_mut(name) else { return false };
        status.runs = status.runs.saturating_add(1);
        status.last_duration = Some(took);
        match answer {
            Ok(report) => {
                let news = status.failures_in_a_row > 0 || status.runs == 1;
                status.failures_in_a_row = 0;
                status.last_error = None;
                status.last_report = Some(report.clone());
                news
            }
            Err(error) => {
                status.failures_in_a_row = status.failures_in_a_row.saturating_add(1);
                status.last_error = Some(error::chain(error));
                status.failures_in_a_row == 1
            }
        }
    }

    /// Writes a status down, when there is news or the written one is old. Nothing depends on it but what people see, so a
    /// failure is only logged.
    async fn persist(&self, name: &'static str, news: bool) {
        let now = self.clock.now();
        let recent = self.persisted.lock().get(name).is_some_and(|at| now.since(*at) < PERSIST_EVERY);
        let Some(mut status) = self.statuses.lock().get(name).cloned() else { return };
        if recent && !news {
            return;
        }
        self.persisted.lock().insert(name, now);
        status.running = false;
        let written = async {
            let mut changes = Changeset::new();
            match self.reader.load::<TriggerStatus>(&status.document_id()).await? {
                None => changes.insert(&status),
                Some(found) => changes.replace(found.version, &status),
            };
            self.committer.commit(changes).await
        };
        if let Err(error) = written.await {
            tracing::warn!(
                trigger = name,
                error = error::chain(&error),
                "a trigger's status was not written down"
            );
        }
    }
}

/// Marks a trigger as running until it is dropped.
struct Running<'a> {
    registry: &'a TriggerRegistry,
    name: &'static str,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(status) = self.registry.statuses.lock().get_mut(self.name) {
            status.running = false;
        }
    }
}

/// Receives the names of triggers and fires them.
pub struct TriggerConsumer {
    registry: Arc<TriggerRegistry>,
    queue: Arc<dyn QueueClient>,
    cron: Arc<dyn CronClient>,
    clock: Arc<dyn Clock>,
}

impl TriggerConsumer {
    /// A consumer; nothing happens before [`TriggerConsumer::declare`] and [`TriggerConsumer::run`].
    #[must_use]
    pub fn new(
        registry: Arc<TriggerRegistry>,
        queue: Arc<dyn QueueClient>,
        cron: Arc<dyn CronClient>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { registry, queue, cron, clock }
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
                error @ crate::core::madara::cron::CronError::Invalid { .. } => {
                    Error::new(ErrorCode::InvalidConfig, error.to_string())
                }
                error => unavailable(error.into()),
            })?;
            let target = CronTarget { queue: TRIGGER_QUEUE.into(), body: (*name).to_owned() };
            self.cron.add_target(name, target).await.map_err(|e| unavailable(e.into()))?;
            self.cron.set_enabled(name, true).await.map_err(|e| unavailable(e.into()))?;
        }
        Ok(())
    }

    /// Receives and fires until `shutdown` is cancelled; then waits for those that run.
    pub async fn run(&self, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        loop {
            let received = tokio::select! {
                () = shutdown.cancelled() => break,
                received = self.receive() => received,
            };
            match received {
                Ok(messages) => {
                    let registry = Arc::clone(&self.registry);
                    for name in self.accept(messages).await {
                        let registry = Arc::clone(&registry);
                        // Each in a task of its own: a slow trigger holds up no other.
                        tasks.spawn(async move { registry.fire(&name).await.map(|_| ()).unwrap_or(()) });
                    }
                }
                Err(error) => {
                    tracing::error!(error = error::chain(&error), "triggers could not be received");
                    tokio::select! {
                        () = shutdown.cancelled() => break,
                        () = self.clock.sleep(Micros::from_secs(1)) => {}
                    }
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Receives one batch and fires what it names, one after the other; returns how many were fired. For tests and tools.
    ///
    /// # Errors
    /// When the queue does not answer.
    pub async fn step(&self) -> Result<usize> {
        let messages = self.receive().await.map_err(Error::internal)?;
        let names = self.accept(messages).await;
        let count = names.len();
        for name in names {
            // Its status tells of a failure.
            let _ = self.registry.fire(&name).await;
        }
        Ok(count)
    }

    async fn receive(&self) -> std::result::Result<Vec<Message>, crate::core::client::queue::QueueError> {
        self.queue.receive(TRIGGER_QUEUE, 32, Micros::from_secs(30), Micros::from_secs(10)).await
    }

    /// The triggers that a batch of messages names, each once. The messages are deleted first: a trigger that is lost in a crash
    /// fires again on its schedule.
    async fn accept(&self, messages: Vec<Message>) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for message in messages {
            if let Err(error) = self.queue.delete(TRIGGER_QUEUE, &message.receipt).await {
                tracing::warn!(error = error::chain(&error), "a trigger's message was not deleted");
            }
            if self.registry.knows(&message.body) {
                names.insert(message.body);
            } else {
                let body: String = message.body.chars().take(200).collect();
                tracing::error!(body, "a message names no trigger of this process; it was dropped");
            }
        }
        names
    }
}
