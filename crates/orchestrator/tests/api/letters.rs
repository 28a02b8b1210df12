//! Dead letters over HTTP: how many there are, and their way back.

use orchestrator::{
    client::provider::ScriptedFault,
    core::{job::JobKind, madara::job_queue::JobQueueClient, market::allocation::RestrictReason},
    service::work::Call,
};
use serde_json::json;

use super::harness::Api;

#[tokio::test]
async fn dead_letters_are_counted_and_redriven_by_operators() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
    let unit = api.unit(&provider).await;
    let allocation = api.active(&consumer, &unit).await;
    api.provider.script("restrict", ScriptedFault::Refused);
    let system = Call::system("test");
    api.allocations.restrict(&system, allocation.parse().unwrap(), RestrictReason::Quota).await.unwrap();
    api.run_jobs().await;
    let failed = api.get(&api.operator, "/jobs?state=failed").await.ok(200);
    let job = failed["items"][0]["id"].as_str().unwrap().to_owned();
    // What the relay does with the job's outbox row.
    api.letters.dead_letter(JobKind::SyncAccess, &job).await.unwrap();
    api.letters.dead_letter(JobKind::SyncAccess, "no job at all").await.unwrap();

    let (count, redrive) = ("/jobs/dead-letters", "/jobs/dead-letters/redrive");
    api.get(&provider.key, count).await.problem(403, "forbidden", None);
    api.post(&provider.key, redrive, json!({})).await.problem(403, "forbidden", None);
    for max in [0, 1_001] {
        let refused = api.post(&api.operator, redrive, json!({ "max": max })).await;
        refused.problem(422, "invalid_field", Some("max"));
    }
    assert_eq!(api.get(&api.operator, count).await.ok(200), json!({"waiting": 2, "damaged": 0}));
    let report = api.post_once(&api.operator, redrive, "back", json!({})).await.ok(200);
    assert_eq!(report, json!({"letters": 2, "retried": [job], "outdated": 0, "unreadable": 1}));
    assert_eq!(api.post_once(&api.operator, redrive, "back", json!({})).await.ok(200), report);
    assert_eq!(api.get(&api.operator, count).await.ok(200), json!({"waiting": 0, "damaged": 1}));
    let job = api.get(&api.operator, &format!("/jobs/{job}")).await.ok(200);
    assert_ne!(job["state"], "failed", "{job}");
}
