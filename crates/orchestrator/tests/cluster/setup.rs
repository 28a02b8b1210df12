//! `orchestrator setup` as a process: what it shows, makes, mends, leaves alone, removes and refuses.

use aws_sdk_sqs::types::QueueAttributeName;
use mongodb::bson::Document;

use super::whole::{REGION, Sdk, Step, Whole};

fn with_action<'a>(steps: &'a [Step], action: &str) -> Vec<&'a Step> {
    steps.iter().filter(|step| step.action == action).collect()
}

fn names(steps: &[Step]) -> Vec<(&str, &str)> {
    let elsewhere = steps.iter().filter(|step| step.kind != "directory");
    elsewhere.map(|step| (step.kind.as_str(), step.name.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setup_plans_makes_mends_and_removes() {
    let whole = Whole::new();
    let planned = whole.steps(&["--plan"]).await;
    assert_eq!(with_action(&planned, "create").len(), planned.len(), "{planned:?}");
    for kind in ["queue", "bucket", "event bus", "schedule", "topic", "collection"] {
        assert!(planned.iter().any(|step| step.kind == kind), "no {kind}: {planned:?}");
    }
    // Nothing was made, and another host would make the same under the same names.
    assert_eq!(whole.queues().await, Vec::<String>::new());
    assert!(!whole.place.data().exists());
    assert_eq!(whole.database().await.list_collection_names().await.unwrap(), Vec::<String>::new());
    let other = Whole::new().with("aws.prefix", &whole.prefix).with("database.name", &whole.prefix);
    let elsewhere = other.steps(&["--plan"]).await;
    assert_eq!(names(&planned), names(&elsewhere));
    assert!(names(&planned).iter().all(|(_, name)| name.starts_with(&whole.prefix)), "{planned:?}");
    whole.place.cli(&["setup", "--plan"]).await.ends(0, &["WHAT", "will be made", "triggers"]);

    whole.place.cli(&["setup"]).await.ends(0, &["made", "everything is ready"]);
    assert!(!whole.queues().await.is_empty());
    for args in [&["--plan"][..], &[]] {
        let again = whole.steps(args).await;
        assert_eq!(with_action(&again, "exists").len(), again.len(), "{again:?}");
        assert_eq!(names(&again).len(), names(&planned).len());
    }

    let policy = whole.place.cli(&["setup", "--policy"]).await.json().to_string();
    for part in ["sqs:SendMessage", "s3:PutObject", "events:PutEvents", "sns:Publish", &whole.prefix] {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    drift_is_shown_and_mended(&whole).await;
    destroy_asks_first_and_removes_what_was_made(&whole).await;
    whole.database().await.drop().await.unwrap();
}

async fn drift_is_shown_and_mended(whole: &Whole) {
    let sdk = Sdk::at(&whole.endpoint, REGION, "test").await;
    let queue = format!("{}-triggers", whole.prefix);
    let url = sdk.sqs.get_queue_url().queue_name(&queue).send().await.unwrap().queue_url.unwrap();
    let visibility = || async {
        let name = QueueAttributeName::VisibilityTimeout;
        let got = sdk.sqs.get_queue_attributes().queue_url(&url).attribute_names(name.clone());
        got.send().await.unwrap().attributes.unwrap()[&name].clone()
    };
    let change = sdk.sqs.set_queue_attributes().queue_url(&url);
    change.attributes(QueueAttributeName::VisibilityTimeout, "31").send().await.unwrap();
    let database = whole.database().await;
    let dropped = whole.indexes("jobs").await.pop().unwrap();
    database.collection::<Document>("jobs").drop_index(&dropped).await.unwrap();

    let planned = whole.steps(&["--plan"]).await;
    let mut changes = with_action(&planned, "change");
    changes.sort_by(|a, b| a.kind.cmp(&b.kind));
    let [collection, changed] = changes[..] else { panic!("{planned:?}") };
    assert_eq!((&collection.name, &changed.name), (&format!("{}.jobs", whole.prefix), &queue));
    assert!(changed.changes.contains("VisibilityTimeout: 31 → 60"), "{changed:?}");
    assert!(collection.changes.contains("index"), "{collection:?}");
    assert_eq!(visibility().await, "31", "a plan changed something");
    assert!(!whole.indexes("jobs").await.contains(&dropped), "a plan changed something");
    whole.place.cli(&["setup", "--plan"]).await.ends(0, &["will be changed", "VisibilityTimeout: 31 → 60"]);

    let mended = whole.steps(&[]).await;
    let mut done = with_action(&mended, "change");
    done.sort_by(|a, b| a.kind.cmp(&b.kind));
    assert_eq!(done, changes);
    assert_eq!(visibility().await, "60");
    assert!(whole.indexes("jobs").await.contains(&dropped));
    let again = whole.steps(&[]).await;
    assert_eq!(with_action(&again, "exists").len(), again.len(), "{again:?}");
}

async fn destroy_asks_first_and_removes_what_was_made(whole: &Whole) {
    let before = whole.queues().await;
    whole.place.cli(&["setup", "--destroy"]).await.ends(2, &["confirm it with --yes"]);
    whole.place.cli(&["setup", "--yes"]).await.ends(2, &["--destroy"]);
    let planned = whole.steps(&["--destroy", "--plan"]).await;
    assert_eq!(with_action(&planned, "remove").len(), planned.len(), "{planned:?}");
    assert_eq!(whole.queues().await, before);
    let removed = whole.steps(&["--destroy", "--yes"]).await;
    assert_eq!(removed, planned);
    assert_eq!(whole.queues().await, Vec::<String>::new());
    assert_eq!(whole.steps(&["--destroy", "--yes"]).await, []);
    // Nobody can make again what a database and a data directory hold.
    assert!(!whole.database().await.list_collection_names().await.unwrap().is_empty());
    assert!(whole.place.data().exists());
    let missing = whole.steps(&["--plan"]).await;
    let missing: Vec<_> = with_action(&missing, "create").into_iter().cloned().collect();
    assert_eq!(missing.len(), removed.len(), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_by_its_arn_is_used_and_stays() {
    let whole = Whole::new();
    let sdk = Sdk::at(&whole.endpoint, REGION, "test").await;
    let prefix = whole.prefix.clone();
    let name = |what: &str| format!("theirs-{prefix}-{what}");
    let whole = whole.with("storage.bucket_arn", &format!("arn:aws:s3:::{}", name("gone")));
    whole
        .place
        .cli(&["setup"])
        .await
        .ends(1, &["invalid_config", "does not exist; make it, or leave its ARN out"]);
    assert_eq!(whole.queues().await, Vec::<String>::new(), "something was made before all was looked at");

    sdk.bucket(&name("bucket"), REGION).await;
    let bus = sdk.events.create_event_bus().name(name("bus")).send().await.unwrap();
    let topic = sdk.sns.create_topic().name(name("topic")).send().await.unwrap();
    let topic = topic.topic_arn.unwrap();
    let bucket = format!("arn:aws:s3:::{}", name("bucket"));
    let whole = whole
        .with("storage.bucket_arn", &bucket)
        .with("events.bus_arn", &bus.event_bus_arn.unwrap())
        .with("notification.topic_arn", &topic);
    let made = whole.steps(&[]).await;
    for kind in ["bucket", "event bus", "topic"] {
        let step = made.iter().find(|step| step.kind == kind).unwrap();
        assert!(step.action == "exists" && step.name.starts_with("theirs-"), "{step:?}");
    }
    let policy = whole.place.cli(&["setup", "--policy"]).await.json().to_string();
    assert!(policy.contains(&bucket) && policy.contains(&topic), "{policy}");
    whole.place.cli(&["doctor"]).await.ends(0, &["well"]);

    let removed = whole.steps(&["--destroy", "--yes"]).await;
    assert!(
        !removed.is_empty() && removed.iter().all(|step| !step.name.starts_with("theirs-")),
        "{removed:?}"
    );
    sdk.s3.head_bucket().bucket(name("bucket")).send().await.unwrap();
    sdk.events.describe_event_bus().name(name("bus")).send().await.unwrap();
    sdk.sns.get_topic_attributes().topic_arn(&topic).send().await.unwrap();

    sdk.s3.delete_bucket().bucket(name("bucket")).send().await.unwrap();
    sdk.events.delete_event_bus().name(name("bus")).send().await.unwrap();
    sdk.sns.delete_topic().topic_arn(&topic).send().await.unwrap();
    whole.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_contradicts_itself_is_refused_before_anything_is_made() {
    let whole = Whole::new()
        .with("queue.visibility", "20s")
        .with("jobs.lease", "30s")
        .with("triggers.seal_blocks", "10s")
        .with("triggers.end_periods", "90s");
    let refused = whole.place.cli(&["setup"]).await;
    refused.ends(2, &["queue.visibility", "must be at least jobs.lease"]);
    refused.ends(
        2,
        &["triggers.seal_blocks: must be whole minutes", "triggers.end_periods: must be whole minutes"],
    );
    assert!(!refused.err.contains("triggers.watch_deposits"), "{}", refused.err);
    assert_eq!(whole.queues().await, Vec::<String>::new());
    assert_eq!(whole.database().await.list_collection_names().await.unwrap(), Vec::<String>::new());
    assert!(!whole.place.data().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setup_fails_when_something_does_not_answer() {
    let port = crate::daemon::harness::free_port();
    let whole =
        Whole::new().with("database.url", &format!("mongodb://127.0.0.1:{port}/?directConnection=true"));
    let failed = whole.place.cli(&["setup"]).await;
    failed.ends(1, &["unavailable", "database"]);
    assert!(!failed.out.contains("everything is ready"));
    whole.place.cli(&["setup", "--destroy", "--yes"]).await;
    let whole = Whole::at(&format!("http://127.0.0.1:{port}"));
    let failed = whole.place.cli(&["setup"]).await;
    failed.ends(1, &["unavailable", "aws.endpoint"]);
}

/// Passwords in addresses stay where they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_command_and_no_log_shows_a_password() {
    const SECRETS: [&str; 2] = ["s3cr3t-of-mongo", "s3cr3t-of-redis"];
    let port = crate::daemon::harness::free_port();
    let whole = Whole::new()
        .with("log.filter", "debug")
        .with(
            "database.url",
            &format!("mongodb://ann:{}@127.0.0.1:{port}/?directConnection=true", SECRETS[0]),
        )
        .with("cache.url", &format!("redis://ann:{}@127.0.0.1:{port}/", SECRETS[1]));
    let shown = whole.place.cli(&["config", "show"]).await;
    shown.ends(0, &[&format!("mongodb://***@127.0.0.1:{port}"), &format!("redis://***@127.0.0.1:{port}")]);
    let as_json = whole.place.cli(&["config", "show", "--json"]).await.json();
    assert_eq!(as_json["cache"]["url"], format!("redis://***@127.0.0.1:{port}/"));
    let mut said = vec![shown];
    for args in [
        &["doctor"][..],
        &["doctor", "--json"],
        &["setup", "--plan"],
        &["setup"],
        &["run"],
        &["keys", "list"],
    ] {
        let finished = whole.place.cli(args).await;
        assert_ne!(finished.code, Some(0), "{args:?}: {}", finished.out);
        said.push(finished);
    }
    // What the driver can't read it quotes.
    for wrong in
        ["mongodb://ann:s3cr3t-of-mongo/x@localhost", "mongodb://ann:s3cr3t-of-mongo:1@localhost:99999"]
    {
        let whole = Whole::new().with("database.url", wrong);
        let finished = whole.place.cli(&["doctor"]).await;
        finished.ends(4, &["database.url"]);
        said.push(finished);
        said.push(whole.place.cli(&["run"]).await);
    }
    for finished in said {
        let all = format!("{}{}", finished.out, finished.err);
        assert!(SECRETS.iter().all(|secret| !all.contains(secret)), "{all}");
    }
    whole.place.cli(&["setup", "--destroy", "--yes"]).await;
}
