//! What the queues need of a cluster: its topics, with enough partitions. Looked at by whoever starts, made and widened by `setup`.

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{KafkaJobQueue, PHASES, Quiet, failed, unavailable};
use crate::core::{client::queue::QueueError, job::JobKind};

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaBroker {
    /// Its number.
    pub id: i32,
    /// `host:port`, as it tells clients.
    pub address: String,
}

/// What a cluster says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaCluster {
    /// Its brokers.
    pub brokers: Vec<KafkaBroker>,
    /// Topics that these queues need and that don't exist.
    pub missing: Vec<String>,
    /// Topics with fewer partitions than the settings want, with how many they have.
    pub narrow: Vec<(String, usize)>,
    /// Topics of which a partition has no leader: nothing can be sent there.
    pub leaderless: Vec<String>,
}

impl KafkaJobQueue {
    /// What the cluster says about itself, and about the topics of these queues.
    ///
    /// # Errors
    /// When no broker answers.
    pub async fn cluster(&self) -> Result<KafkaCluster, QueueError> {
        let metadata = self.metadata().await?;
        let broker = |broker: &rdkafka::metadata::MetadataBroker| KafkaBroker {
            id: broker.id(),
            address: format!("{}:{}", broker.host(), broker.port()),
        };
        let mut cluster = KafkaCluster {
            brokers: metadata.brokers().iter().map(broker).collect(),
            missing: Vec::new(),
            narrow: Vec::new(),
            leaderless: Vec::new(),
        };
        for (name, partitions) in self.wanted() {
            let Some(found) = metadata.topics().iter().find(|topic| topic.name() == name) else {
                cluster.missing.push(name);
                continue;
            };
            if found.partitions().iter().any(|partition| partition.leader() < 0) {
                cluster.leaderless.push(name.clone());
            }
            let has = found.partitions().len();
            if u32::try_from(has).is_ok_and(|has| has < partitions) {
                cluster.narrow.push((name, has));
            }
        }
        Ok(cluster)
    }

    /// Every topic with the partitions that it needs. Dead letters have one, which keeps them in order.
    fn wanted(&self) -> Vec<(String, u32)> {
        let of = |kind| {
            let hints = PHASES.map(|phase| (self.topic(kind, phase), self.settings.partitions));
            hints.into_iter().chain([(self.dead_letter_topic(kind), 1)])
        };
        JobKind::ALL.into_iter().flat_map(of).collect()
    }

    fn admin(&self) -> Result<(AdminClient<Quiet>, AdminOptions), QueueError> {
        let admin = self.settings.client().create_with_context(Quiet).map_err(unavailable)?;
        let options = AdminOptions::new()
            .request_timeout(Some(self.settings.timeout))
            .operation_timeout(Some(self.settings.timeout));
        Ok((admin, options))
    }

    /// Makes those of the topics that have these names. One that somebody else has just made is fine.
    pub(super) async fn make(&self, names: &[String]) -> Result<(), QueueError> {
        if names.is_empty() {
            return Ok(());
        }
        let (admin, options) = self.admin()?;
        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let dead = JobKind::ALL.map(|kind| self.dead_letter_topic(kind));
        let wanted: Vec<(String, u32)> =
            self.wanted().into_iter().filter(|(name, _)| names.contains(name)).collect();
        let topics = wanted.iter().map(|(name, partitions)| {
            let copies = TopicReplication::Fixed(number(self.settings.replication));
            let topic = NewTopic::new(name, number(*partitions), copies);
            // Letters stay: some are the only copy of a poison message.
            if dead.contains(name) { topic.set("retention.ms", "-1") } else { topic }
        });
        let topics: Vec<NewTopic<'_>> = topics.collect();
        for result in admin.create_topics(&topics, &options).await.map_err(unavailable)? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(failed(&name, KafkaError::AdminOp(code))),
            }
        }
        Ok(())
    }

    /// Adds the partitions that these topics lack. The hints of a job then may go to another partition than those before,
    /// which is borne as every change of order is.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] when the cluster does not add partitions, or not for us.
    pub async fn widen(&self, topics: &[String]) -> Result<(), QueueError> {
        if topics.is_empty() {
            return Ok(());
        }
        let (admin, options) = self.admin()?;
        let wanted = usize::try_from(self.settings.partitions).unwrap_or(usize::MAX);
        let more: Vec<NewPartitions<'_>> =
            topics.iter().map(|name| NewPartitions::new(name, wanted)).collect();
        let refused = |name: &str, code: RDKafkaErrorCode| match failed(name, KafkaError::AdminOp(code)) {
            QueueError::Unavailable(error) if refuses(code) => QueueError::Invalid(error.to_string()),
            error => error,
        };
        let results = admin.create_partitions(&more, &options).await.map_err(|error| match error {
            KafkaError::AdminOp(code) => refused("", code),
            error => unavailable(error),
        })?;
        for result in results {
            if let Err((name, code)) = result {
                return Err(refused(&name, code));
            }
        }
        Ok(())
    }
}

/// Whether a second try would be answered the same.
const fn refuses(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnsupportedVersion
            | RDKafkaErrorCode::UnsupportedFeature
            | RDKafkaErrorCode::InvalidRequest
            | RDKafkaErrorCode::InvalidReplicaAssignment
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}
