//! A message service of its own, as a cluster has one.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use orchestrator::core::{
    client::queue::{Message, NewMessage, QueueClient, QueueError},
    market::quantity::{Micros, Timestamp},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::time::{LaneId, Time};

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
    /// Who waits for messages of a queue, to look again after a send.
    bells: BTreeMap<String, BTreeMap<LaneId, Arc<Notify>>>,
}

/// A message service of its own, as a cluster has one: it keeps no order and knows no replica.
#[derive(Clone)]
pub struct SimBroker {
    broker: Arc<Mutex<Broker>>,
    time: Time,
    lane: LaneId,
}

impl SimBroker {
    /// A service without queues.
    #[must_use]
    pub fn new(time: Time) -> Self {
        Self { broker: Arc::default(), time, lane: 0 }
    }

    /// The service as a new process of a lane sees it.
    #[must_use]
    pub fn of(&self, lane: LaneId) -> Self {
        self.broker.lock().bells.values_mut().for_each(|bells| drop(bells.remove(&lane)));
        Self { lane, ..self.clone() }
    }

    /// What rings when a queue may have something new.
    fn bell(&self, queue: &str) -> Arc<Notify> {
        let mut broker = self.broker.lock();
        let bells = broker.bells.entry(queue.to_owned()).or_default();
        bells.entry(self.lane).or_default().clone()
    }

    fn ring(&self, broker: &Broker, queue: &str) {
        for (lane, bell) in broker.bells.get(queue).into_iter().flatten() {
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
        self.ring(&broker, queue);
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
        let bell = self.bell(queue);
        loop {
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
        self.ring(&broker, queue);
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
