//! What operators may do with jobs, and what others may not.

use orchestrator::{
    core::{
        job::{Job, JobKind, JobState},
        market::{
            ids::{ConsumerId, Id, JobId},
            party::Principal,
            quantity::Micros,
        },
    },
    error::{ErrorCode, Result},
    service::{
        job::{JobService, PurgeTrigger, Trigger, admin::JobFilter, purge::PurgeSettings},
        page::{Listing, PageRequest},
        work::Call,
    },
};

use super::harness::{Act, World, scripted, turn};

const KIND: JobKind = JobKind::SlaCheck;

pub async fn retry(world: &World, id: JobId) -> Result<Job> {
    JobService::new(world.work()).retry(&Call::system("test"), id).await
}

#[tokio::test]
async fn a_failed_job_is_retried_with_all_its_attempts() {
    let world = World::new(40);
    let handler = scripted(KIND, |_, call| if call <= 5 { Act::Transient } else { Act::Done });
    let engine = world.engine(vec![handler]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    assert_eq!(retry(&world, id).await.unwrap_err().code, ErrorCode::InvalidState);
    world.settle(&[&engine]).await;
    assert_eq!(world.state(id).await, JobState::Failed);
    assert_eq!(retry(&world, id).await.unwrap().state, JobState::PendingRetry);
    world.settle(&[&engine]).await;
    let job = world.job(id).await;
    assert_eq!((job.state, job.attempts), (JobState::Completed, 3));
    assert_eq!(retry(&world, id).await.unwrap_err().code, ErrorCode::InvalidState);
}

#[tokio::test]
async fn a_job_is_called_off_unless_it_runs() {
    let world = World::new(41);
    let service = JobService::new(world.work());
    let call = Call::system("test");
    let engine = world.engine(vec![scripted(KIND, |_, _| Act::Hang)]);
    let waiting = world.enqueue(world.new_job(JobKind::Purge, "s", "1")).await;
    let running = world.enqueue(world.new_job(KIND, "s", "2")).await;
    engine.tick().await.unwrap();
    turn().await;
    assert_eq!(service.cancel(&call, running).await.unwrap_err().code, ErrorCode::InvalidState);
    let cancelled = service.cancel(&call, waiting).await.unwrap();
    assert_eq!((cancelled.state, cancelled.due), (JobState::Cancelled, None));
}

#[tokio::test]
async fn a_verification_may_be_hurried() {
    let world = World::new(42);
    let service = JobService::new(world.work());
    let call = Call::system("test");
    let handler = scripted(KIND, |_, _| Act::Verify)
        .verify(|_, call| if call == 1 { Act::Poll(Micros::from_days(1)) } else { Act::Done })
        .policy(|policy| policy.max_polling = Micros::from_days(3));
    let engine = world.engine(vec![handler]);
    let id = world.enqueue(world.new_job(KIND, "s", "1")).await;
    assert_eq!(service.verify_now(&call, id).await.unwrap_err().code, ErrorCode::InvalidState);
    for _ in 0..3 {
        engine.tick().await.unwrap();
        engine.idle().await;
    }
    assert_eq!(world.state(id).await, JobState::PendingVerification);
    service.verify_now(&call, id).await.unwrap();
    engine.tick().await.unwrap();
    engine.idle().await;
    assert_eq!(world.state(id).await, JobState::Completed);
}

#[tokio::test]
async fn jobs_are_listed_by_filter_and_page_and_counted_for_operators_only() {
    let world = World::new(43);
    let service = JobService::new(world.work());
    let call = Call::system("test");
    let engine = world.engine(vec![scripted(KIND, |_, _| Act::Done)]);
    for key in 0..5 {
        world.enqueue(world.new_job(KIND, "a", &key.to_string())).await;
        world.enqueue(world.new_job(JobKind::Purge, "b", &key.to_string())).await;
        world.clock.advance(Micros::from_secs(1));
    }
    world.settle_some(&engine).await;
    let filter = JobFilter { state: Some(JobState::Created), ..JobFilter::default() };
    let page = |limit, after| PageRequest { limit, after };
    let Listing { items: first, next } = service.list(&call, filter.clone(), page(3, None)).await.unwrap();
    let Listing { items: second, next: end } = service.list(&call, filter, page(3, next)).await.unwrap();
    assert_eq!((first.len(), second.len(), end), (3, 2, None));
    assert!(first.iter().chain(&second).all(|job| job.kind == JobKind::Purge && job.subject == "b"));
    assert!(first[0].created_at > second[1].created_at, "newest first");
    let of_a = JobFilter { subject: Some("a".into()), kind: Some(KIND), ..JobFilter::default() };
    assert_eq!(service.list(&call, of_a, page(10, None)).await.unwrap().items.len(), 5);
    let counts = service.counts(&call).await.unwrap();
    assert_eq!((counts.by_state["created"], counts.by_state["completed"]), (5, 5));
    assert_eq!(counts.by_kind["purge"]["created"], 5);

    let consumer = Call { principal: Principal::Consumer(world.ids.next::<ConsumerId>()), ..call.clone() };
    let id = first[0].id;
    for refused in [
        service.show(&consumer, id).await.err(),
        service.cancel(&consumer, id).await.err(),
        service.retry(&consumer, id).await.err(),
        service.verify_now(&consumer, id).await.err(),
        service.list(&consumer, JobFilter::default(), page(1, None)).await.err(),
        service.counts(&consumer).await.err(),
    ] {
        assert_eq!(refused.unwrap().code, ErrorCode::Forbidden);
    }
    let missing = JobId::from_uuid(id.uuid()).to_string().replace('0', "1").parse().unwrap();
    assert_eq!(service.show(&call, missing).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(
        service.list(&call, JobFilter::default(), page(0, None)).await.unwrap_err().field.as_deref(),
        Some("limit")
    );
}

#[tokio::test]
async fn old_records_are_purged_and_young_and_open_ones_stay() {
    let world = World::new(44);
    let engine = world.engine(vec![scripted(KIND, |_, _| Act::Done)]);
    for key in 0..7 {
        world.enqueue(world.new_job(KIND, "a", &key.to_string())).await;
    }
    world.settle_some(&engine).await;
    let open = world.enqueue(world.new_job(JobKind::Purge, "b", "open")).await;
    world.clock.advance(Micros::from_days(8));
    let young = world.enqueue(world.new_job(KIND, "a", "young")).await;
    world.settle_some(&engine).await;
    let settings = PurgeSettings { batch: 2, batches: 3, ..PurgeSettings::default() };
    let purge = PurgeTrigger::new(world.work(), settings);
    assert_eq!(purge.fire().await.unwrap().changed, 6, "bounded");
    assert_eq!(purge.fire().await.unwrap().changed, 1);
    assert_eq!(purge.fire().await.unwrap().changed, 0);
    assert_eq!(world.state(open).await, JobState::Created);
    assert_eq!(world.state(young).await, JobState::Completed);
}
