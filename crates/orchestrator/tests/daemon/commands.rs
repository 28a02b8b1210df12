//! The commands that need a daemon beside them or its data, as tables and as JSON, with their exit codes.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::harness::{Place, id, wait_for};
use crate::tools::files_of;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_jobs_through_the_daemon() {
    let place = Place::hurried();
    let running = place.start().await;
    let (consumer, own) = running.api.consumer("cli").await;
    let create = ["keys", "create", "--role", "consumer", "--tenant", &consumer, "--json"];
    let made = place.cli(&create).await.json();
    let (key, text) = (id(&made), made["text"].as_str().unwrap().to_owned());
    assert_eq!(made["tenant"], json!(consumer));
    own.with_key(&text).get("/allocations").await;
    place.cli(&["keys", "list"]).await.ends(0, &["ROLE", &key, "first operator"]);
    let listed = place.cli(&["keys", "list", "--json"]).await;
    assert!(!listed.out.contains(&text), "a list shows a secret");
    // A consumer sees its own keys, and nothing that is the operator's.
    let own_keys = place.cli(&["keys", "list", "--key", &text]).await;
    assert!(own_keys.out.contains(&key) && !own_keys.out.contains("operator"), "{}", own_keys.out);
    place.cli(&["jobs", "list", "--key", &text]).await.ends(1, &["forbidden"]);
    place.cli(&["keys", "revoke", &key]).await.ends(0, &[&key, "works no more"]);
    place.cli(&["keys", "list", "--key", &text]).await.ends(1, &["unauthenticated"]);
    let table = place.cli(&["keys", "create", "--role", "operator", "--label", "laptop"]).await;
    table.ends(0, &["shown only this once"]);
    assert!(table.out.starts_with("ork_") && !table.err.contains("ork_") && !table.err.contains("key key_"));
    place.cli(&["keys", "create", "--role", "consumer"]).await.ends(2, &["--tenant is missing"]);
    place.cli(&["keys", "create", "--role", "king"]).await.ends(2, &["king", "operator"]);
    place.cli(&["keys", "revoke", "nonsense"]).await.ends(1, &["not_found"]);

    let allocation = own.buy().await;
    own.until(&allocation, "active").await;
    let jobs = place.cli(&["jobs", "list", "--kind", "provision", "--json"]).await.json();
    let job = id(&jobs["items"][0]);
    place.cli(&["jobs", "list"]).await.ends(0, &["SUBJECT", &job, "provision"]);
    place.cli(&["jobs", "list", "--state", "failed"]).await.ends(0, &["there are no such jobs"]);
    place.cli(&["jobs", "list", "--state", "tired"]).await.ends(1, &["state"]);
    place.cli(&["jobs", "show", &job]).await.ends(0, &["FIELD", &allocation]);
    assert_eq!(place.cli(&["jobs", "show", &job, "--json"]).await.json()["kind"], "provision");
    let retried = place.cli(&["jobs", "retry", &job]).await;
    assert!(matches!(retried.code, Some(0 | 1)), "{}", retried.err);
    place.cli(&["jobs", "show", "job_nothing"]).await.ends(1, &["not_found"]);
    running.stop_well().await;
    for args in [&["jobs", "list"][..], &["keys", "list"], &["keys", "revoke", "x"], &["jobs", "show", "x"]] {
        place.cli(args).await.ends(3, &["no daemon answers", "is it running?"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_is_checked_as_a_whole() {
    let place = Place::new();
    place.cli(&["config", "check"]).await.ends(0, &["valid"]);
    let file = place.dir.path().join("bad.toml");
    std::fs::write(&file, "[api]\nlisten = \"nowhere\"\nspeed = 1\n\n[jobs]\nlease = \"long\"\n").unwrap();
    let place = place.with("market.fee_basis_points", "many");
    let check =
        ["config", "check", "--config", "bad.toml", "--set", "sla.bucket=soon", "--set", "moon.phase=1"];
    let faults = place.cli(&check).await;
    let words =
        ["api.speed", "jobs.lease", "bad.toml", "MARKET__FEE_BASIS_POINTS", "--set sla.bucket", "moon"];
    faults.ends(2, &words);
    place.cli(&["run", "--config", "bad.toml"]).await.ends(2, &["jobs.lease"]);
    assert!(!place.data().exists());
    place.cli(&["run", "--config", "absent.toml"]).await.ends(2, &["absent.toml"]);
    place.cli(&["run", "--set", "nothing"]).await.ends(2, &["SECTION.KEY=VALUE"]);

    let place = Place::new();
    let shown = place.cli(&["config", "show"]).await;
    shown.ends(0, &["[api]", place.setting("api.listen")]);
    std::fs::write(place.dir.path().join("shown.toml"), &shown.out).unwrap();
    place.cli(&["config", "check", "--config", "shown.toml"]).await.ends(0, &["valid"]);
    let json = place.cli(&["config", "show", "--json", "--set", "api.listen=127.0.0.1:1"]).await.json();
    assert_eq!(json["api"]["listen"], "127.0.0.1:1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_a_flipped_byte() {
    let place = Place::hurried();
    place.cli(&["verify"]).await.ends(1, &["nothing was settled"]);
    let running = place.start().await;
    running.api.consumer("depositor").await;
    running.api.until_settled().await;
    let report = place.cli(&["verify", "--json"]).await.json();
    assert_eq!(report["problems"], json!([]));
    assert!(report["accounts"].as_array().is_some_and(|accounts| !accounts.is_empty()), "{report}");
    place.cli(&["verify"]).await.ends(0, &["WITHDRAWABLE", "the last block is final"]);
    running.stop_well().await;
    let mut files = Vec::new();
    gather(&place.data().join("chain/da"), &mut files);
    assert!(!files.is_empty());
    for file in files {
        let good = std::fs::read(&file).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        std::fs::write(&file, bad).unwrap();
        place.cli(&["verify"]).await.ends(4, &["does not agree"]);
        let told: Value = serde_json::from_str(&place.cli(&["verify", "--json"]).await.out).unwrap();
        assert!(!told["problems"].as_array().unwrap().is_empty());
        std::fs::remove_file(&file).unwrap();
        place.cli(&["verify"]).await.ends(4, &["does not agree"]);
        std::fs::write(&file, good).unwrap();
    }
    place.cli(&["verify"]).await.ends(0, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_checks_every_credit_and_finds_a_mirror_that_lies() {
    let place = Place::busy();
    let running = place.start().await;
    let (_, own) = running.api.consumer("auditor").await;
    let allocation = own.buy().await;
    own.until(&allocation, "active").await;
    wait_for("a verdict", || async {
        let verdicts = own.all(&format!("/allocations/{allocation}/verdicts")).await;
        (!verdicts.is_empty()).then_some(())
    })
    .await;
    own.post(&format!("/allocations/{allocation}/close"), json!({})).await;
    own.until(&allocation, "closed").await;
    running.api.until_settled().await;
    place.cli(&["verify"]).await.ends(0, &["credits not checked"]);
    let url = running.address("api");
    let source = ["verify", "--evidence", &url];
    place
        .cli(&source)
        .await
        .ends(0, &["verdicts judged again from their evidence, by one set of rules", "0 still open"]);
    let report = place.cli(&[&source[..], &["--json"]].concat()).await.json();
    let verdicts = report["credits"]["verdicts"].as_u64().unwrap();
    assert!(verdicts >= 2, "{report}");
    assert_eq!((&report["problems"], &report["credits"]["problems"]), (&json!([]), &json!([])));

    // Anybody may keep a copy, of all that the blocks name.
    let mirror = place.dir.path().join("mirror/evidence");
    std::fs::create_dir_all(&mirror).unwrap();
    let mut copied = Vec::new();
    for block in running.api.all("/blocks").await {
        let path = format!("/blocks/local/{}/records?limit=1000", block["number"]);
        for record in running.api.get(&path).await["items"].as_array().unwrap() {
            if record["type"] == "verdict" {
                let subject = record["bytes"].as_str().unwrap().trim_start_matches("0x")[2..34].to_owned();
                let asked = running.api.http.get(format!("{url}/evidence/{subject}")).send().await.unwrap();
                std::fs::write(mirror.join(&subject), asked.bytes().await.unwrap()).unwrap();
                copied.push(subject);
            }
        }
    }
    assert_eq!(copied.len() as u64, verdicts);
    running.stop_well().await;
    place.cli(&source).await.ends(1, &["the source of the evidence does not answer"]);
    let url = files_of(place.dir.path().join("mirror")).await;
    let source = ["verify", "--evidence", &url];
    place.cli(&source).await.ends(0, &["0 still open"]);
    // A period that ended at once may have nothing that was seen.
    let text = |subject: &&String| std::fs::read_to_string(mirror.join(subject)).unwrap();
    let changed = copied.iter().find(|it| text(it).contains("\"attempts\":")).unwrap();
    let (file, good) = (mirror.join(changed), text(&changed));
    let bad = good.replacen("\"attempts\":", "\"attempts\":1", 1);
    assert_ne!(good, bad);
    std::fs::write(&file, bad).unwrap();
    place.cli(&source).await.ends(4, &["does not agree", changed, "another root"]);
    std::fs::remove_file(&file).unwrap();
    place.cli(&source).await.ends(4, &["does not agree", "its evidence is not there"]);
}

fn gather(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        match entry.path().is_dir() {
            true => gather(&entry.path(), files),
            false => files.push(entry.path()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_of_its_own_is_registered_through_the_api() {
    let place = Place::hurried();
    let mut provider = place.command(&["provider"]);
    let log = place.dir.path().join("provider.log");
    provider.stderr(std::fs::File::create(&log).unwrap()).stdout(std::process::Stdio::null());
    let mut provider = provider.spawn().unwrap();
    let token = place.data().join("provider/admin.token");
    super::harness::wait_for("the provider", || async {
        std::fs::read_to_string(&log).unwrap().contains("admin token").then_some(())
    })
    .await;
    assert!(std::fs::read_to_string(&log).unwrap().contains(place.setting("provider.s3_listen")));
    // The daemon has a directory and a store of its own.
    let elsewhere = place.dir.path().join("other");
    let mut command = place.command(&["run", "--set", "provider.cohosted=false"]);
    let data = place.data();
    command.env("ORCHESTRATOR_DATA__DIR", &elsewhere);
    std::fs::create_dir_all(&data).unwrap();
    let running = place.spawn_at(command, elsewhere).until_ready().await;
    assert!(!running.printed.contains("s3 endpoint"), "{}", running.printed);
    assert!(running.api.all("/units").await.is_empty());
    let adapter = json!({
        "kind": "embedded",
        "admin_url": format!("http://{}", place.setting("provider.admin_listen")),
        "admin_token": std::fs::read_to_string(&token).unwrap().trim(),
    });
    let owner = id(&running.api.post("/providers", json!({ "name": "apart", "adapter": adapter })).await);
    let unit = json!({
        "provider": owner, "name": "disks", "region": "local-1", "country": "CH", "capacity_bytes": 1_u64 << 30,
        "price": { "per_gib_month": "20000", "per_gib_egress": "1000" },
        "sla": { "latency_avg_ms": 60, "upload_bytes_per_s": 1_000_000, "download_bytes_per_s": 1_000_000,
                 "uptime_ppm": 999_500, "error_rate_ppm": 100, "min_coverage_ppm": 500_000 },
    });
    running.api.post("/units", unit).await;
    let (_, consumer) = running.api.consumer("remote").await;
    let allocation = consumer.buy().await;
    consumer.until(&allocation, "active").await;
    consumer.post(&format!("/allocations/{allocation}/credentials"), json!({})).await;
    running.stop_well().await;
    let ended = std::process::Command::new("kill").arg(provider.id().to_string()).status().unwrap();
    assert!(ended.success() && provider.wait().unwrap().success());
}
