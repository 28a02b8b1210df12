//! Event buses at EventBridge: `<prefix>-<bus>`, or one that exists. Rules match the type of an event and send its JSON to
//! queues at SQS. EventBridge keeps no order: whoever needs one has the events' ids, which sort by time.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use aws_sdk_eventbridge::{primitives::DateTime, types::PutEventsRequestEntry};
use parking_lot::RwLock;
use serde_json::json;

use super::local::check_pattern;
use crate::{
    client::{
        aws::{
            AwsClients, AwsError,
            rules::{FoundRule, QueueTarget, Rules},
        },
        queue::SqsQueue,
    },
    core::{
        client::{
            clock::Clock,
            event_bus::{EventBusClient, EventBusError, EventRule},
        },
        market::{event::DomainEvent, quantity::Micros},
    },
};

/// Events of one request.
const ENTRIES: usize = 10;
/// Bytes of one request, and so of one event.
const MAX_CALL: usize = 256 << 10;
/// Tries of an event that a request did not take.
const TRIES: u32 = 4;
/// Pause before the second try; doubles with each.
const PAUSE: Micros = Micros::from_millis(200);

/// Event buses at EventBridge.
pub struct EventBridgeBus {
    clients: AwsClients,
    clock: Arc<dyn Clock>,
    queue: Arc<SqsQueue>,
    /// Buses that were not made by `setup`: their ARNs by the port's names.
    existing: HashMap<String, String>,
    known: RwLock<HashSet<String>>,
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> EventBusError {
    EventBusError::Unavailable(Box::new(error))
}

/// The pattern of EventBridge for a valid pattern of the port and events of one source.
fn pattern(source: &str, pattern: &str) -> String {
    let mut wanted = json!({ "source": [source] });
    match pattern.strip_suffix('*') {
        Some("") => {}
        Some(start) => wanted["detail-type"] = json!([{ "prefix": start }]),
        None => wanted["detail-type"] = json!([pattern]),
    }
    wanted.to_string()
}

/// An event on its way, with its size as EventBridge counts it.
struct Entry {
    request: PutEventsRequestEntry,
    bytes: usize,
}

impl EventBridgeBus {
    /// Buses whose rules send to queues of `queue`.
    #[must_use]
    pub fn new(clients: AwsClients, clock: Arc<dyn Clock>, queue: Arc<SqsQueue>) -> Self {
        Self { clients, clock, queue, existing: HashMap::new(), known: RwLock::default() }
    }

    /// With a bus that exists, by its ARN, in the place of the one that `setup` would make.
    #[must_use]
    pub fn with_existing(mut self, bus: &str, arn: impl Into<String>) -> Self {
        self.existing.insert(bus.to_owned(), arn.into());
        self
    }

    /// The name of the bus at EventBridge, or its ARN.
    fn name(&self, bus: &str) -> String {
        self.existing.get(bus).cloned().unwrap_or_else(|| self.clients.name(bus))
    }

    /// What events of this deployment say of where they come from.
    fn source(&self) -> String {
        format!("orchestrator.{}", self.clients.prefix())
    }

    /// Checks that a bus exists: EventBridge drops events for one that does not, and says nothing.
    async fn require(&self, bus: &str) -> Result<String, EventBusError> {
        let name = self.name(bus);
        if self.known.read().contains(bus) {
            return Ok(name);
        }
        match self.clients.events().describe_event_bus().name(&name).send().await {
            Ok(_) => {
                self.known.write().insert(bus.to_owned());
                Ok(name)
            }
            Err(error) => match AwsError::new("events:DescribeEventBus", error) {
                error if error.is_missing() => Err(EventBusError::NoBus(bus.to_owned())),
                error => Err(unavailable(error)),
            },
        }
    }

    fn entry(&self, bus: &str, event: &DomainEvent) -> Result<Entry, EventBusError> {
        let detail = serde_json::to_string(event).map_err(unavailable)?;
        let source = self.source();
        // The time counts for 14 bytes.
        let bytes = 14 + source.len() + event.kind.len() + detail.len();
        if bytes > MAX_CALL {
            return Err(EventBusError::TooLarge { id: event.id.to_string(), bytes });
        }
        let request = PutEventsRequestEntry::builder()
            .event_bus_name(bus)
            .source(source)
            .detail_type(&event.kind)
            .detail(detail)
            .time(DateTime::from_millis(event.at.as_micros().div_euclid(1_000)))
            .build();
        Ok(Entry { request, bytes })
    }

