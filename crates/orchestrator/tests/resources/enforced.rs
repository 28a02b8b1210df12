//! The policy that `setup` prints, on an emulator that enforces permissions: it is enough, and less is not.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use orchestrator::{
    client::{
        aws::{AwsClients, AwsSettings},
        clock::SystemClock,
        cron::EventBridgeCron,
        event_bus::EventBridgeBus,
        notification::SnsNotifier,
        queue::{QueueAttributes, SqsQueue},
        storage::S3Storage,
    },
    core::{
        client::{
            event_bus::EventBusClient,
            notification::{Notification, NotificationClient},
            queue::{NewMessage, QueueClient},
            storage::{StorageClient, StorageError},
        },
        madara::cron::{CronClient, CronTarget},
        market::{
            event::{Audience, DomainEvent},
            ids::{EventId, Id},
            quantity::{Micros, Timestamp},
        },
    },
    error::{Source, chain},
    resource::RemoteResource,
};
use serde_json::{Value, json};

use super::aws::{layout, resources};
use crate::contract::aws::{REGION, prefix};

fn endpoint() -> String {
    std::env::var("ORCHESTRATOR_TEST_AWS_ENFORCED").expect(
        "ORCHESTRATOR_TEST_AWS_ENFORCED must name an AWS emulator that enforces permissions; `cargo xtask test` sets it",
    )
}

async fn clients(prefix: &str, key: &str, secret: &str) -> AwsClients {
    let settings = AwsSettings { region: REGION.into(), endpoint: endpoint(), prefix: prefix.into() };
    AwsClients::with_key(&settings, key, secret).await.unwrap()
}

/// A call to IAM as root, whose signature the emulator does not check.
async fn iam(parameters: &[(&str, &str)]) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let body = serde_urlencoded::to_string(parameters).unwrap();
    let credential = "Credential=test/20260101/us-east-1/iam/aws4_request";
    let answer = reqwest::Client::new()
        .post(endpoint())
        .header("content-type", "application/x-www-form-urlencoded")
        .header("authorization", format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=0"))
        .body(format!("{body}&Version=2010-05-08"))
        .send()
        .await
        .unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{status}: {text}");
    text
}

fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap();
    rest.split_once('<').unwrap().0
}

/// A user with a key pair and no rights.
pub struct User {
    name: String,
    pub key: String,
    pub secret: String,
}

impl User {
    pub async fn new(name: &str) -> Self {
        iam(&[("Action", "CreateUser"), ("UserName", name)]).await;
        let xml = iam(&[("Action", "CreateAccessKey"), ("UserName", name)]).await;
        let (key, secret) = (element(&xml, "AccessKeyId").into(), element(&xml, "SecretAccessKey").into());
        Self { name: name.into(), key, secret }
    }

    /// Gives it exactly this policy. AWS allows a batch of SQS with the right to the single call; this emulator asks for the
    /// batch by its own name, and mistakes which bus or rule is looked at: there the actions alone can be told.
    async fn allow(&self, policy: &Value) {
        let mut policy = policy.clone();
        let mut looks = Vec::new();
        for statement in policy["Statement"].as_array_mut().unwrap() {
            let actions = statement["Action"].as_array_mut().unwrap();
            for action in actions.clone() {
                let name = action.as_str().unwrap();
                let batches = ["sqs:SendMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"];
                if batches.contains(&name) {
                    actions.push(json!(format!("{name}Batch")));
                }
                if name.starts_with("events:") && name != "events:PutEvents" {
                    looks.push(action);
                }
            }
        }
        let looks = json!({ "Effect": "Allow", "Action": looks, "Resource": ["*"] });
        policy["Statement"].as_array_mut().unwrap().push(looks);
        let text = policy.to_string();
        let name = ("UserName", self.name.as_str());
        iam(&[("Action", "PutUserPolicy"), name, ("PolicyName", "daemon"), ("PolicyDocument", &text)]).await;
    }
}

