//! `orchestrator doctor` as a process: each thing that can be wrong with a cluster is named, with what mends it.

use std::time::{Duration, SystemTime};

use aws_sdk_sqs::types::QueueAttributeName;
use mongodb::bson::{self, doc};
use serde_json::Value;

use super::{
    aws_like::{AwsLike, Mood},
    mongo_like::MongoLike,
    servers::{OwnServer, variable},
    whole::{REGION, Sdk, Whole},
};
use crate::daemon::harness::{Finished, free_port};

/// An address at which nobody listens.
fn nobody() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// The same configuration with nothing at AWS but queues of jobs.
fn queues_alone(whole: Whole) -> Whole {
    let settings = [
        ("database.backend", "sqlite"),
        ("storage.backend", "filesystem"),
        ("schedule.backend", "local"),
        ("events.backend", "local"),
        ("notification.backend", "local"),
        ("cache.backend", "memory"),
    ];
    settings.iter().fold(whole, |whole, (key, value)| whole.with(key, value))
}

/// Checks that the doctor is not content, and that one dependency has a finding with this problem and this fix.
fn finds(finished: &Finished, name: &str, what: &str, fix: &str) {
    assert_eq!(finished.code, Some(4), "{}\n{}", finished.out, finished.err);
    let all: Value = serde_json::from_str(&finished.out).unwrap();
    let of_name = all.as_array().unwrap().iter().filter(|checkup| checkup["name"] == name);
    let findings: Vec<&Value> = of_name.flat_map(|checkup| checkup["findings"].as_array().unwrap()).collect();
    let has = |finding: &&&Value, key: &str, part: &str| finding[key].as_str().unwrap().contains(part);
    let found = findings.iter().any(|finding| has(&finding, "what", what) && has(&finding, "fix", fix));
    assert!(found, "no {what:?} with {fix:?} at {name}: {}", finished.out);
}

