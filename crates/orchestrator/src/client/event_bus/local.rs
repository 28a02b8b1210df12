//! An event bus in this process: rules send matching events to queues, and a feed gives every event to the API's stream.
//! Buses and rules are not stored: `setup` sets them at every start, as it does on a cloud's bus.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::sync::broadcast;

use crate::core::{
    client::{
        event_bus::{EventBusClient, EventBusError, EventFeed, EventRule},
        queue::{NewMessage, QueueClient},
    },
    market::{event::DomainEvent, quantity::Micros},
};

/// Events that a slow reader of the feed may lag behind before it loses the oldest.
pub const DEFAULT_FEED_CAPACITY: usize = 1_024;

/// Most messages that are sent at once.
const BATCH: usize = 1_000;

type Rules = BTreeMap<String, EventRule>;

/// An event bus in this process.
pub struct LocalEventBus {
    queue: Arc<dyn QueueClient>,
    buses: RwLock<BTreeMap<String, Rules>>,
    feed: broadcast::Sender<DomainEvent>,
}

impl LocalEventBus {
    /// A bus service whose rules send to `queue`; `capacity` is that of the feed.
    #[must_use]
    pub fn new(queue: Arc<dyn QueueClient>, capacity: usize) -> Self {
        Self { queue, buses: RwLock::default(), feed: broadcast::Sender::new(capacity.max(1)) }
    }

    /// The messages for each queue, in the order of the events. Two rules that name one queue send twice, as on a cloud.
    fn messages(
        &self,
        bus: &str,
        events: &[DomainEvent],
    ) -> Result<BTreeMap<String, Vec<NewMessage>>, EventBusError> {
        let buses = self.buses.read();
        let rules = buses.get(bus).ok_or_else(|| EventBusError::NoBus(bus.to_owned()))?;
        let mut messages: BTreeMap<String, Vec<NewMessage>> = BTreeMap::new();
        for event in events {
            let mut body = None;
            for rule in rules.values().filter(|rule| matches(&rule.pattern, &event.kind)) {
                let body = match &body {
                    Some(body) => body,
                    None => body.insert(serde_json::to_string(event).map_err(unavailable)?),
                };
                let message = NewMessage { body: body.clone(), delay: Micros::ZERO };
                messages.entry(rule.queue.clone()).or_default().push(message);
            }
        }
        Ok(messages)
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> EventBusError {
    EventBusError::Unavailable(Box::new(error))
}

/// Whether an event of this type matches a valid pattern.
fn matches(pattern: &str, kind: &str) -> bool {
    match pattern.strip_suffix('*') {
        // What is left is empty or ends in a dot; `a.*` wants something after the dot.
        Some(start) => kind.len() > start.len() && kind.starts_with(start),
        None => pattern == kind,
    }
}

pub(super) fn check_pattern(pattern: &str) -> Result<(), EventBusError> {
    let name = match pattern {
        "*" => return Ok(()),
        _ => pattern.strip_suffix(".*").unwrap_or(pattern),
    };
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    if name.split('.').all(word) { Ok(()) } else { Err(EventBusError::InvalidPattern(pattern.to_owned())) }
}

#[async_trait]
impl EventBusClient for LocalEventBus {
    async fn create_bus(&self, bus: &str) -> Result<(), EventBusError> {
        self.buses.write().entry(bus.to_owned()).or_default();
        Ok(())
    }

    async fn put_rule(&self, bus: &str, rule: EventRule) -> Result<(), EventBusError> {
        check_pattern(&rule.pattern)?;
        let mut buses = self.buses.write();
        let rules = buses.get_mut(bus).ok_or_else(|| EventBusError::NoBus(bus.to_owned()))?;
        rules.insert(rule.name.clone(), rule);
        Ok(())
    }

    async fn delete_rule(&self, bus: &str, name: &str) -> Result<(), EventBusError> {
        let mut buses = self.buses.write();
        let rules = buses.get_mut(bus).ok_or_else(|| EventBusError::NoBus(bus.to_owned()))?;
        rules.remove(name);
        Ok(())
    }

    async fn publish(&self, bus: &str, events: &[DomainEvent]) -> Result<(), EventBusError> {
        for (queue, messages) in self.messages(bus, events)? {
            for batch in messages.chunks(BATCH) {
                self.queue.send(&queue, batch.to_vec()).await.map_err(unavailable)?;
            }
        }
        // The feed comes last: when a queue fails, the publisher tries again, and the feed has not seen it yet.
        for event in events {
            let _ = self.feed.send(event.clone());
        }
        Ok(())
    }
}

impl EventFeed for LocalEventBus {
    fn subscribe(&self) -> broadcast::Receiver<DomainEvent> {
        self.feed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_words() {
        assert!(matches("*", "a.b"));
        assert!(matches("a.*", "a.b"));
        assert!(matches("a.*", "a.b.c"));
        assert!(matches("a.b", "a.b"));
        for (pattern, kind) in [("a.*", "a"), ("a.*", "ab.c"), ("a.b", "a.bc"), ("a.b", "a"), ("a.*", "a.")] {
            assert!(!matches(pattern, kind), "{pattern} {kind}");
        }
        for good in ["*", "a", "a.b", "a_b.c-d.*"] {
            assert!(check_pattern(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a*", "*.a", "a.*.b", "a..b", "**", ".*"] {
            assert!(check_pattern(bad).is_err(), "{bad}");
        }
    }
}
