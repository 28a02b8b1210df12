//! What carries messages: queues, hints, events, alerts, schedules. Messages are lost, doubled, late and out of order.

use std::sync::Arc;

use async_trait::async_trait;
use orchestrator::core::{
    client::{
        event_bus::{EventBusClient, EventBusError, EventRule},
        notification::{Notification, NotificationClient, NotificationError},
        queue::{Message, NewMessage, QueueClient, QueueError},
        scheduler::{OneTimeSchedule, SchedulerClient, SchedulerError},
    },
    madara::cron::{CronClient, CronError, CronSchedule, CronTarget},
    market::{event::DomainEvent, quantity::Micros},
};

use super::behind;
use crate::faults::{Faults, Injected, Port, through};

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

behind! {
    /// An event bus behind faults.
    pub struct FaultyEvents(dyn EventBusClient);
    at Port::Events, or EventBusError::Unavailable(Box::new(Injected)), as EventBusError;

    fn create_bus(bus: &str) -> ();
    fn put_rule(bus: &str, rule: EventRule) -> ();
    fn delete_rule(bus: &str, name: &str) -> ();
    fn publish(bus: &str, events: &[DomainEvent]) -> ();
}

behind! {
    /// Alerts behind faults.
    pub struct FaultyAlerts(dyn NotificationClient);
    at Port::Alerts, or NotificationError::Undelivered(Box::new(Injected)), as NotificationError;

    fn create_topic(topic: &str) -> ();
    fn topics() -> Vec<String>;
    fn subscribe(topic: &str, address: &str) -> ();
    fn unsubscribe(topic: &str, address: &str) -> ();
    fn publish(topic: &str, notification: &Notification) -> ();
}

behind! {
    /// Recurring schedules behind faults.
    pub struct FaultyCron(dyn CronClient);
    at Port::Schedule, or CronError::Unavailable(Box::new(Injected)), as CronError;

    fn create(name: &str, every: Micros) -> ();
    fn add_target(name: &str, target: CronTarget) -> ();
    fn set_enabled(name: &str, enabled: bool) -> ();
    fn list() -> Vec<CronSchedule>;
    fn delete(name: &str) -> ();
}

behind! {
    /// One-time schedules behind faults.
    pub struct FaultyOnce(dyn SchedulerClient);
    at Port::Schedule, or SchedulerError::Unavailable(Box::new(Injected)), as SchedulerError;

    fn create(schedule: OneTimeSchedule) -> ();
    fn set_enabled(name: &str, enabled: bool) -> ();
    fn list() -> Vec<OneTimeSchedule>;
    fn delete(name: &str) -> ();
}
