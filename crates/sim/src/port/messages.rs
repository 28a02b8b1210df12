//! What carries messages: queues, hints, events, alerts, schedules. Messages are lost, doubled, late and out of order.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use orchestrator::core::{
    client::{
        event_bus::{EventBusClient, EventBusError, EventRule},
        notification::{Notification, NotificationClient, NotificationError},
        queue::{Message, NewMessage, QueueClient, QueueError},
        scheduler::{OneTimeSchedule, SchedulerClient, SchedulerError},
    },
    madara::cron::{CronClient, CronError, CronSchedule, CronTarget},
    market::{
        event::DomainEvent,
        quantity::{Micros, Timestamp},
    },
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    faults::{Faults, Injected, Port, through},
    time::{LaneId, Time},
};

fn away() -> QueueError {
    QueueError::Unavailable(Box::new(Injected))
}

/// A queue behind faults.
pub struct FaultyQueue {
    inner: Arc<dyn QueueClient>,
    faults: Faults,
    port: Port,
}

impl FaultyQueue {
    /// A queue that fails as `port` does in the profile.
    #[must_use]
    pub fn new(inner: Arc<dyn QueueClient>, faults: Faults, port: Port) -> Self {
        Self { inner, faults, port }
    }
}

#[async_trait]
impl QueueClient for FaultyQueue {
    async fn create(&self, queue: &str) -> Result<(), QueueError> {
        through!(self.faults, self.port, self.inner.create(queue), away())
    }

    async fn send(&self, queue: &str, messages: Vec<NewMessage>) -> Result<(), QueueError> {
        let mut sent = Vec::with_capacity(messages.len());
        for mut message in messages {
            if self.faults.drops(self.port) {
                continue;
            }
            if self.faults.doubles(self.port) {
                let mut late = message.clone();
                late.delay = Micros(late.delay.get().saturating_add(self.faults.below(60_000_000)));
                sent.push(late);
            }
            if self.faults.reorders(self.port) {
                message.delay = Micros(message.delay.get().saturating_add(self.faults.below(10_000_000)));
            }
            sent.push(message);
        }
        through!(self.faults, self.port, self.inner.send(queue, sent), away())
    }

    async fn receive(
        &self,
        queue: &str,
        max: usize,
        visibility: Micros,
        wait: Micros,
    ) -> Result<Vec<Message>, QueueError> {
        let mut messages: Vec<Message> =
            through!(self.faults, self.port, self.inner.receive(queue, max, visibility, wait), away())?;
        if self.faults.reorders(self.port) {
            messages.reverse();
        }
        Ok(messages)
    }

    async fn delete(&self, queue: &str, receipt: &str) -> Result<(), QueueError> {
        through!(self.faults, self.port, self.inner.delete(queue, receipt), away())
    }

    async fn change_visibility(
        &self,
        queue: &str,
        receipt: &str,
        visibility: Micros,
    ) -> Result<(), QueueError> {
        let call = self.inner.change_visibility(queue, receipt, visibility);
        through!(self.faults, self.port, call, away())
    }

    async fn purge(&self, queue: &str) -> Result<(), QueueError> {
        through!(self.faults, self.port, self.inner.purge(queue), away())
    }

    async fn depth(&self, queue: &str) -> Result<u64, QueueError> {
        through!(self.faults, self.port, self.inner.depth(queue), away())
    }
}

struct Waiting {
    id: u64,
    body: String,
    visible_at: Timestamp,
    deliveries: u32,
}

#[derive(Default)]
struct Broker {
    next: u64,
    queues: BTreeMap<String, Vec<Waiting>>,
    /// Who waits for messages, to be looked at again after a send.
    waiting: Vec<(LaneId, Arc<Notify>)>,
}

/// A message service of its own, as a cluster has one: it keeps no order and knows no replica.
#[derive(Clone)]
pub struct SimBroker {
    broker: Arc<Mutex<Broker>>,
    time: Time,
    lane: LaneId,
    bell: Arc<Notify>,
}

impl SimBroker {
    /// A service without queues.
    #[must_use]
    pub fn new(time: Time) -> Self {
        Self { broker: Arc::default(), time, lane: 0, bell: Arc::default() }
    }

    /// The service as a new process of a lane sees it.
    #[must_use]
    pub fn of(&self, lane: LaneId) -> Self {
        let bell = Arc::new(Notify::new());
        let mut broker = self.broker.lock();
        broker.waiting.retain(|(known, _)| *known != lane);
        broker.waiting.push((lane, bell.clone()));
        Self { broker: self.broker.clone(), time: self.time.clone(), lane, bell }
    }

