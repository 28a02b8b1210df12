//! The contract of `EventBusClient`, and of the feed beside it.

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

use super::support::Bed;

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

async fn take(queue: &dyn QueueClient, name: &str) -> Vec<DomainEvent> {
    let messages = queue.receive(name, 100, Micros::from_secs(30), Micros::ZERO).await.unwrap();
    messages.iter().map(|message| serde_json::from_str(&message.body).unwrap()).collect()
}

async fn suite<T: EventBusClient + EventFeed, F: Future<Output = (Bed, Arc<dyn QueueClient>, T)>>(
    make: impl Fn() -> F,
) {
    let (_bed, queue, bus) = make().await;
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

    let mut feed = bus.subscribe();
    let events = [event(1, "allocation.active"), event(2, "unit.created"), event(3, "allocation.closed")];
    bus.publish("m", &[]).await.unwrap();
    bus.publish("m", &events).await.unwrap();
    assert_eq!(take(&*queue, "all").await, events, "in order");
    assert_eq!(take(&*queue, "some").await, [events[0].clone(), events[2].clone()]);
    assert_eq!(take(&*queue, "one").await, [events[1].clone()]);
    assert_eq!(take(&*queue, "far").await, []);
    for expected in &events {
        assert_eq!(&feed.recv().await.unwrap(), expected);
    }

    bus.delete_rule("m", "all").await.unwrap();
    bus.delete_rule("m", "all").await.unwrap();
    bus.publish("m", &events[..1]).await.unwrap();
    assert_eq!(take(&*queue, "all").await, []);
    assert_eq!(take(&*queue, "some").await, [events[0].clone()]);
    assert_eq!(feed.recv().await.unwrap(), events[0]);

    // What a queue did not take, the feed does not show: the publisher tries again.
    bus.put_rule("m", rule("lost", "*", "nowhere")).await.unwrap();
    assert!(matches!(bus.publish("m", &events).await, Err(EventBusError::Unavailable(_))));
    assert!(feed.try_recv().is_err());
}

#[tokio::test]
async fn in_process() {
    suite(|| async {
        let bed = Bed::memory().await;
        let queue = bed.queue(1);
        (bed, queue.clone() as Arc<dyn QueueClient>, LocalEventBus::new(queue, 16))
    })
    .await;
}
