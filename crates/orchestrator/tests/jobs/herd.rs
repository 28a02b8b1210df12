//! After an outage of a dependency, the jobs that waited come back without a herd: through the real engine, over breakers,
//! alone and as a fleet of replicas, on a clock that only the test moves.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use orchestrator::{
    client::{
        breaker::{Breakers, GuardedProviders},
        provider::{FakeProvider, FakeProviders},
    },
    core::{
        breaker::BreakerSettings,
        client::{
            database::{Changeset, Committer, Expect, Filter, ReaderExt, Stored},
            provider::{ProviderDirectory, ProviderError},
            schema,
        },
        job::{Job, JobKind, JobState},
        market::{
            ids::{AllocationId, Id, ProviderId},
            party::{AdapterConfig, Provider},
            quantity::{Bytes, Micros, Timestamp},
            terms::DomainId,
        },
    },
    error::Error,
    service::job::{Engine, JobContext, JobError, JobHandler, Policy, Processed},
};

use super::harness::World;

/// New jobs a second.
const STEADY: u64 = 12;
/// Steps of time a second.
const STEPS: u64 = 4;

/// A job that asks the provider once.
struct Asks(Arc<dyn ProviderDirectory>);

fn provider() -> Provider {
    Provider {
        id: ProviderId::from_uuid(uuid::Uuid::from_u128(1)),
        name: "p".into(),
        domain: DomainId::local(),
        owner: None,
        adapter: AdapterConfig::Embedded { admin_url: None, sealed_token: None },
        created_at: Timestamp::EPOCH,
    }
}

#[async_trait]
impl JobHandler for Asks {
    fn kind(&self) -> JobKind {
        JobKind::SyncAccess
    }

    fn policy(&self) -> Policy {
        // So few at once that no replica takes all that is due.
        Policy { concurrency: 2, ..Policy::default() }
    }

    async fn process(&self, _: &dyn JobContext) -> Result<Processed, JobError> {
        let client = self.0.client(&provider()).await.unwrap();
        match client.usage(AllocationId::from_uuid(uuid::Uuid::from_u128(2))).await {
            Ok(_) | Err(ProviderError::Unknown(_)) => Ok(Processed::Done(Changeset::new())),
            Err(ProviderError::Deferred(after)) => Err(Error::deferred("the provider", after).into()),
            Err(error) => Err(JobError::Transient(Error::internal(error))),
        }
    }
}

fn replica(world: &World, fake: &FakeProvider) -> Engine {
    let clock = Arc::new(world.clock.clone());
    let breakers = Breakers::new(BreakerSettings::default(), clock, world.entropy.clone());
    let directory = GuardedProviders::new(Arc::new(FakeProviders(fake.clone())), breakers);
    world.engine_over(world.db.clone(), vec![Arc::new(Asks(Arc::new(directory)))])
}

/// One tick of each; answers how much was claimed.
async fn take_turns(engines: &[Engine]) -> usize {
    let mut claimed = 0;
    for engine in engines {
        claimed += engine.tick().await.unwrap().claimed;
        engine.idle().await;
    }
    claimed
}

/// What is done would only slow the database in memory down.
async fn forget_completed(world: &World) {
    let completed = Filter::eq("state", JobState::Completed.as_str());
    let mut changes = Changeset::new();
    for Stored { version, value } in world.db.list_all::<Job>(completed).await.unwrap() {
        changes.delete(schema::JOBS, value.id.to_string(), Expect::Version(version));
    }
    world.db.commit(changes).await.unwrap();
}

/// Calls in each second; the provider is away from second 30 to second 120.
async fn calls_by_second(replicas: usize) -> BTreeMap<u64, u64> {
    let world = World::new(90 + replicas as u64);
    let fake = FakeProvider::new(Bytes(1 << 40));
    let engines: Vec<Engine> = (0..replicas).map(|_| replica(&world, &fake)).collect();
    let mut calls = BTreeMap::new();
    for second in 0..600 {
        fake.set_away((30..120).contains(&second));
        let before = fake.calls("usage");
        for step in 0..STEPS {
            for n in 0..STEADY / STEPS {
                let new = world.new_job(JobKind::SyncAccess, "s", &format!("{second}.{step}.{n}"));
                world.enqueue(new).await;
            }
            while take_turns(&engines).await > 0 {}
            world.clock.advance(Micros(1_000_000 / STEPS));
        }
        calls.insert(second, fake.calls("usage") - before);
        forget_completed(&world).await;
        if second == 119 {
            let waiting = Filter::eq("state", JobState::PendingRetry.as_str());
            let waiting = world.db.list_all::<Job>(waiting).await.unwrap();
            assert!(waiting.len() > 1_000, "only {} wait", waiting.len());
            // Those that were turned away have not spent an attempt on it.
            let spent: u32 = waiting.iter().map(|job| job.value.attempts).sum();
            assert!(spent <= 40 * u32::try_from(replicas).unwrap(), "{spent} attempts were spent");
        }
        if second > 120 && second % 20 == 0 {
            let open = Filter::Gt("due".into(), i64::MIN.into());
            if world.db.list_all::<Job>(open).await.unwrap().len() < 5 {
                let failed = Filter::eq("state", JobState::Failed.as_str());
                assert!(world.db.list_all::<Job>(failed).await.unwrap().is_empty());
                return calls;
            }
        }
    }
    panic!("the line never drains: {calls:?}");
}

async fn no_herd(replicas: usize) {
    let calls = calls_by_second(replicas).await;
    let steady = calls.range(10..30).map(|(_, n)| *n).max().unwrap();
    assert_eq!(steady, STEADY);
    let after: Vec<_> = calls.range(120..).filter(|(_, n)| **n > 2 * STEADY).collect();
    assert!(after.is_empty(), "{replicas} replicas: a herd: {after:?}");
    let during: u64 = calls.range(30..120).map(|(_, n)| *n).sum();
    assert!(during <= 25 * replicas as u64, "{replicas} replicas: {during} calls during the outage");
}

#[tokio::test]
async fn a_thousand_jobs_that_waited_for_a_provider_are_no_herd() {
    no_herd(1).await;
}

#[tokio::test]
async fn nor_are_they_for_a_fleet_of_three() {
    no_herd(3).await;
}