    fn ring(&self, broker: &Broker) {
        for (lane, bell) in &broker.waiting {
            bell.notify_waiters();
            self.time.mark(*lane);
        }
    }

    fn take(&self, queue: &str, max: usize, visibility: Micros) -> Result<Vec<Message>, QueueError> {
        let now = self.time.now();
        let mut broker = self.broker.lock();
        let rows = broker.queues.get_mut(queue).ok_or_else(|| QueueError::NoQueue(queue.to_owned()))?;
        let mut taken = Vec::new();
        for row in rows.iter_mut().filter(|row| row.visible_at <= now).take(max) {
            row.visible_at = now.plus(visibility);
            row.deliveries += 1;
            taken.push(Message {
                id: row.id.to_string(),
                receipt: format!("{}/{}", row.id, row.deliveries),
                body: row.body.clone(),
                deliveries: row.deliveries,
            });
        }
        Ok(taken)
    }

    fn next_visible(&self, queue: &str) -> Option<Timestamp> {
        let broker = self.broker.lock();
        broker.queues.get(queue)?.iter().map(|row| row.visible_at).min()
    }
}

fn named(receipt: &str) -> Option<(u64, u32)> {
    let (id, deliveries) = receipt.split_once('/')?;
    Some((id.parse().ok()?, deliveries.parse().ok()?))
}

#[async_trait]
impl QueueClient for SimBroker {
    async fn create(&self, queue: &str) -> Result<(), QueueError> {
        self.broker.lock().queues.entry(queue.to_owned()).or_default();
        Ok(())
    }

    async fn send(&self, queue: &str, messages: Vec<NewMessage>) -> Result<(), QueueError> {
        let now = self.time.now();
        let mut broker = self.broker.lock();
        for message in messages {
            broker.next += 1;
            let id = broker.next;
            let rows = broker.queues.get_mut(queue).ok_or_else(|| QueueError::NoQueue(queue.to_owned()))?;
            rows.push(Waiting { id, body: message.body, visible_at: now.plus(message.delay), deliveries: 0 });
        }
        self.ring(&broker);
        Ok(())
    }

    async fn receive(
        &self,
        queue: &str,
        max: usize,
        visibility: Micros,
        wait: Micros,
    ) -> Result<Vec<Message>, QueueError> {
        let deadline = self.time.now().plus(wait);
        loop {
            let bell = self.bell.clone();
            let mut rung = std::pin::pin!(bell.notified());
            rung.as_mut().enable();
            let taken = self.take(queue, max, visibility)?;
            if !taken.is_empty() || max == 0 || self.time.now() >= deadline {
                return Ok(taken);
            }
            let until = self.next_visible(queue).map_or(deadline, |visible| visible.min(deadline));
            tokio::select! {
                biased;
                () = rung => {}
                () = self.time.sleep_until(self.lane, until) => {}
            }
        }
    }

    async fn delete(&self, queue: &str, receipt: &str) -> Result<(), QueueError> {
        let Some((id, _)) = named(receipt) else { return Err(QueueError::StaleReceipt) };
        if let Some(rows) = self.broker.lock().queues.get_mut(queue) {
            rows.retain(|row| row.id != id);
        }
        Ok(())
    }

    async fn change_visibility(
        &self,
        queue: &str,
        receipt: &str,
        visibility: Micros,
    ) -> Result<(), QueueError> {
        let now = self.time.now();
        let mut broker = self.broker.lock();
        let (id, deliveries) = named(receipt).ok_or(QueueError::StaleReceipt)?;
        let row = broker
            .queues
            .get_mut(queue)
            .and_then(|rows| rows.iter_mut().find(|row| row.id == id && row.deliveries == deliveries));
        row.ok_or(QueueError::StaleReceipt)?.visible_at = now.plus(visibility);
        self.ring(&broker);
        Ok(())
    }

    async fn purge(&self, queue: &str) -> Result<(), QueueError> {
        if let Some(rows) = self.broker.lock().queues.get_mut(queue) {
            rows.clear();
        }
        Ok(())
    }

    async fn depth(&self, queue: &str) -> Result<u64, QueueError> {
        Ok(self.broker.lock().queues.get(queue).map_or(0, |rows| rows.len() as u64))
    }
}

