//! What the daemon needs of a Kafka cluster: the topics of jobs and dead letters.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{Action, Plan, RemoteResource, Step};
use crate::{
    client::{
        clock::SystemClock,
        job_queue::{KafkaCluster, KafkaJobQueue, KafkaSettings},
    },
    core::{
        client::queue::QueueError,
        job::{JobKind, Phase},
        madara::job_queue::JobQueueClient,
    },
    error::{Error, ErrorCode, Result},
};

/// How often it is looked whether what was made is there, and the pause between.
const PATIENCE: u32 = 25;
const PAUSE: Duration = Duration::from_millis(200);

/// The topics of a cluster.
pub struct KafkaResource {
    settings: KafkaSettings,
}

fn failed(error: QueueError) -> Error {
    let code = if error.retryable() { ErrorCode::Unavailable } else { ErrorCode::InvalidConfig };
    Error::new(code, "the Kafka cluster of kafka.brokers can't be asked").because(error)
}

/// A cluster that does not add partitions: an administrator does, or fewer are asked for.
fn not_widened(found: &KafkaCluster, wanted: u32, error: QueueError) -> Error {
    if error.retryable() {
        return failed(error);
    }
    let (topic, has) = found.narrow.first().map_or(("", 0), |(topic, has)| (topic.as_str(), *has));
    let detail = format!(
        "topic `{topic}` has {has} partitions, fewer than kafka.partitions, and the cluster does not add any: let an \
         administrator run `kafka-topics.sh --alter --topic {topic} --partitions {wanted}`, for each topic that `setup --plan` \
         shows, or set kafka.partitions = {has}"
    );
    Error::new(ErrorCode::InvalidConfig, detail).because(error)
}

impl KafkaResource {
    /// Those of the job queues with these settings.
    #[must_use]
    pub const fn new(settings: KafkaSettings) -> Self {
        Self { settings }
    }

    fn queue(&self) -> Result<KafkaJobQueue> {
        KafkaJobQueue::new(&self.settings, Arc::new(SystemClock::new())).map_err(failed)
    }

    fn kept(&self) -> String {
        let KafkaSettings { brokers, prefix, .. } = &self.settings;
        format!(
            "the topics of Kafka stay, with what is in them; their owner removes them: \
             kafka-topics.sh --bootstrap-server {brokers} --delete --topic '{prefix}-.*'"
        )
    }

    fn steps(&self, queue: &KafkaJobQueue, found: &KafkaCluster) -> Plan {
        let topics = JobKind::ALL.into_iter().flat_map(|kind| {
            [
                queue.topic(kind, Phase::Process),
                queue.topic(kind, Phase::Verify),
                queue.dead_letter_topic(kind),
            ]
        });
        let step = |name: String| {
            let narrow = found.narrow.iter().find(|(topic, _)| *topic == name);
            let (action, changes) = match narrow {
                _ if found.missing.contains(&name) => (Action::Create, Vec::new()),
                Some((_, has)) => {
                    (Action::Change, vec![format!("partitions: {has} → {}", self.settings.partitions)])
                }
                None => (Action::Exists, Vec::new()),
            };
            Step { kind: "topic", name, action, changes }
        };
        Plan { steps: topics.map(step).collect(), ..Plan::default() }
    }
}

#[async_trait]
impl RemoteResource for KafkaResource {
    async fn plan(&self) -> Result<Plan> {
        let queue = self.queue()?;
        let found = queue.cluster().await.map_err(failed)?;
        Ok(self.steps(&queue, &found))
    }

    async fn apply(&self) -> Result<Plan> {
        let queue = self.queue()?;
        let found = queue.cluster().await.map_err(failed)?;
        let plan = self.steps(&queue, &found);
        queue.create_queues().await.map_err(failed)?;
        let narrow: Vec<String> = found.narrow.iter().map(|(topic, _)| topic.clone()).collect();
        queue.widen(&narrow).await.map_err(|error| not_widened(&found, self.settings.partitions, error))?;
        // Brokers tell each other of topics; the one that is asked next may not know yet.
        for _ in 0..PATIENCE {
            if plan.is_done() || self.plan().await?.is_done() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(plan)
    }

    async fn verify(&self) -> Result<()> {
        let plan = self.plan().await?;
        let Some(step) = plan.steps.into_iter().find(|step| step.action != Action::Exists) else {
            return Ok(());
        };
        let problem = match step.action {
            Action::Change => format!("differs: {}", step.changes.join(", ")),
            _ => "does not exist".to_owned(),
        };
        let detail = format!("topic `{}` {problem}; `orchestrator setup` mends it", step.name);
        Err(Error::new(ErrorCode::InvalidConfig, detail))
    }

    /// Nothing: topics may be shared, and what is in them is nobody's to remove but their owner's.
    async fn plan_destroy(&self) -> Result<Plan> {
        Ok(Plan { notes: vec![self.kept()], ..Plan::default() })
    }

    async fn destroy(&self) -> Result<Plan> {
        self.plan_destroy().await
    }
}
