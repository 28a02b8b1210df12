//! The contract of `JobQueueClient`.

use std::sync::Arc;

use orchestrator::{
    client::job_queue::OverQueue,
    core::{
        client::queue::{NewMessage, QueueClient, QueueError},
        job::{JobKind, Phase},
        madara::job_queue::JobQueueClient,
        market::{
            ids::{Id, JobId},
            quantity::Micros,
        },
    },
};
use uuid::Uuid;

use super::support::Bed;

const VISIBILITY: Micros = Micros::from_secs(30);

fn job(n: u128) -> JobId {
    JobId::from_uuid(Uuid::from_u128(n))
}

/// What is poison is the queue's business: `poison` puts a text as it is into the queue of a kind and a phase.
async fn suite<G, F, P, PF>(
    make: impl Fn() -> F,
    poison: impl Fn(Arc<dyn QueueClient>, JobKind, String) -> PF,
) where
    F: Future<Output = (G, Arc<dyn QueueClient>, P)>,
    P: JobQueueClient,
    PF: Future<Output = ()>,
{
    tokio::join!(
        async {
            let (_guard, _, jobs) = make().await;
            hints_go_to_their_kind_and_phase(&jobs).await;
        },
        async {
            let (_guard, queue, jobs) = make().await;
            let poison = |text| poison(queue.clone(), JobKind::Purge, text);
            poison_keeps_its_bytes_among_the_dead_letters(&jobs, poison).await;
        },
        async {
            let (_guard, _, jobs) = make().await;
            redrive_sends_back_no_more_than_asked(&jobs).await;
        },
    );
}

async fn take(jobs: &impl JobQueueClient, kind: JobKind, phase: Phase) -> Vec<Option<JobId>> {
    let messages = jobs.receive(kind, phase, 100, VISIBILITY, Micros::ZERO).await.unwrap();
    for message in &messages {
        jobs.acknowledge(kind, phase, &message.message).await.unwrap();
    }
    let mut jobs: Vec<_> = messages.into_iter().map(|message| message.job).collect();
    jobs.sort();
    jobs
}

async fn hints_go_to_their_kind_and_phase(jobs: &impl JobQueueClient) {
    let early = jobs.send(JobKind::Provision, Phase::Process, &[job(1)], Micros::ZERO).await;
    assert!(matches!(early, Err(QueueError::NoQueue(_))));
    jobs.create_queues().await.unwrap();
    jobs.create_queues().await.unwrap();
    jobs.send(JobKind::Provision, Phase::Process, &[], Micros::ZERO).await.unwrap();
    jobs.send(JobKind::Provision, Phase::Process, &[job(1), job(2)], Micros::ZERO).await.unwrap();
    jobs.send(JobKind::Provision, Phase::Verify, &[job(3)], Micros::ZERO).await.unwrap();
    for kind in JobKind::ALL.into_iter().filter(|kind| *kind != JobKind::Provision) {
        assert_eq!(take(jobs, kind, Phase::Process).await, []);
    }
    assert_eq!(take(jobs, JobKind::Provision, Phase::Verify).await, [Some(job(3))]);
    assert_eq!(take(jobs, JobKind::Provision, Phase::Process).await, [Some(job(1)), Some(job(2))]);
    assert_eq!(take(jobs, JobKind::Provision, Phase::Process).await, []);
}

