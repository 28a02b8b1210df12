//! The contract of `EventBusClient`, and of the feed beside it.

#[cfg(feature = "eventbridge")]
use std::sync::Arc;

use orchestrator::{
    client::event_bus::LocalEventBus,
    core::{
        client::{
            event_bus::{EventBusClient, EventBusError, EventFeed, EventRule},
            queue::QueueClient,
        },
        market::{
            event::{Audience, DomainEvent},
            ids::{EventId, Id},
            quantity::{Micros, Timestamp},
        },
    },
};
use uuid::Uuid;

use super::support::{Bed, Time};

fn event(n: u128, kind: &str) -> DomainEvent {
    DomainEvent {
        id: EventId::from_uuid(Uuid::from_u128(n)),
        kind: kind.into(),
        subject: "s".into(),
        audience: Audience::Public,
        data: serde_json::json!({ "n": 1 }),
        at: Timestamp(7),
    }
}

fn rule(name: &str, pattern: &str, queue: &str) -> EventRule {
    EventRule { name: name.into(), pattern: pattern.into(), queue: queue.into() }
}

/// The events of a queue, in the order of their ids; waits for as many as are expected.
async fn take(time: &Time, queue: &dyn QueueClient, name: &str, expected: usize) -> Vec<DomainEvent> {
    let mut messages = Vec::new();
    loop {
        let wait = if messages.len() < expected { time.patience() } else { Micros::ZERO };
        let more = queue.receive(name, 100, Micros::from_secs(120), wait).await.unwrap();
        if more.is_empty() {
            break;
        }
        for message in more {
            queue.delete(name, &message.receipt).await.unwrap();
            messages.push(message);
        }
    }
    let mut events: Vec<DomainEvent> =
        messages.iter().map(|message| serde_json::from_str(&message.body).unwrap()).collect();
    events.sort_by_key(|event| event.id);
    events
}

fn events() -> [DomainEvent; 3] {
    [event(1, "allocation.active"), event(2, "unit.created"), event(3, "allocation.closed")]
}

async fn suite(time: &Time, queue: &dyn QueueClient, bus: &impl EventBusClient) {
    assert!(matches!(bus.publish("m", &[]).await, Err(EventBusError::NoBus(_))));
    assert!(matches!(bus.put_rule("m", rule("r", "*", "all")).await, Err(EventBusError::NoBus(_))));
    bus.create_bus("m").await.unwrap();
    bus.create_bus("other").await.unwrap();
    for name in ["all", "some", "one", "far"] {
        queue.create(name).await.unwrap();
    }
    bus.put_rule("m", rule("all", "*", "all")).await.unwrap();
    bus.put_rule("m", rule("some", "allocation.*", "far")).await.unwrap();
    bus.put_rule("m", rule("some", "allocation.*", "some")).await.unwrap();
    bus.put_rule("m", rule("one", "unit.created", "one")).await.unwrap();
    bus.put_rule("other", rule("far", "*", "far")).await.unwrap();
    let bad = bus.put_rule("m", rule("bad", "allocation*", "all")).await;
    assert!(matches!(bad, Err(EventBusError::InvalidPattern(_))));
    // A bus that is made twice keeps its rules.
    bus.create_bus("m").await.unwrap();

    let events = events();
    bus.publish("m", &[]).await.unwrap();
    bus.publish("m", &events).await.unwrap();
    assert_eq!(take(time, queue, "all", 3).await, events);
    assert_eq!(take(time, queue, "some", 2).await, [events[0].clone(), events[2].clone()]);
    assert_eq!(take(time, queue, "one", 1).await, [events[1].clone()]);
    assert_eq!(take(time, queue, "far", 0).await, []);

    bus.delete_rule("m", "all").await.unwrap();
    bus.delete_rule("m", "all").await.unwrap();
    bus.publish("m", &events[..1]).await.unwrap();
    assert_eq!(take(time, queue, "some", 1).await, [events[0].clone()]);
    assert_eq!(take(time, queue, "all", 0).await, []);

    // More than a service takes at once.
    let many: Vec<_> = (10..35).map(|n| event(n, "unit.created")).collect();
    bus.publish("m", &many).await.unwrap();
    assert_eq!(take(time, queue, "one", 25).await, many);
}

