//! What the daemon needs of a Kafka cluster: the topics of jobs and dead letters.

use std::sync::Arc;

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

/// The topics of a cluster.
pub struct KafkaResource {
    settings: KafkaSettings,
}

fn failed(error: QueueError) -> Error {
    let code = if error.retryable() { ErrorCode::Unavailable } else { ErrorCode::InvalidConfig };
    Error::new(code, "the Kafka cluster can't be asked").because(error)
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
                    (Action::Change, vec![format!("partitions {has} -> {}", self.settings.partitions)])
                }
                None => (Action::Exists, Vec::new()),
            };
            Step { kind: "topic", name, action, changes }
        };
        Plan { steps: topics.map(step).collect() }
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
        queue.create_queues().await.map_err(failed)?;
        Ok(self.steps(&queue, &found))
    }

    async fn verify(&self) -> Result<()> {
        match self.plan().await?.steps.into_iter().find(|step| step.action == Action::Create) {
            None => Ok(()),
            Some(step) => Err(Error::new(
                ErrorCode::InvalidConfig,
                format!("topic `{}` does not exist; `orchestrator setup` mends it", step.name),
            )),
        }
    }

    /// Nothing: topics are removed with Kafka's own tools, by whoever may.
    async fn plan_destroy(&self) -> Result<Plan> {
        Ok(Plan::default())
    }

    async fn destroy(&self) -> Result<Plan> {
        Ok(Plan::default())
    }
}
