//! Job queues on Kafka: topic `<prefix>-<kind>-<phase>` carries hints, `<prefix>-<kind>-dead` the dead letters of a kind. A hint's key is its
//! job's id, so that the hints of one job keep their order; all replicas are one consumer group.
//!
//! Kafka knows one offset for each partition, no hidden messages and no delays. So each process remembers what it took (`lane`): a hint is hidden
//! while somebody has it, comes again when it was not acknowledged in time, and is held back until it is due; committed is what is acknowledged
//! without a gap. After a crash or a rebalance the rest comes again, with some that had been acknowledged: hints may repeat. A hint that comes again
//! may come after later ones of its job. A process holds a bounded number of hints of each topic, delayed ones included, and stops fetching beyond it.

mod admin;
mod consumer;
mod lane;
mod letters;
mod security;

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::try_join_all;
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    metadata::Metadata,
    producer::{FutureProducer, FutureRecord, Producer},
};
use tokio::sync::OnceCell;

pub use self::{
    admin::{KafkaBroker, KafkaCluster},
    security::{KafkaSasl, KafkaSecurity},
};
use self::{consumer::HintReader, letters::Letters};
use super::over_queue::{Hint, hint, hint_of};
use crate::core::{
    client::{
        clock::Clock,
        queue::{Message, QueueError},
    },
    job::{JobKind, Phase},
    madara::job_queue::{JobMessage, JobQueueClient},
    market::{
        ids::JobId,
        quantity::{Micros, Timestamp},
    },
};

/// Most hints that are sent at once.
const BATCH: usize = 1_000;
/// The header with the time before which a hint is held back, in microseconds since 1970.
const DUE: &str = "due";
/// The longest text: that of any queue.
const LONGEST: usize = 64 << 10;
const PHASES: [Phase; 2] = [Phase::Process, Phase::Verify];

/// How the queues behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// Addresses of brokers, `host:port`, separated by commas.
    pub brokers: String,
    /// What the names of all topics and groups begin with: letters, digits and hyphens.
    pub prefix: String,
    /// Partitions of each topic of hints: the most processes that share one kind of job in one phase.
    pub partitions: u32,
    /// Copies of each partition.
    pub replication: u32,
    /// The longest that a call to a broker takes.
    pub timeout: Duration,
    /// Most hints of one topic that a process holds at once, delayed ones included.
    pub max_held: usize,
    /// A process that was not heard of for so long loses its partitions to others.
    pub session: Duration,
    /// How brokers are talked to.
    pub security: KafkaSecurity,
}

impl KafkaSettings {
    /// The usual numbers for brokers.
    #[must_use]
    pub fn new(brokers: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            prefix: prefix.into(),
            partitions: 12,
            replication: 1,
            timeout: Duration::from_secs(10),
            max_held: 10_000,
            session: Duration::from_secs(10),
            security: KafkaSecurity::default(),
        }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        let timeout = self.timeout.as_millis().to_string();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.prefix)
            .set("socket.timeout.ms", timeout)
            .set("reconnect.backoff.max.ms", "1000");
        self.security.apply(&mut config);
        config
    }
}

/// Job queues on Kafka.
pub struct KafkaJobQueue {
    settings: KafkaSettings,
    clock: Arc<dyn Clock>,
    producer: FutureProducer<Quiet>,
    /// Joins the group when the first hint is asked for: a process that only sends takes no partitions.
    reader: OnceCell<HintReader>,
    letters: Arc<Letters>,
    /// Topics that are known to exist.
    topics: Mutex<HashSet<String>>,
}

/// What the driver says goes to our log.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = crate::error::chain(&error), reason, "kafka client");
    }
}

/// Lost connections are made anew by the driver; a call that suffers from one says so itself.
fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    tracing::debug!(level = ?level, facility, text, "kafka client");
}

/// The error of a call that concerns a topic.
fn failed(topic: &str, error: KafkaError) -> QueueError {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition,
        ) => QueueError::NoQueue(topic.to_owned()),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::InvalidReplicationFactor
            | RDKafkaErrorCode::InvalidPartitions
            | RDKafkaErrorCode::PolicyViolation,
        ) => QueueError::Invalid(error.to_string()),
        _ => unavailable(error),
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> QueueError {
    QueueError::Unavailable(Box::new(error))
}

