//! Seeds: real values, from which mutations start. `cargo run -p orchestrator-fuzz-targets -- seeds` writes them to
//! `fuzz/seeds`; a test compares.

mod requests;

use std::{fs, path::Path};

use orchestrator::{
    config::Config,
    core::market::{
        block::{BlockHeader, Hash32},
        money::Amount,
        state::{Record, encode_records},
        terms::DomainId,
        verdict::VerdictStatus,
    },
};
use orchestrator_provider::wire;
use serde::Serialize;

use crate::{bundle, evidence, mutate::Chance, proof, seal};

/// A seed: its target, its name, its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// Every seed.
#[must_use]
pub fn all() -> Vec<Seed> {
    let mut all = Vec::new();
    for (target, inputs) in [
        ("answer", answers()),
        ("api", requests::api()),
        ("bundle", bundles()),
        ("changeset", chance(1_024)),
        ("config", configurations()),
        ("evidence", reports()),
        ("proof", proofs()),
        ("proof_mutated", chance(400)),
        ("provider_admin", requests::provider_admin()),
        ("provider_s3", requests::provider_s3()),
        ("queue", messages()),
        ("records", blocks()),
        ("scalar", scalars()),
        ("seal", vec![format!("{}\n{}", seal::RECORD, *seal::SEALED).into_bytes()]),
    ] {
        let named = inputs.into_iter().enumerate();
        all.extend(named.map(|(at, bytes)| (target, format!("{at:02}"), bytes)));
    }
    all.extend(documents());
    all
}

/// The golden files, one for each stored entity and version.
fn documents() -> Vec<Seed> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../orchestrator/tests/golden");
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let entity = name.split('.').next().unwrap_or_default();
            let text = fs::read_to_string(&path).unwrap();
            let body: serde_json::Value = serde_json::from_str(&text).unwrap();
            all.push(("document", name.clone(), format!("{entity}\n{body}").into_bytes()));
        }
    }
    all.sort();
    all
}

