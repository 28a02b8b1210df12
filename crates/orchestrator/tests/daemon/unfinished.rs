//! What was under way when the daemon was killed is finished by the next one.

use serde_json::json;

use super::process::{Api, Daemon, Home, text, wait_for};

async fn reserve(daemon: &Daemon, consumer: &Api) -> String {
    let ask = json!({ "unit": daemon.unit().await, "bytes": 1 << 20, "period_ms": 86_400_000_u64 });
    text(&consumer.post("/allocations/reserve", ask).await, "id")
}

async fn at_provider(daemon: &Daemon, allocation: &str) -> bool {
    let there = daemon.provider.get("/allocations").await;
    there["allocations"].as_array().unwrap().iter().any(|id| id == allocation)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provisioning_closing_and_blocks_go_on_after_a_kill() {
    let home = Home::new(&["market.closing_grace=3s", "settlement.finality=2s"]);
    let mut daemon = home.start().await;
    let (_, consumer) = daemon.operator.consumer("kim", 1_000).await;
    let mut allocations = Vec::new();

    // Provisioning: killed as soon as the funding is acknowledged.
    for _ in 0..3 {
        let allocation = reserve(&daemon, &consumer).await;
        consumer.post(&format!("/allocations/{allocation}/fund"), json!({})).await;
        daemon.kill9();
        daemon = home.start().await;
        consumer.until_state(&allocation, "active").await;
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
            assert_eq!(daemon.terminate().await, Some(0));
        } else {
            daemon.kill9();
        }
        daemon = home.start().await;
    }
    for allocation in &allocations {
        consumer.until_state(allocation, "closed").await;
        assert!(!at_provider(&daemon, allocation).await);
    }

    // Blocks: killed while one is not final.
    let unfinished = || async {
        let blocks = daemon.operator.all("/blocks").await;
        let block = blocks.iter().find(|block| block["state"] != "final")?;
        block["number"].as_u64()
    };
    consumer_pays_in(&daemon).await;
    let number = wait_for("a block that is not final", unfinished).await;
    daemon.kill9();
    let daemon = home.start().await;
    wait_for("the block to be final", || async {
        let block = daemon.operator.get(&format!("/blocks/local/{number}")).await;
        (block["state"] == "final").then_some(())
    })
    .await;
    let (status, said) = home.verify().await;
    assert_eq!(status.code(), Some(0), "{said}");
}

/// Something for the next block.
async fn consumer_pays_in(daemon: &Daemon) {
    daemon.operator.consumer("lou", 1).await;
}
