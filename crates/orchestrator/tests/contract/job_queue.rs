//! The contract of `JobQueueClient`.

use std::sync::Arc;

use orchestrator::{
    client::job_queue::OverQueue,
    core::{
        client::queue::{NewMessage, QueueClient, QueueError},
        job::{JobKind, Phase},
        madara::job_queue::{JobMessage, JobQueueClient},
        market::{
            ids::{Id, JobId},
            quantity::Micros,
        },
    },
};
use uuid::Uuid;

use super::support::Bed;

const VISIBILITY: Micros = Micros::from_secs(30);

pub fn job(n: u128) -> JobId {
    JobId::from_uuid(Uuid::from_u128(n))
}

/// `make` gives job queues without topics yet, what must live as long as they, and a way to put a text as it is into the queue of a
/// kind's first phase.
pub async fn suite<G, P, Q>(make: impl AsyncFn() -> (G, P, Q))
where
    P: JobQueueClient,
    Q: AsyncFn(JobKind, String),
{
    tokio::join!(
        async {
            let (_guard, jobs, _) = make().await;
            hints_go_to_their_kind_and_phase(&jobs).await;
            a_hint_that_is_given_back_comes_again(&jobs).await;
        },
        async {
            let (_guard, jobs, poison) = make().await;
            poison_keeps_its_bytes_among_the_dead_letters(&jobs, poison).await;
        },
        async {
            let (_guard, jobs, _) = make().await;
            redrive_sends_back_no_more_than_asked(&jobs).await;
        },
    );
}

