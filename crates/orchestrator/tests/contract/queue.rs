//! The contract of `QueueClient`.

use std::{collections::BTreeSet, sync::Arc};

use orchestrator::core::{
    client::queue::{NewMessage, QueueClient, QueueError},
    market::quantity::Micros,
};

use super::support::{Bed, Time};

/// Longer than a test takes.
const VISIBILITY: Micros = Micros::from_secs(120);

fn new(body: &str) -> NewMessage {
    NewMessage { body: body.into(), delay: Micros::ZERO }
}

type Queue = Arc<dyn QueueClient>;

/// Two clients of one service, as two processes have them. The guard holds what they need.
async fn suite<G, F: Future<Output = (G, Time, Queue, Queue)>>(make: impl Fn() -> F) {
    tokio::join!(
        async {
            let (_guard, _, queue, _) = make().await;
            unknown_queues_and_bad_messages_are_refused(&*queue).await;
        },
        async {
            let (_guard, time, queue, other) = make().await;
            a_message_is_hidden_then_delivered_again_and_its_end_is_final(&time, &*queue, &*other).await;
        },
        async {
            let (_guard, time, queue, _) = make().await;
            delay_and_change_of_visibility(&time, &*queue).await;
        },
        async {
            let (_guard, _, queue, other) = make().await;
            purge_depth_and_queues_apart(&*queue, &*other).await;
        },
        async {
            let (_guard, _, queue, other) = make().await;
            receivers_share_without_overlap(queue, other).await;
        },
        async {
            let (_guard, time, queue, other) = make().await;
            a_long_poll_is_woken(&time, queue, other).await;
        },
    );
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

async fn a_message_is_hidden_then_delivered_again_and_its_end_is_final(
    time: &Time,
    queue: &dyn QueueClient,
    other: &dyn QueueClient,
) {
    let visibility = time.short(30);
    queue.create("q").await.unwrap();
    queue.send("q", vec![new("a")]).await.unwrap();
    let first = queue.receive("q", 10, visibility, time.patience()).await.unwrap().remove(0);
    assert_eq!((first.body.as_str(), first.deliveries), ("a", 1));
    assert_eq!(other.receive("q", 10, visibility, Micros::ZERO).await.unwrap(), []);
    time.pass(visibility).await;
    let second = other.receive("q", 10, VISIBILITY, time.patience()).await.unwrap().remove(0);
    assert_eq!((&second.id, second.deliveries), (&first.id, 2));
    // An old receipt is refused, or does as the new one would: never more.
    let stale = queue.change_visibility("q", &first.receipt, VISIBILITY).await;
    assert!(matches!(stale, Ok(()) | Err(QueueError::StaleReceipt)), "{stale:?}");
    assert_eq!(queue.receive("q", 10, visibility, Micros::ZERO).await.unwrap(), []);
    assert!(matches!(queue.delete("q", "nonsense").await, Err(QueueError::StaleReceipt)));
    queue.delete("q", &second.receipt).await.unwrap();
    queue.delete("q", &second.receipt).await.unwrap();
    let gone = queue.change_visibility("q", &second.receipt, Micros::ZERO).await;
    assert!(matches!(gone, Err(QueueError::StaleReceipt)));
    let stale = queue.delete("q", &first.receipt).await;
    assert!(matches!(stale, Ok(()) | Err(QueueError::StaleReceipt)), "{stale:?}");
    time.pass(visibility).await;
    assert_eq!(queue.receive("q", 10, visibility, Micros::ZERO).await.unwrap(), []);
    assert_eq!(queue.depth("q").await.unwrap(), 0);
}

async fn delay_and_change_of_visibility(time: &Time, queue: &dyn QueueClient) {
    queue.create("q").await.unwrap();
    let delay = time.short(5);
    queue.send("q", vec![NewMessage { body: "a".into(), delay }]).await.unwrap();
    assert_eq!(queue.depth("q").await.unwrap(), 1);
    time.pass_almost(delay).await;
    assert_eq!(queue.receive("q", 1, VISIBILITY, Micros::ZERO).await.unwrap(), []);
    time.pass_rest(delay).await;
    let visibility = time.short(30);
    let message = queue.receive("q", 1, visibility, time.patience()).await.unwrap().remove(0);
    queue.change_visibility("q", &message.receipt, VISIBILITY).await.unwrap();
    time.pass(visibility).await;
    assert_eq!(queue.receive("q", 1, VISIBILITY, Micros::ZERO).await.unwrap(), []);
    queue.change_visibility("q", &message.receipt, Micros::ZERO).await.unwrap();
    assert_eq!(queue.receive("q", 1, VISIBILITY, time.patience()).await.unwrap().len(), 1);
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

async fn a_long_poll_is_woken(time: &Time, queue: Queue, other: Queue) {
    queue.create("q").await.unwrap();
    let long = Micros::from_secs(20);
    let polling = |queue: &Queue, wait| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.receive("q", 1, VISIBILITY, wait).await.unwrap() })
    };
    // By a message of the same process: a clock that is moved by hand stands still.
    let poll = polling(&queue, long);
    tokio::task::yield_now().await;
    queue.send("q", vec![new("near")]).await.unwrap();
    assert_eq!(poll.await.unwrap()[0].body, "near");
    // By one of another process: by the clock alone.
    let poll = polling(&queue, long);
    tokio::task::yield_now().await;
    other.send("q", vec![new("far")]).await.unwrap();
    let messages = driven(time, poll, Micros::from_millis(500)).await;
    assert_eq!(messages[0].body, "far");
    // In vain: until the time is over.
    let (clock, wait) = (time.clock(), time.short(20));
    let started = clock.now();
    let poll = polling(&queue, wait);
    assert_eq!(driven(time, poll, Micros::from_millis(500)).await, []);
    assert!(clock.now().since(started) >= wait);
}

