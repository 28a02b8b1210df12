//! Resources at AWS: made once, mended when they differ, removed when they are ours, and enough for the adapters.

use std::sync::Arc;

use aws_sdk_eventbridge::types::Target;
use orchestrator::{
    client::{
        aws::{AwsClients, AwsSettings},
        clock::SystemClock,
        cron::EventBridgeCron,
        event_bus::EventBridgeBus,
        job_queue::{SqsJobQueue, SqsJobQueueSettings},
        notification::SnsNotifier,
        storage::S3Storage,
    },
    core::{
        client::{
            event_bus::EventBusClient, notification::NotificationClient, queue::QueueClient,
            storage::StorageClient,
        },
        job::{JobKind, Phase},
        madara::{
            cron::{CronClient, CronTarget},
            job_queue::JobQueueClient,
        },
        market::quantity::Micros,
    },
    error::ErrorCode,
    resource::{
        Action, Plan, RemoteResource,
        aws::{AwsLayout, AwsResources, Owner, QueueSpec, ScheduleSpec},
    },
};

use crate::contract::aws::{self, clients};

/// A queue; the one of triggers lets schedules send.
pub fn queue(name: &str, dead_letters: Option<&str>) -> QueueSpec {
    QueueSpec {
        name: name.into(),
        visibility: Micros::from_secs(60),
        retention: Micros::from_days(14),
        dead_letters: dead_letters.map(|name| (name.to_owned(), 16)),
        scheduled: name == "triggers",
    }
}

/// A small market's resources: one of each kind.
pub fn layout() -> AwsLayout {
    let every = Micros::from_secs(60);
    let schedule = ScheduleSpec {
        name: "seal_blocks".into(),
        every,
        queue: "triggers".into(),
        body: "seal_blocks".into(),
    };
    AwsLayout {
        queues: vec![
            queue("jobs-purge-verify", Some("jobs-purge-dead")),
            queue("jobs-purge-dead", None),
            queue("triggers", None),
        ],
        bucket: Some(Owner::of("", "data")),
        bus: Some(Owner::of("", "market")),
        schedules: vec![schedule],
        topic: Some(Owner::of("", "alerts")),
        signer: None,
    }
}

fn actions(plan: &Plan) -> Vec<Action> {
    plan.steps.iter().map(|step| step.action).collect()
}

/// What `setup` works on.
pub fn resources(clients: &AwsClients, layout: AwsLayout) -> AwsResources {
    AwsResources::new(clients.clone(), layout)
}

#[tokio::test]
async fn everything_is_made_once_and_removed_again() {
    let clients = clients("life").await;
    let all = resources(&clients, layout());
    assert_eq!(all.verify().await.unwrap_err().code, ErrorCode::InvalidConfig);
    let plan = all.plan().await.unwrap();
    assert_eq!(actions(&plan), [Action::Create; 7]);
    let kinds: Vec<_> = plan.steps.iter().map(|step| step.kind).collect();
    assert_eq!(kinds, ["queue", "queue", "queue", "bucket", "event bus", "topic", "schedule"]);
    assert!(plan.steps.iter().all(|step| step.name.starts_with(clients.prefix())));
    assert_eq!(all.apply().await.unwrap(), plan);
    all.verify().await.unwrap();
    assert!(all.apply().await.unwrap().is_done(), "a second time there is nothing to do");

    // Nothing of it is in the way of a second removal, or of making it anew.
    let removed = all.destroy().await.unwrap();
    assert_eq!(actions(&removed), [Action::Remove; 7]);
    assert_eq!(all.plan_destroy().await.unwrap().steps, []);
    assert_eq!(all.destroy().await.unwrap().steps, []);
    assert_eq!(actions(&all.plan().await.unwrap()), [Action::Create; 7]);
}

