//! `orchestrator run`: the first start, its walkthrough, the second start, and the end by signal.

use std::process::Command;

use reqwest::Method;
use serde_json::json;

use super::harness::{MIB, MONTH_MS, Place, mode, output};

/// What a newcomer copies out of the first start.
fn walkthrough(printed: &str) -> String {
    let lines = printed.lines().skip_while(|line| !line.starts_with("paste this")).skip(1);
    lines.take_while(|line| !line.starts_with("ready")).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_walkthrough_stores_a_file_and_the_next_start_goes_on() {
    let place = Place::new();
    let first = place.start().await;
    for words in ["no configuration file", "first start", "operator.key", "/docs"] {
        assert!(first.printed.contains(words), "{words}: {}", first.printed);
    }
    let key_file = place.data().join("operator.key");
    assert_eq!(mode(&key_file), 0o600);
    assert_eq!(mode(&place.data()), 0o700);
    let key = std::fs::read_to_string(&key_file).unwrap();
    let (providers, units) = (first.api.all("/providers").await, first.api.all("/units").await);
    assert_eq!((providers.len(), units.len()), (1, 1), "{providers:?} {units:?}");

    let script = walkthrough(&first.printed);
    assert!(script.contains("--aws-sigv4"), "{}", first.printed);
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(place.dir.path());
    let pasted = output(bash).await;
    assert_eq!(pasted.code, Some(0), "{}{}", pasted.out, pasted.err);
    assert_eq!(pasted.out.lines().last(), Some("hello"), "{}{}", pasted.out, pasted.err);
    assert_eq!(pasted.err, "");
    assert_eq!(std::fs::read_to_string(place.dir.path().join("hello.txt")).unwrap(), "hello\n");
    let allocations = first.api.all("/allocations").await;
    assert_eq!(allocations.len(), 1);
    assert_eq!(allocations[0]["state"], "active");
    first.stop_well().await;

    let second = place.start().await;
    assert!(!second.printed.contains("first start"), "{}", second.printed);
    assert!(walkthrough(&second.printed).is_empty(), "{}", second.printed);
    assert_eq!(std::fs::read_to_string(&key_file).unwrap(), key);
    assert_eq!(second.api.all("/providers").await.len(), 1);
    assert_eq!(second.api.all("/units").await[0]["id"], units[0]["id"]);
    assert_eq!(second.api.all("/allocations").await[0]["id"], allocations[0]["id"]);
    second.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_file_is_named_and_ctrl_c_ends_well() {
    let place = Place::new();
    let file = place.dir.path().join("orchestrator.toml");
    std::fs::write(&file, "[jobs]\ndrain = \"2s\"\n").unwrap();
    let running = place.start_with(place.command(&["run", "--config", "orchestrator.toml"])).await;
    assert!(!running.printed.contains("no configuration file"), "{}", running.printed);
    assert_eq!(running.stop("INT").await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_drains_while_requests_and_jobs_run() {
    let place = Place::hurried();
    let running = place.start().await;
    let (_, consumer) = running.api.consumer("busy").await;
    let unit = running.api.all("/units").await[0]["id"].clone();
    let mut busy = Vec::new();
    for worker in 0..4 {
        let (consumer, unit) = (consumer.clone(), unit.clone());
        busy.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for turn in 0..10_000 {
                let ask = json!({ "unit": unit, "bytes": MIB, "period_ms": MONTH_MS });
                let key = format!("{worker}-{turn}");
                let Some((status, made)) =
                    consumer.send(Method::POST, "/allocations/reserve", Some(&ask), Some(&key)).await
                else {
                    return acknowledged;
                };
                if status != 202 {
                    // What comes too late is told so, not dropped in the middle.
                    assert_eq!(status, 503, "{made}");
                    return acknowledged;
                }
                let id = made["id"].as_str().unwrap().to_owned();
                acknowledged.push(id.clone());
                consumer.send(Method::POST, &format!("/allocations/{id}/fund"), Some(&json!({})), None).await;
            }
            acknowledged
        }));
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    running.stop_well().await;
    let mut acknowledged = Vec::new();
    for worker in busy {
        acknowledged.extend(worker.await.unwrap());
    }
    assert!(!acknowledged.is_empty());
    let again = place.start().await;
    for id in &acknowledged {
        again.api.get(&format!("/allocations/{id}")).await;
    }
    again.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let place = Place::new().with("api.listen", &address);
    place.cli(&["run"]).await.ends(1, &[&address, "api.listen"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_limit_on_requests_means_none() {
    let place = Place::new().with("api.requests_per_minute", "0");
    let running = place.start().await;
    for _ in 0..3 {
        running.api.get("/me").await;
    }
    running.stop_well().await;
}