/// Moves a clock that is moved by hand on until the task is done.
async fn driven<T>(time: &Time, task: tokio::task::JoinHandle<T>, step: Micros) -> T {
    if let Time::Manual(clock) = time {
        while !task.is_finished() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            clock.advance(step);
        }
    }
    task.await.unwrap()
}

async fn over(bed: Bed) -> (Bed, Time, Queue, Queue) {
    let (time, one, two) = (bed.time(), bed.queue(1), bed.queue(2));
    (bed, time, one, two)
}

/// Over a database a receipt is of one delivery alone.
async fn old_receipts_are_refused(bed: Bed) {
    let queue = bed.queue(1);
    queue.create("q").await.unwrap();
    queue.send("q", vec![new("a")]).await.unwrap();
    let first = queue.receive("q", 1, VISIBILITY, Micros::ZERO).await.unwrap().remove(0);
    bed.clock.advance(VISIBILITY);
    assert_eq!(queue.receive("q", 1, VISIBILITY, Micros::ZERO).await.unwrap().len(), 1);
    assert!(matches!(queue.delete("q", &first.receipt).await, Err(QueueError::StaleReceipt)));
    let stale = queue.change_visibility("q", &first.receipt, Micros::ZERO).await;
    assert!(matches!(stale, Err(QueueError::StaleReceipt)));
}

#[tokio::test]
async fn over_the_memory_database() {
    suite(|| async { over(Bed::memory().await).await }).await;
    old_receipts_are_refused(Bed::memory().await).await;
}

#[tokio::test]
async fn over_the_sqlite_database() {
    suite(|| async { over(Bed::sqlite().await).await }).await;
    old_receipts_are_refused(Bed::sqlite().await).await;
}

#[cfg(feature = "sqs")]
mod at_sqs {
    use orchestrator::{
        client::{
            clock::{ManualClock, SystemClock},
            queue::{QueueAttributes, SqsQueue},
        },
        core::{client::clock::Clock, market::quantity::Timestamp},
    };

    use super::*;
    use crate::contract::aws::{self, clients};

    #[tokio::test]
    async fn at_sqs() {
        suite(|| async {
            let clients = clients("queue").await;
            let (one, two) = (aws::queue(&clients), aws::queue(&clients));
            ((), Time::Real(Default::default()), one as Queue, two as Queue)
        })
        .await;
    }

