//! What a verdict rests on, for everybody who has a record of a block; and the check of every credit, over HTTP, from the
//! blocks of a market with repeated breaches.

use orchestrator::{
    client::evidence::HttpEvidence,
    core::{
        client::{
            database::{Changeset, Committer, Filter, ReaderExt},
            schema,
        },
        market::{
            allocation::{Allocation, Usage},
            evidence::{FailureClass, OperationKind, OperationStats, Qos},
            ids::Id as _,
            ids::OracleId,
            quantity::{Bytes, Micros},
            sla::{Bucket, bucket_start},
            terms::DomainId,
            verdict::SlaVerdict,
        },
    },
    service::settlement::{VerifyReport, verify_with_evidence},
};
use serde_json::{Value, json};

use super::harness::{Api, Tenant, reservation};
use crate::tools::files_of;

const BUCKET: Micros = Micros::from_secs(300);
const PERIOD: Micros = Micros::from_days(30);

/// An allocation whose unit fails in its first three periods, all of it in final blocks.
struct Breached {
    api: Api,
    consumer: Tenant,
    allocation: String,
    unit: String,
    stored: u64,
}

impl Breached {
    async fn new() -> Self {
        let api = Api::start().await;
        let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
        let account = format!("/accounts/provider:{}", provider.id);
        let collateral = json!({"amount": "1000000"});
        api.post(&api.operator, &format!("{account}/deposits"), collateral.clone()).await.ok(201);
        api.post(&provider.key, &format!("{account}/collateral"), collateral).await.ok(201);
        let mut unit = super::harness::unit();
        unit["sla"] = json!({
            "latency_avg_ms": 60, "upload_bytes_per_s": 1, "download_bytes_per_s": 1, "uptime_ppm": 999_500,
            "error_rate_ppm": 100, "min_coverage_ppm": 50, "collateral_slash_ppm": 250_000,
        });
        let unit = api.post(&provider.key, "/units", unit).await.ok(201)["id"].as_str().unwrap().to_owned();
        let mut ask = reservation(&unit);
        ask["period_ms"] = json!(10_368_000_000_u64);
        let made = api.post(&consumer.key, "/allocations/reserve", ask).await.ok(202);
        let allocation = made["id"].as_str().unwrap().to_owned();
        api.post(&consumer.key, &format!("/allocations/{allocation}/fund"), json!({})).await.ok(202);
        api.run_jobs().await;
        let mut market = Self { api, consumer, allocation, unit, stored: 0 };
        for failures in [100, 100, 100, 0] {
            market.period(failures).await;
        }
        market.seal().await;
        market
    }

    /// A billing period in which one bucket was seen, and its end.
    async fn period(&mut self, failures: u64) {
        let start = bucket_start(self.api.work.now(), BUCKET).plus(BUCKET);
        let oracle = OracleId::from_uuid(uuid::Uuid::from_u128(1));
        let subject = orchestrator::core::market::evidence::EvidenceSubject::Unit(self.unit.parse().unwrap());
        let stats = OperationStats {
            attempts: 1_000,
            failures: [(FailureClass::ServerError, failures)].into(),
            ..OperationStats::default()
        };
        let qos = Qos { operations: [(OperationKind::Get, stats)].into() };
        let mut changes = Changeset::new();
        changes.insert(&Bucket { qos, ..Bucket::empty(subject, oracle, start) });
        self.api.database.commit(changes).await.unwrap();
        self.api.clock.advance(Micros(PERIOD.0 + 1_000_000_000));
        self.stored += 1 << 50;
        let byte_seconds = u128::from(self.stored);
        let usage =
            Usage { stored: Bytes(1 << 20), byte_seconds, egress: Bytes(0), read_at: self.api.work.now() };
        self.api.provider.set_usage(self.allocation.parse().unwrap(), usage);
        self.api.fire("close_sla_windows").await;
    }

    async fn seal(&self) {
        for _ in 0..3 {
            self.api.fire("seal_blocks").await;
            for _ in 0..10 {
                self.api.pass(Micros::from_secs(60)).await;
            }
        }
        assert_eq!(self.api.count(schema::UNSEALED).await, 0);
    }

    async fn subjects(&self) -> Vec<String> {
        let all = self.api.database.list_all::<SlaVerdict>(Filter::All).await.unwrap();
        all.into_iter().map(|it| it.value.record_subject.unwrap()).collect()
    }

    async fn verify(&self, url: &str) -> VerifyReport {
        let (domains, da) = &self.api.layers;
        let settlement = domains.get(&DomainId::local()).unwrap();
        let source = HttpEvidence::new(url).unwrap();
        verify_with_evidence(settlement.as_ref(), da.as_ref(), Some(&source)).await.unwrap()
    }
}

