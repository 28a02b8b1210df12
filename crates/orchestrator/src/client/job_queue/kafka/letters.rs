//! Dead letters: read by hand, without a group's shares, from where the last redrive ended, which the broker remembers for the group `<prefix>-dead`.
//! Two processes that redrive at once may send the same letters twice; hints may repeat.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, DefaultConsumerContext},
    error::KafkaError,
    message::Message as _,
};
use tokio::sync::Mutex;

use super::{KafkaSettings, blocking, failed, unavailable};
use crate::core::client::queue::QueueError;

/// A dead letter.
#[derive(Debug)]
pub(super) struct Letter {
    partition: i32,
    offset: i64,
    /// Its text, as it was put there.
    pub(super) body: String,
}

/// The dead letters of all kinds.
pub(super) struct Letters {
    /// One at a time: what it reads is set by hand. Who waits for it holds no thread: while no broker answers, many may ask.
    consumer: Arc<Mutex<BaseConsumer<DefaultConsumerContext>>>,
    timeout: Duration,
}

/// A partition with letters.
struct Part {
    topic: String,
    partition: i32,
    from: i64,
    to: i64,
}

impl Letters {
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self, QueueError> {
        let consumer = settings
            .client()
            .set("group.id", format!("{}-dead", settings.prefix))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "100")
            .create()
            .map_err(unavailable)?;
        Ok(Self { consumer: Arc::new(Mutex::new(consumer)), timeout: settings.timeout })
    }

    /// How many wait in these topics.
    pub(super) async fn count(self: Arc<Self>, topics: Vec<String>) -> Result<u64, QueueError> {
        let consumer = self.consumer.clone().lock_owned().await;
        blocking(move || {
            let parts = self.parts(&consumer, &topics)?;
            let waiting = parts.iter().map(|part| u64::try_from(part.to - part.from).unwrap_or(0));
            Ok(waiting.fold(0, u64::saturating_add))
        })
        .await
    }

    /// The next letters of a topic, up to `max`.
    pub(super) async fn read(self: Arc<Self>, topic: String, max: usize) -> Result<Vec<Letter>, QueueError> {
        let consumer = self.consumer.clone().lock_owned().await;
        blocking(move || {
            let mut found = Vec::new();
            for part in self.parts(&consumer, std::slice::from_ref(&topic))? {
                if found.len() < max {
                    self.read_part(&consumer, &part, max, &mut found)?;
                }
            }
            Ok(found)
        })
        .await
    }

    /// Letters that were sent back don't wait any longer.
    pub(super) async fn done(self: Arc<Self>, topic: String, letters: Vec<Letter>) -> Result<(), QueueError> {
        let consumer = self.consumer.clone().lock_owned().await;
        blocking(move || {
            let mut list = TopicPartitionList::new();
            for letter in letters {
                let next = Offset::Offset(letter.offset.saturating_add(1));
                // The last one of a partition wins; they are in order.
                match list.find_partition(&topic, letter.partition) {
                    Some(mut element) => element.set_offset(next),
                    None => list.add_partition_offset(&topic, letter.partition, next),
                }
                .map_err(unavailable)?;
            }
            consumer.commit(&list, CommitMode::Sync).map_err(|error| failed(&topic, error))
        })
        .await
    }

    /// Where the letters of topics begin and end, with as few calls as there can be: `ready` asks this of all topics.
    fn parts(
        &self,
        consumer: &BaseConsumer<DefaultConsumerContext>,
        topics: &[String],
    ) -> Result<Vec<Part>, QueueError> {
        // Of one topic, or of all that there are.
        let one = match topics {
            [one] => Some(one.as_str()),
            _ => None,
        };
        let told = |error: KafkaError| failed(one.unwrap_or_default(), error);
        let metadata = consumer.fetch_metadata(one, self.timeout).map_err(told)?;
        let mut list = TopicPartitionList::new();
        for name in topics {
            let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
                return Err(QueueError::NoQueue(name.clone()));
            };
            for partition in topic.partitions() {
                list.add_partition(name, partition.id());
            }
        }
        let committed = consumer.committed_offsets(list, self.timeout).map_err(told)?;
        let mut parts = Vec::new();
        for element in committed.elements() {
            let (topic, partition) = (element.topic().to_owned(), element.partition());
            let (low, high) = consumer
                .fetch_watermarks(&topic, partition, self.timeout)
                .map_err(|error| failed(&topic, error))?;
            let from = match element.offset() {
                Offset::Offset(offset) => offset.max(low),
                _ => low,
            };
            if from < high {
                parts.push(Part { topic, partition, from, to: high });
            }
        }
        Ok(parts)
    }

    fn read_part(
        &self,
        consumer: &BaseConsumer<DefaultConsumerContext>,
        part: &Part,
        max: usize,
        found: &mut Vec<Letter>,
    ) -> Result<(), QueueError> {
        let topic = part.topic.as_str();
        let told = |error: KafkaError| failed(topic, error);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, part.partition, Offset::Offset(part.from)).map_err(unavailable)?;
        consumer.assign(&list).map_err(told)?;
        let until = Instant::now() + self.timeout;
        let mut next = part.from;
        while next < part.to && found.len() < max && Instant::now() < until {
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let message = message.map_err(told)?;
            // What was fetched for an assignment before may still be in the driver's queue.
            if message.topic() != topic || message.partition() != part.partition || message.offset() < next {
                continue;
            }
            next = message.offset().saturating_add(1);
            let body = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
            found.push(Letter { partition: part.partition, offset: message.offset(), body });
        }
        consumer.unassign().map_err(told)
    }
}