#[tokio::test]
async fn a_schedule_whose_trigger_is_no_more_is_removed_and_those_of_others_stay() {
    let clients = clients("rest").await;
    let all = resources(&clients, layout());
    // As an older release has made it, which had one more trigger.
    let mut older = layout();
    older.schedules.push(ScheduleSpec {
        name: "old".into(),
        body: "old".into(),
        ..older.schedules[0].clone()
    });
    resources(&clients, older.clone()).apply().await.unwrap();
    // Somebody else's: a rule with our prefix that sends elsewhere, and rules of a prefix that begins alike.
    let events = aws::raw_events();
    let theirs = format!("{}.report", clients.prefix());
    events.put_rule().name(&theirs).schedule_expression("rate(1 day)").send().await.unwrap();
    let elsewhere = Target::builder().id("x").arn("arn:aws:sqs:us-east-1:000000000000:elsewhere");
    events.put_targets().rule(&theirs).targets(elsewhere.build().unwrap()).send().await.unwrap();
    let alike = format!("{}-b.old", clients.prefix());
    events.put_rule().name(&alike).schedule_expression("rate(1 day)").send().await.unwrap();

    let old = format!("{}.old", clients.prefix());
    let plan = all.plan().await.unwrap();
    let left: Vec<_> = plan.steps.iter().filter(|step| step.action != Action::Exists).collect();
    let [step] = left[..] else { panic!("{plan:?}") };
    assert_eq!((step.kind, &step.name, step.action), ("schedule", &old, Action::Remove));
    assert!(step.changes[0].contains("no trigger"), "{step:?}");
    assert!(!plan.is_done());
    let refused = all.verify().await.unwrap_err();
    assert!(refused.detail.contains(&old) && refused.detail.contains("orchestrator setup"), "{refused}");
    assert_eq!(all.apply().await.unwrap(), plan);
    assert!(all.apply().await.unwrap().is_done(), "a second time there is nothing to do");
    assert!(events.describe_rule().name(&old).send().await.is_err());

    // A removal takes it along, too.
    resources(&clients, older).apply().await.unwrap();
    let removed = all.destroy().await.unwrap();
    assert!(removed.steps.iter().any(|step| step.name == old), "{removed:?}");
    assert!(events.describe_rule().name(&old).send().await.is_err());
    for name in [&theirs, &alike] {
        events.describe_rule().name(name).send().await.unwrap();
    }
    events.remove_targets().rule(&theirs).ids("x").send().await.unwrap();
    for name in [&theirs, &alike] {
        events.delete_rule().name(name).send().await.unwrap();
    }
}

