//! The contract of `QueueClient`.

use std::{collections::BTreeSet, sync::Arc};

use orchestrator::core::{
    client::queue::{NewMessage, QueueClient, QueueError},
    market::quantity::Micros,
};

use super::support::Bed;

const VISIBILITY: Micros = Micros::from_secs(30);

fn new(body: &str) -> NewMessage {
    NewMessage { body: body.into(), delay: Micros::ZERO }
}

/// Two clients of one service, as two processes have them.
async fn suite<F: Future<Output = (Bed, Arc<dyn QueueClient>, Arc<dyn QueueClient>)>>(make: impl Fn() -> F) {
    let (_bed, queue, _) = make().await;
    unknown_queues_and_bad_messages_are_refused(&*queue).await;
    let (bed, queue, other) = make().await;
    a_message_is_hidden_then_delivered_again_and_old_receipts_go_stale(&bed, &*queue, &*other).await;
    let (bed, queue, _) = make().await;
    delay_and_change_of_visibility(&bed, &*queue).await;
    let (_bed, queue, other) = make().await;
    purge_depth_and_queues_apart(&*queue, &*other).await;
    let (_bed, queue, other) = make().await;
    receivers_share_without_overlap(queue, other).await;
    let (bed, queue, other) = make().await;
    a_long_poll_is_woken(&bed, queue, other).await;
}

async fn unknown_queues_and_bad_messages_are_refused(queue: &dyn QueueClient) {
    let no_queue = |result: Result<(), QueueError>| assert!(matches!(result, Err(QueueError::NoQueue(_))));
    no_queue(queue.send("none", vec![new("a")]).await);
    no_queue(queue.send("none", vec![]).await);
    no_queue(queue.receive("none", 1, VISIBILITY, Micros::ZERO).await.map(drop));
    no_queue(queue.delete("none", "r").await);
    no_queue(queue.purge("none").await);
    no_queue(queue.depth("none").await.map(drop));
    queue.create("q").await.unwrap();
    queue.create("q").await.unwrap();
    queue.send("q", vec![]).await.unwrap();
    queue.send("q", vec![new(&"x".repeat(64 << 10))]).await.unwrap();
    let long = queue.send("q", vec![new("a"), new(&"x".repeat((64 << 10) + 1))]).await;
    assert!(matches!(long, Err(QueueError::Invalid(_))));
    queue.send("q", vec![new("a"); 1_000]).await.unwrap();
    assert!(matches!(queue.send("q", vec![new("a"); 1_001]).await, Err(QueueError::Invalid(_))));
    assert_eq!(queue.depth("q").await.unwrap(), 1_001, "a refused batch leaves nothing");
    assert!(matches!(queue.create("").await, Err(QueueError::Invalid(_))));
    assert!(matches!(queue.create("a/b").await, Err(QueueError::Invalid(_))));
    assert_eq!(queue.receive("q", 0, VISIBILITY, Micros::ZERO).await.unwrap(), []);
}

async fn a_message_is_hidden_then_delivered_again_and_old_receipts_go_stale(
    bed: &Bed,
    queue: &dyn QueueClient,
    other: &dyn QueueClient,
) {
    queue.create("q").await.unwrap();
    queue.send("q", vec![new("a")]).await.unwrap();
    let first = queue.receive("q", 10, VISIBILITY, Micros::ZERO).await.unwrap().remove(0);
    assert_eq!((first.body.as_str(), first.deliveries), ("a", 1));
    assert_eq!(other.receive("q", 10, VISIBILITY, Micros::ZERO).await.unwrap(), []);
    bed.clock.advance(VISIBILITY);
    let second = other.receive("q", 10, VISIBILITY, Micros::ZERO).await.unwrap().remove(0);
    assert_eq!((&second.id, second.deliveries), (&first.id, 2));
    assert!(matches!(queue.delete("q", &first.receipt).await, Err(QueueError::StaleReceipt)));
    let stale = queue.change_visibility("q", &first.receipt, Micros::ZERO).await;
    assert!(matches!(stale, Err(QueueError::StaleReceipt)));
    assert!(matches!(queue.delete("q", "nonsense").await, Err(QueueError::StaleReceipt)));
    queue.delete("q", &second.receipt).await.unwrap();
    queue.delete("q", &second.receipt).await.unwrap();
    let gone = queue.change_visibility("q", &second.receipt, Micros::ZERO).await;
    assert!(matches!(gone, Err(QueueError::StaleReceipt)));
    bed.clock.advance(VISIBILITY);
    assert_eq!(queue.receive("q", 10, VISIBILITY, Micros::ZERO).await.unwrap(), []);
}