/// Receives until so many have come: a service far away may need a while, and may give them in parts.
pub async fn receive(
    jobs: &impl JobQueueClient,
    kind: JobKind,
    phase: Phase,
    expected: usize,
) -> Vec<JobMessage> {
    let mut all = Vec::new();
    for _ in 0..1_500 {
        all.extend(jobs.receive(kind, phase, 100, VISIBILITY, Micros::ZERO).await.unwrap());
        if all.len() >= expected {
            return all;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{} of {expected} hints came", all.len());
}

/// Takes so many, in the order of their jobs.
async fn take(
    jobs: &impl JobQueueClient,
    kind: JobKind,
    phase: Phase,
    expected: usize,
) -> Vec<Option<JobId>> {
    let messages = receive(jobs, kind, phase, expected).await;
    for message in &messages {
        jobs.acknowledge(kind, phase, &message.message).await.unwrap();
    }
    let mut found: Vec<_> = messages.into_iter().map(|message| message.job).collect();
    found.sort();
    found
}

async fn hints_go_to_their_kind_and_phase(jobs: &impl JobQueueClient) {
    let early = jobs.send(JobKind::Provision, Phase::Process, &[job(1)], Micros::ZERO).await;
    assert!(matches!(early, Err(QueueError::NoQueue(_))));
    jobs.create_queues().await.unwrap();
    jobs.create_queues().await.unwrap();
    jobs.send(JobKind::Provision, Phase::Process, &[], Micros::ZERO).await.unwrap();
    jobs.send(JobKind::Provision, Phase::Process, &[job(1), job(2)], Micros::ZERO).await.unwrap();
    jobs.send(JobKind::Provision, Phase::Verify, &[job(3)], Micros::ZERO).await.unwrap();
    assert_eq!(take(jobs, JobKind::Provision, Phase::Verify, 1).await, [Some(job(3))]);
    assert_eq!(take(jobs, JobKind::Provision, Phase::Process, 2).await, [Some(job(1)), Some(job(2))]);
    for kind in JobKind::ALL {
        for phase in [Phase::Process, Phase::Verify] {
            assert_eq!(take(jobs, kind, phase, 0).await, []);
        }
    }
}

async fn a_hint_that_is_given_back_comes_again(jobs: &impl JobQueueClient) {
    let (kind, phase) = (JobKind::Release, Phase::Verify);
    jobs.send(kind, phase, &[job(7)], Micros::ZERO).await.unwrap();
    let first = receive(jobs, kind, phase, 1).await;
    assert_eq!(first[0].message.deliveries, 1);
    jobs.extend(kind, phase, &first[0].message, VISIBILITY).await.unwrap();
    assert_eq!(take(jobs, kind, phase, 0).await, [], "hidden");
    jobs.extend(kind, phase, &first[0].message, Micros::ZERO).await.unwrap();
    let again = receive(jobs, kind, phase, 1).await;
    assert_eq!((again[0].job, again[0].message.deliveries), (Some(job(7)), 2));
    jobs.acknowledge(kind, phase, &again[0].message).await.unwrap();
    jobs.acknowledge(kind, phase, &again[0].message).await.unwrap();
    assert_eq!(take(jobs, kind, phase, 0).await, []);
}

async fn poison_keeps_its_bytes_among_the_dead_letters(
    jobs: &impl JobQueueClient,
    poison: impl AsyncFn(JobKind, String),
) {
    jobs.create_queues().await.unwrap();
    let (kind, phase) = (JobKind::Purge, Phase::Process);
    let longest = "\"\n".repeat(32 << 10);
    for text in ["", "nonsense", r#"{"job":"unit_00000000000000000000000000000001"}"#, &longest] {
        poison(kind, text.to_owned()).await;
        let messages = receive(jobs, kind, phase, 1).await;
        assert_eq!((messages.len(), messages[0].job), (1, None));
        assert_eq!(messages[0].message.body, text);
        jobs.dead_letter(kind, &messages[0].message.body).await.unwrap();
        jobs.acknowledge(kind, phase, &messages[0].message).await.unwrap();
        assert_eq!(jobs.dead_letters().await.unwrap(), 1);
        assert_eq!(jobs.redrive(9).await.unwrap(), 1);
        let back = receive(jobs, kind, phase, 1).await;
        assert_eq!(back[0].message.body, text);
        jobs.acknowledge(kind, phase, &back[0].message).await.unwrap();
    }
}

async fn redrive_sends_back_no_more_than_asked(jobs: &impl JobQueueClient) {
    jobs.create_queues().await.unwrap();
    assert_eq!(jobs.redrive(10).await.unwrap(), 0);
    for kind in [JobKind::Provision, JobKind::Release] {
        jobs.send(kind, Phase::Process, &[job(1), job(2)], Micros::ZERO).await.unwrap();
        for message in receive(jobs, kind, Phase::Process, 2).await {
            jobs.dead_letter(kind, &message.message.body).await.unwrap();
            jobs.acknowledge(kind, Phase::Process, &message.message).await.unwrap();
        }
    }
    assert_eq!(jobs.dead_letters().await.unwrap(), 4);
    assert_eq!(jobs.redrive(0).await.unwrap(), 0);
    assert_eq!(jobs.redrive(3).await.unwrap(), 3);
    assert_eq!(jobs.dead_letters().await.unwrap(), 1);
    assert_eq!(jobs.redrive(3).await.unwrap(), 1);
    assert_eq!(jobs.dead_letters().await.unwrap(), 0);
    for kind in [JobKind::Provision, JobKind::Release] {
        let back = take(jobs, kind, Phase::Process, 2).await;
        assert_eq!(back, [Some(job(1)), Some(job(2))], "{kind}");
    }
}

/// Puts a text into the queue of a kind's first phase.
fn poisoner(queue: Arc<dyn QueueClient>) -> impl AsyncFn(JobKind, String) {
    async move |kind, body| {
        let name = OverQueue::new(queue.clone(), "test").queue_name(kind, Phase::Process);
        queue.send(&name, vec![NewMessage { body, delay: Micros::ZERO }]).await.unwrap();
    }
}

async fn over(bed: Bed) -> (Bed, OverQueue, impl AsyncFn(JobKind, String)) {
    let queue = bed.queue(1);
    (bed, OverQueue::new(queue.clone(), "test"), poisoner(queue))
}

#[tokio::test]
async fn over_the_memory_database() {
    suite(async || over(Bed::memory().await).await).await;
}

#[tokio::test]
async fn over_the_sqlite_database() {
    suite(async || over(Bed::sqlite().await).await).await;
}

#[cfg(feature = "mongodb")]
#[tokio::test]
async fn over_mongodb() {
    suite(async || over(Bed::mongodb().await).await).await;
}

#[cfg(feature = "sqs")]
mod at_sqs {
    use orchestrator::client::job_queue::{SqsJobQueue, SqsJobQueueSettings};

    use super::*;
    use crate::contract::aws::{clients, queue};

    async fn jobs(settings: SqsJobQueueSettings) -> ((), SqsJobQueue, impl AsyncFn(JobKind, String)) {
        let queue = queue(&clients("jobs").await);
        ((), SqsJobQueue::new(queue.clone(), "test", settings), poisoner(queue))
    }

    #[tokio::test]
    async fn at_sqs() {
        suite(async || jobs(SqsJobQueueSettings::default()).await).await;
    }

    #[tokio::test]
    async fn a_hint_that_nobody_lives_to_remove_is_moved_by_sqs_and_comes_back() {
        let settings = SqsJobQueueSettings { max_receives: 2, ..SqsJobQueueSettings::default() };
        let ((), jobs, _) = jobs(settings).await;
        jobs.create_queues().await.unwrap();
        jobs.send(JobKind::Purge, Phase::Verify, &[job(7)], Micros::ZERO).await.unwrap();
        let mut deliveries = 0;
        while jobs.dead_letters().await.unwrap() == 0 {
            let wait = Micros::from_secs(2);
            let came =
                jobs.receive(JobKind::Purge, Phase::Verify, 1, Micros::from_secs(1), wait).await.unwrap();
            deliveries += came.len();
            assert!(deliveries <= 2, "SQS stops handing it out");
        }
        assert_eq!(deliveries, 2);
        assert_eq!(jobs.redrive(9).await.unwrap(), 1);
        assert_eq!(take(&jobs, JobKind::Purge, Phase::Process, 1).await, [Some(job(7))]);
        assert_eq!(jobs.dead_letters().await.unwrap(), 0);
    }
}
