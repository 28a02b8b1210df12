//! Ten times as many clients as the daemon works for at once: each is served or told to come again, nothing that was
//! acknowledged is missing, memory stays bounded, and afterwards all is as before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use serde_json::json;

use super::harness::{MIB, MONTH_MS, Place, id};

const PLACES: usize = 8;
const CLIENTS: usize = 80;
const EACH: usize = 12;
/// A debug build under load stays far below; a queue without a bound would not.
const MEMORY: u64 = 600 * MIB;

/// Resident memory of a process, at its highest.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_too_many_clients_are_served_or_told_to_come_again() {
    let place = Place::hurried()
        .with("api.max_in_flight", &PLACES.to_string())
        .with("jobs.max_backlog", "40")
        .with("market.reservation_ttl", "1h");
    let daemon = place.start().await;
    let unit = daemon.api.unit().await;
    let (_, consumer) = daemon.api.consumer("many").await;
    let refusals = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (api, unit, refusals) = (consumer.clone(), unit.clone(), refusals.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0..EACH {
                    let ask = json!({ "unit": unit, "bytes": MIB, "period_ms": MONTH_MS });
                    let key = format!("{client}-{number}");
                    let url = format!("{}/allocations/reserve", api.base);
                    let request = api.http.request(Method::POST, url).bearer_auth(&api.key).json(&ask);
                    let answer = request.header("Idempotency-Key", &key).send().await.unwrap();
                    if answer.status() == 202 {
                        acknowledged.push(id(&answer.json().await.unwrap()));
                        continue;
                    }
                    assert_eq!(answer.status(), 429);
                    let seconds: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
                    assert!((1..=60).contains(&seconds), "{seconds}");
                    refusals.fetch_add(1, Ordering::Relaxed);
                    // Far sooner than it was told to: a client that does not listen.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                acknowledged
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    assert!(refusals.load(Ordering::Relaxed) > 0, "nobody was refused: {} reserved", acknowledged.len());
    assert!(!acknowledged.is_empty(), "nobody was served");
    let memory = peak_memory(daemon.id());
    assert!(memory < MEMORY, "{} MiB", memory / MIB);

    let mut known: Vec<_> = consumer.all("/allocations").await.iter().map(id).collect();
    known.sort();
    acknowledged.sort();
    assert_eq!(known, acknowledged, "what was acknowledged, no more and no less");
    let after = consumer.buy().await;
    consumer.until(&after, "active").await;
    daemon.api.until_settled().await;
    daemon.stop_well().await;
}