/// Runs a call of the driver that blocks.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, QueueError> + Send + 'static,
) -> Result<T, QueueError> {
    tokio::task::spawn_blocking(call).await.map_err(unavailable)?
}

impl KafkaJobQueue {
    /// Job queues on the brokers of the settings. Nothing is sent yet.
    ///
    /// # Errors
    /// When the settings are none that the driver takes.
    pub fn new(settings: &KafkaSettings, clock: Arc<dyn Clock>) -> Result<Self, QueueError> {
        let timeout = settings.timeout.as_millis().to_string();
        let producer: FutureProducer<Quiet> = settings
            .client()
            .set("acks", "all")
            // Keeps the order of a key over the driver's own retries. Those may repeat a hint, which is harmless; an idempotent producer
            // would not, but has errors that only a new process recovers from.
            .set("max.in.flight.requests.per.connection", "1")
            .set("linger.ms", "2")
            .set("message.timeout.ms", &timeout)
            .create_with_context(Quiet)
            .map_err(unavailable)?;
        Ok(Self {
            settings: settings.clone(),
            clock,
            producer,
            reader: OnceCell::new(),
            letters: Arc::new(Letters::new(settings)?),
            topics: Mutex::default(),
        })
    }

    /// The topic of a kind in a phase.
    #[must_use]
    pub fn topic(&self, kind: JobKind, phase: Phase) -> String {
        topic(&self.settings.prefix, kind, phase)
    }

    /// The topic of a kind's dead letters.
    #[must_use]
    pub fn dead_letter_topic(&self, kind: JobKind) -> String {
        dead_letter_topic(&self.settings.prefix, kind)
    }

    async fn metadata(&self) -> Result<Metadata, QueueError> {
        let (producer, timeout) = (self.producer.clone(), self.settings.timeout);
        blocking(move || producer.client().fetch_metadata(None, timeout).map_err(unavailable)).await
    }

    /// Looks that a topic exists before it is used: the driver would wait for one that doesn't, and some brokers would make it.
    async fn require(&self, topic: &str) -> Result<(), QueueError> {
        if self.topics.lock().contains(topic) {
            return Ok(());
        }
        let metadata = self.metadata().await?;
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        let mut topics = self.topics.lock();
        *topics = names.collect();
        if topics.contains(topic) { Ok(()) } else { Err(QueueError::NoQueue(topic.to_owned())) }
    }

    async fn produce(
        &self,
        topic: &str,
        key: Option<&str>,
        body: &str,
        due: Option<Timestamp>,
    ) -> Result<(), QueueError> {
        let mut record = FutureRecord::<str, str>::to(topic).payload(body);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(due) = due {
            let value = due.as_micros().to_string();
            record = record
                .headers(OwnedHeaders::new_with_capacity(1).insert(Header { key: DUE, value: Some(&value) }));
        }
        let sent = self.producer.send(record, self.settings.timeout).await;
        sent.map(drop).map_err(|(error, _)| {
            let error = failed(topic, error);
            if matches!(error, QueueError::NoQueue(_)) {
                self.topics.lock().remove(topic);
            }
            error
        })
    }

    async fn reader(&self) -> Result<&HintReader, QueueError> {
        let make = async || HintReader::new(&self.settings, self.clock.clone());
        self.reader.get_or_try_init(make).await
    }

    /// Acknowledgements are told to the broker every now and then; this does it now.
    ///
    /// # Errors
    /// When no broker answers.
    pub async fn flush(&self) -> Result<(), QueueError> {
        match self.reader.get() {
            Some(reader) => reader.flush().await,
            None => Ok(()),
        }
    }