/// For targets whose inputs are choices.
fn chance(len: usize) -> Vec<Vec<u8>> {
    let mut chance = Chance::new(1);
    (0..4).map(|_| (0..len / 8).flat_map(|_| chance.number().to_le_bytes()).collect()).collect()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn answers() -> Vec<Vec<u8>> {
    let qos = wire::OperationQos {
        count: 3,
        client_errors: 1,
        server_errors: 0,
        latency_sum_us: 70,
        latency: [(32, 2), (64, 1)].into(),
    };
    let header = BlockHeader {
        domain: DomainId::local(),
        number: 2,
        parent: Hash32([1; 32]),
        state_root: Hash32([2; 32]),
        total: Amount(u128::MAX),
        events_root: Hash32([3; 32]),
        evidence_root: Hash32([4; 32]),
        last_deposit: 9,
        records: 5,
        next_market: Some(4),
    };
    let mut all = vec![
        json(&wire::Allocate { generation: 1, bytes: 1 << 20, region: "local".into() }),
        json(&wire::Allocations { allocations: vec!["alloc-1".into()] }),
        json(&wire::AtGeneration { generation: 7 }),
        json(&wire::Description {
            software: "s 1".into(),
            profiles: vec!["s3".into()],
            capacity: 9,
            free: 8,
            region: "local".into(),
            endpoint: "http://127.0.0.1:1".into(),
        }),
        json(&wire::Effects { effects: [("allocate".to_owned(), 1)].into() }),
        json(&wire::Faults { error_ppm: 10, ..wire::Faults::default() }),
        json(&wire::Problem { code: "gone".into(), detail: "the allocation is gone".into() }),
        json(&wire::Qos { operations: [("GetObject".to_owned(), qos)].into() }),
        json(&wire::Restrict { generation: 4, level: wire::Level::ReadOnly }),
        json(&wire::Routing {
            endpoint: "http://127.0.0.1:1".into(),
            region: "local".into(),
            bucket: "b".into(),
        }),
        json(&wire::Usage { stored: 1, byte_seconds: u128::MAX.to_string(), egress: 2, read_at_us: -3 }),
        json(&header),
    ];
    all.extend(ANSWERS.iter().map(|text| text.as_bytes().to_vec()));
    all
}

const ANSWERS: &[&str] = &[
    r#"{"generation":1,"secret":"0123456789abcdef","permissions":"read_only"}"#,
    r#"{"format":1,"program":"orchestrator 0.1.0","made_at":"2026-11-21T12:00:00Z","documents":{"jobs":3},"blocks":2,"state_root":"00","keys":false,"storage":true,"files":[{"path":"orchestrator.db","bytes":4096,"sha256":"00"}]}"#,
    r#"{"format":1,"as_of":1790000000000000,"value":[{"oracle":"orcl_00000000000000000000000000000001","start":1789999800000000,"attempts":10,"failures":1,"latency_avg_us":null,"latency_p95_us":7,"upload_bytes_per_s":null,"download_bytes_per_s":9}]}"#,
];

fn configurations() -> Vec<Vec<u8>> {
    let whole = toml::to_string(&Config::default()).unwrap();
    // The whole has more than mutations need at once: sections, a few at a time.
    let sections: Vec<&str> = whole.split("\n[").collect();
    let few = sections.chunks(6).map(|few| format!("[{}", few.join("\n[")).replacen("[[", "[", 1));
    let mut all: Vec<Vec<u8>> = few.map(String::into_bytes).collect();
    all.push(
        b"[api]\nlisten = \"127.0.0.1:7700\"\n---\nORCHESTRATOR_JOBS__RETENTION=2d\nHOME=/\n---\nsla.bucket=1m"
            .to_vec(),
    );
    all
}

fn reports() -> Vec<Vec<u8>> {
    let statement = |body: &str| {
        format!(
            r#"{{"version":1,"oracle":"{{o}}","key_id":"k1","subject":{{"unit":"{{u}}"}},"from":1789999990000000,"to":1789999995000000,"nonce":1,"body":{body}}}"#
        )
        .into_bytes()
    };
    vec![
        json(&evidence::genuine()),
        statement(
            r#"{"type":"qos","operations":{"get":{"attempts":10,"failures":{"timeout":1,"client_error":1},"latency_sum_us":700,"latency":{"10":3},"bulk_bytes":8388608,"bulk_us":1000}}}"#,
        ),
        statement(
            r#"{"type":"qos","operations":{"put":{"attempts":0},"head":{"attempts":1},"delete":{"attempts":2}}}"#,
        ),
        statement(
            r#"{"type":"usage","stored":5,"byte_seconds":"340282366920938463463374607431768211455","egress":6}"#,
        ),
        statement(r#"{"type":"integrity","checked":5,"damaged":2}"#),
        statement(r#"{"type":"price","per_gib_month":"20000000"}"#),
    ]
}

/// The genuine one, one judged by rules of its own, and one of a verdict on which no money rests.
fn bundles() -> Vec<Vec<u8>> {
    let genuine = bundle::genuine();
    let mut lenient = genuine.clone();
    lenient.file.rules.path_min_providers = 9;
    let mut bare = genuine.clone();
    bare.allocation = None;
    [genuine, &lenient, &bare].map(json).to_vec()
}

fn proofs() -> Vec<Vec<u8>> {
    let known = &*proof::KNOWN;
    let accounts = known.accounts.iter().take(2).map(|(_, proof)| json(proof));
    accounts.chain(known.market.iter().rev().take(1).map(json)).collect()
}

fn messages() -> Vec<Vec<u8>> {
    let job = "job_00000000000000000000000000000001";
    let receipt = "jobs-provision-process/00065c0000000000-000000000000-0000000000000001#1";
    vec![
        format!("{receipt}\n{{\"job\":\"{job}\"}}").into_bytes(),
        format!("{receipt}\n{job}").into_bytes(),
        format!("jobs-provision-dead/x#2\n[\"{job}\"]").into_bytes(),
        b"#\nseal_blocks".to_vec(),
    ]
}

fn blocks() -> Vec<Vec<u8>> {
    let key = |at: u8| [at; 30];
    let records = [
        Record::OpenAccount { key: key(1) },
        Record::OpenAccount { key: key(2) },
        Record::Deposit { index: 1, to: 0, amount: 1_000 },
        Record::Transfer { kind: 4, from: 0, to: 1, amount: 400 },
        Record::Transfer { kind: 12, from: 1, to: 1, amount: 150 },
        Record::MarketOpen { key: key(3) },
        Record::MarketSet { index: 0, digest: [5; 26] },
        Record::Verdict {
            subject: [6; 16],
            status: VerdictStatus::Breached,
            credit: 100_000,
            coverage: 1_000_000,
        },
        Record::VerdictEvidence { root: key(7) },
    ];
    let block = |number: u64, records: &[Record]| {
        [number.to_be_bytes().to_vec(), encode_records(number, records)].concat()
    };
    vec![block(1, &[]), block(7, records.get(..4).unwrap_or_default()), block(u64::MAX, &records)]
}

fn scalars() -> Vec<Vec<u8>> {
    let id = "0190a5d96e27e3bbd1a2f3c4d5e6f701";
    let mut all: Vec<String> = [
        "alloc", "aud", "block", "cons", "cred", "disp", "evt", "job", "key", "oper", "orcl", "price",
        "prov", "rep", "sla", "tx", "unit",
    ]
    .iter()
    .map(|prefix| format!("{prefix}_{id}"))
    .collect();
    all.extend([format!("consumer:cons_{id}"), format!("escrow:alloc_{id}"), format!("held:disp_{id}")]);
    all.extend([
        Hash32([0xab; 32]).to_string(),
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".into(),
    ]);
    let words = [
        "fees",
        "external",
        "0",
        "007",
        "340282366920938463463374607431768211455",
        "250ms",
        "30d",
        "0s",
        "8MiB",
        "1TiB",
        "2026-11-21T12:00:00.000001Z",
        "2026-11-21T12:00:00+02:00",
        "seal_block",
    ];
    all.extend(words.map(str::to_owned));
    all.into_iter().map(String::into_bytes).collect()
}
