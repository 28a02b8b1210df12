//! The prober against the real S3 server, through the real client: what it does there, what it signs, and what a provider
//! that fails looks like in its report.

use std::{path::Path, sync::Arc, time::Duration};

use orchestrator::{
    client::{
        clock::SeededEntropy,
        network::s3_probe::{S3Probe, S3ProbeSettings},
        provider::{AdapterDirectory, CoHosted, EmbeddedSettings},
        vault::AesVault,
    },
    core::{
        client::database::{Filter, ReaderExt},
        market::{
            evidence::{FailureClass, OperationKind, Qos, ReportBody, StoredReport},
            party::Oracle,
            quantity::Micros,
            sla::statement_bytes,
        },
    },
    service::sla::prober::{Prober, ProberPorts, ProberSettings},
};
use orchestrator_provider::{ProviderHandle, ProviderOptions, ProviderServer};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::world::World;

const TOKEN: &str = "an admin token of the tests";
const BULK: u64 = 8 << 20;

struct Site {
    world: World,
    server: ProviderHandle,
    prober: Prober,
}

impl Site {
    async fn new(directory: &Path) -> Self {
        let mut options = ProviderOptions::new(directory.join("provider"), TOKEN);
        options.allow_faults = true;
        let server = ProviderServer::start(options).await.unwrap();
        let world = World::new().await;
        let entropy = Arc::new(SeededEntropy::new(4));
        let vault = Arc::new(AesVault::new(&Zeroizing::new([1; 32]), entropy.clone()));
        let beside =
            CoHosted { admin_url: server.admin_url(), admin_token: Zeroizing::new(TOKEN.to_owned()) };
        let adapters = AdapterDirectory::new(vault.clone(), Some(beside), EmbeddedSettings::default());
        let probe = S3ProbeSettings { timeout: Duration::from_secs(20), ..S3ProbeSettings::default() };
        let ports = ProberPorts {
            client: Arc::new(S3Probe::new(probe).unwrap()),
            providers: Arc::new(adapters),
            vault,
            entropy,
        };
        let settings = ProberSettings::default();
        let (work, evidence) = (world.work.clone(), world.evidence.clone());
        let prober = Prober::start(work, evidence, ports, world.settings.clone(), settings).await.unwrap();
        Self { world, server, prober }
    }

