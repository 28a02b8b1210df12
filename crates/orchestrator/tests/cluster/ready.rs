//! `/health/ready` of a replica: what it asks, and that the replica leaves only for what it can't do without.

use reqwest::Method;
use serde_json::Value;

use super::{servers::OwnServer, whole::Whole};
use crate::daemon::harness::{Running, wait_for};

async fn asked(running: &Running) -> (u16, Value) {
    let (status, body) = running.api.send(Method::GET, "/health/ready", None, None).await.unwrap();
    (status.as_u16(), body)
}

fn of<'a>(body: &'a Value, name: &str) -> &'a Value {
    body["dependencies"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_ready_without_its_cache_and_not_without_its_database() {
    let (mut mongodb, mut redis) = tokio::join!(
        OwnServer::start("ORCHESTRATOR_TEST_MONGODB_COMMAND"),
        OwnServer::start("ORCHESTRATOR_TEST_REDIS_COMMAND")
    );
    let whole = Whole::new()
        .with("database.url", &format!("mongodb://127.0.0.1:{}/?directConnection=true", mongodb.port))
        .with("cache.url", &format!("redis://127.0.0.1:{}", redis.port));
    whole.place.cli(&["setup"]).await.ends(0, &[]);
    let running = whole.place.start().await;
    // On a busy machine a server may take longer than a dependency is given.
    let body = wait_for("every dependency", || async {
        let (status, body) = asked(&running).await;
        let all = body["dependencies"].as_array().unwrap().iter().all(|one| one["ok"] == true);
        (status == 200 && all).then_some(body)
    })
    .await;
    assert_eq!(body["status"], "ready", "{body}");
    let mut names = Vec::new();
    for one in body["dependencies"].as_array().unwrap() {
        names.push((one["name"].as_str().unwrap(), one["needed"].as_bool().unwrap()));
    }
    names.sort_unstable();
    assert_eq!(
        names,
        [
            ("cache", false),
            ("database", true),
            ("events", false),
            ("job queue", true),
            ("notification", false),
            ("outside", false),
            ("queue", true),
            ("schedule", false),
            ("settlement", true),
            ("storage", true),
        ]
    );

    redis.kill();
    wait_for("the cache to be missed", || async {
        let (status, body) = asked(&running).await;
        let missed = of(&body, "cache")["ok"] == false;
        (missed && status == 200 && body["status"] == "ready").then_some(())
    })
    .await;
    redis.resume().await;
    wait_for("the cache to be back", || async {
        let (_, body) = asked(&running).await;
        (of(&body, "cache")["ok"] == true).then_some(())
    })
    .await;

    mongodb.kill();
    // An answer is given again for a second.
    wait_for("the database to be missed", || async {
        let (status, body) = asked(&running).await;
        let missed = of(&body, "database")["ok"] == false && of(&body, "queue")["ok"] == true;
        (missed && status == 503 && body["status"] == "not_ready").then_some(())
    })
    .await;
    mongodb.resume().await;
    wait_for("the database to be back", || async { (asked(&running).await.0 == 200).then_some(()) }).await;
    running.stop_well().await;
    whole.place.cli(&["setup", "--destroy", "--yes"]).await;
}
