//! What the configuration needs at AWS: every queue, bucket, bus, schedule, topic and key, by name.

use std::sync::Arc;

use super::{backends, clients::BUS};
use crate::{
    client::aws::AwsClients,
    config::{
        Config,
        section::{Ethereum, EventsBackend, NotificationBackend, ScheduleBackend, StorageBackend},
    },
    controller::worker::trigger_consumer::TRIGGER_QUEUE,
    error::Result,
    resource::aws::{AwsLayout, AwsResources, Owner, QueueSpec, ScheduleSpec},
    service::outbox::ALERT_TOPIC,
};

/// A port at AWS that can't be asked by itself whether it answers.
pub struct Aside {
    /// Which port it serves.
    pub port: &'static str,
    /// The one resource that stands for the port.
    pub resources: AwsResources,
}

/// Bus, topic and schedules, each with the resource to look at.
pub fn asides(config: &Config, clients: &AwsClients) -> Vec<Aside> {
    let AwsLayout { bus, topic, schedules, .. } = layout(config);
    let one = schedules.into_iter().take(1).collect::<Vec<_>>();
    let mut asides = Vec::new();
    let mut add = |port, layout| {
        asides.push(Aside { port, resources: AwsResources::new(clients.clone(), layout) });
    };
    if bus.is_some() {
        add("events", AwsLayout { bus, ..AwsLayout::default() });
    }
    if topic.is_some() {
        add("notification", AwsLayout { topic, ..AwsLayout::default() });
    }
    if !one.is_empty() {
        add("schedule", AwsLayout { schedules: one, ..AwsLayout::default() });
    }
    asides
}

/// The names of all queues at SQS.
#[cfg(feature = "sqs")]
pub fn queue_names(config: &Config) -> Vec<String> {
    queues(config).into_iter().map(|queue| queue.name).collect()
}

/// Everything at AWS that the configuration needs; `None` when it needs nothing.
pub async fn resources(config: &Config) -> Result<Option<Arc<AwsResources>>> {
    if !backends::uses_aws(config) {
        return Ok(None);
    }
    let clients = AwsClients::new(&backends::aws_settings(config)).await;
    let clients = clients.map_err(|error| super::clients::unready("AWS client", error))?;
    Ok(Some(Arc::new(AwsResources::new(clients, layout(config)))))
}

fn layout(config: &Config) -> AwsLayout {
    let bus = config.events.backend == EventsBackend::EventBridge;
    let topic = config.notification.backend == NotificationBackend::Sns;
    AwsLayout {
        queues: queues(config),
        bucket: (config.storage.backend == StorageBackend::S3)
            .then(|| Owner::of(&config.storage.bucket_arn, "data")),
        bus: bus.then(|| Owner::of(&config.events.bus_arn, BUS)),
        schedules: schedules(config),
        topic: topic.then(|| Owner::of(&config.notification.topic_arn, ALERT_TOPIC)),
        signer: Ethereum::kms_key(config).map(str::to_owned),
    }
}

/// Without SQS in the build no configuration has queues there.
#[cfg(not(feature = "sqs"))]
const fn queues(_: &Config) -> Vec<QueueSpec> {
    Vec::new()
}

#[cfg(feature = "sqs")]
fn queues(config: &Config) -> Vec<QueueSpec> {
    use crate::{
        client::job_queue::{OverQueue, SqsJobQueue, SqsJobQueueSettings},
        config::section::{Dispatch, QueueBackend},
        core::job::JobKind,
    };
    let settings =
        SqsJobQueueSettings { visibility: config.queue.visibility.0, ..SqsJobQueueSettings::default() };
    let plain = |name: String| QueueSpec {
        name,
        visibility: settings.visibility,
        retention: settings.retention,
        dead_letters: None,
        scheduled: false,
    };
    let mut queues = Vec::new();
    if config.queue.backend == QueueBackend::Sqs {
        let scheduled = config.schedule.backend == ScheduleBackend::EventBridge;
        queues.push(QueueSpec { scheduled, ..plain(TRIGGER_QUEUE.to_owned()) });
    }
    // Dead letters go over the plain queue where jobs are dispatched by the database.
    let over_plain = config.queue.backend == QueueBackend::Sqs && config.jobs.dispatch == Dispatch::Database;
    if config.jobs.dispatch == Dispatch::Sqs || over_plain {
        let dead = JobKind::ALL.map(|kind| plain(OverQueue::dead_letter_name_of(backends::JOBS, kind)));
        queues.extend(dead);
        for (name, dead_letters) in SqsJobQueue::names(backends::JOBS) {
            let redrive = Some((dead_letters, settings.max_receives)).filter(|_| !over_plain);
            queues.push(QueueSpec { dead_letters: redrive, ..plain(name) });
        }
    }
    queues
}

fn schedules(config: &Config) -> Vec<ScheduleSpec> {
    if config.schedule.backend != ScheduleBackend::EventBridge {
        return Vec::new();
    }
    let schedule = |(name, rate): (&str, crate::config::HumanDuration)| ScheduleSpec {
        name: name.to_owned(),
        every: rate.0,
        queue: TRIGGER_QUEUE.to_owned(),
        body: name.to_owned(),
    };
    config.triggers.rates().into_iter().map(schedule).collect()
}