async fn poison_keeps_its_bytes_among_the_dead_letters<F: Future<Output = ()>>(
    jobs: &impl JobQueueClient,
    poison: impl Fn(String) -> F,
) {
    jobs.create_queues().await.unwrap();
    let longest = "\"\n".repeat(32 << 10);
    for text in ["", "nonsense", r#"{"job":"unit_00000000000000000000000000000001"}"#, &longest] {
        poison(text.to_owned()).await;
        let messages =
            jobs.receive(JobKind::Purge, Phase::Process, 9, VISIBILITY, Micros::ZERO).await.unwrap();
        assert_eq!((messages.len(), messages[0].job), (1, None));
        assert_eq!(messages[0].message.body, text);
        jobs.dead_letter(JobKind::Purge, &messages[0].message.body).await.unwrap();
        jobs.acknowledge(JobKind::Purge, Phase::Process, &messages[0].message).await.unwrap();
        assert_eq!(jobs.dead_letters().await.unwrap(), 1);
        assert_eq!(jobs.redrive(9).await.unwrap(), 1);
        let back = jobs.receive(JobKind::Purge, Phase::Process, 9, VISIBILITY, Micros::ZERO).await.unwrap();
        assert_eq!(back[0].message.body, text);
        jobs.acknowledge(JobKind::Purge, Phase::Process, &back[0].message).await.unwrap();
    }
}

async fn redrive_sends_back_no_more_than_asked(jobs: &impl JobQueueClient) {
    jobs.create_queues().await.unwrap();
    assert_eq!(jobs.redrive(10).await.unwrap(), 0);
    for kind in [JobKind::Provision, JobKind::Release] {
        jobs.send(kind, Phase::Process, &[job(1), job(2)], Micros::ZERO).await.unwrap();
        for message in jobs.receive(kind, Phase::Process, 9, VISIBILITY, Micros::ZERO).await.unwrap() {
            jobs.dead_letter(kind, &message.message.body).await.unwrap();
            jobs.acknowledge(kind, Phase::Process, &message.message).await.unwrap();
        }
    }
    assert_eq!(jobs.dead_letters().await.unwrap(), 4);
    assert_eq!(jobs.redrive(0).await.unwrap(), 0);
    assert_eq!(jobs.redrive(3).await.unwrap(), 3);
    assert_eq!(jobs.dead_letters().await.unwrap(), 1);
    assert_eq!(jobs.redrive(3).await.unwrap(), 1);
    for kind in [JobKind::Provision, JobKind::Release] {
        let back = take(jobs, kind, Phase::Process).await;
        assert_eq!(back, [Some(job(1)), Some(job(2))], "{kind}");
    }
}

async fn over(bed: Bed) -> (Bed, Arc<dyn QueueClient>, OverQueue) {
    let queue = bed.queue(1);
    let jobs = OverQueue::new(queue.clone(), "test");
    (bed, queue, jobs)
}

async fn poison(queue: Arc<dyn QueueClient>, kind: JobKind, body: String) {
    let name = OverQueue::new(queue.clone(), "test").queue_name(kind, Phase::Process);
    queue.send(&name, vec![NewMessage { body, delay: Micros::ZERO }]).await.unwrap();
}

#[tokio::test]
async fn over_the_memory_database() {
    suite(|| async { over(Bed::memory().await).await }, poison).await;
}

#[tokio::test]
async fn over_the_sqlite_database() {
    suite(|| async { over(Bed::sqlite().await).await }, poison).await;
}

#[cfg(feature = "sqs")]
mod at_sqs {
    use orchestrator::client::job_queue::{SqsJobQueue, SqsJobQueueSettings};

    use super::*;
    use crate::contract::aws::{clients, queue};

    async fn jobs(settings: SqsJobQueueSettings) -> ((), Arc<dyn QueueClient>, SqsJobQueue) {
        let queue = queue(&clients("jobs").await);
        let jobs = SqsJobQueue::new(queue.clone(), "test", settings);
        ((), queue, jobs)
    }

    #[tokio::test]
    async fn at_sqs() {
        suite(|| jobs(SqsJobQueueSettings::default()), poison).await;
    }

    #[tokio::test]
    async fn a_hint_that_nobody_lives_to_remove_is_moved_by_sqs_and_comes_back() {
        let settings = SqsJobQueueSettings { max_receives: 2, ..SqsJobQueueSettings::default() };
        let ((), _, jobs) = jobs(settings).await;
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
        assert_eq!(take(&jobs, JobKind::Purge, Phase::Process).await, [Some(job(7))]);
        assert_eq!(jobs.dead_letters().await.unwrap(), 0);
    }
}