/// An event bus behind faults.
pub struct FaultyEvents(pub Arc<dyn EventBusClient>, pub Faults);

fn no_bus() -> EventBusError {
    EventBusError::Unavailable(Box::new(Injected))
}

#[async_trait]
impl EventBusClient for FaultyEvents {
    async fn create_bus(&self, bus: &str) -> Result<(), EventBusError> {
        through!(self.1, Port::Events, self.0.create_bus(bus), no_bus())
    }

    async fn put_rule(&self, bus: &str, rule: EventRule) -> Result<(), EventBusError> {
        through!(self.1, Port::Events, self.0.put_rule(bus, rule), no_bus())
    }

    async fn delete_rule(&self, bus: &str, name: &str) -> Result<(), EventBusError> {
        through!(self.1, Port::Events, self.0.delete_rule(bus, name), no_bus())
    }

    async fn publish(&self, bus: &str, events: &[DomainEvent]) -> Result<(), EventBusError> {
        through!(self.1, Port::Events, self.0.publish(bus, events), no_bus())
    }
}

/// Alerts behind faults.
pub struct FaultyAlerts(pub Arc<dyn NotificationClient>, pub Faults);

fn unheard() -> NotificationError {
    NotificationError::Undelivered(Box::new(Injected))
}

#[async_trait]
impl NotificationClient for FaultyAlerts {
    async fn create_topic(&self, topic: &str) -> Result<(), NotificationError> {
        through!(self.1, Port::Alerts, self.0.create_topic(topic), unheard())
    }

    async fn topics(&self) -> Result<Vec<String>, NotificationError> {
        through!(self.1, Port::Alerts, self.0.topics(), unheard())
    }

    async fn subscribe(&self, topic: &str, address: &str) -> Result<(), NotificationError> {
        through!(self.1, Port::Alerts, self.0.subscribe(topic, address), unheard())
    }

    async fn unsubscribe(&self, topic: &str, address: &str) -> Result<(), NotificationError> {
        through!(self.1, Port::Alerts, self.0.unsubscribe(topic, address), unheard())
    }

    async fn publish(&self, topic: &str, notification: &Notification) -> Result<(), NotificationError> {
        through!(self.1, Port::Alerts, self.0.publish(topic, notification), unheard())
    }
}

/// Recurring schedules behind faults.
pub struct FaultyCron(pub Arc<dyn CronClient>, pub Faults);

fn no_cron() -> CronError {
    CronError::Unavailable(Box::new(Injected))
}

#[async_trait]
impl CronClient for FaultyCron {
    async fn create(&self, name: &str, every: Micros) -> Result<(), CronError> {
        through!(self.1, Port::Schedule, self.0.create(name, every), no_cron())
    }

    async fn add_target(&self, name: &str, target: CronTarget) -> Result<(), CronError> {
        through!(self.1, Port::Schedule, self.0.add_target(name, target), no_cron())
    }

    async fn set_enabled(&self, name: &str, enabled: bool) -> Result<(), CronError> {
        through!(self.1, Port::Schedule, self.0.set_enabled(name, enabled), no_cron())
    }

    async fn list(&self) -> Result<Vec<CronSchedule>, CronError> {
        through!(self.1, Port::Schedule, self.0.list(), no_cron())
    }

    async fn delete(&self, name: &str) -> Result<(), CronError> {
        through!(self.1, Port::Schedule, self.0.delete(name), no_cron())
    }
}

/// One-time schedules behind faults.
pub struct FaultyOnce(pub Arc<dyn SchedulerClient>, pub Faults);

fn no_schedule() -> SchedulerError {
    SchedulerError::Unavailable(Box::new(Injected))
}

#[async_trait]
impl SchedulerClient for FaultyOnce {
    async fn create(&self, schedule: OneTimeSchedule) -> Result<(), SchedulerError> {
        through!(self.1, Port::Schedule, self.0.create(schedule), no_schedule())
    }

    async fn set_enabled(&self, name: &str, enabled: bool) -> Result<(), SchedulerError> {
        through!(self.1, Port::Schedule, self.0.set_enabled(name, enabled), no_schedule())
    }

    async fn list(&self) -> Result<Vec<OneTimeSchedule>, SchedulerError> {
        through!(self.1, Port::Schedule, self.0.list(), no_schedule())
    }

    async fn delete(&self, name: &str) -> Result<(), SchedulerError> {
        through!(self.1, Port::Schedule, self.0.delete(name), no_schedule())
    }
}
