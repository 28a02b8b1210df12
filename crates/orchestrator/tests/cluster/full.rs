//! The full set at once: MongoDB, SQS, S3, EventBridge for triggers and events, SNS for alerts, Redis. What `setup` made is all
//! that the daemons get; EventBridge alone fires their triggers, and who listens at the bus and at the topic hears of it.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use aws_sdk_eventbridge::types::Target;
use aws_sdk_sqs::types::QueueAttributeName;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    servers::variable,
    survive::{end, under_load},
    whole::{EVENT_BRIDGE_RATES, REGION, Sdk},
    world::{Cluster, Shape},
};
use crate::daemon::{
    harness::{PATIENCE, id, text, wait_for},
    judge::judge,
};

const CONSUMERS: u64 = 1;
/// How long the consumers act before they wait for EventBridge.
const AT_WORK: Duration = Duration::from_secs(8);

/// The settings that make the set full.
fn full() -> Vec<(&'static str, String)> {
    let settings = [
        ("schedule.backend", "event_bridge"),
        ("events.backend", "event_bridge"),
        ("notification.backend", "sns"),
        ("triggers.reconcile", "300s"),
        // Several periods end before EventBridge fires for the first time.
        ("sla.bucket", "1s"),
        ("sla.billing_period", "15s"),
        ("sla.rolling_window", "60s"),
        ("sla.settle_delay", "1s"),
    ];
    settings.into_iter().chain(EVENT_BRIDGE_RATES).map(|(key, value)| (key, value.to_owned())).collect()
}

/// Removes what is at AWS when the test ends, however it ends: schedules that nobody removes fire for ever.
struct Removal(Command);

