//! Hints: they bring work to any replica, they may be lost, doubled or unreadable, and they stay hidden while it lasts.

use std::sync::{Arc, atomic::Ordering};

use orchestrator::{
    client::{
        clock::SeededEntropy,
        job_queue::OverQueue,
        queue::{DatabaseQueue, DatabaseQueueSettings},
    },
    controller::worker::{HintConsumer, HintSettings},
    core::{
        client::{
            database::{Changeset, Committer, Filter, Query, Reader},
            queue::{NewMessage, QueueClient},
            schema,
        },
        job::{JobKind, JobState, Phase},
        madara::job_queue::JobQueueClient,
        market::{ids::JobId, quantity::Micros},
    },
    service::job::{Engine, HintingCommitter, hints},
};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::harness::{Act, World, bump, make_counter, scripted, turn};

const KIND: JobKind = JobKind::Provision;

struct Line {
    world: World,
    raw: Arc<DatabaseQueue>,
    queue: Arc<OverQueue>,
    committer: HintingCommitter,
}

impl Line {
    async fn new() -> Self {
        let world = World::new(1);
        let settings = DatabaseQueueSettings::default();
        let entropy = Arc::new(SeededEntropy::new(2));
        let raw =
            Arc::new(DatabaseQueue::new(world.db.clone(), Arc::new(world.clock.clone()), entropy, settings));
        let queue = Arc::new(OverQueue::new(raw.clone(), "jobs"));
        queue.create_queues().await.unwrap();
        let (hints, sender) = hints(queue.clone(), Arc::new(world.clock.clone()));
        tokio::spawn(sender.run());
        let committer = HintingCommitter::new(world.db.clone(), hints);
        Self { world, raw, queue, committer }
    }

    fn consume(&self, engine: &Engine) -> (CancellationToken, JoinHandle<()>) {
        let stop = CancellationToken::new();
        let consumer = HintConsumer::new(
            engine.clone(),
            self.queue.clone(),
            self.world.db.clone(),
            HintSettings::default(),
        );
        (stop.clone(), tokio::spawn(consumer.run(stop)))
    }

    async fn enqueue(&self, key: &str, delay: Micros) -> JobId {
        let mut changes = Changeset::new();
        let mut job = self.world.new_job(KIND, key, key);
        job.run_at = job.run_at.plus(delay);
        let id = job.enqueue(&mut changes, &self.world.ids);
        self.committer.commit(changes).await.unwrap();
        id
    }

    async fn until(&self, job: JobId, state: JobState) {
        for _ in 0..10_000 {
            if self.world.state(job).await == state {
                return;
            }
            turn().await;
        }
        panic!("the job is {:?}", self.world.state(job).await);
    }

    async fn hints_left(&self) -> u64 {
        turn().await;
        self.raw.depth(&self.queue.queue_name(KIND, Phase::Process)).await.unwrap()
    }
}

