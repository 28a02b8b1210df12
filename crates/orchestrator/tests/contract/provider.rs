//! What every provider adapter keeps, on the fake and on the built-in server; and what only a real server shows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes as Body;
use orchestrator::{
    client::{
        network::s3_probe::{S3Probe, S3ProbeSettings},
        provider::{EmbeddedProvider, EmbeddedSettings, FakeProvider, ScriptedFault},
    },
    core::{
        client::{
            probe::{ProbeClient, ProbeTarget},
            provider::{
                AccessLevel, AllocateRequest, Generation, IssueRequest, IssuedKey, Operation, ProviderClient,
                ProviderError,
            },
        },
        market::{
            allocation::Routing,
            credential::Permissions,
            evidence::FailureClass,
            ids::{AllocationId, Id},
            quantity::Bytes,
        },
    },
};
use orchestrator_provider::{ProviderHandle, ProviderOptions, ProviderServer, TimeSource, wire::Faults};
use zeroize::Zeroizing;

const TOKEN: &str = "an admin token of the tests";
const CAPACITY: Bytes = Bytes(1 << 30);

fn id(number: u128) -> AllocationId {
    AllocationId::from_uuid(uuid::Uuid::from_u128(number))
}

fn wish(number: u128, generation: u64, bytes: u64) -> AllocateRequest {
    let (allocation, generation) = (id(number), Generation(generation));
    AllocateRequest { allocation, generation, bytes: Bytes(bytes), region: "local".into() }
}

fn key(name: &str, number: u128, generation: u64, permissions: Permissions) -> IssueRequest {
    let key = IssuedKey {
        access_key_id: format!("AKTESTER{name}"),
        secret: format!("secret of the key {name:>20}"),
    };
    IssueRequest { allocation: id(number), generation: Generation(generation), key, permissions }
}

