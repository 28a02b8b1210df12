//! The prober over a mocked S3 client: how each failure is classified, what the canary does, and how bulk transfers are timed.

use std::sync::Arc;

use mockall::Sequence;
use orchestrator::{
    client::{
        clock::SeededEntropy,
        provider::{FakeProvider, FakeProviders},
        vault::AesVault,
    },
    core::{
        client::{
            database::{Filter, ReaderExt},
            probe::{MockProbeClient, ProbeFailure, ProbeReading},
        },
        market::{
            evidence::{FailureClass, OperationKind, ReportBody, StoredReport},
            quantity::{Bytes, Micros},
            sla::Sight,
        },
    },
    service::sla::prober::{ProbeAccess, Prober, ProberPorts, ProberSettings},
};
use zeroize::Zeroizing;

use super::world::World;

/// 8 MiB and more count as bulk.
const BULK: u64 = 8 << 20;

fn reading(first_byte: u64, total: u64, bytes: u64) -> ProbeReading {
    ProbeReading { first_byte: Micros(first_byte), total: Micros(total), bytes, sha256: None }
}

fn failure(class: FailureClass) -> ProbeFailure {
    ProbeFailure { class, detail: "scripted".into() }
}

async fn prober(world: &World, client: MockProbeClient) -> Prober {
    let entropy = Arc::new(SeededEntropy::new(4));
    let ports = ProberPorts {
        client: Arc::new(client),
        providers: Arc::new(FakeProviders(FakeProvider::new(Bytes(1 << 40)))),
        vault: Arc::new(AesVault::new(&Zeroizing::new([1; 32]), entropy.clone())),
        entropy,
    };
    let settings = ProberSettings { bulk_interval: Micros::from_secs(3_600), ..ProberSettings::default() };
    Prober::start(world.work.clone(), world.evidence.clone(), ports, world.settings.clone(), settings)
        .await
        .unwrap()
}

async fn reports(world: &World) -> Vec<StoredReport> {
    let all = world.db.list_all::<StoredReport>(Filter::All).await.unwrap();
    all.into_iter().map(|stored| stored.value).collect()
}

#[tokio::test]
async fn each_failure_keeps_its_class_and_successes_their_latency() {
    let world = World::new().await;
    let mut client = MockProbeClient::new();
    let mut sequence = Sequence::new();
    client
        .expect_put()
        .times(1)
        .in_sequence(&mut sequence)
        .returning(|_, _, _| Ok(reading(700, 1_000, 4_096)));
    client
        .expect_get()
        .times(1)
        .in_sequence(&mut sequence)
        .returning(|_, _| Err(failure(FailureClass::Timeout)));
    client
        .expect_head()
        .times(1)
        .in_sequence(&mut sequence)
        .returning(|_, _| Err(failure(FailureClass::ServerError)));
    client
        .expect_delete()
        .times(1)
        .in_sequence(&mut sequence)
        .returning(|_, _| Err(failure(FailureClass::ClientError)));
    // The bulk transfer after it: the upload fails to connect, so does the download.
    client
        .expect_put()
        .times(1)
        .in_sequence(&mut sequence)
        .returning(|_, _, _| Err(failure(FailureClass::Connection)));
    client
        .expect_get()
        .times(1)
        .in_sequence(&mut sequence)
        .returning(|_, _| Err(failure(FailureClass::Connection)));
    client.expect_delete().times(1).in_sequence(&mut sequence).returning(|_, _| Ok(reading(1, 1, 0)));
    let prober = prober(&world, client).await;
    assert_eq!(prober.round().await.unwrap(), 1);
    assert!(reports(&world).await.is_empty(), "the bucket is not over yet");
    world.clock.advance(Micros::from_secs(1));
    prober.flush().await;
    let reports = reports(&world).await;
    assert_eq!(reports.len(), 1);
    let ReportBody::Qos(qos) = &reports[0].report.statement.body else { panic!() };
    let stats = |kind| &qos.operations[&kind];
    let put = stats(OperationKind::Put);
    assert_eq!((put.attempts, put.latency_sum_us, put.bulk_bytes), (2, 1_000, 0));
    assert_eq!(put.failures, [(FailureClass::Connection, 1)].into());
    let get = stats(OperationKind::Get);
    assert_eq!(get.failures, [(FailureClass::Timeout, 1), (FailureClass::Connection, 1)].into());
    assert_eq!(stats(OperationKind::Head).failures, [(FailureClass::ServerError, 1)].into());
    assert_eq!(stats(OperationKind::Delete).failures, [(FailureClass::ClientError, 1)].into());
    assert_eq!(stats(OperationKind::Delete).attempts, 1, "cleaning up is no measurement");
}

