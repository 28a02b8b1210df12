//! The contract of `SchedulerClient`: the schedules, and that each fires and is gone.

use std::sync::Arc;

use orchestrator::{
    client::cron::{LocalOneTime, LocalScheduler, LocalSchedulerSettings},
    core::{
        client::{
            clock::Clock,
            queue::QueueClient,
            scheduler::{OneTimeSchedule, SchedulerClient, SchedulerError},
        },
        market::quantity::Micros,
    },
};

use super::support::Bed;

async fn suite(bed: Bed, scheduler: impl SchedulerClient) {
    let queue = bed.queue(1);
    queue.create("q").await.unwrap();
    let clock = Arc::new(bed.clock.clone());
    let settings = LocalSchedulerSettings::default();
    let runner = LocalScheduler::new(
        bed.database.clone(),
        queue.clone(),
        clock.clone(),
        Arc::default(),
        "a",
        settings,
    );
    let one = |name: &str, seconds: u64| OneTimeSchedule {
        name: name.into(),
        at: clock.now().plus(Micros::from_secs(seconds)),
        queue: "q".into(),
        body: name.into(),
        enabled: true,
    };
    assert!(matches!(scheduler.create(one("", 1)).await, Err(SchedulerError::Invalid { .. })));
    assert!(matches!(scheduler.set_enabled("a", true).await, Err(SchedulerError::NoSchedule(_))));
    scheduler.delete("a").await.unwrap();
    let schedules = [one("a", 0), one("b", 10), one("c", 10), one("d", 10)];
    for schedule in schedules.iter().rev() {
        scheduler.create(schedule.clone()).await.unwrap();
    }
    assert_eq!(scheduler.list().await.unwrap(), schedules);
    scheduler.create(one("b", 20)).await.unwrap();
    scheduler.set_enabled("c", false).await.unwrap();
    scheduler.delete("d").await.unwrap();
    assert_eq!(runner.tick().await.unwrap().fired, 1, "one whose time has passed is due at once");
    bed.clock.advance(Micros::from_secs(15));
    assert_eq!(runner.tick().await.unwrap().fired, 0);
    bed.clock.advance(Micros::from_secs(5));
    assert_eq!(runner.tick().await.unwrap().fired, 1);
    scheduler.set_enabled("c", true).await.unwrap();
    assert_eq!(runner.tick().await.unwrap().fired, 1);
    assert_eq!(runner.tick().await.unwrap().fired, 0);
    assert_eq!(scheduler.list().await.unwrap(), []);
    let messages = queue.receive("q", 9, Micros::from_secs(1), Micros::ZERO).await.unwrap();
    assert_eq!(messages.iter().map(|m| m.body.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
}

fn client(bed: &Bed) -> LocalOneTime {
    LocalOneTime::new(bed.database.clone(), Arc::default())
}

#[tokio::test]
async fn over_the_memory_database() {
    let bed = Bed::memory().await;
    let scheduler = client(&bed);
    suite(bed, scheduler).await;
}

#[tokio::test]
async fn over_the_sqlite_database() {
    let bed = Bed::sqlite().await;
    let scheduler = client(&bed);
    suite(bed, scheduler).await;
}

#[cfg(feature = "mongodb")]
#[tokio::test]
async fn over_mongodb() {
    let bed = Bed::mongodb().await;
    let scheduler = client(&bed);
    suite(bed, scheduler).await;
}