#[tokio::test]
async fn what_differs_is_shown_and_mended() {
    let clients = clients("drift").await;
    let all = resources(&clients, layout());
    // As an older release, or a hand, has made it.
    let mut other = layout();
    other.queues[0].visibility = Micros::from_secs(30);
    other.queues[0].dead_letters = Some(("jobs-purge-dead".into(), 3));
    other.queues[2].scheduled = false;
    other.schedules[0].every = Micros::from_secs(300);
    resources(&clients, other).apply().await.unwrap();
    aws::raw_s3().delete_public_access_block().bucket(clients.name("data")).send().await.unwrap();

    let plan = all.plan().await.unwrap();
    let changes: Vec<_> = plan.steps.iter().filter(|step| step.action == Action::Change).collect();
    assert_eq!(changes.len(), 4, "{plan:?}");
    let text = serde_json::to_string(&plan).unwrap();
    for part in [
        "VisibilityTimeout: 30 → 60",
        "RedrivePolicy: ",
        "Policy: schedules may send",
        "PublicAccessBlock: all public access is blocked",
        "ScheduleExpression: rate(5 minutes) → rate(1 minute)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let refused = all.verify().await.unwrap_err();
    assert!(refused.detail.contains("orchestrator setup"), "{refused}");
    let findings: Vec<_> = all.check().await.into_iter().flat_map(|check| check.findings).collect();
    assert_eq!(findings.len(), 4, "{findings:?}");
    assert!(findings.iter().all(|finding| finding.fix.contains("orchestrator setup")));

    assert_eq!(all.apply().await.unwrap(), plan);
    assert!(all.plan().await.unwrap().is_done());
    let checks = all.check().await;
    let names: Vec<_> = checks.iter().map(|check| check.name).collect();
    assert_eq!(names, ["aws account", "eventbridge", "s3", "sns", "sqs"]);
    assert!(checks.iter().all(|check| check.is_ready() && check.latency > Micros::ZERO), "{checks:?}");
    assert!(checks[0].version.as_ref().unwrap().contains("arn:aws"));
    all.destroy().await.unwrap();
}

#[tokio::test]
async fn what_belongs_to_others_is_looked_at_and_no_more() {
    let theirs = clients("theirs").await;
    resources(&theirs, layout()).apply().await.unwrap();
    let ours = clients("ours").await;
    let by_arn = AwsLayout {
        bucket: Some(Owner::of(&format!("arn:aws:s3:::{}", theirs.name("data")), "data")),
        bus: Some(Owner::of(
            &theirs.arn("events", &format!("event-bus/{}", theirs.name("market"))).await.unwrap(),
            "market",
        )),
        topic: Some(Owner::of(&theirs.arn("sns", &theirs.name("alerts")).await.unwrap(), "alerts")),
        ..AwsLayout::default()
    };
    let all = resources(&ours, by_arn.clone());
    let plan = all.apply().await.unwrap();
    assert_eq!(actions(&plan), [Action::Exists; 3]);
    assert!(plan.steps.iter().all(|step| step.name.starts_with(theirs.prefix())), "{plan:?}");
    assert_eq!(all.destroy().await.unwrap().steps, []);
    resources(&theirs, layout()).verify().await.unwrap();

    resources(&theirs, layout()).destroy().await.unwrap();
    let missing = all.apply().await.unwrap_err();
    assert!(missing.detail.contains("does not exist; make it"), "{missing}");
    let findings: Vec<_> = all.check().await.into_iter().flat_map(|check| check.findings).collect();
    assert_eq!(findings.len(), 3);
    assert!(findings.iter().all(|finding| finding.fix.contains("leave its ARN out")), "{findings:?}");
}

#[tokio::test]
async fn a_bucket_of_another_account_is_named_with_what_to_do() {
    let prefix = aws::prefix("taken");
    let (ours, theirs) =
        (aws::clients_with(&prefix, "test").await, aws::clients_with(&prefix, "000000000042").await);
    let layout = AwsLayout { bucket: Some(Owner::of("", "data")), ..AwsLayout::default() };
    resources(&theirs, layout.clone()).apply().await.unwrap();
    let all = resources(&ours, layout.clone());
    for refused in [all.apply().await.unwrap_err(), all.destroy().await.unwrap_err()] {
        assert!(refused.detail.contains("belongs to another account"), "{refused}");
        assert!(refused.detail.contains("aws.prefix"), "{refused}");
    }
    resources(&theirs, layout.clone()).verify().await.unwrap();
    resources(&theirs, layout).destroy().await.unwrap();
}

#[tokio::test]
async fn a_bucket_with_objects_is_never_removed() {
    let clients = clients("full").await;
    let layout = AwsLayout { bucket: Some(Owner::of("", "data")), ..AwsLayout::default() };
    let all = resources(&clients, layout);
    all.apply().await.unwrap();
    let storage = S3Storage::new(&clients, clients.name("data"));
    storage.create_bucket("blocks").await.unwrap();
    let body = futures::StreamExt::boxed(futures::stream::iter([Ok(bytes::Bytes::from_static(b"x"))]));
    storage.put("blocks", "k", body).await.unwrap();
    let refused = all.destroy().await.unwrap_err();
    assert!(refused.detail.contains("has objects"), "{refused}");
    assert_eq!(storage.head("blocks", "k").await.unwrap().size, 1);
    storage.delete("blocks", "k").await.unwrap();
    all.destroy().await.unwrap();
}

#[tokio::test]
async fn a_rate_that_can_not_be_kept_is_refused_before_anything_is_made() {
    let clients = clients("rate").await;
    let mut layout = layout();
    layout.schedules[0].every = Micros::from_secs(90);
    let refused = resources(&clients, layout).apply().await.unwrap_err();
    assert!(refused.detail.contains("whole minutes"), "{refused}");
    let mut without = self::layout();
    without.schedules.clear();
    assert_eq!(actions(&resources(&clients, without).plan().await.unwrap()), [Action::Create; 6]);
}

#[tokio::test]
async fn what_was_made_is_what_the_adapters_use() {
    let clients = clients("used").await;
    let mut layout = layout();
    let settings = SqsJobQueueSettings::default();
    layout.queues = SqsJobQueue::names("jobs")
        .into_iter()
        .flat_map(|(hints, dead)| [queue(&hints, Some(&dead)), queue(&dead, None)])
        .chain([queue("triggers", None)])
        .collect();
    layout.queues.sort_by(|a, b| a.name.cmp(&b.name));
    layout.queues.dedup();
    let all = resources(&clients, layout);
    all.apply().await.unwrap();

    let queue = aws::queue(&clients);
    queue.create("triggers").await.unwrap();
    SqsJobQueue::new(queue.clone(), "jobs", settings).create_queues().await.unwrap();
    let cron = EventBridgeCron::new(clients.clone(), queue.clone());
    cron.create("seal_blocks", Micros::from_secs(60)).await.unwrap();
    let target = CronTarget { queue: "triggers".into(), body: "seal_blocks".into() };
    cron.add_target("seal_blocks", target.clone()).await.unwrap();
    cron.set_enabled("seal_blocks", true).await.unwrap();
    assert_eq!(cron.list().await.unwrap()[0].targets, [target]);
    let bus = EventBridgeBus::new(clients.clone(), Arc::new(SystemClock::new()), queue.clone());
    bus.create_bus("market").await.unwrap();
    SnsNotifier::new(clients.clone()).create_topic("alerts").await.unwrap();
    S3Storage::new(&clients, clients.name("data")).create_bucket("blocks").await.unwrap();
    assert!(all.plan().await.unwrap().is_done(), "the adapters found everything as they would have made it");

    // And the other way round: what the adapters make is what setup wants.
    let jobs = SqsJobQueue::new(queue, "jobs", SqsJobQueueSettings::default());
    jobs.send(JobKind::Purge, Phase::Process, &[], Micros::ZERO).await.unwrap();
    all.destroy().await.unwrap();
}

#[tokio::test]
async fn the_policy_names_everything_and_allows_no_change() {
    let clients = clients("policy").await;
    let policy = resources(&clients, layout()).policy().await.unwrap();
    let text = policy.to_string();
    let account = clients.identity().await.unwrap().account.clone();
    for (service, name) in
        [("sqs", "jobs-purge-dead"), ("sqs", "triggers"), ("events", "event-bus/market"), ("sns", "alerts")]
    {
        let name = match name.split_once('/') {
            Some((kind, name)) => format!("{kind}/{}", clients.name(name)),
            None => clients.name(name),
        };
        let arn = format!("arn:aws:{service}:{}:{account}:{name}", aws::REGION);
        assert!(text.contains(&arn), "{arn}: {text}");
    }
    assert!(text.contains(&format!("arn:aws:s3:::{}/*", clients.name("data"))));
    for statement in policy["Statement"].as_array().unwrap() {
        for action in statement["Action"].as_array().unwrap() {
            let action = action.as_str().unwrap();
            for word in
                ["*", "Create", "DeleteQueue", "DeleteBucket", "Set", "PutRule", "PutTargets", "Policy"]
            {
                assert!(!action.contains(word), "{action}");
            }
        }
        for resource in statement["Resource"].as_array().unwrap() {
            assert_ne!(resource, "*");
        }
    }
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_told_with_what_to_look_at() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let settings = AwsSettings {
        region: aws::REGION.into(),
        endpoint: format!("http://127.0.0.1:{port}"),
        prefix: "gone".into(),
    };
    let clients = AwsClients::with_key(&settings, "test", "test").await.unwrap();
    let layout = AwsLayout { queues: vec![queue("triggers", None)], ..AwsLayout::default() };
    let checks = resources(&clients, layout.clone()).check().await;
    assert_eq!(checks.len(), 2);
    for check in checks {
        assert_eq!(check.findings.len(), 1, "{check:?}");
        assert!(check.findings[0].fix.contains("aws.endpoint"), "{check:?}");
    }
    assert_eq!(resources(&clients, layout).plan().await.unwrap_err().code, ErrorCode::Unavailable);
}
