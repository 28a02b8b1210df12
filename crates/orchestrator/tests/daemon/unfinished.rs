//! What was under way when the daemon was killed is finished by the next one.

use serde_json::json;

use super::harness::{Api, Place, Running, text, wait_for};

async fn reserve(daemon: &Running, consumer: &Api) -> String {
    let ask = json!({ "unit": daemon.api.unit().await, "bytes": 1 << 20, "period_ms": 86_400_000_u64 });
    text(&consumer.post("/allocations/reserve", ask).await, "id")
}

async fn at_provider(daemon: &Running, allocation: &str) -> bool {
    let there = daemon.provider.get("/allocations").await;
    there["allocations"].as_array().unwrap().iter().any(|id| id == allocation)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provisioning_closing_and_blocks_go_on_after_a_kill() {
    let place = Place::busy().with("market.closing_grace", "3s").with("settlement.finality", "2s");
    let mut daemon = place.start().await;
    let (_, consumer) = daemon.api.consumer("kim").await;
    let mut allocations = Vec::new();

    // Provisioning: killed as soon as the funding is acknowledged.
    for _ in 0..3 {
        let allocation = reserve(&daemon, &consumer).await;
        consumer.post(&format!("/allocations/{allocation}/fund"), json!({})).await;
        daemon.kill();
        daemon = place.start().await;
        consumer.until(&allocation, "active").await;
        assert!(at_provider(&daemon, &allocation).await);
        allocations.push(allocation);
    }

    // Closing: one killed as soon as it is acknowledged, one in its grace, one stopped in its grace.
    for (step, allocation) in allocations.iter().enumerate() {
        consumer.post(&format!("/allocations/{allocation}/close"), json!({})).await;
        if step > 0 {
            wait_for("the grace", || async {
                let found = consumer.get(&format!("/allocations/{allocation}")).await;
                (!found["purge_at"].is_null()).then_some(())
            })
            .await;
        }
        if step > 1 {
            daemon.stop_well().await;
        } else {
            daemon.kill();
        }
        daemon = place.start().await;
    }
    for allocation in &allocations {
        consumer.until(allocation, "closed").await;
        assert!(!at_provider(&daemon, allocation).await);
    }

    // Blocks: killed while one is not final.
    let unfinished = || async {
        let blocks = daemon.api.all("/blocks").await;
        let block = blocks.iter().find(|block| block["state"] != "final")?;
        block["number"].as_u64()
    };
    daemon.api.consumer("lou").await;
    let number = wait_for("a block that is not final", unfinished).await;
    daemon.kill();
    let daemon = place.start().await;
    wait_for("the block to be final", || async {
        let block = daemon.api.get(&format!("/blocks/local/{number}")).await;
        (block["state"] == "final").then_some(())
    })
    .await;
    daemon.api.until_settled().await;
    daemon.stop_well().await;
    place.cli(&["verify"]).await.ends(0, &["final"]);
}
