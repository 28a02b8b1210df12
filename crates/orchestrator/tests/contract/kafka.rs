//! The contract of `JobQueueClient` on a real Kafka broker, and what is Kafka's own: order, offsets, rebalances.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use orchestrator::{
    client::{
        clock::ManualClock,
        job_queue::{KafkaJobQueue, KafkaSettings},
    },
    core::{
        client::queue::QueueError,
        job::{JobKind, Phase},
        madara::job_queue::{JobMessage, JobQueueClient},
        market::{
            ids::JobId,
            quantity::{Micros, Timestamp},
        },
    },
    resource,
};
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};

use super::job_queue::{job, receive, suite};
use crate::servers::{OwnServer, eventually, unique, variable};

const KIND: JobKind = JobKind::Provision;
const PHASE: Phase = Phase::Process;
const VISIBILITY: Micros = Micros::from_secs(30);

fn settings() -> KafkaSettings {
    let brokers = variable("ORCHESTRATOR_TEST_KAFKA_BROKERS");
    let settings = KafkaSettings::new(brokers, unique("test"));
    KafkaSettings { partitions: 2, timeout: Duration::from_secs(20), ..settings }
}

fn clock() -> ManualClock {
    ManualClock::new(Timestamp(1_000_000_000_000_000))
}

fn queue(settings: &KafkaSettings, clock: &ManualClock) -> KafkaJobQueue {
    KafkaJobQueue::new(settings, Arc::new(clock.clone())).unwrap()
}

/// Queues whose topics are there.
async fn made(settings: &KafkaSettings, clock: &ManualClock) -> KafkaJobQueue {
    let jobs = queue(settings, clock);
    jobs.create_queues().await.unwrap();
    jobs
}