/// Polls until an allocation is made; tells how often it was still pending.
async fn made(client: &dyn ProviderClient, wish: &AllocateRequest) -> (Routing, usize) {
    for pending in 0..200 {
        match client.allocate(wish).await.unwrap() {
            Operation::Done(routing) => return (routing, pending),
            Operation::Pending => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("the allocation was never made");
}

/// The suite: what the port's documentation promises. Expects `CAPACITY` and makes allocations 1 to 9.
async fn keeps_the_contract(client: &dyn ProviderClient) {
    let free = || async { client.describe().await.unwrap().free.unwrap() };
    assert_eq!(free().await, CAPACITY);

    // Idempotent by id: the same answer, taken from the capacity once.
    let first = made(client, &wish(1, 5, 1000)).await.0;
    assert_eq!(made(client, &wish(1, 5, 1000)).await, (first.clone(), 0));
    assert_eq!(free().await, Bytes(CAPACITY.get() - 1000));
    assert_ne!(made(client, &wish(2, 1, 500)).await.0.bucket, first.bucket);
    assert_eq!(client.allocations().await.unwrap(), [id(1), id(2)]);
    let other_size = client.allocate(&wish(1, 5, 1001)).await;
    assert!(matches!(other_size, Err(ProviderError::Refused(_))), "{other_size:?}");

    // Too much is refused and leaves nothing.
    let too_much = client.allocate(&wish(3, 1, CAPACITY.get())).await;
    assert!(matches!(too_much, Err(ProviderError::NoCapacity)), "{too_much:?}");
    assert_eq!(client.allocations().await.unwrap(), [id(1), id(2)]);

    // Keys: the same again is fine, another secret or another allocation is not.
    let read_write = key("A", 1, 6, Permissions::ReadWrite);
    client.issue_credential(&read_write).await.unwrap();
    client.issue_credential(&read_write).await.unwrap();
    let mut other_secret = read_write.clone();
    other_secret.key.secret = "another secret of this key".into();
    assert!(matches!(client.issue_credential(&other_secret).await, Err(ProviderError::Refused(_))));
    let other_home = key("A", 2, 1, Permissions::ReadWrite);
    assert!(matches!(client.issue_credential(&other_home).await, Err(ProviderError::Refused(_))));
    let nowhere = client.issue_credential(&key("B", 9, 1, Permissions::ReadOnly)).await;
    assert!(matches!(nowhere, Err(ProviderError::Unknown(_))), "{nowhere:?}");

    // Generation 6 was seen: whoever comes with 5 is late, whatever it asks for.
    let late = Generation(5);
    assert!(matches!(client.allocate(&wish(1, 5, 1000)).await, Err(ProviderError::Stale(_))));
    let mut late_key = read_write.clone();
    late_key.generation = late;
    assert!(matches!(client.issue_credential(&late_key).await, Err(ProviderError::Stale(_))));
    let revoked = client.revoke_credential(id(1), late, "AKTESTERA").await;
    assert!(matches!(revoked, Err(ProviderError::Stale(_))), "{revoked:?}");
    let narrowed = client.restrict(id(1), late, AccessLevel::None).await;
    assert!(matches!(narrowed, Err(ProviderError::Stale(_))), "{narrowed:?}");
    assert!(matches!(client.deallocate(id(1), late).await, Err(ProviderError::Stale(_))));

    // Restrict and revoke are idempotent; a missing key is no error.
    for level in [AccessLevel::ReadOnly, AccessLevel::ReadOnly, AccessLevel::Full] {
        client.restrict(id(1), Generation(6), level).await.unwrap();
    }
    for _ in 0..2 {
        client.revoke_credential(id(1), Generation(7), "AKTESTERA").await.unwrap();
    }
    client.revoke_credential(id(9), Generation(1), "AKTESTERA").await.unwrap();

    let usage = client.usage(id(1)).await.unwrap();
    assert_eq!((usage.stored, usage.byte_seconds, usage.egress), (Bytes(0), 0, Bytes(0)));
    assert!(matches!(client.usage(id(9)).await, Err(ProviderError::Unknown(_))));

    // Deallocating frees the capacity and leaves a tombstone, also of what never was: an orphan can't come later.
    for allocation in [id(1), id(1), id(8)] {
        assert_eq!(client.deallocate(allocation, Generation(8)).await.unwrap(), Operation::Done(()));
    }
    assert_eq!(free().await, Bytes(CAPACITY.get() - 500));
    assert_eq!(client.allocations().await.unwrap(), [id(2)]);
    for number in [1, 8] {
        let risen = client.allocate(&wish(number, 9, 1000)).await;
        assert!(matches!(risen, Err(ProviderError::Unknown(_))), "{risen:?}");
        let lent = client.issue_credential(&key("C", number, 9, Permissions::ReadWrite)).await;
        assert!(matches!(lent, Err(ProviderError::Unknown(_))), "{lent:?}");
        assert!(matches!(client.usage(id(number)).await, Err(ProviderError::Unknown(_))));
    }
    assert!(matches!(
        client.restrict(id(1), Generation(9), AccessLevel::Full).await,
        Err(ProviderError::Unknown(_))
    ));
    client.revoke_credential(id(1), Generation(9), "AKTESTERA").await.unwrap();
}

struct Server {
    handle: ProviderHandle,
    client: EmbeddedProvider,
    probe: S3Probe,
    directory: tempfile::TempDir,
    now: Arc<AtomicI64>,
}

impl Server {
    async fn start(change: impl FnOnce(&mut ProviderOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicI64::new(1_000_000_000));
        Self::over(directory, now, change).await
    }

    async fn over(
        directory: tempfile::TempDir,
        now: Arc<AtomicI64>,
        change: impl FnOnce(&mut ProviderOptions),
    ) -> Self {
        let mut options = ProviderOptions::new(directory.path(), TOKEN);
        options.capacity = CAPACITY.get();
        options.allow_faults = true;
        let meter = now.clone();
        options.clock = TimeSource::new(move || meter.load(Ordering::SeqCst));
        change(&mut options);
        let handle = ProviderServer::start(options).await.unwrap();
        let settings = EmbeddedSettings { timeout: Duration::from_secs(5), ..EmbeddedSettings::default() };
        let token = Zeroizing::new(TOKEN.to_owned());
        let client = EmbeddedProvider::new(&handle.admin_url(), token, settings).unwrap();
        let probe = S3Probe::new(S3ProbeSettings::default()).unwrap();
        Self { handle, client, probe, directory, now }
    }

    fn pass(&self, seconds: i64) {
        self.now.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    /// An allocation with one key.
    async fn lend(&self, number: u128, bytes: u64, name: &str, permissions: Permissions) -> ProbeTarget {
        let routing = made(&self.client, &wish(number, 1, bytes)).await.0;
        let issued = key(name, number, 1, permissions);
        self.client.issue_credential(&issued).await.unwrap();
        ProbeTarget { routing, key: issued.key }
    }

    async fn put(&self, target: &ProbeTarget, object: &str, length: usize) -> Result<(), FailureClass> {
        let body = Body::from(vec![7; length]);
        self.probe.put(target, object, body).await.map(|_| ()).map_err(|failure| failure.class)
    }

    async fn get(&self, target: &ProbeTarget, object: &str) -> Result<u64, FailureClass> {
        self.probe.get(target, object).await.map(|read| read.bytes).map_err(|failure| failure.class)
    }

    async fn faults(&self, faults: Faults) {
        let url = format!("{}/faults", self.handle.admin_url());
        let call = reqwest::Client::new().put(url).bearer_auth(TOKEN).json(&faults);
        assert!(call.send().await.unwrap().status().is_success());
    }

    async fn effects(&self, number: u128) -> String {
        let url = format!("{}/allocations/{}/effects", self.handle.admin_url(), id(number));
        let answer = reqwest::Client::new().get(url).bearer_auth(TOKEN).send().await.unwrap();
        answer.text().await.unwrap()
    }
}

const REFUSED: Result<u64, FailureClass> = Err(FailureClass::ClientError);

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    let fake = FakeProvider::new(CAPACITY);
    fake.set_polls(2);
    keeps_the_contract(&fake).await;
    assert_eq!((fake.effects(id(1), "allocate"), fake.effects(id(1), "put_key")), (1, 1));
    assert_eq!((fake.effects(id(1), "deallocate"), fake.effects(id(8), "deallocate")), (1, 0));
}

#[tokio::test]
async fn the_built_in_server_keeps_the_contract() {
    let server = Server::start(|_| {}).await;
    keeps_the_contract(&server.client).await;
    let expected = r#"{"effects":{"allocate":1,"deallocate":1,"delete_key":1,"put_key":1,"restrict":2}}"#;
    assert_eq!(server.effects(1).await, expected);
    server.handle.shutdown().await;
}

#[tokio::test]
async fn an_allocation_that_takes_time_is_polled() {
    let server = Server::start(|options| options.provision_delay_ms = 100).await;
    assert_eq!(server.client.allocate(&wish(1, 1, 10)).await.unwrap(), Operation::Pending);
    let early = server.client.issue_credential(&key("A", 1, 1, Permissions::ReadWrite)).await;
    assert!(matches!(early, Err(ProviderError::Unavailable(_))), "{early:?}");
    made(&server.client, &wish(1, 1, 10)).await;
    server.client.issue_credential(&key("A", 1, 1, Permissions::ReadWrite)).await.unwrap();
    assert_eq!(server.effects(1).await, r#"{"effects":{"allocate":1,"put_key":1}}"#);
}

#[tokio::test]
async fn a_key_opens_its_own_bucket_as_far_as_it_may_and_a_revocation_holds_at_once() {
    let server = Server::start(|_| {}).await;
    let own = server.lend(1, 1 << 20, "A", Permissions::ReadWrite).await;
    let other = server.lend(2, 1 << 20, "B", Permissions::ReadWrite).await;
    let reader = server.lend(1, 1 << 20, "C", Permissions::ReadOnly).await;
    server.put(&own, "a/../key", 100).await.unwrap();
    assert_eq!(server.get(&own, "a/../key").await, Ok(100));
    assert_eq!(server.get(&reader, "a/../key").await, Ok(100));
    assert!(server.put(&reader, "a/../key", 1).await.is_err());
    let foreign = ProbeTarget { key: other.key.clone(), ..own.clone() };
    assert_eq!(server.get(&foreign, "a/../key").await, REFUSED);
    assert!(server.put(&foreign, "x", 1).await.is_err());

    server.client.restrict(id(1), Generation(2), AccessLevel::ReadOnly).await.unwrap();
    assert_eq!(server.get(&own, "a/../key").await, Ok(100));
    assert_eq!(server.put(&own, "b", 1).await, Err(FailureClass::ClientError));
    assert!(server.probe.delete(&own, "a/../key").await.is_err());
    server.client.restrict(id(1), Generation(2), AccessLevel::None).await.unwrap();
    assert_eq!(server.get(&own, "a/../key").await, REFUSED);
    server.client.restrict(id(1), Generation(2), AccessLevel::Full).await.unwrap();
    server.put(&own, "b", 1).await.unwrap();

    server.client.revoke_credential(id(1), Generation(3), &own.key.access_key_id).await.unwrap();
    assert_eq!(server.get(&own, "a/../key").await, REFUSED);
    assert_eq!(server.get(&reader, "a/../key").await, Ok(100));
    server.client.deallocate(id(1), Generation(4)).await.unwrap();
    assert_eq!(server.get(&reader, "a/../key").await, REFUSED);
    server.put(&other, "still there", 1).await.unwrap();
}

#[tokio::test]
async fn the_quota_holds_at_write_and_replacing_frees_what_was_there() {
    let server = Server::start(|_| {}).await;
    let target = server.lend(1, 1000, "A", Permissions::ReadWrite).await;
    server.put(&target, "a", 600).await.unwrap();
    assert_eq!(server.put(&target, "b", 401).await, Err(FailureClass::ClientError));
    assert_eq!(server.get(&target, "b").await, REFUSED);
    server.put(&target, "b", 400).await.unwrap();
    server.put(&target, "a", 500).await.unwrap();
    assert_eq!(server.put(&target, "a", 601).await, Err(FailureClass::ClientError));
    assert_eq!(server.get(&target, "a").await, Ok(500));
    server.probe.delete(&target, "b").await.unwrap();
    server.probe.delete(&target, "b").await.unwrap();
    assert_eq!(server.client.usage(id(1)).await.unwrap().stored, Bytes(500));
    let concurrent: Vec<_> =
        ["c", "d", "e", "f"].into_iter().map(|name| server.put(&target, name, 300)).collect();
    let done = futures::future::join_all(concurrent).await;
    assert_eq!(done.iter().filter(|result| result.is_ok()).count(), 1, "{done:?}");
    assert_eq!(server.client.usage(id(1)).await.unwrap().stored, Bytes(800));
}

#[tokio::test]
async fn usage_is_the_exact_integral_and_survives_a_restart() {
    let mut server = Server::start(|_| {}).await;
    let mut target = server.lend(1, 1 << 20, "A", Permissions::ReadWrite).await;
    server.put(&target, "a", 1000).await.unwrap();
    server.pass(10);
    server.put(&target, "a", 300).await.unwrap();
    server.pass(7);
    assert_eq!(server.get(&target, "a").await, Ok(300));
    let usage = server.client.usage(id(1)).await.unwrap();
    assert_eq!((usage.stored, usage.byte_seconds, usage.egress), (Bytes(300), 12_100, Bytes(300)));
    assert_eq!(server.client.usage(id(1)).await.unwrap(), usage);

    let Server { handle, directory, now, .. } = server;
    let second = ProviderServer::start(ProviderOptions::new(directory.path(), TOKEN)).await;
    assert!(second.is_err(), "two servers over one directory");
    // What a crash in the middle of a write leaves: a temporary file, and a file that the store does not name.
    std::fs::write(directory.path().join("tmp/left"), "half").unwrap();
    let orphan = directory.path().join("objects/ab").join(format!("ab{}", "0".repeat(30)));
    std::fs::write(&orphan, "whole, but never acknowledged").unwrap();
    handle.shutdown().await;
    server = Server::over(directory, now, |_| {}).await;
    assert!(!orphan.exists() && !server.directory.path().join("tmp/left").exists());
    server.pass(1);
    let usage = server.client.usage(id(1)).await.unwrap();
    assert_eq!((usage.stored, usage.byte_seconds, usage.egress), (Bytes(300), 12_400, Bytes(300)));
    target.routing = made(&server.client, &wish(1, 1, 1 << 20)).await.0;
    assert_eq!(server.get(&target, "a").await, Ok(300));
    server.client.deallocate(id(1), Generation(2)).await.unwrap();
    let files = std::fs::read_dir(server.directory.path().join("objects")).unwrap();
    assert_eq!(files.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap()).count(), 0);
}

#[tokio::test]
async fn faults_are_classified_and_a_lost_answer_takes_effect_once() {
    let server = Server::start(|_| {}).await;
    let target = server.lend(1, 1 << 20, "A", Permissions::ReadWrite).await;
    server.faults(Faults { error_ppm: 1_000_000, ..Faults::default() }).await;
    assert_eq!(server.put(&target, "a", 1).await, Err(FailureClass::ServerError));
    server.faults(Faults { admin_lost_ppm: 1_000_000, ..Faults::default() }).await;
    let lost = server.client.allocate(&wish(2, 1, 10)).await;
    assert!(lost.is_err_and(|error| error.may_leave_orphan()));
    server.faults(Faults::default()).await;
    assert_eq!(server.client.allocations().await.unwrap(), [id(1), id(2)]);
    made(&server.client, &wish(2, 1, 10)).await;
    assert_eq!(server.effects(2).await, r#"{"effects":{"allocate":1}}"#);
    server.faults(Faults { latency_ms: 5_000, admin_latency_ms: 5_000, ..Faults::default() }).await;
    let short = Duration::from_millis(50);
    let settings = S3ProbeSettings { timeout: short, ..S3ProbeSettings::default() };
    let failure = S3Probe::new(settings).unwrap().head(&target, "a").await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Timeout);
    let settings = EmbeddedSettings { timeout: short, ..EmbeddedSettings::default() };
    let token = || Zeroizing::new(TOKEN.to_owned());
    let hasty = EmbeddedProvider::new(&server.handle.admin_url(), token(), settings).unwrap();
    assert!(matches!(hasty.describe().await, Err(ProviderError::Timeout(_))));
    server.faults(Faults::default()).await;
    let wrong = Zeroizing::new("not the token of this one".to_owned());
    let stranger =
        EmbeddedProvider::new(&server.handle.admin_url(), wrong, EmbeddedSettings::default()).unwrap();
    assert!(matches!(stranger.describe().await, Err(ProviderError::Refused(_))));
    let (url, probe, client) = (server.handle.admin_url(), server.probe, server.client);
    server.handle.shutdown().await;
    assert!(matches!(client.describe().await, Err(ProviderError::Unavailable(_))), "{url}");
    assert_eq!(probe.head(&target, "a").await.unwrap_err().class, FailureClass::Connection);
}

#[tokio::test]
async fn the_fakes_scripted_faults_leave_what_they_say() {
    let fake = FakeProvider::new(CAPACITY);
    fake.script("allocate", ScriptedFault::Unavailable);
    assert!(fake.allocate(&wish(1, 1, 10)).await.is_err());
    assert_eq!(fake.effects(id(1), "allocate"), 0);
    fake.script("allocate", ScriptedFault::LostAnswer);
    assert!(fake.allocate(&wish(1, 1, 10)).await.is_err());
    made(&fake, &wish(1, 1, 10)).await;
    assert_eq!((fake.effects(id(1), "allocate"), fake.calls("allocate")), (1, 3));
}
