//! The contract of `CronClient`, and the runner: one leader, each firing once, take-over.

use std::sync::Arc;

use orchestrator::{
    client::cron::{LocalCron, LocalScheduler, LocalSchedulerSettings},
    core::{
        client::queue::QueueClient,
        madara::cron::{CronClient, CronError, CronTarget},
        market::quantity::Micros,
    },
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::support::Bed;

fn target(queue: &str, body: &str) -> CronTarget {
    CronTarget { queue: queue.into(), body: body.into() }
}

/// The queue `q` must exist.
async fn suite(cron: impl CronClient) {
    assert_eq!(cron.list().await.unwrap(), []);
    assert!(matches!(cron.create("a", Micros::ZERO).await, Err(CronError::Invalid { .. })));
    assert!(matches!(cron.add_target("a", target("q", "m")).await, Err(CronError::NoSchedule(_))));
    assert!(matches!(cron.set_enabled("a", true).await, Err(CronError::NoSchedule(_))));
    cron.delete("a").await.unwrap();
    cron.create("b", Micros::from_secs(60)).await.unwrap();
    cron.create("a", Micros::from_secs(60)).await.unwrap();
    for body in ["m", "m", "n"] {
        cron.add_target("a", target("q", body)).await.unwrap();
    }
    cron.create("a", Micros::from_secs(120)).await.unwrap();
    cron.set_enabled("a", false).await.unwrap();
    cron.set_enabled("a", false).await.unwrap();
    let all = cron.list().await.unwrap();
    assert_eq!(all.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((all[0].every, all[0].enabled, all[1].enabled), (Micros::from_secs(120), false, true));
    assert_eq!(all[0].targets, [target("q", "m"), target("q", "n")]);
    cron.delete("a").await.unwrap();
    assert_eq!(cron.list().await.unwrap().len(), 1);
}

fn cron(bed: &Bed) -> LocalCron {
    LocalCron::new(bed.database.clone(), Arc::new(bed.clock.clone()), Arc::default())
}

/// A runner with a queue client of its own, as another process has.
fn runner(bed: &Bed, owner: &str, seed: u64) -> LocalScheduler {
    let wake = Arc::new(Notify::new());
    let clock = Arc::new(bed.clock.clone());
    let settings = LocalSchedulerSettings::default();
    LocalScheduler::new(bed.database.clone(), bed.queue(seed), clock, wake, owner, settings)
}

async fn every_second(bed: &Bed) -> Arc<dyn QueueClient> {
    let queue = bed.queue(99);
    queue.create("q").await.unwrap();
    cron(bed).create("tick", Micros::from_secs(1)).await.unwrap();
    cron(bed).add_target("tick", target("q", "m")).await.unwrap();
    queue
}

async fn runners(bed: Bed) {
    let queue = every_second(&bed).await;
    let (a, b) = (runner(&bed, "a", 1), runner(&bed, "b", 2));
    // Each firing once, by the same leader all the while.
    for second in 1..=30 {
        bed.clock.advance(Micros::from_secs(1));
        let (one, two) = (a.tick().await.unwrap(), b.tick().await.unwrap());
        assert_eq!((one.leader, one.fired, two.leader, two.fired), (true, 1, false, 0));
        assert_eq!(queue.depth("q").await.unwrap(), second);
    }
    // The leader dies: until its lease ends nobody fires; then the other does, once for all that was missed.
    queue.purge("q").await.unwrap();
    bed.clock.advance(Micros::from_secs(4));
    assert!(!b.tick().await.unwrap().leader);
    bed.clock.advance(LocalSchedulerSettings::default().lease);
    let taken = b.tick().await.unwrap();
    assert_eq!((taken.leader, taken.fired), (true, 1));
    assert_eq!(queue.depth("q").await.unwrap(), 1);
    // It was only paused: it finds itself deposed and fires nothing.
    bed.clock.advance(Micros::from_secs(1));
    let paused = a.tick().await.unwrap();
    assert_eq!((paused.leader, paused.fired), (false, 0));
    assert_eq!(b.tick().await.unwrap().fired, 1);
    // Disabled and removed schedules don't fire.
    cron(&bed).set_enabled("tick", false).await.unwrap();
    bed.clock.advance(Micros::from_secs(5));
    assert_eq!(b.tick().await.unwrap().fired, 0);
    cron(&bed).set_enabled("tick", true).await.unwrap();
    cron(&bed).create("sub", Micros::from_millis(10)).await.unwrap();
    cron(&bed).create("lost", Micros::from_millis(10)).await.unwrap();
    cron(&bed).add_target("lost", target("nowhere", "m")).await.unwrap();
    bed.clock.advance(Micros::from_millis(10));
    assert_eq!(b.tick().await.unwrap().fired, 2, "a target without a queue does not hold up the others");
}

#[tokio::test]
async fn over_the_memory_database() {
    suite(cron(&Bed::memory().await)).await;
}

#[tokio::test]
async fn over_the_sqlite_database() {
    suite(cron(&Bed::sqlite().await)).await;
}

#[cfg(feature = "mongodb")]
#[tokio::test]
async fn over_mongodb() {
    suite(cron(&Bed::mongodb().await)).await;
}

#[tokio::test]
async fn runners_over_the_memory_database() {
    runners(Bed::memory().await).await;
}

#[tokio::test]
async fn runners_over_the_sqlite_database() {
    runners(Bed::sqlite().await).await;
}

#[cfg(feature = "mongodb")]
#[tokio::test]
async fn runners_over_mongodb() {
    runners(Bed::mongodb().await).await;
}

#[tokio::test]
async fn a_runner_that_shuts_down_gives_its_lease_back() {
    let bed = Bed::memory().await;
    let queue = every_second(&bed).await;
    let a = Arc::new(runner(&bed, "a", 1));
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (a, shutdown) = (a.clone(), shutdown.clone());
        async move { a.run(shutdown).await }
    });
    while queue.depth("q").await.unwrap() < 3 {
        bed.clock.advance(Micros::from_millis(100));
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    running.await.unwrap();
    assert!(runner(&bed, "b", 2).tick().await.unwrap().leader);
}

#[cfg(feature = "eventbridge")]
mod at_event_bridge {
    use orchestrator::client::{cron::EventBridgeCron, queue::SqsQueue};

    use super::*;
    use crate::contract::aws;

    async fn service(test: &str) -> (EventBridgeCron, Arc<SqsQueue>) {
        let clients = aws::clients(test).await;
        let queue = aws::queue(&clients);
        queue.create("q").await.unwrap();
        (EventBridgeCron::new(clients, queue.clone()), queue)
    }

    #[tokio::test]
    async fn at_event_bridge() {
        suite(service("cron").await.0).await;
    }

    /// Takes as long as EventBridge takes for a minute.
    #[tokio::test]
    async fn a_schedule_of_a_minute_sends_its_text_to_its_queue() {
        let (cron, queue) = service("minute").await;
        // Disabled before it has a target: a busy server may take longer than its first minute.
        cron.create("never", Micros::from_secs(60)).await.unwrap();
        cron.set_enabled("never", false).await.unwrap();
        cron.add_target("never", target("q", "never")).await.unwrap();
        cron.create("seal_blocks", Micros::from_secs(60)).await.unwrap();
        cron.add_target("seal_blocks", target("q", "seal_blocks")).await.unwrap();
        let came = queue.receive("q", 10, Micros::from_secs(30), Micros::from_secs(180)).await.unwrap();
        assert_eq!(came.iter().map(|m| m.body.as_str()).collect::<Vec<_>>(), ["seal_blocks"]);
        for name in ["seal_blocks", "never"] {
            cron.delete(name).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_event_bridge_can_not_keep_is_refused_with_a_reason() {
        let (cron, _) = service("rates").await;
        for (every, word) in [(59, "once a minute"), (90, "whole minutes")] {
            let refused = cron.create("a", Micros::from_secs(every)).await.unwrap_err();
            assert!(
                matches!(&refused, CronError::Invalid { reason, .. } if reason.contains(word)),
                "{refused}"
            );
        }
        assert_eq!(cron.list().await.unwrap(), []);
        cron.create("a", Micros::from_secs(60)).await.unwrap();
        let lost = cron.add_target("a", target("nowhere", "m")).await.unwrap_err();
        assert!(lost.to_string().contains("orchestrator setup"), "{lost}");
        let name = cron.create(&"n".repeat(64), Micros::from_secs(60)).await;
        assert!(matches!(name, Err(CronError::Invalid { .. })));
    }

    #[tokio::test]
    async fn schedules_of_a_prefix_that_begins_alike_are_left_alone() {
        let (cron, _) = service("alike").await;
        let clients = aws::clients("other").await;
        cron.create("a", Micros::from_secs(60)).await.unwrap();
        let longer = aws::clients_with(&format!("{}-b", clients.prefix()), "test").await;
        let queue = aws::queue(&longer);
        EventBridgeCron::new(longer, queue.clone()).create("x", Micros::from_secs(60)).await.unwrap();
        let shorter = EventBridgeCron::new(clients.clone(), aws::queue(&clients));
        assert_eq!(shorter.list().await.unwrap(), []);
    }
}