impl Drop for Removal {
    fn drop(&mut self) {
        let _ = self.0.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// A queue of the test's own, into which services send.
struct Ear {
    sdk: Sdk,
    url: String,
    arn: String,
    heard: Vec<Value>,
}

impl Ear {
    async fn new(endpoint: &str, name: &str) -> Self {
        let sdk = Sdk::at(endpoint, REGION, "test").await;
        let url = sdk.sqs.create_queue().queue_name(name).send().await.unwrap().queue_url.unwrap();
        let of = sdk.sqs.get_queue_attributes().queue_url(&url);
        let attributes = of.attribute_names(QueueAttributeName::QueueArn).send().await.unwrap().attributes;
        let arn = attributes.unwrap()[&QueueAttributeName::QueueArn].clone();
        Self { sdk, url, arn, heard: Vec::new() }
    }

    /// Listens until something that was heard is what is wanted.
    async fn hears(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.heard.iter().find(|message| wanted(message)) {
                return found.clone();
            }
            assert!(Instant::now() < until, "never heard: {what}; but {:?}", self.heard);
            let receive = self.sdk.sqs.receive_message().queue_url(&self.url);
            let got = receive.max_number_of_messages(10).wait_time_seconds(1).send().await.unwrap();
            for message in got.messages.unwrap_or_default() {
                self.heard.push(serde_json::from_str(message.body().unwrap()).unwrap());
                let receipt = message.receipt_handle.unwrap();
                let delete = self.sdk.sqs.delete_message().queue_url(&self.url).receipt_handle(receipt);
                delete.send().await.unwrap();
            }
        }
    }

    async fn remove(self) {
        self.sdk.sqs.delete_queue().queue_url(&self.url).send().await.unwrap();
    }
}

/// A rule that sends every event on the bus of this market to the ear.
async fn listen_at_the_bus(cluster: &Cluster, ear: &Ear) {
    let (bus, rule) = (format!("{}-market", cluster.prefix), format!("{}.heard", cluster.prefix));
    let pattern = json!({ "source": [format!("orchestrator.{}", cluster.prefix)] });
    let put = ear.sdk.events.put_rule().event_bus_name(&bus).name(&rule).event_pattern(pattern.to_string());
    put.send().await.unwrap();
    let target = Target::builder().id("ear").arn(&ear.arn).build().unwrap();
    ear.sdk.events.put_targets().event_bus_name(&bus).rule(&rule).targets(target).send().await.unwrap();
}

/// A subscription to the alerts.
async fn listen_at_the_topic(cluster: &Cluster, ear: &Ear) {
    let topics = ear.sdk.sns.list_topics().send().await.unwrap().topics.unwrap_or_default();
    let name = format!(":{}-alerts", cluster.prefix);
    let topic = topics.iter().filter_map(|topic| topic.topic_arn()).find(|arn| arn.ends_with(&name)).unwrap();
    let subscribe = ear.sdk.sns.subscribe().topic_arn(topic).protocol("sqs").endpoint(&ear.arn);
    subscribe.send().await.unwrap();
}

/// A consumer complains, which alerts the operators; they decide for the consumer. The allocation.
async fn complain(cluster: &Cluster) -> (crate::daemon::harness::Api, String, String) {
    let (_, consumer) = cluster.operator.consumer("plaintiff").await;
    let allocation = consumer.buy().await;
    consumer.until(&allocation, "active").await;
    let claim = json!({ "kind": "billing", "claim": "the meter is wrong", "amount": "5" });
    let dispute = id(&consumer.post(&format!("/allocations/{allocation}/dispute"), claim).await);
    let decision = json!({ "decision": "consumer", "reason": "the meter was wrong" });
    cluster.operator.post(&format!("/disputes/{dispute}/decide"), decision).await;
    (consumer, allocation, dispute)
}

/// Whether a trigger ran in one of the replicas.
async fn ran(cluster: &Cluster, trigger: &str) -> bool {
    for replica in &cluster.replicas {
        let api = &replica.running.as_ref().unwrap().api;
        let all = api.get("/triggers").await["items"].as_array().unwrap().clone();
        let one = all.iter().find(|one| one["name"] == trigger).unwrap();
        if one["runs"].as_u64().unwrap() > 0 {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_market_goes_the_whole_way_on_the_full_set() {
    let aws = variable("ORCHESTRATOR_TEST_AWS_ENDPOINT");
    let shape = Shape { aws: aws.clone(), replicas: 2, more: full() };
    let cluster = Cluster::of(shape).await;
    let place = &cluster.replicas[0].place;
    let _removal = Removal(place.command(&["setup", "--destroy", "--yes"]));
    let mut bus = Ear::new(&aws, &format!("{}-heard-events", cluster.prefix)).await;
    let mut alerts = Ear::new(&aws, &format!("{}-heard-alerts", cluster.prefix)).await;
    listen_at_the_bus(&cluster, &bus).await;
    listen_at_the_topic(&cluster, &alerts).await;

    let load = under_load(&cluster, 31, CONSUMERS).await;
    let (consumer, allocation, dispute) = complain(&cluster).await;
    tokio::time::sleep(AT_WORK).await;
    let mut consumers = load.finish().await;

    // One event, as whoever listens gets it, and one alert.
    let event = bus.hears("an allocation became active", |event| {
        event["detail-type"] == "allocation.active" && event["detail"]["subject"] == allocation.as_str()
    });
    let event = event.await;
    assert_eq!(event["source"], format!("orchestrator.{}", cluster.prefix), "{event}");
    let wanted = format!("dispute {dispute} waits for a decision");
    let alert = alerts.hears("the dispute", |alert| alert["Subject"] == wanted.as_str()).await;
    let told: Value = serde_json::from_str(&text(&alert, "Message")).unwrap();
    assert_eq!((&told["topic"], &told["body"]["dispute"]), (&json!("alerts"), &json!(dispute)), "{told}");

    // Nothing but EventBridge closes windows and seals blocks here.
    let verdicts = format!("/allocations/{allocation}/verdicts");
    wait_for("a window to be closed", || async {
        let (_, found) = consumer.send(Method::GET, &verdicts, None, None).await?;
        (!found["items"].as_array()?.is_empty()).then_some(())
    })
    .await;
    consumer.post(&format!("/allocations/{allocation}/close"), json!({})).await;
    consumer.until(&allocation, "closed").await;
    judge(&cluster.operator, &cluster.provider, &mut consumers).await;
    for trigger in ["close_sla_windows", "seal_blocks", "watch_deposits"] {
        assert!(ran(&cluster, trigger).await, "{trigger} never ran");
    }
    bus.hears("a block became final", |event| event["detail-type"] == "block.final").await;

    bus.remove().await;
    alerts.remove().await;
    end(cluster).await;
}