#[tokio::test]
async fn in_process() {
    let bed = Bed::memory().await;
    let queue = bed.queue(1);
    suite(&bed.time(), &*queue, &LocalEventBus::new(queue.clone(), 16)).await;
}

#[tokio::test]
async fn in_process_the_order_is_kept_and_the_feed_shows_what_the_queues_took() {
    let bed = Bed::memory().await;
    let queue = bed.queue(1);
    let bus = LocalEventBus::new(queue.clone(), 16);
    bus.create_bus("m").await.unwrap();
    queue.create("all").await.unwrap();
    bus.put_rule("m", rule("all", "*", "all")).await.unwrap();
    let mut feed = bus.subscribe();
    let mut events = events();
    events.reverse();
    bus.publish("m", &events).await.unwrap();
    let messages = queue.receive("all", 9, Micros::from_secs(30), Micros::ZERO).await.unwrap();
    let bodies: Vec<DomainEvent> = messages.iter().map(|m| serde_json::from_str(&m.body).unwrap()).collect();
    assert_eq!(bodies, events);
    for expected in &events {
        assert_eq!(&feed.recv().await.unwrap(), expected);
    }
    // What a queue did not take, the feed does not show: the publisher tries again.
    bus.put_rule("m", rule("lost", "*", "nowhere")).await.unwrap();
    assert!(matches!(bus.publish("m", &events).await, Err(EventBusError::Unavailable(_))));
    assert!(feed.try_recv().is_err());
}

#[cfg(feature = "eventbridge")]
mod at_event_bridge {
    use orchestrator::client::{clock::SystemClock, event_bus::EventBridgeBus};

    use super::*;
    use crate::contract::aws;

    #[tokio::test]
    async fn at_event_bridge() {
        let clients = aws::clients("bus").await;
        let queue = aws::queue(&clients);
        let clock = SystemClock::new();
        let bus = EventBridgeBus::new(clients, Arc::new(clock), queue.clone());
        suite(&Time::Real(clock), &*queue, &bus).await;
    }

    #[tokio::test]
    async fn a_bus_of_somebody_elses_is_used_and_never_made() {
        let clients = aws::clients("theirs").await;
        let queue = aws::queue(&clients);
        let clock = Arc::new(SystemClock::new());
        let arn =
            clients.arn("events", &format!("event-bus/{}", clients.name("made-by-hand"))).await.unwrap();
        let bus = || EventBridgeBus::new(clients.clone(), clock.clone(), queue.clone());
        let ours = bus().with_existing("m", &arn);
        assert!(matches!(ours.create_bus("m").await, Err(EventBusError::NoBus(_))));
        // By another hand.
        bus().create_bus("made-by-hand").await.unwrap();
        ours.create_bus("m").await.unwrap();
        queue.create("all").await.unwrap();
        ours.put_rule("m", rule("all", "*", "all")).await.unwrap();
        ours.publish("m", &events()).await.unwrap();
        assert_eq!(take(&Time::Real(*clock), &*queue, "all", 3).await, events());
    }

    #[tokio::test]
    async fn an_event_that_is_too_large_is_named() {
        let clients = aws::clients("large").await;
        let bus = EventBridgeBus::new(clients.clone(), Arc::new(SystemClock::new()), aws::queue(&clients));
        bus.create_bus("m").await.unwrap();
        let large = DomainEvent { data: "x".repeat(256 << 10).into(), ..event(1, "a.b") };
        let refused = bus.publish("m", &[event(2, "a.b"), large.clone()]).await;
        assert!(matches!(refused, Err(EventBusError::TooLarge { id, .. }) if id == large.id.to_string()));
    }
}
