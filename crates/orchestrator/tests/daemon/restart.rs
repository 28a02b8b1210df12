//! A stop in the middle of things: the next start finishes them.

use reqwest::Method;
use serde_json::json;

use super::harness::Place;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_start_finishes_what_was_provisioning_closing_and_unsealed() {
    // With a grace and a finality that outlive the first daemon, nothing can be finished before it stops.
    let place = Place::hurried()
        .with("market.closing_grace", "3s")
        .with("settlement.finality", "1h")
        .with("triggers.seal_blocks", "1h");
    let running = place.start().await;
    let (_, consumer) = running.api.consumer("patient").await;
    let closing = consumer.buy().await;
    consumer.until(&closing, "active").await;
    consumer.post(&format!("/allocations/{closing}/close"), json!({})).await;
    consumer.until(&closing, "closing").await;
    let provisioning = consumer.buy().await;
    running.stop_well().await;

    let place = place.with("settlement.finality", "200ms").with("triggers.seal_blocks", "300ms");
    let running = place.start().await;
    consumer.until(&provisioning, "active").await;
    consumer.until(&closing, "closed").await;
    running.api.until_settled().await;
    let jobs = running.api.all("/jobs").await;
    assert!(jobs.iter().any(|job| job["kind"] == "purge" && job["state"] == "completed"), "{jobs:?}");
    let (status, _) = running.api.send(Method::GET, "/health/ready", None, None).await.unwrap();
    assert_eq!(status, 200);
    running.stop_well().await;
    place.cli(&["verify"]).await.ends(0, &["final"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_was_under_way_becomes_final_after_a_restart() {
    let place = Place::hurried().with("settlement.finality", "4s");
    let running = place.start().await;
    running.api.consumer("depositor").await;
    super::harness::wait_for("a block", || async {
        let blocks = running.api.all("/blocks").await;
        blocks.iter().any(|block| block["state"] != "final").then_some(())
    })
    .await;
    running.kill();
    let running = place.start().await;
    running.api.until_settled().await;
    running.stop_well().await;
    place.cli(&["verify"]).await.ends(0, &["final"]);
}