    async fn redrive_kind(&self, kind: JobKind, max: usize) -> Result<usize, QueueError> {
        let dead = self.dead_letter_topic(kind);
        let target = self.topic(kind, Phase::Process);
        let mut moved = 0;
        while moved < max {
            let batch = (max - moved).min(BATCH);
            let found = self.letters.clone().read(dead.clone(), batch).await?;
            if found.is_empty() {
                break;
            }
            for letter in &found {
                let body = hint_of(&letter.body)?;
                let job = read(&body);
                self.produce(&target, job.map(|job| job.to_string()).as_deref(), &body, None).await?;
            }
            moved += found.len();
            self.letters.clone().done(dead.clone(), found).await?;
        }
        Ok(moved)
    }
}

fn topic(prefix: &str, kind: JobKind, phase: Phase) -> String {
    let phase = match phase {
        Phase::Process => "process",
        Phase::Verify => "verify",
    };
    format!("{prefix}-{kind}-{phase}")
}

fn dead_letter_topic(prefix: &str, kind: JobKind) -> String {
    format!("{prefix}-{kind}-dead")
}

fn read(body: &str) -> Option<JobId> {
    serde_json::from_str::<Hint>(body).ok().map(|hint| hint.job)
}

#[async_trait]
impl JobQueueClient for KafkaJobQueue {
    async fn create_queues(&self) -> Result<(), QueueError> {
        // What is there is only looked at: a daemon that starts needs no right to make topics.
        let missing = self.cluster().await?.missing;
        self.make(&missing).await
    }

    async fn send(
        &self,
        kind: JobKind,
        phase: Phase,
        jobs: &[JobId],
        delay: Micros,
    ) -> Result<(), QueueError> {
        let topic = self.topic(kind, phase);
        self.require(&topic).await?;
        let due = (delay > Micros::ZERO).then(|| self.clock.now().plus(delay));
        for batch in jobs.chunks(BATCH) {
            let texts = batch.iter().map(|job| Ok((job.to_string(), hint(*job)?)));
            let texts: Vec<(String, String)> = texts.collect::<Result<_, QueueError>>()?;
            let sent = texts.iter().map(|(key, body)| self.produce(&topic, Some(key), body, due));
            try_join_all(sent).await?;
        }
        Ok(())
    }

    async fn receive(
        &self,
        kind: JobKind,
        phase: Phase,
        max: usize,
        visibility: Micros,
        wait: Micros,
    ) -> Result<Vec<JobMessage>, QueueError> {
        self.require(&self.topic(kind, phase)).await?;
        let messages = self.reader().await?.receive((kind, phase), max, visibility, wait).await?;
        Ok(messages.into_iter().map(|message| JobMessage { job: read(&message.body), message }).collect())
    }

    async fn extend(
        &self,
        kind: JobKind,
        phase: Phase,
        message: &Message,
        visibility: Micros,
    ) -> Result<(), QueueError> {
        let reader = self.reader.get().ok_or(QueueError::StaleReceipt)?;
        reader.extend((kind, phase), &message.receipt, visibility)
    }

    async fn acknowledge(&self, kind: JobKind, phase: Phase, message: &Message) -> Result<(), QueueError> {
        let reader = self.reader.get().ok_or(QueueError::StaleReceipt)?;
        reader.acknowledge((kind, phase), &message.receipt)
    }

    async fn dead_letter(&self, kind: JobKind, body: &str) -> Result<(), QueueError> {
        if body.len() > LONGEST {
            return Err(QueueError::Invalid(format!("{} bytes are more than {LONGEST}", body.len())));
        }
        let topic = self.dead_letter_topic(kind);
        self.require(&topic).await?;
        self.produce(&topic, None, body, None).await
    }

    async fn dead_letters(&self) -> Result<u64, QueueError> {
        let topics = JobKind::ALL.map(|kind| self.dead_letter_topic(kind));
        for topic in &topics {
            self.require(topic).await?;
        }
        self.letters.clone().count(topics.into()).await
    }

    async fn redrive(&self, max: usize) -> Result<usize, QueueError> {
        let mut moved = 0;
        for kind in JobKind::ALL {
            if moved >= max {
                break;
            }
            self.require(&self.dead_letter_topic(kind)).await?;
            self.require(&self.topic(kind, Phase::Process)).await?;
            moved += self.redrive_kind(kind, max - moved).await?;
        }
        Ok(moved)
    }
}