async fn looked_at(whole: &Whole) -> Finished {
    whole.place.cli(&["doctor", "--json"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_well_is_called_well_and_what_drifted_is_named() {
    let whole = Whole::new();
    let before = whole.place.cli(&["doctor", "--json"]).await;
    finds(&before, "sqs", "triggers` does not exist", "run `orchestrator setup`");
    finds(&before, "database", "missing", "run `orchestrator setup`");
    whole.place.cli(&["setup"]).await.ends(0, &[]);

    let well = whole.place.cli(&["doctor"]).await;
    well.ends(
        0,
        &["WHAT", "database", "mongodb", "cache", "redis", "sqs", "s3", "eventbridge", "sns", "well"],
    );
    assert!(!well.out.contains("needs you"), "{}", well.out);
    let all = looked_at(&whole).await.json();
    for checkup in all.as_array().unwrap() {
        assert_eq!(checkup["findings"], serde_json::json!([]), "{checkup}");
        assert!(checkup["latency_ms"].as_f64().is_some(), "{checkup}");
    }
    for name in ["database", "cache", "aws account"] {
        let checkup = all.as_array().unwrap().iter().find(|checkup| checkup["name"] == name).unwrap();
        assert!(!checkup["version"].as_str().unwrap().is_empty(), "{checkup}");
    }

    let sdk = Sdk::at(&whole.endpoint, REGION, "test").await;
    let queue = format!("{}-triggers", whole.prefix);
    let url = sdk.sqs.get_queue_url().queue_name(&queue).send().await.unwrap().queue_url.unwrap();
    let change = sdk.sqs.set_queue_attributes().queue_url(&url);
    change.attributes(QueueAttributeName::VisibilityTimeout, "31").send().await.unwrap();
    let drifted = looked_at(&whole).await;
    finds(&drifted, "sqs", "VisibilityTimeout: 31 → 60", "run `orchestrator setup`, which mends it");
    whole.place.cli(&["doctor"]).await.ends(4, &["needs you", "fix: run `orchestrator setup`"]);
    whole.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_of_somebody_else_and_one_elsewhere_are_named() {
    let whole = Whole::new();
    let bucket = format!("{}-data", whole.prefix);
    let theirs = Sdk::at(&whole.endpoint, REGION, "000000000042").await;
    theirs.bucket(&bucket, REGION).await;
    finds(&looked_at(&whole).await, "s3", "belongs to another account", "choose another aws.prefix");
    theirs.s3.delete_bucket().bucket(&bucket).send().await.unwrap();

    let elsewhere = Sdk::at(&whole.endpoint, "eu-west-1", "test").await;
    let bucket = format!("elsewhere-{}", whole.prefix);
    elsewhere.bucket(&bucket, "eu-west-1").await;
    let whole = whole.with("storage.bucket_arn", &format!("arn:aws:s3:::{bucket}"));
    finds(&looked_at(&whole).await, "s3", "eu-west-1", "set aws.region to the region in which");
    elsewhere.s3.delete_bucket().bucket(&bucket).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_are_missing_and_a_region_that_is_not_set_are_named() {
    let whole = queues_alone(Whole::new());
    let nothing = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_PROFILE", ""),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("HOME", "/nonexistent"),
    ];
    let missing = whole.cli_in(&nothing, &["doctor", "--json"]).await;
    finds(
        &missing,
        "aws account",
        "there are no credentials",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    );
    let whole = whole.with("aws.region", "");
    let nothing = [
        ("AWS_REGION", ""),
        ("AWS_DEFAULT_REGION", ""),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("HOME", "/nonexistent"),
    ];
    finds(
        &whole.cli_in(&nothing, &["doctor", "--json"]).await,
        "aws",
        "no region",
        "set aws.region, or AWS_REGION",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_unknown_and_rights_that_are_missing_are_named() {
    let whole = queues_alone(Whole::at(&variable("ORCHESTRATOR_TEST_AWS_ENFORCED")));
    whole.place.cli(&["setup"]).await.ends(0, &[]);
    let unknown = [("AWS_ACCESS_KEY_ID", "AKIAXXXXXXXXXXXXXXXX"), ("AWS_SECRET_ACCESS_KEY", "unknown")];
    let refused = whole.cli_in(&unknown, &["doctor", "--json"]).await;
    finds(&refused, "aws account", "the credentials don't work", "check the access key and its secret");
    let user = crate::resources::enforced::User::new(&whole.prefix).await;
    let powerless = [("AWS_ACCESS_KEY_ID", user.key.as_str()), ("AWS_SECRET_ACCESS_KEY", &user.secret)];
    let refused = whole.cli_in(&powerless, &["doctor", "--json"]).await;
    finds(&refused, "sqs", "AccessDenied", "attach the policy that `orchestrator setup --policy` prints");
    whole.place.cli(&["setup", "--destroy", "--yes"]).await.ends(0, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_of_aws_are_named() {
    for (mood, name, what, fix) in [
        (Mood::Throttled, "sqs", "Rate exceeded", "ask AWS for a higher quota"),
        (Mood::Expired, "aws account", "expired", "renew the session"),
        (Mood::HourAhead, "aws account", "s behind AWS's", "let it follow a time server"),
        (Mood::Skewed, "aws account", "Signature expired", "let it follow a time server"),
        (Mood::Full, "sqs", "119990 messages were received and not finished", "replicas that hang"),
    ] {
        let server = AwsLike::start(mood).await;
        let whole = queues_alone(Whole::at(&server.endpoint));
        finds(&looked_at(&whole).await, name, what, fix);
    }
    let whole = queues_alone(Whole::at(&format!("http://{}", nobody())));
    finds(&looked_at(&whole).await, "sqs", "no answer", "check the network, aws.endpoint and aws.region");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_of_the_database_and_of_the_cache_are_named() {
    let alone = OwnServer::start_with("ORCHESTRATOR_TEST_MONGODB_COMMAND", &["--standalone"]).await;
    let hour_ago = SystemTime::now() - Duration::from_secs(3_600);
    let late = MongoLike::start(doc! { "localTime": bson::DateTime::from_system_time(hour_ago) }).await;
    let reads = doc! { "resource": { "db": "", "collection": "" }, "actions": ["find"] };
    let reader = doc! { "authenticatedUsers": [{ "user": "ann", "db": "admin" }], "authenticatedUserPrivileges": [reads] };
    let weak = MongoLike::start(doc! { "authInfo": reader }).await;
    let url = |address: &str| format!("mongodb://{address}/?directConnection=true");
    for (url, what, fix) in [
        (url(&format!("127.0.0.1:{}", alone.port)), "can't keep what the daemon needs", "--replSet"),
        (late.url.clone(), "ahead of the database's", "time server"),
        (weak.url.clone(), "the user may not do: insert", "grant the role `readWrite`"),
        (url(&nobody()), "unavailable", "look at database.url"),
    ] {
        let whole = Whole::new()
            .with("database.url", &url)
            .with("queue.backend", "database")
            .with("jobs.dispatch", "database")
            .with("schedule.backend", "local");
        finds(&looked_at(&whole).await, "database", what, fix);
    }
    let whole = Whole::new().with("cache.url", &format!("redis://{}", nobody()));
    finds(&looked_at(&whole).await, "cache", "unavailable", "goes on without its cache");
}