    /// Publishes what one request takes; what fails for the moment is tried again.
    async fn put(&self, mut open: Vec<PutEventsRequestEntry>) -> Result<(), EventBusError> {
        const OPERATION: &str = "events:PutEvents";
        let mut pause = PAUSE;
        for attempt in 1.. {
            let put = self.clients.events().put_events().set_entries(Some(open.clone())).send().await;
            let put = put.map_err(|error| unavailable(AwsError::new(OPERATION, error)))?;
            let failed: Vec<_> =
                put.entries().iter().zip(open).filter(|(e, _)| e.error_code().is_some()).collect();
            let Some((first, _)) = failed.first() else { break };
            let error = AwsError::entry(
                OPERATION,
                first.error_code().unwrap_or_default(),
                first.error_message(),
                false,
            );
            if attempt >= TRIES || !error.retryable() {
                return Err(unavailable(error));
            }
            open = failed.into_iter().map(|(_, entry)| entry).collect();
            self.clock.sleep(pause).await;
            pause = Micros(pause.get().saturating_mul(2));
        }
        Ok(())
    }
}

#[async_trait]
impl EventBusClient for EventBridgeBus {
    async fn create_bus(&self, bus: &str) -> Result<(), EventBusError> {
        match self.require(bus).await {
            // An existing bus is the operator's to make.
            Err(EventBusError::NoBus(_)) if !self.existing.contains_key(bus) => {}
            result => return result.map(drop),
        }
        let made = self.clients.events().create_event_bus().name(self.name(bus)).send().await;
        made.map_err(|error| unavailable(AwsError::new("events:CreateEventBus", error)))?;
        Ok(())
    }

    async fn put_rule(&self, bus: &str, rule: EventRule) -> Result<(), EventBusError> {
        check_pattern(&rule.pattern)?;
        let name = self.require(bus).await?;
        let rules = Rules::new(self.clients.clone(), Some(name));
        let target =
            QueueTarget { arn: self.queue.arn(&rule.queue).await.map_err(unavailable)?, input: None };
        let source = rules.source().await.map_err(unavailable)?;
        let sid = format!("orchestrator-events-{}", bus.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        self.queue.allow(&rule.queue, "events.amazonaws.com", &sid, &source).await.map_err(unavailable)?;
        let pattern = Some(pattern(&self.source(), &rule.pattern));
        let wanted = FoundRule { name: rule.name.clone(), schedule: None, pattern, enabled: true };
        if rules.describe(&rule.name).await.map_err(unavailable)?.as_ref() != Some(&wanted) {
            rules.put(&wanted).await.map_err(unavailable)?;
        }
        let found = rules.targets(&rule.name).await.map_err(unavailable)?;
        if !found.iter().any(|(_, found)| *found == target) {
            rules.put_target(&rule.name, &target).await.map_err(unavailable)?;
        }
        let others = found.into_iter().filter(|(_, found)| *found != target).map(|(id, _)| id).collect();
        rules.remove_targets(&rule.name, others).await.map_err(unavailable)
    }

    async fn delete_rule(&self, bus: &str, name: &str) -> Result<(), EventBusError> {
        let bus = self.require(bus).await?;
        Rules::new(self.clients.clone(), Some(bus)).delete(name).await.map_err(unavailable)
    }

    async fn publish(&self, bus: &str, events: &[DomainEvent]) -> Result<(), EventBusError> {
        let name = self.require(bus).await?;
        let entries = events.iter().map(|event| self.entry(&name, event)).collect::<Result<Vec<_>, _>>()?;
        let (mut call, mut bytes) = (Vec::new(), 0);
        for entry in entries {
            if call.len() == ENTRIES || bytes + entry.bytes > MAX_CALL {
                self.put(std::mem::take(&mut call)).await?;
                bytes = 0;
            }
            bytes += entry.bytes;
            call.push(entry.request);
        }
        if call.is_empty() { Ok(()) } else { self.put(call).await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_event_bridge() {
        assert_eq!(pattern("s", "*"), r#"{"source":["s"]}"#);
        let some = r#"{"detail-type":[{"prefix":"allocation."}],"source":["s"]}"#;
        assert_eq!(pattern("s", "allocation.*"), some);
        assert_eq!(pattern("s", "unit.created"), r#"{"detail-type":["unit.created"],"source":["s"]}"#);
    }
}