    #[tokio::test]
    async fn every_text_and_a_delay_beyond_the_services_own_arrive_at_sqs() {
        let clients = clients("texts").await;
        let clock = ManualClock::new(Timestamp(1_000_000_000_000_000));
        let queue = SqsQueue::new(clients, Arc::new(clock.clone()), QueueAttributes::default());
        queue.create("q").await.unwrap();
        let mut bodies = ["", "\0", "\u{fffe}", r#"{"orchestrator_body":"x"}"#, "plain", "\u{1f600}\r\n"];
        queue.send("q", bodies.map(new).to_vec()).await.unwrap();
        let mut came = Vec::new();
        while came.len() < bodies.len() {
            let some = queue.receive("q", 10, VISIBILITY, Micros::from_secs(20)).await.unwrap();
            came.extend(some.into_iter().map(|message| message.body));
        }
        came.sort();
        bodies.sort_unstable();
        assert_eq!(came, bodies);

        // A day's delay, in a service that is told that all but its last seconds have passed.
        queue.create("late").await.unwrap();
        let day = NewMessage { body: "late".into(), delay: Micros::from_days(1) };
        queue.send("late", vec![day]).await.unwrap();
        assert_eq!(queue.depths("late").await.unwrap().delayed, 1);
    }

    #[tokio::test]
    async fn a_message_that_comes_before_its_time_is_sent_on() {
        let clients = clients("early").await;
        let clock = ManualClock::new(Timestamp(1_000_000_000_000_000));
        let queue = SqsQueue::new(clients.clone(), Arc::new(clock.clone()), QueueAttributes::default());
        queue.create("q").await.unwrap();
        // As it arrives after the first quarter of an hour, with its time still to come.
        let at = clock.now().plus(Micros::from_secs(2));
        aws::raw_send(&clients, "q", "late", &[("not_before", &at.as_micros().to_string())]).await;
        while queue.depths("q").await.unwrap().visible == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(queue.receive("q", 1, VISIBILITY, Micros::ZERO).await.unwrap(), []);
        assert_eq!(queue.depth("q").await.unwrap(), 1, "it was sent on, and is there once");
        let fresh = SqsQueue::new(clients, Arc::new(SystemClock::new()), QueueAttributes::default());
        let messages = fresh.receive("q", 1, VISIBILITY, Micros::from_secs(20)).await.unwrap();
        assert_eq!((messages[0].body.as_str(), messages[0].deliveries), ("late", 1));
    }

    #[tokio::test]
    async fn what_sqs_can_not_do_is_refused_with_a_reason() {
        let clients = clients("refused").await;
        let queue = aws::queue(&clients);
        queue.create("q").await.unwrap();
        let day = Micros::from_days(1);
        let refused = queue.receive("q", 1, day, Micros::ZERO).await.unwrap_err();
        assert!(refused.to_string().contains("12 hours"), "{refused}");
        let long = queue.create(&"n".repeat(80)).await.unwrap_err();
        assert!(matches!(long, QueueError::Invalid(_)), "{long}");
    }

    #[tokio::test]
    async fn depths_tell_the_states_apart() {
        let clients = clients("depths").await;
        let queue = aws::queue(&clients);
        queue.create("q").await.unwrap();
        let later = NewMessage { body: "later".into(), delay: Micros::from_secs(600) };
        queue.send("q", vec![new("a"), new("b"), later]).await.unwrap();
        assert_eq!(queue.receive("q", 1, VISIBILITY, Micros::from_secs(20)).await.unwrap().len(), 1);
        let depths = queue.depths("q").await.unwrap();
        assert_eq!((depths.visible, depths.in_flight, depths.delayed, depths.total()), (1, 1, 1, 3));
        assert!(!depths.near_limit());
    }
}

#[cfg(feature = "mongodb")]
#[tokio::test]
async fn over_mongodb() {
    suite(|| async { over(Bed::mongodb().await).await }).await;
}
