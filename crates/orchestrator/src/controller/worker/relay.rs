//! The relay: sends what the outbox holds, in the order of ids, and marks it sent. A crash between the two sends a row
//! twice; receivers tell by its id. A row that can't be sent waits with growing pauses, holds up nobody, and is set aside after
//! so many attempts.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::idle::IdlePause;
use crate::{
    core::{
        client::{
            clock::Clock,
            database::{
                Changeset, Committer, Cursor, DatabaseError, Document, Filter, Query, Reader, Stored,
            },
            event_bus::EventBusClient,
            notification::{NotificationClient, NotificationError},
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
    /// Time between two looks at the outbox that nobody called for, while rows come now and then.
    pub fallback: Micros,
    /// Longest such time, when nothing happens.
    pub idle_fallback: Micros,
    /// Alerts that are sent at the same time.
    pub alerts: usize,
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
            idle_fallback: Micros::from_secs(5),
            alerts: 16,
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

/// A row, and whether it was sent.
type Outcome = (Stored<OutboxRow>, Result<(), Source>);

fn is_event(row: &Stored<OutboxRow>) -> bool {
    matches!(row.value.outgoing, Outgoing::Event(_))
}

fn count(report: RelayReport) {
    metrics::counter!("orchestrator_outbox_sent_total").increment(report.sent);
    metrics::counter!("orchestrator_outbox_failed_total").increment(report.failed);
    metrics::counter!("orchestrator_outbox_quarantined_total").increment(report.quarantined);
}

/// The relay.
pub struct Relay {
    ports: RelayPorts,
    settings: RelaySettings,
    /// Rows that failed, and when they get their next attempt.
    paused: Mutex<HashMap<EventId, Timestamp>>,
    /// Alerts that are being sent.
    in_flight: Mutex<HashSet<EventId>>,
}

/// For how long whom a row is for is left alone, if that is why it was not sent.
fn deferral(error: &Source) -> Option<Micros> {
    match error.downcast_ref::<NotificationError>() {
        Some(NotificationError::Deferred(after)) => Some(*after),
        _ => None,
    }
}

impl Relay {
    /// A relay; nothing happens before [`Relay::run`].
    #[must_use]
    pub fn new(ports: RelayPorts, settings: RelaySettings) -> Self {
        Self { ports, settings, paused: Mutex::default(), in_flight: Mutex::default() }
    }

    /// Relays until `shutdown` is cancelled.
    pub async fn run(&self, shutdown: CancellationToken) {
        let idle = IdlePause::new(self.settings.fallback, self.settings.idle_fallback);
        let mut alerts = FuturesUnordered::new();
        while !shutdown.is_cancelled() {
            let mut report = RelayReport::default();
            let mut slow = Vec::new();
            if let Err(error) = self.sweep(&mut report, &mut slow).await {
                tracing::error!(error = error::chain(&error), "the outbox could not be relayed");
            }
            alerts.extend(slow.into_iter().map(|row| self.alert(row)));
            count(report);
            let pause = self.next_pause(idle.after(report != RelayReport::default()));
            let mut over = self.ports.clock.sleep(pause);
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break,
                    // Before the bell: a bell that never rests must not keep alerts from being sent.
                    Some(()) = alerts.next() => {}
                    () = self.ports.wake.outbox.notified() => break,
                    () = &mut over => break,
                }
            }
        }
        // What is cut short here is sent again after the next start.
        self.in_flight.lock().clear();
    }

    fn next_pause(&self, idle: Micros) -> Micros {
        let now = self.ports.clock.now();
        let next = self.paused.lock().values().min().map(|at| at.since(now));
        next.map_or(idle, |pause| pause.clamp(Micros::from_millis(10), self.settings.fallback))
    }

    /// Sends everything that waits and is not paused, once; not while [`Relay::run`] runs.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pass(&self) -> Result<RelayReport> {
        let mut report = RelayReport::default();
        let mut alerts = Vec::new();
        let swept = self.sweep(&mut report, &mut alerts).await;
        self.in_flight.lock().clear();
        swept?;
        self.relay(alerts, &mut report).await?;
        count(report);
        Ok(report)
    }

    /// Sends what waits, but for alerts: those go to `alerts`, because what receives them may be slow, and must not hold
    /// up the rest.
    async fn sweep(&self, report: &mut RelayReport, alerts: &mut Vec<Stored<OutboxRow>>) -> Result<()> {
        let mut after: Option<Cursor> = None;
        loop {
            let query = Query::new(schema::OUTBOX)
                .filter(Filter::eq("unsent", WAITING))
                .limit(self.settings.batch.clamp(1, 1_000))
                .after(after);
            let page = self.ports.reader.find(query).await?;
            let rows = self.readable(page.documents).await?;
            let rows = self.sendable(rows, alerts);
            self.relay(rows, report).await?;
            match page.next {
                Some(cursor) => after = Some(cursor),
                None => return Ok(()),
            }
        }
    }

    /// The rows that are to be sent now; alerts, as many as there is room for, go to `alerts`.
    fn sendable(
        &self,
        rows: Vec<Stored<OutboxRow>>,
        alerts: &mut Vec<Stored<OutboxRow>>,
    ) -> Vec<Stored<OutboxRow>> {
        let now = self.ports.clock.now();
        let (paused, mut in_flight) = (self.paused.lock(), self.in_flight.lock());
        let mut at_once = Vec::with_capacity(rows.len());
        for row in rows {
            let id = row.value.id;
            if in_flight.contains(&id) || paused.get(&id).is_some_and(|until| *until > now) {
                continue;
            }
            if !matches!(row.value.outgoing, Outgoing::Alert { .. }) {
                at_once.push(row);
            } else if in_flight.len() < self.settings.alerts.max(1) {
                in_flight.insert(id);
                alerts.push(row);
            }
        }
        at_once
    }

    /// Sends one alert.
    async fn alert(&self, row: Stored<OutboxRow>) {
        let id = row.value.id;
        let mut report = RelayReport::default();
        if let Err(error) = self.relay(vec![row], &mut report).await {
            tracing::error!(row = %id, error = error::chain(&error), "an alert was sent, but could not be marked");
        }
        self.in_flight.lock().remove(&id);
        count(report);
    }

    /// The rows among documents; one that can't be read is set aside.
    async fn readable(&self, documents: Vec<Document>) -> Result<Vec<Stored<OutboxRow>>> {
        let mut rows = Vec::with_capacity(documents.len());
        for document in documents {
            match document.decode() {
                Ok(row) => rows.push(row),
                Err(error) => {
                    let (committer, ids) = (self.ports.committer.as_ref(), &self.ports.ids);
                    damage::set_aside(committer, ids, schema::OUTBOX, &document, &error).await?;
                }
            }
        }
        Ok(rows)
    }

    async fn relay(&self, rows: Vec<Stored<OutboxRow>>, report: &mut RelayReport) -> Result<()> {
        let mut outcomes = Vec::with_capacity(rows.len());
        let mut rows = rows.into_iter().peekable();
        while let Some(row) = rows.next() {
            if !is_event(&row) {
                let sent = self.send(&row.value).await;
                outcomes.push((row, sent));
                continue;
            }
            // Events that follow one another go in one call.
            let mut run = vec![row];
            while let Some(next) = rows.next_if(is_event) {
                run.push(next);
            }
            self.send_events(run, &mut outcomes).await;
        }
        self.mark(outcomes, report).await
    }

    /// Sends events in one call; if that fails each goes alone, to tell which one it is.
    async fn send_events(&self, run: Vec<Stored<OutboxRow>>, outcomes: &mut Vec<Outcome>) {
        let events: Vec<DomainEvent> = run
            .iter()
            .filter_map(|row| match &row.value.outgoing {
                Outgoing::Event(event) => Some(event.clone()),
                _ => None,
            })
            .collect();
        if self.publish(&events).await.is_ok() {
            outcomes.extend(run.into_iter().map(|row| (row, Ok(()))));
            return;
        }
        for row in run {
            let sent = self.send(&row.value).await;
            outcomes.push((row, sent));
        }
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
    async fn mark(&self, outcomes: Vec<Outcome>, report: &mut RelayReport) -> Result<()> {
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
        match outcome.map_err(|error| (deferral(&error), error)) {
            Ok(()) => {
                row.unsent = None;
                row.sent_at = Some(now.as_micros());
                report.sent += 1;
                self.paused.lock().remove(&row.id);
            }
            // Nobody was asked, so no attempt was made.
            Err((Some(after), _)) => {
                self.paused.lock().insert(row.id, now.plus(after));
            }
            Err((None, error)) => {
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
