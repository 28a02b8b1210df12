//! Triggers and what they did the last time. The status of each is kept in memory, and in the database now and then, so
//! that a restart knows it.
//!
//! cron → queue `triggers` → [`TriggerConsumer`](super::TriggerConsumer) → [`TriggerRegistry::fire`].

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    core::{
        client::{
            clock::Clock,
            database::{Changeset, Committer, Entity, Reader, ReaderExt},
            schema::{self, Collection},
        },
        market::quantity::{Micros, Timestamp},
    },
    error::{self, Error, ErrorCode, Result},
    service::job::{Trigger, TriggerReport},
};

pub use super::trigger_consumer::TRIGGER_QUEUE;

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
    pub(super) triggers: BTreeMap<&'static str, ScheduledTrigger>,
    statuses: Mutex<BTreeMap<&'static str, TriggerStatus>>,
    persisted: Mutex<BTreeMap<&'static str, Timestamp>>,
    reader: Arc<dyn Reader>,
    pub(super) committer: Arc<dyn Committer>,
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
