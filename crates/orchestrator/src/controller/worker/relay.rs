//! The relay: sends what the outbox holds, in the order of ids, and marks it sent. A crash between the two sends a row
//! twice; receivers tell by its id. A row that can't be sent waits with growing pauses, holds up nobody, and is set aside after
//! so many attempts.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{
        client::{
            clock::Clock,
            database::{Changeset, Committer, Cursor, DatabaseError, Filter, Query, Reader, Stored},
            event_bus::EventBusClient,
            notification::NotificationClient,
            queue::{NewMessage, QueueClient},
            scheduler::SchedulerClient,
            schema,
        },
        madara::job_queue::JobQueueClient,
        market::{
            event::DomainEvent,
            ids::{EventId, IdGenerator},
            quantity::{Micros, Timestamp},
        },
    },
    error::{self, Result, Source},
    service::{
        damage,
        job::Wake,
        outbox::{OutboxRow, Outgoing, QUARANTINED, WAITING},
    },
};

/// What the relay reads from, and sends to.
#[derive(Clone)]
pub struct RelayPorts {
    /// Reads the outbox.
    pub reader: Arc<dyn Reader>,
    /// Marks rows; the plain committer, so that marking rings no bell.
    pub committer: Arc<dyn Committer>,
    /// Ids of what is written.
    pub ids: IdGenerator,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Domain events.
    pub events: Arc<dyn EventBusClient>,
    /// Messages.
    pub queue: Arc<dyn QueueClient>,
    /// Dead letters.
    pub job_queue: Arc<dyn JobQueueClient>,
    /// Alerts.
    pub notification: Arc<dyn NotificationClient>,
    /// One-time schedules.
    pub scheduler: Arc<dyn SchedulerClient>,
    /// The bells of this process.
    pub wake: Arc<Wake>,
}

/// How the relay behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySettings {
    /// The event bus.
    pub bus: String,
    /// Rows read at once.
    pub batch: usize,
    /// Attempts before a row is set aside.
    pub max_attempts: u32,
    /// Pause after a row's first failure; doubles with each.
    pub base_pause: Micros,
    /// Longest such pause.
    pub max_pause: Micros,
    /// Longest time between two looks at the outbox.
    pub fallback: Micros,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            bus: "market".into(),
            batch: 256,
            max_attempts: 15,
            base_pause: Micros::from_millis(100),
            max_pause: Micros::from_secs(60),
            fallback: Micros::from_secs(1),
        }
    }
}

/// What a pass over the outbox did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayReport {
    /// Rows that were sent and marked.
    pub sent: u64,
    /// Rows whose attempt failed.
    pub failed: u64,
    /// Rows that were set aside for good.
    pub quarantined: u64,
}

/// The relay.
pub struct Relay {
    ports: RelayPorts,
    settings: RelaySettings,
    /// Rows that failed, and when they get their next attempt.
    paused: Mutex<HashMap<EventId, Timestamp>>,
}

impl Relay {
    /// A relay; nothing happens before [`Relay::run`].
    #[must_use]
    pub fn new(ports: RelayPorts, settings: RelaySettings) -> Self {
        Self { ports, settings, paused: Mutex::default() }
    }