#[tokio::test]
async fn a_commit_here_is_work_there_without_a_look_at_the_database() {
    let line = Line::new().await;
    make_counter(&line.world.db, "n").await;
    // It has no driver: only hints can start anything.
    let engine = line.world.engine(vec![scripted(KIND, |_, _| Act::Write(bump("n")))]);
    let (stop, running) = line.consume(&engine);
    let mut jobs = Vec::new();
    for n in 0..25 {
        jobs.push(line.enqueue(&format!("k{n}"), Micros::ZERO).await);
    }
    for job in jobs {
        line.until(job, JobState::Completed).await;
    }
    assert_eq!(line.world.counter("n").await, 25);
    assert_eq!(line.hints_left().await, 0);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn doubled_hints_run_a_job_once_and_all_are_removed() {
    let line = Line::new().await;
    make_counter(&line.world.db, "n").await;
    let job = line.enqueue("k", Micros::ZERO).await;
    for _ in 0..5 {
        line.queue.send(KIND, Phase::Process, &[job, job], Micros::ZERO).await.unwrap();
    }
    let act = |_: &_, _| Act::Write(bump("n"));
    let engines =
        [line.world.engine(vec![scripted(KIND, act)]), line.world.engine(vec![scripted(KIND, act)])];
    let consumers = engines.each_ref().map(|engine| line.consume(engine));
    line.until(job, JobState::Completed).await;
    for _ in 0..100 {
        if line.hints_left().await == 0 {
            break;
        }
    }
    assert_eq!(line.hints_left().await, 0);
    assert_eq!(line.world.counter("n").await, 1);
    for (stop, running) in consumers {
        stop.cancel();
        running.await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_hint_costs_a_look_and_not_the_job() {
    let line = Line::new().await;
    let job = line.enqueue("k", Micros::ZERO).await;
    turn().await;
    line.raw.purge(&line.queue.queue_name(KIND, Phase::Process)).await.unwrap();
    let engine = line.world.engine(vec![scripted(KIND, |_, _| Act::Done)]);
    line.world.settle_some(&engine).await;
    assert_eq!(line.world.state(job).await, JobState::Completed);
}

#[tokio::test]
async fn a_hint_stays_hidden_for_as_long_as_its_job_runs() {
    let line = Line::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let handler = scripted(KIND, move |_, _| Act::Gate(held.clone()))
        .policy(|policy| policy.timeout = Micros::from_secs(3_600));
    let log = handler.log.clone();
    let engine = line.world.engine(vec![handler]);
    let (stop, running) = line.consume(&engine);
    let job = line.enqueue("k", Micros::ZERO).await;
    line.until(job, JobState::Running).await;
    // Far beyond one visibility, in steps that the renewals can follow.
    for _ in 0..20 {
        line.world.clock.advance(Micros::from_secs(15));
        engine.renew().await.unwrap();
        turn().await;
        let other = line.queue.receive(KIND, Phase::Process, 10, Micros::from_secs(1), Micros::ZERO).await;
        assert!(other.unwrap().is_empty(), "the hint came again while its job ran");
        // Nor to this consumer itself, which would have found nothing to claim, and removed it.
        assert_eq!(line.hints_left().await, 1, "the hint is gone before its job has ended");
    }
    gate.add_permits(1);
    line.until(job, JobState::Completed).await;
    assert_eq!(line.hints_left().await, 0);
    assert_eq!(log.most_active.load(Ordering::SeqCst), 1);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn what_names_no_job_is_set_aside_with_its_bytes() {
    let line = Line::new().await;
    let queue = line.queue.queue_name(KIND, Phase::Process);
    let poison = NewMessage { body: "{\"job\": 7}".into(), delay: Micros::ZERO };
    line.raw.send(&queue, vec![poison]).await.unwrap();
    let engine = line.world.engine(vec![scripted(KIND, |_, _| Act::Done)]);
    let (stop, running) = line.consume(&engine);
    let job = line.enqueue("k", Micros::ZERO).await;
    line.until(job, JobState::Completed).await;
    assert_eq!(line.hints_left().await, 0);
    let kept = line.world.db.find(Query::new(schema::DAMAGED).filter(Filter::All)).await.unwrap();
    assert_eq!(kept.documents.len(), 1);
    assert!(kept.documents[0].body.contains("{\\\"job\\\": 7}"), "{}", kept.documents[0].body);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_later_job_is_hinted_at_its_time_and_not_before() {
    let line = Line::new().await;
    let engine = line.world.engine(vec![scripted(KIND, |_, _| Act::Done)]);
    let (stop, running) = line.consume(&engine);
    let job = line.enqueue("k", Micros::from_millis(1_500)).await;
    turn().await;
    assert_eq!(line.world.state(job).await, JobState::Created);
    // Whole seconds, upwards.
    line.world.clock.advance(Micros::from_millis(1_999));
    turn().await;
    assert_eq!(line.world.state(job).await, JobState::Created);
    line.world.clock.advance(Micros::from_millis(1));
    line.until(job, JobState::Completed).await;
    stop.cancel();
    running.await.unwrap();
}