    async fn admin(&self, request: reqwest::RequestBuilder) -> Value {
        let answer = request.bearer_auth(TOKEN).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    async fn look(&self, path: &str) -> Value {
        self.admin(reqwest::Client::new().get(format!("{}{path}", self.server.admin_url()))).await
    }

    async fn faults(&self, faults: Value) {
        let put = reqwest::Client::new().put(format!("{}/faults", self.server.admin_url()));
        self.admin(put.json(&faults)).await;
    }

    /// One round, and the report on the bucket that it fell into.
    async fn round(&self) -> StoredReport {
        let known = self.reports().await.len();
        assert_eq!(self.prober.round().await.unwrap(), 1);
        self.world.clock.advance(Micros::from_secs(1));
        self.prober.flush().await;
        let mut reports = self.reports().await;
        assert_eq!(reports.len(), known + 1);
        reports.sort_by_key(|report| report.report.statement.nonce);
        reports.pop().unwrap()
    }

    async fn reports(&self) -> Vec<StoredReport> {
        let all = self.world.db.list_all::<StoredReport>(Filter::All).await.unwrap();
        all.into_iter().map(|stored| stored.value).collect()
    }
}

fn qos(report: &StoredReport) -> &Qos {
    let ReportBody::Qos(qos) = &report.report.statement.body else { panic!("no quality in {report:?}") };
    qos
}

const SMALL: [OperationKind; 4] =
    [OperationKind::Put, OperationKind::Get, OperationKind::Head, OperationKind::Delete];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_puts_gets_heads_and_deletes_in_a_bucket_of_its_own_and_signs_what_it_saw() {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::new(directory.path()).await;
    assert_eq!(site.look("/allocations").await, json!({"allocations": []}));
    let report = site.round().await;

    // The bucket appeared, and nothing was left in it.
    let made = site.look("/allocations").await;
    let [bucket] = made["allocations"].as_array().unwrap().as_slice() else { panic!("{made}") };
    let bucket = bucket.as_str().unwrap();
    let usage = site.look(&format!("/allocations/{bucket}/usage")).await;
    assert_eq!(usage["stored"], 0, "{usage}");
    assert!(usage["egress"].as_u64().unwrap() >= BULK, "the bulk object was read: {usage}");
    let effects = site.look(&format!("/allocations/{bucket}/effects")).await;
    assert_eq!(effects["effects"], json!({"allocate": 1, "put_key": 1}));
    let met = site.look("/qos").await["operations"].to_string();
    for operation in ["PutObject", "GetObject", "HeadObject", "DeleteObject"] {
        assert!(met.contains(operation), "{operation} is not in {met}");
    }

    for kind in SMALL {
        let stats = &qos(&report).operations[&kind];
        // The first round moves bulk, too: one more put and one more get.
        let bulk = matches!(kind, OperationKind::Put | OperationKind::Get);
        assert_eq!((stats.attempts, stats.failures.len()), (1 + u64::from(bulk), 0), "{kind:?}: {stats:?}");
        assert!(stats.latency_sum_us > 0 && stats.latency.values().sum::<u64>() == 1, "{kind:?}: {stats:?}");
        assert_eq!((stats.bulk_bytes, stats.bulk_us > 0), (BULK * u64::from(bulk), bulk), "{kind:?}");
    }

    // The signature holds over the canonical bytes, by the key that the oracle is registered with, and over no others.
    let oracle = site.world.db.load::<Oracle>(&site.prober.oracle().to_string()).await.unwrap().unwrap();
    let raw = hex::decode(&oracle.value.public_key).unwrap().try_into().unwrap();
    let public = ed25519_dalek::VerifyingKey::from_bytes(&raw).unwrap();
    let signature = hex::decode(&report.report.signature).unwrap();
    let signature = ed25519_dalek::Signature::from_slice(&signature).unwrap();
    let mut statement = report.report.statement.clone();
    public.verify_strict(&statement_bytes(&statement).unwrap(), &signature).unwrap();
    statement.nonce += 1;
    assert!(public.verify_strict(&statement_bytes(&statement).unwrap(), &signature).is_err());
    site.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_answers_with_errors_or_not_at_all_has_failures_in_the_report() {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::new(directory.path()).await;
    site.round().await;
    let failures = |report: &StoredReport, kind| {
        let stats = &qos(report).operations[&kind];
        assert_eq!((stats.attempts, stats.latency_sum_us), (1, 0), "{kind:?}: {stats:?}");
        stats.failures.clone()
    };
    site.faults(json!({"error_ppm": 1_000_000})).await;
    let report = site.round().await;
    for kind in SMALL {
        assert_eq!(failures(&report, kind), [(FailureClass::ServerError, 1)].into(), "{kind:?}");
    }
    site.faults(json!({})).await;
    let report = site.round().await;
    assert!(qos(&report).operations.values().all(|stats| stats.failures.is_empty()), "{report:?}");
    let Site { world, server, prober } = site;
    server.shutdown().await;
    prober.round().await.unwrap();
    world.clock.advance(Micros::from_secs(1));
    prober.flush().await;
    let all = world.db.list_all::<StoredReport>(Filter::All).await.unwrap();
    let last = all.into_iter().map(|stored| stored.value).max_by_key(|report| report.report.statement.nonce);
    for kind in SMALL {
        assert_eq!(
            failures(&last.clone().unwrap(), kind),
            [(FailureClass::Connection, 1)].into(),
            "{kind:?}"
        );
    }
}