/// Everything that the daemon does at AWS, by clients that know nothing yet.
async fn exercise(clients: &AwsClients) -> Result<(), Source> {
    let clock = Arc::new(SystemClock::new());
    let queue = Arc::new(SqsQueue::new(clients.clone(), clock.clone(), QueueAttributes::default()));
    queue.create("triggers").await?;
    queue.send("triggers", vec![NewMessage { body: "x".into(), delay: Micros::ZERO }]).await?;
    let messages = queue.receive("triggers", 1, Micros::from_secs(60), Micros::from_secs(5)).await?;
    let receipt = &messages.first().ok_or("nothing was received")?.receipt;
    queue.change_visibility("triggers", receipt, Micros::from_secs(30)).await?;
    queue.delete("triggers", receipt).await?;
    queue.depth("triggers").await?;

    let cron = EventBridgeCron::new(clients.clone(), queue.clone());
    cron.create("seal_blocks", Micros::from_secs(60)).await?;
    cron.add_target("seal_blocks", CronTarget { queue: "triggers".into(), body: "seal_blocks".into() })
        .await?;
    cron.set_enabled("seal_blocks", true).await?;
    let bus = EventBridgeBus::new(clients.clone(), clock, queue.clone());
    bus.create_bus("market").await?;
    let event = DomainEvent {
        id: EventId::from_uuid(uuid::Uuid::from_u128(1)),
        kind: "unit.created".into(),
        subject: "s".into(),
        audience: Audience::Public,
        data: json!({}),
        at: Timestamp(7),
    };
    bus.publish("market", &[event]).await?;
    let alerts = SnsNotifier::new(clients.clone());
    alerts.create_topic("alerts").await?;
    // Another subscriber each time: one that is there is left as it is.
    let subscriber = format!("{}-{}", queue.arn("jobs-purge-dead").await?, prefix("subscriber"));
    alerts.subscribe("alerts", &subscriber).await?;
    let alert = Notification { id: "n".into(), subject: "s".into(), body: json!({}) };
    alerts.publish("alerts", &alert).await?;
    objects(&S3Storage::new(clients, clients.name("data"))).await?;
    let findings: Vec<_> =
        resources(clients, layout()).check().await.into_iter().flat_map(|check| check.findings).collect();
    if findings.is_empty() { Ok(()) } else { Err(format!("{findings:?}").into()) }
}

async fn objects(storage: &S3Storage) -> Result<(), Source> {
    storage.create_bucket("blocks").await?;
    let part = || Ok(Bytes::from(vec![7; 3 << 20]));
    storage.put("blocks", "small", stream::iter([Ok(Bytes::from_static(b"x"))]).boxed()).await?;
    storage.put("blocks", "long", stream::iter([part(), part(), part()]).boxed()).await?;
    let broken = stream::iter([part(), part(), part(), Err(StorageError::Full)]).boxed();
    match storage.put("blocks", "broken", broken).await {
        Err(StorageError::Full) => {}
        other => return Err(format!("{other:?}").into()),
    }
    let read: Vec<Bytes> = storage.get("blocks", "small").await?.try_collect().await?;
    assert_eq!(read.concat(), b"x");
    match storage.head("blocks", "missing").await {
        Err(StorageError::NoObject(_)) => {}
        other => return Err(format!("{other:?}").into()),
    }
    storage.list("blocks", "", None, 9).await?;
    Ok(storage.delete("blocks", "small").await?)
}

/// Removes the parts that uploads left behind; returns of how many.
async fn left_behind(root: &AwsClients) -> usize {
    let (raw, bucket) = (crate::contract::aws::raw_s3_at(&endpoint()), root.name("data"));
    let uploads = raw.list_multipart_uploads().bucket(&bucket).send().await.unwrap();
    for upload in uploads.uploads() {
        let abort = raw.abort_multipart_upload().bucket(&bucket).key(upload.key().unwrap());
        abort.upload_id(upload.upload_id().unwrap()).send().await.unwrap();
    }
    uploads.uploads().len()
}

#[tokio::test]
async fn the_policy_is_enough_and_less_is_not() {
    let prefix = prefix("least");
    let root = clients(&prefix, "test", "test").await;
    let all = resources(&root, layout());
    all.apply().await.unwrap();
    let policy = all.policy().await.unwrap();
    let user = User::new(&prefix).await;
    user.allow(&policy).await;
    let daemon = || clients(&prefix, &user.key, &user.secret);
    if let Err(error) = exercise(&daemon().await).await {
        panic!("{}", chain(&*error));
    }
    assert_eq!(left_behind(&root).await, 0);

    let mut needless = Vec::new();
    for (place, statement) in policy["Statement"].as_array().unwrap().iter().enumerate() {
        for action in statement["Action"].as_array().unwrap() {
            let mut less = policy.clone();
            let actions = less["Statement"][place]["Action"].as_array_mut().unwrap();
            actions.retain(|other| other != action);
            if actions.is_empty() {
                less["Statement"].as_array_mut().unwrap().remove(place);
            }
            user.allow(&less).await;
            let done = exercise(&daemon().await).await;
            if left_behind(&root).await == 0 && done.is_ok() {
                needless.push(action.clone());
            }
        }
    }
    assert_eq!(needless, Vec::<Value>::new(), "the daemon does without these");
}

#[tokio::test]
async fn wrong_credentials_and_missing_rights_are_told_with_what_to_do() {
    let prefix = prefix("wrong");
    resources(&clients(&prefix, "test", "test").await, layout()).apply().await.unwrap();
    let user = User::new(&prefix).await;
    for (key, secret, word) in [
        (user.key.as_str(), "wrong", "check the access key"),
        ("AKIAXXXXXXXXXXXXXXXX", "unknown", "check the access key"),
        (&user.key, &user.secret, "attach the policy"),
    ] {
        let checks = resources(&clients(&prefix, key, secret).await, layout()).check().await;
        let findings: Vec<_> = checks.into_iter().flat_map(|check| check.findings).collect();
        assert!(findings.len() >= layout().queues.len(), "{findings:?}");
        assert!(findings.iter().all(|finding| finding.fix.contains(word)), "{word}: {findings:?}");
    }
}
