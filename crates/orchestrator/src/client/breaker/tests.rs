//! The guard around real ports: what counts as sick, and what a caller sees of an open breaker.

use super::*;
use crate::{
    client::{
        clock::{ManualClock, SeededEntropy},
        provider::{FakeProvider, FakeProviders, ScriptedFault},
    },
    core::{
        client::provider::{ProviderDirectory, ProviderError},
        market::{
            ids::{AllocationId, Id, ProviderId},
            party::{AdapterConfig, Provider},
            quantity::{Bytes, Timestamp},
            terms::DomainId,
        },
    },
};

fn provider(n: u128) -> Provider {
    Provider {
        id: ProviderId::from_uuid(uuid::Uuid::from_u128(n)),
        name: "p".into(),
        domain: DomainId::local(),
        owner: None,
        adapter: AdapterConfig::Embedded { admin_url: None, sealed_token: None },
        created_at: Timestamp::EPOCH,
    }
}

#[tokio::test]
async fn a_sick_provider_is_left_alone_and_the_others_are_not() {
    let clock = ManualClock::new(Timestamp(1_760_000_000_000_000));
    let entropy = Arc::new(SeededEntropy::new(1));
    let breakers = Breakers::new(BreakerSettings::default(), Arc::new(clock.clone()), entropy);
    let fake = FakeProvider::new(Bytes(1 << 40));
    let directory = GuardedProviders::new(Arc::new(FakeProviders(fake.clone())), breakers.clone());
    let id = AllocationId::from_uuid(uuid::Uuid::from_u128(9));
    let first = directory.client(&provider(1)).await.unwrap();
    // An answer that one does not like is an answer.
    for _ in 0..20 {
        assert!(matches!(first.usage(id).await, Err(ProviderError::Unknown(_))));
    }
    for _ in 0..5 {
        fake.script("usage", ScriptedFault::Timeout);
        // Found anew each time, as jobs do: the breaker is the provider's, not the adapter's.
        let client = directory.client(&provider(1)).await.unwrap();
        assert!(matches!(client.usage(id).await, Err(ProviderError::Timeout(_))));
    }
    let calls = fake.calls("usage");
    let Err(ProviderError::Deferred(after)) = first.usage(id).await else { panic!("it was asked") };
    assert!(after > Micros::ZERO);
    assert_eq!(fake.calls("usage"), calls, "nobody was asked");
    let second = directory.client(&provider(2)).await.unwrap();
    assert!(matches!(second.usage(id).await, Err(ProviderError::Unknown(_))));
    let view = breakers.view();
    let state = |n: u128| view[&format!("provider {}", provider(n).id)].state;
    assert_eq!((state(1), state(2)), (BreakerState::Open, BreakerState::Closed));
    clock.advance(Micros::from_secs(5));
    assert!(matches!(first.usage(id).await, Err(ProviderError::Unknown(_))), "a probe");
    assert_eq!(breakers.view()[&format!("provider {}", provider(1).id)].state, BreakerState::Recovering);
}

#[tokio::test]
async fn a_probe_that_is_dropped_under_way_does_not_block_the_next() {
    let clock = ManualClock::new(Timestamp(1_760_000_000_000_000));
    let entropy = Arc::new(SeededEntropy::new(1));
    let guard = Guard::new("test", "test", BreakerSettings::default(), Arc::new(clock.clone()), entropy);
    let sick = || std::future::ready(Err::<(), _>(ProviderError::Timeout("away".into())));
    for _ in 0..5 {
        assert!(guard.call(sick()).await.is_err());
    }
    clock.advance(Micros::from_secs(5));
    let mut probe = Box::pin(guard.call(std::future::pending::<Result<(), ProviderError>>()));
    assert!(futures::poll!(probe.as_mut()).is_pending());
    assert_eq!(guard.view().state, BreakerState::HalfOpen);
    drop(probe);
    assert!(guard.call(std::future::ready(Ok::<_, ProviderError>(()))).await.is_ok());
    assert_eq!(guard.view().state, BreakerState::Recovering);
}
