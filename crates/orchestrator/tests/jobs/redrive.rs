//! Dead letters and their way back.

use std::sync::Arc;

use orchestrator::{
    client::{
        clock::SeededEntropy,
        job_queue::OverQueue,
        queue::{DatabaseQueue, DatabaseQueueSettings},
    },
    controller::worker::{Relay, RelaySettings},
    core::{
        client::{
            damaged::Damaged,
            database::{Filter, ReaderExt},
        },
        job::{JobKind, JobState},
        madara::job_queue::JobQueueClient,
        market::{
            ids::{ConsumerId, JobId},
            party::Principal,
            quantity::Micros,
        },
    },
    error::ErrorCode,
    service::{
        job::{Engine, JobService, redrive::Redriven},
        work::{Call, RequestKey},
    },
};

use super::{
    harness::{Act, World, scripted},
    relay::{Outside, ports},
};

const KIND: JobKind = JobKind::SlaCheck;

/// A world in which every job of the kind fails until it was called three times, and its dead letters are delivered.
struct Letters {
    world: World,
    engine: Engine,
    relay: Relay,
    queue: Arc<OverQueue>,
    service: JobService,
}

async fn letters(seed: u64, failing_calls: u32) -> Letters {
    let world = World::new(seed);
    let clock = Arc::new(world.clock.clone());
    let entropy = Arc::new(SeededEntropy::new(seed + 1));
    let messages = DatabaseQueue::new(world.db.clone(), clock, entropy, DatabaseQueueSettings::default());
    let queue = Arc::new(OverQueue::new(Arc::new(messages), "jobs"));
    queue.create_queues().await.unwrap();
    let outside = Arc::new(Outside::default());
    let relay_ports =
        orchestrator::controller::worker::RelayPorts { job_queue: queue.clone(), ..ports(&world, &outside) };
    let act = move |_: &_, call| if call <= failing_calls { Act::Transient } else { Act::Done };
    let engine = world.engine(vec![scripted(KIND, act)]);
    let relay = Relay::new(relay_ports, RelaySettings::default());
    let service = JobService::new(world.work()).with_dead_letters(queue.clone());
    Letters { world, engine, relay, queue, service }
}

impl Letters {
    async fn fail(&self, key: &str) -> JobId {
        let id = self.world.enqueue(self.world.new_job(KIND, "s", key)).await;
        self.world.settle(&[&self.engine]).await;
        assert_eq!(self.world.state(id).await, JobState::Failed);
        self.relay.pass().await.unwrap();
        id
    }

    async fn waiting(&self) -> u64 {
        self.service.dead_letters(&Call::system("test")).await.unwrap().waiting
    }
}

#[tokio::test]
async fn a_redriven_job_has_its_attempts_back_and_its_letter_is_gone() {
    let letters = letters(70, 3).await;
    let ids = [letters.fail("1").await, letters.fail("2").await, letters.fail("3").await];
    assert_eq!(letters.waiting().await, 3);
    let call = Call::system("test");
    let report = letters.service.redrive(&call, 2).await.unwrap();
    assert_eq!((report.letters, &report.retried[..]), (2, &ids[..2]));
    assert_eq!(letters.waiting().await, 1);
    let job = letters.world.job(ids[0]).await;
    assert_eq!((job.state, job.attempts), (JobState::PendingRetry, 0));
    assert_eq!(letters.world.state(ids[2]).await, JobState::Failed);
    assert_eq!(letters.service.redrive(&call, 1_000).await.unwrap().retried, [ids[2]]);
    letters.world.settle(&[&letters.engine]).await;
    for id in ids {
        assert_eq!(letters.world.state(id).await, JobState::Completed);
    }
    letters.world.clock.advance(Micros::from_days(1));
    assert_eq!(letters.service.redrive(&call, 1_000).await.unwrap(), Redriven::default());
}

#[tokio::test]
async fn a_repeated_request_takes_no_further_letters() {
    let letters = letters(71, 3).await;
    letters.fail("1").await;
    letters.fail("2").await;
    let request = RequestKey { id: "r".into(), fingerprint: "f".into() };
    let call = Call { request: Some(request), ..Call::system("test") };
    let first = letters.service.redrive(&call, 1).await.unwrap();
    assert_eq!(letters.service.redrive(&call, 1).await.unwrap(), first);
    assert_eq!(letters.waiting().await, 1);
}

#[tokio::test]
async fn letters_that_a_crash_left_on_their_way_are_taken_first() {
    let letters = letters(72, 3).await;
    let id = letters.fail("1").await;
    assert_eq!(letters.queue.redrive(10).await.unwrap(), 1);
    assert_eq!(letters.waiting().await, 0, "the crash came right after the letters were moved");
    let report = letters.service.redrive(&Call::system("test"), 10).await.unwrap();
    assert_eq!(report.retried, [id]);
}

#[tokio::test]
async fn outdated_letters_and_poison_hold_up_nothing() {
    let letters = letters(73, 3).await;
    let call = Call::system("test");
    let retried = letters.fail("1").await;
    let open = letters.fail("2").await;
    letters.service.retry(&call, retried).await.unwrap();
    letters.world.settle(&[&letters.engine]).await;
    letters.queue.dead_letter(KIND, "\u{0}poison").await.unwrap();
    letters.queue.dead_letter(KIND, &open.to_string()).await.unwrap();
    let report = letters.service.redrive(&call, 10).await.unwrap();
    assert_eq!((report.letters, report.outdated, report.unreadable), (4, 2, 1));
    assert_eq!(report.retried, [open]);
    assert_eq!(letters.world.state(retried).await, JobState::Completed);
    let kept = letters.world.db.list_all::<Damaged>(Filter::All).await.unwrap();
    assert_eq!(kept[0].value.body, "\u{0}poison");
    let counts = letters.service.dead_letters(&call).await.unwrap();
    assert_eq!((counts.waiting, counts.damaged), (0, 1));
}

#[tokio::test]
async fn dead_letters_are_for_operators_and_in_bounds() {
    let letters = letters(74, 3).await;
    let system = Call::system("test");
    let consumer =
        Call { principal: Principal::Consumer(letters.world.ids.next::<ConsumerId>()), ..system.clone() };
    assert_eq!(letters.service.redrive(&consumer, 1).await.unwrap_err().code, ErrorCode::Forbidden);
    assert_eq!(letters.service.dead_letters(&consumer).await.unwrap_err().code, ErrorCode::Forbidden);
    for max in [0, 1_001] {
        assert_eq!(letters.service.redrive(&system, max).await.unwrap_err().field.as_deref(), Some("max"));
    }
    let without = JobService::new(letters.world.work());
    assert_eq!(without.redrive(&system, 1).await.unwrap_err().code, ErrorCode::NotSupported);
}