#[tokio::test]
async fn evidence_is_open_to_everybody_who_has_the_record() {
    let market = Breached::new().await;
    let api = &market.api;
    let open = async |path: &str| api.send(api.http.get(format!("{}{path}", api.url))).await;
    let subjects = market.subjects().await;
    assert_eq!(subjects.len(), 4);
    let path = format!("/evidence/{}", subjects[0]);
    let bundle = open(&path).await.ok(200);
    assert_eq!((&bundle["version"], &bundle["domain"]), (&json!(1), &json!("local")));
    assert_eq!(bundle["unit"], json!(market.unit));
    assert_eq!(bundle["period_key"], json!(format!("{}/0", market.allocation)));
    assert_eq!(bundle["file"]["evidence"]["buckets"].as_array().unwrap().len(), 1);
    let terms: Value = serde_json::from_str(bundle["allocation"]["terms"].as_str().unwrap()).unwrap();
    assert_eq!(terms["consumer"], json!(market.consumer.id));
    // No names, no keys, no addresses of servers.
    let stored = api.database.load::<Allocation>(&market.allocation).await.unwrap().unwrap().value;
    let routing = stored.routing.unwrap();
    let text = bundle.to_string();
    for secret in ["a consumer", "a provider", "disk one", &routing.endpoint, &routing.bucket] {
        assert!(!text.contains(secret), "{secret}");
    }
    // Who asks again for what has not changed gets no bytes.
    let first = open(&path).await;
    let again = api.http.get(format!("{}{path}", api.url)).header("if-none-match", &first.headers["etag"]);
    assert_eq!(api.send(again).await.status, 304);

    open(&format!("/evidence/{}", "0".repeat(32))).await.problem(404, "not_found", None);
    let upper = subjects[0].to_uppercase();
    assert_ne!(upper, subjects[0]);
    for malformed in ["x", &upper, &subjects[0][1..], &format!("{}0", subjects[0]), "..%2Fkeys"] {
        open(&format!("/evidence/{malformed}")).await.problem(404, "not_found", None);
    }
    open(&format!("{path}?x=1")).await.problem(400, "invalid_parameter", Some("x"));
}

#[tokio::test]
async fn every_credit_follows_from_the_evidence_and_a_mirror_that_lies_is_found() {
    let market = Breached::new().await;
    let report = market.verify(&market.api.url).await;
    assert!(report.holds(), "{:#?} {:#?}", report.problems, report.credits);
    let credits = report.credits.unwrap();
    // Three credits of all that was earned, with the fee out of the collateral each time, and a penalty.
    assert_eq!((credits.verdicts, credits.payments, credits.credits, credits.open), (4, 4, 7, 0));
    assert_eq!(credits.rules.len(), 1);
    let stored = market.api.database.load::<Allocation>(&market.allocation).await.unwrap().unwrap();
    assert_eq!(credits.credited, stored.value.credited);

    // The same after a renewal and a restriction, which change the terms' text, before and after the next block.
    let renew = format!("/allocations/{}/renew", market.allocation);
    for _ in 0..2 {
        market.api.post(&market.consumer.key, &renew, json!({"period_ms": 86_400_000})).await.ok(200);
        assert!(market.verify(&market.api.url).await.holds());
    }
    market.seal().await;
    assert!(market.verify(&market.api.url).await.holds());

    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("evidence")).unwrap();
    let subjects = market.subjects().await;
    let file = |subject: &str| directory.path().join("evidence").join(subject);
    for subject in &subjects {
        let url = format!("{}/evidence/{subject}", market.api.url);
        std::fs::write(file(subject), market.api.http.get(url).send().await.unwrap().bytes().await.unwrap())
            .unwrap();
    }
    let url = files_of(directory.path().to_owned()).await;
    assert!(market.verify(&url).await.holds());
    for (from, to, words) in [
        ("\"server_error\":100", "\"server_error\":0", "another root"),
        ("\"payment\":\"", "\"payment\":\"1", "by the evidence"),
        ("\"uptime\":999500", "\"uptime\":1", "other terms"),
    ] {
        let good = std::fs::read_to_string(file(&subjects[1])).unwrap();
        assert!(good.contains(from), "{from} in {good}");
        std::fs::write(file(&subjects[1]), good.replacen(from, to, 1)).unwrap();
        let report = market.verify(&url).await;
        assert!(!report.holds());
        assert!(report.all_problems().any(|it| it.contains(words)), "{words}: {:#?}", report.credits);
        std::fs::write(file(&subjects[1]), good).unwrap();
    }
    std::fs::remove_file(file(&subjects[2])).unwrap();
    let report = market.verify(&url).await;
    assert!(
        report.all_problems().any(|it| it.contains("its evidence is not there")),
        "{:#?}",
        report.credits
    );
}