async fn more(jobs: &KafkaJobQueue) -> Vec<JobMessage> {
    jobs.receive(KIND, PHASE, 100, VISIBILITY, Micros::ZERO).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_kafka() {
    suite(async || {
        let settings = settings();
        let jobs = queue(&settings, &clock());
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &settings.brokers);
        let producer: FutureProducer = config.create().unwrap();
        let poison = async move |kind, body: String| {
            let topic = queue(&settings, &clock()).topic(kind, PHASE);
            let record = FutureRecord::<str, str>::to(&topic).payload(&body);
            producer.send(record, Duration::from_secs(20)).await.unwrap();
        };
        ((), jobs, poison)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_hint_is_held_back_until_it_is_due() {
    let clock = clock();
    let jobs = made(&settings(), &clock).await;
    // The same job: both are in one partition, the delayed one before the other.
    jobs.send(KIND, PHASE, &[job(1)], Micros::from_secs(60)).await.unwrap();
    jobs.send(KIND, PHASE, &[job(1)], Micros::ZERO).await.unwrap();
    let first = receive(&jobs, KIND, PHASE, 1).await;
    assert_eq!(first.len(), 1);
    assert!(more(&jobs).await.is_empty());
    jobs.acknowledge(KIND, PHASE, &first[0].message).await.unwrap();
    clock.advance(Micros::from_secs(60));
    let late = more(&jobs).await;
    assert_eq!(late.len(), 1);
    assert_ne!(late[0].message.id, first[0].message.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_acknowledged_in_time_comes_again() {
    let clock = clock();
    let jobs = made(&settings(), &clock).await;
    jobs.send(KIND, PHASE, &[job(1), job(2)], Micros::ZERO).await.unwrap();
    let first = receive(&jobs, KIND, PHASE, 2).await;
    let (kept, lost): (Vec<_>, Vec<_>) = first.into_iter().partition(|message| message.job == Some(job(1)));
    clock.advance(Micros::from_secs(29));
    assert!(more(&jobs).await.is_empty());
    jobs.extend(KIND, PHASE, &kept[0].message, VISIBILITY).await.unwrap();
    clock.advance(Micros::from_secs(2));
    let again = more(&jobs).await;
    assert_eq!(again.iter().map(|message| message.job).collect::<Vec<_>>(), [Some(job(2))]);
    assert_eq!(again[0].message.deliveries, 2);
    let stale = jobs.acknowledge(KIND, PHASE, &lost[0].message).await;
    assert!(matches!(stale, Err(QueueError::StaleReceipt)));
    jobs.acknowledge(KIND, PHASE, &kept[0].message).await.unwrap();
    jobs.acknowledge(KIND, PHASE, &again[0].message).await.unwrap();
}

/// Partition and offset of a hint.
fn place(message: &JobMessage) -> (i32, i64) {
    let (partition, offset) = message.message.id.split_once('-').unwrap();
    (partition.parse().unwrap(), offset.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hints_of_a_job_come_in_the_order_of_their_sending() {
    let jobs = made(&settings(), &clock()).await;
    let sent: Vec<JobId> = (0..60).map(|n| job(n % 7)).collect();
    jobs.send(KIND, PHASE, &sent, Micros::ZERO).await.unwrap();
    let found = receive(&jobs, KIND, PHASE, 60).await;
    for n in 0..7 {
        let places: Vec<_> = found.iter().filter(|it| it.job == Some(job(n))).map(place).collect();
        assert_eq!(places.len(), sent.iter().filter(|sent| **sent == job(n)).count());
        assert!(places.iter().all(|place| place.0 == places[0].0), "one job, one partition");
        assert!(places.is_sorted(), "{places:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_everything_from_the_first_gap_on_comes_again() {
    let (settings, clock) = (settings(), clock());
    let jobs = made(&settings, &clock).await;
    jobs.send(KIND, PHASE, &[job(1); 5], Micros::ZERO).await.unwrap();
    let found = receive(&jobs, KIND, PHASE, 5).await;
    // Out of order, with a gap at the third.
    for at in [3, 1, 0] {
        jobs.acknowledge(KIND, PHASE, &found[at].message).await.unwrap();
    }
    jobs.flush().await.unwrap();
    drop(jobs);
    let jobs = queue(&settings, &clock);
    let mut again: Vec<_> = receive(&jobs, KIND, PHASE, 3).await.iter().map(|it| place(it).1).collect();
    again.sort_unstable();
    assert_eq!(again, [2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_the_hints_and_take_over_from_each_other() {
    let (settings, clock) = (settings(), clock());
    let one = made(&settings, &clock).await;
    let all: Vec<JobId> = (0..40).map(job).collect();
    one.send(KIND, PHASE, &all, Micros::ZERO).await.unwrap();
    // The first has everything, acknowledges nothing, and then has to share.
    let held = receive(&one, KIND, PHASE, 40).await;
    let two = queue(&settings, &clock);
    let mut done = BTreeSet::new();
    let mut by_two = 0;
    eventually("the second gets a share", async || {
        for message in more(&two).await {
            two.acknowledge(KIND, PHASE, &message.message).await.unwrap();
            done.extend(message.job);
            by_two += 1;
        }
        by_two > 0
    })
    .await;
    let stale = held.iter().filter(|it| done.contains(&it.job.unwrap()));
    for message in stale {
        let answer = one.acknowledge(KIND, PHASE, &message.message).await;
        assert!(matches!(answer, Err(QueueError::StaleReceipt)), "{answer:?}");
    }
    drop(one);
    eventually("the second gets the rest", async || {
        for message in more(&two).await {
            two.acknowledge(KIND, PHASE, &message.message).await.unwrap();
            done.extend(message.job);
        }
        done.len() == all.len()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_holds_too_much_stops_fetching_and_goes_on_when_it_has_room() {
    let settings = KafkaSettings { max_held: 40, ..settings() };
    let jobs = made(&settings, &clock()).await;
    let all: BTreeSet<JobId> = (0..200).map(job).collect();
    jobs.send(KIND, PHASE, &all.iter().copied().collect::<Vec<_>>(), Micros::ZERO).await.unwrap();
    let mut done = BTreeSet::new();
    let mut most = 0;
    eventually("all of them", async || {
        let some = jobs.receive(KIND, PHASE, 1_000, VISIBILITY, Micros::ZERO).await.unwrap();
        most = most.max(some.len());
        for message in some {
            jobs.acknowledge(KIND, PHASE, &message.message).await.unwrap();
            done.extend(message.job);
        }
        done == all
    })
    .await;
    assert!(most < 200, "held {most} at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_each_call_says_so_and_works_again_once_it_is_back() {
    let mut server = OwnServer::start("ORCHESTRATOR_TEST_KAFKA_COMMAND");
    let settings = KafkaSettings::new(format!("127.0.0.1:{}", server.port), "test");
    let settings = KafkaSettings { timeout: Duration::from_secs(1), ..settings };
    let jobs = queue(&settings, &clock());
    eventually("an answer", async || jobs.create_queues().await.is_ok()).await;
    jobs.send(KIND, PHASE, &[job(1)], Micros::ZERO).await.unwrap();
    assert!(resource::kafka::examine(&jobs).await.is_ready());
    server.kill();
    for answer in [
        jobs.send(KIND, PHASE, &[job(1)], Micros::ZERO).await,
        jobs.create_queues().await,
        jobs.dead_letter(KIND, "x").await,
        jobs.dead_letters().await.map(drop),
        jobs.redrive(1).await.map(drop),
        jobs.cluster().await.map(drop),
    ] {
        assert!(matches!(answer, Err(QueueError::Unavailable(_))), "{answer:?}");
    }
    assert!(resource::kafka::examine(&jobs).await.findings[0].fix.contains("kafka.brokers"));
    // It keeps everything in memory, so it comes back without topics.
    server.start_again();
    eventually("topics", async || jobs.create_queues().await.is_ok()).await;
    let sends = async || jobs.send(KIND, PHASE, &[job(2)], Micros::ZERO).await.is_ok();
    eventually("hints are sent again", sends).await;
    assert_eq!(receive(&jobs, KIND, PHASE, 1).await[0].job, Some(job(2)));
}

/// A driver's call lasts as long as its time-out, whoever has given up meanwhile: those that come after wait without a thread.
#[test]
fn who_asks_again_and_again_while_no_broker_answers_uses_up_no_threads() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).max_blocking_threads(2).enable_all();
    runtime.build().unwrap().block_on(async {
        let server = OwnServer::start("ORCHESTRATOR_TEST_KAFKA_COMMAND");
        let settings = KafkaSettings::new(format!("127.0.0.1:{}", server.port), "test");
        let jobs = queue(&KafkaSettings { timeout: Duration::from_secs(5), ..settings.clone() }, &clock());
        eventually("an answer", async || jobs.create_queues().await.is_ok()).await;
        let jobs = queue(&KafkaSettings { timeout: Duration::from_secs(60), ..settings }, &clock());
        eventually("letters", async || jobs.dead_letters().await.is_ok()).await;
        server.freeze();
        for _ in 0..4 {
            tokio::time::timeout(Duration::from_millis(100), jobs.dead_letters()).await.unwrap_err();
        }
        let free = tokio::task::spawn_blocking(|| ());
        tokio::time::timeout(Duration::from_secs(20), free).await.expect("every thread waits").unwrap();
        server.thaw();
        eventually("an answer", async || jobs.dead_letters().await.is_ok()).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_tells_its_brokers_and_which_topics_are_not_as_they_should_be() {
    let settings = settings();
    let jobs = queue(&settings, &clock());
    let before = jobs.cluster().await.unwrap();
    assert!(before.brokers.iter().any(|broker| settings.brokers.contains(&broker.address)), "{before:?}");
    assert_eq!(before.missing.len(), 3 * JobKind::ALL.len());
    jobs.create_queues().await.unwrap();
    let after = jobs.cluster().await.unwrap();
    assert_eq!((after.missing, after.narrow, after.leaderless), (vec![], vec![], vec![]));
    let wider = queue(&KafkaSettings { partitions: 3, ..settings }, &clock());
    let narrow = wider.cluster().await.unwrap().narrow;
    assert!(narrow.contains(&(wider.topic(KIND, PHASE), 2)), "{narrow:?}");
    let finding = &resource::kafka::examine(&wider).await.findings[0];
    assert!(finding.fix.contains("--partitions"));
}