#[tokio::test]
async fn a_bulk_transfer_is_timed_without_its_first_byte_and_once_an_hour() {
    let world = World::new().await;
    let mut client = MockProbeClient::new();
    client.expect_put().returning(|_, _, body| {
        let bytes = body.len() as u64;
        Ok(reading(90, if bytes >= BULK { 2_000_000 } else { 100 }, bytes))
    });
    client.expect_get().returning(|_, object| {
        let bulk = object.ends_with("-bulk");
        Ok(if bulk { reading(400_000, 1_400_000, BULK) } else { reading(90, 100, 4_096) })
    });
    client.expect_head().returning(|_, _| Ok(reading(50, 50, 0)));
    client.expect_delete().returning(|_, _| Ok(reading(50, 50, 0)));
    let prober = prober(&world, client).await;
    prober.round().await.unwrap();
    prober.round().await.unwrap();
    world.clock.advance(Micros::from_secs(1));
    prober.flush().await;
    let reports = reports(&world).await;
    let ReportBody::Qos(qos) = &reports[0].report.statement.body else { panic!() };
    let (put, get) = (&qos.operations[&OperationKind::Put], &qos.operations[&OperationKind::Get]);
    // Two small ones and one bulk transfer each.
    assert_eq!((put.attempts, get.attempts), (3, 3));
    assert_eq!((put.bulk_bytes, put.bulk_us), (BULK, 2_000_000));
    assert_eq!((get.bulk_bytes, get.bulk_us), (BULK, 1_000_000), "the first byte came after 400 ms");
    assert_eq!((put.latency_sum_us, get.latency_sum_us), (200, 200), "bulk transfers are no latencies");
}

#[tokio::test]
async fn while_the_canary_fails_what_is_seen_is_nobodys_fault() {
    let world = World::new().await;
    let mut client = MockProbeClient::new();
    client.expect_put().returning(|_, _, _| Err(failure(FailureClass::Connection)));
    client.expect_get().returning(|_, _| Err(failure(FailureClass::Connection)));
    client.expect_head().returning(|_, _| Err(failure(FailureClass::Connection)));
    client.expect_delete().returning(|_, _| Err(failure(FailureClass::Connection)));
    let prober = prober(&world, client).await;
    let sights = async || {
        let subject = Sight::subject_of(prober.oracle());
        world.db.list_all::<Sight>(Filter::eq("subject", subject)).await.unwrap()
    };
    prober.round().await.unwrap();
    assert!(sights().await.is_empty(), "the canary is well");
    prober.set_canary(false);
    prober.round().await.unwrap();
    let marked = sights().await;
    assert_eq!(marked.len(), 1);
    assert!(marked[0].value.canary_failed);
}

#[tokio::test]
async fn the_prober_is_the_same_oracle_after_a_restart_and_has_one_access_to_each_unit() {
    let world = World::new().await;
    let fine = || {
        let mut client = MockProbeClient::new();
        client.expect_put().returning(|_, _, _| Ok(reading(1, 1, 1)));
        client.expect_get().returning(|_, _| Ok(reading(1, 1, 1)));
        client.expect_head().returning(|_, _| Ok(reading(1, 1, 0)));
        client.expect_delete().returning(|_, _| Ok(reading(1, 1, 0)));
        client
    };
    let first = prober(&world, fine()).await;
    first.round().await.unwrap();
    let oracle = first.oracle();
    drop(first);
    let second = prober(&world, fine()).await;
    assert_eq!(second.oracle(), oracle);
    second.round().await.unwrap();
    assert_eq!(world.db.list_all::<ProbeAccess>(Filter::All).await.unwrap().len(), 1);
}