    /// Relays until `shutdown` is cancelled.
    pub async fn run(&self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            if let Err(error) = self.pass().await {
                tracing::error!(error = error::chain(&error), "the outbox could not be relayed");
            }
            let pause = self.next_pause();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.ports.wake.outbox.notified() => {}
                () = self.ports.clock.sleep(pause) => {}
            }
        }
    }

    fn next_pause(&self) -> Micros {
        let now = self.ports.clock.now();
        let next = self.paused.lock().values().min().map(|at| at.since(now));
        next.map_or(self.settings.fallback, |pause| {
            pause.clamp(Micros::from_millis(10), self.settings.fallback)
        })
    }

    /// Sends everything that waits and is not paused, once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pass(&self) -> Result<RelayReport> {
        let mut report = RelayReport::default();
        let mut after: Option<Cursor> = None;
        loop {
            let query = Query::new(schema::OUTBOX)
                .filter(Filter::eq("unsent", WAITING))
                .limit(self.settings.batch.clamp(1, 1_000))
                .after(after);
            let page = self.ports.reader.find(query).await?;
            let now = self.ports.clock.now();
            let mut rows: Vec<Stored<OutboxRow>> = Vec::with_capacity(page.documents.len());
            for document in page.documents {
                match document.decode() {
                    Ok(row) => rows.push(row),
                    Err(error) => {
                        let (committer, ids) = (self.ports.committer.as_ref(), &self.ports.ids);
                        damage::set_aside(committer, ids, schema::OUTBOX, &document, &error).await?;
                    }
                }
            }
            {
                let paused = self.paused.lock();
                rows.retain(|row| paused.get(&row.value.id).is_none_or(|until| *until <= now));
            }
            self.relay(rows, &mut report).await?;
            match page.next {
                Some(cursor) => after = Some(cursor),
                None => break,
            }
        }
        metrics::counter!("orchestrator_outbox_sent_total").increment(report.sent);
        metrics::counter!("orchestrator_outbox_failed_total").increment(report.failed);
        metrics::counter!("orchestrator_outbox_quarantined_total").increment(report.quarantined);
        Ok(report)
    }

    async fn relay(&self, rows: Vec<Stored<OutboxRow>>, report: &mut RelayReport) -> Result<()> {
        let mut outcomes = Vec::with_capacity(rows.len());
        let mut rows = rows.into_iter().peekable();
        while let Some(row) = rows.next() {
            let Outgoing::Event(event) = &row.value.outgoing else {
                let sent = self.send(&row.value).await;
                outcomes.push((row, sent));
                continue;
            };
            // Events that follow one another go in one call; if that fails each goes alone, to tell which one it is.
            let mut events = vec![event.clone()];
            let mut run = vec![row];
            while let Some(next) = rows.next_if(|next| matches!(next.value.outgoing, Outgoing::Event(_))) {
                if let Outgoing::Event(event) = &next.value.outgoing {
                    events.push(event.clone());
                }
                run.push(next);
            }
            if self.publish(&events).await.is_ok() {
                outcomes.extend(run.into_iter().map(|row| (row, Ok(()))));
            } else {
                for (row, event) in run.into_iter().zip(events) {
                    let sent = self.publish(&[event]).await;
                    outcomes.push((row, sent));
                }
            }
        }
        self.mark(outcomes, report).await
    }

    async fn publish(&self, events: &[DomainEvent]) -> Result<(), Source> {
        Ok(self.ports.events.publish(&self.settings.bus, events).await?)
    }

    async fn send(&self, row: &OutboxRow) -> Result<(), Source> {
        match &row.outgoing {
            Outgoing::Event(event) => self.publish(std::slice::from_ref(event)).await,
            Outgoing::Message { queue, body } => {
                let message = NewMessage { body: body.clone(), delay: Micros::ZERO };
                Ok(self.ports.queue.send(queue, vec![message]).await?)
            }
            Outgoing::Alert { topic, notification } => {
                Ok(self.ports.notification.publish(topic, notification).await?)
            }
            Outgoing::Schedule(schedule) => Ok(self.ports.scheduler.create(schedule.clone()).await?),
            Outgoing::DeadLetter { kind, body } => Ok(self.ports.job_queue.dead_letter(*kind, body).await?),
        }
    }

    /// Writes down what came of each row: all in one commit, or one by one when another relay was at some of them.
    async fn mark(
        &self,
        outcomes: Vec<(Stored<OutboxRow>, Result<(), Source>)>,
        report: &mut RelayReport,
    ) -> Result<()> {
        let mut changes = Vec::with_capacity(outcomes.len());
        for (row, outcome) in outcomes {
            changes.push(self.marked(row, outcome, report));
        }
        let mut all = Changeset::new();
        for change in &changes {
            all.extend(change.clone());
        }
        match self.ports.committer.commit(all).await {
            Err(DatabaseError::Conflict { .. } | DatabaseError::Missing { .. }) => {}
            result => return Ok(result?),
        }
        for change in changes {
            match self.ports.committer.commit(change).await {
                // The other relay's mark stands.
                Ok(()) | Err(DatabaseError::Conflict { .. } | DatabaseError::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn marked(
        &self,
        row: Stored<OutboxRow>,
        outcome: Result<(), Source>,
        report: &mut RelayReport,
    ) -> Changeset {
        let Stored { version, value: mut row } = row;
        let now = self.ports.clock.now();
        match outcome {
            Ok(()) => {
                row.unsent = None;
                row.sent_at = Some(now.as_micros());
                report.sent += 1;
                self.paused.lock().remove(&row.id);
            }
            Err(error) => {
                row.attempts = row.attempts.saturating_add(1);
                report.failed += 1;
                let text = error::chain(error.as_ref());
                if row.attempts >= self.settings.max_attempts {
                    row.unsent = Some(QUARANTINED);
                    report.quarantined += 1;
                    self.paused.lock().remove(&row.id);
                    tracing::error!(
                        alert = true, row = %row.id, attempts = row.attempts, error = text,
                        outgoing = ?row.outgoing, "an outbox row can't be sent and was set aside"
                    );
                } else {
                    let doublings = (row.attempts - 1).min(32);
                    let pause = self.settings.base_pause.get().saturating_mul(1 << doublings);
                    let pause = Micros(pause.min(self.settings.max_pause.get()));
                    self.paused.lock().insert(row.id, now.plus(pause));
                    tracing::warn!(row = %row.id, attempts = row.attempts, error = text, "an outbox row was not sent");
                }
            }
        }
        let mut changes = Changeset::new();
        changes.replace(version, &row);
        changes
    }
}