async fn delay_and_change_of_visibility(bed: &Bed, queue: &dyn QueueClient) {
    queue.create("q").await.unwrap();
    let delayed = NewMessage { body: "a".into(), delay: Micros::from_secs(5) };
    queue.send("q", vec![delayed]).await.unwrap();
    assert_eq!(queue.depth("q").await.unwrap(), 1);
    bed.clock.advance(Micros::from_millis(4_999));
    assert_eq!(queue.receive("q", 1, VISIBILITY, Micros::ZERO).await.unwrap(), []);
    bed.clock.advance(Micros::from_millis(1));
    let message = queue.receive("q", 1, VISIBILITY, Micros::ZERO).await.unwrap().remove(0);
    queue.change_visibility("q", &message.receipt, Micros::from_secs(60)).await.unwrap();
    bed.clock.advance(Micros::from_secs(59));
    assert_eq!(queue.receive("q", 1, VISIBILITY, Micros::ZERO).await.unwrap(), []);
    queue.change_visibility("q", &message.receipt, Micros::ZERO).await.unwrap();
    assert_eq!(queue.receive("q", 1, VISIBILITY, Micros::ZERO).await.unwrap().len(), 1);
}

async fn purge_depth_and_queues_apart(queue: &dyn QueueClient, other: &dyn QueueClient) {
    for name in ["a", "ab"] {
        queue.create(name).await.unwrap();
        queue.send(name, vec![new("1"), new("2"), new("3")]).await.unwrap();
    }
    let taken = queue.receive("a", 1, VISIBILITY, Micros::ZERO).await.unwrap().remove(0);
    assert!(matches!(queue.delete("ab", &taken.receipt).await, Err(QueueError::StaleReceipt)));
    assert_eq!(queue.depth("a").await.unwrap(), 3);
    other.purge("a").await.unwrap();
    assert_eq!((queue.depth("a").await.unwrap(), queue.depth("ab").await.unwrap()), (0, 3));
    queue.delete("a", &taken.receipt).await.unwrap();
    other.purge("a").await.unwrap();
}

async fn receivers_share_without_overlap(queue: Arc<dyn QueueClient>, other: Arc<dyn QueueClient>) {
    queue.create("q").await.unwrap();
    let all: Vec<_> = (0..200).map(|n| new(&n.to_string())).collect();
    queue.send("q", all).await.unwrap();
    let take = |queue: Arc<dyn QueueClient>| async move {
        let mut bodies = Vec::new();
        loop {
            let some = queue.receive("q", 7, VISIBILITY, Micros::ZERO).await.unwrap();
            if some.is_empty() {
                return bodies;
            }
            bodies.extend(some.into_iter().map(|message| message.body));
        }
    };
    let (a, b) = tokio::join!(tokio::spawn(take(queue)), tokio::spawn(take(other)));
    let bodies: Vec<_> = a.unwrap().into_iter().chain(b.unwrap()).collect();
    assert_eq!(bodies.len(), 200);
    assert_eq!(bodies.iter().collect::<BTreeSet<_>>().len(), 200);
}

async fn a_long_poll_is_woken(bed: &Bed, queue: Arc<dyn QueueClient>, other: Arc<dyn QueueClient>) {
    queue.create("q").await.unwrap();
    let wait = Micros::from_secs(20);
    let polling = |queue: &Arc<dyn QueueClient>| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.receive("q", 1, VISIBILITY, wait).await.unwrap() })
    };
    // By a message of the same process: the clock stands still.
    let poll = polling(&queue);
    tokio::task::yield_now().await;
    queue.send("q", vec![new("near")]).await.unwrap();
    let near = poll.await.unwrap().remove(0);
    assert_eq!(near.body, "near");
    queue.delete("q", &near.receipt).await.unwrap();
    // By one of another process: by the clock alone.
    let poll = polling(&queue);
    tokio::task::yield_now().await;
    other.send("q", vec![new("far")]).await.unwrap();
    let messages = driven(bed, poll, Micros::from_millis(500)).await;
    assert_eq!(messages[0].body, "far");
    queue.delete("q", &messages[0].receipt).await.unwrap();
    // In vain: until the time is over.
    let started = orchestrator::core::client::clock::Clock::now(&bed.clock);
    let poll = polling(&queue);
    assert_eq!(driven(bed, poll, Micros::from_millis(500)).await, []);
    let now = orchestrator::core::client::clock::Clock::now(&bed.clock);
    assert!(now.since(started) >= wait);
}

/// Moves the clock on until the task is done.
async fn driven<T>(bed: &Bed, task: tokio::task::JoinHandle<T>, step: Micros) -> T {
    while !task.is_finished() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        bed.clock.advance(step);
    }
    task.await.unwrap()
}

async fn over(bed: Bed) -> (Bed, Arc<dyn QueueClient>, Arc<dyn QueueClient>) {
    let (one, two) = (bed.queue(1), bed.queue(2));
    (bed, one, two)
}

#[tokio::test]
async fn over_the_memory_database() {
    suite(|| async { over(Bed::memory().await).await }).await;
}

#[tokio::test]
async fn over_the_sqlite_database() {
    suite(|| async { over(Bed::sqlite().await).await }).await;
}

#[cfg(feature = "mongodb")]
#[tokio::test]
async fn over_mongodb() {
    suite(|| async { over(Bed::mongodb().await).await }).await;
}
