//! The consumer of hints: one member of the group for all topics, whose task moves what arrives into lanes, and the rebalances that give and take
//! partitions.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers, Message as _},
};
use tokio::{sync::Notify, task::JoinHandle};

use super::{DUE, KafkaSettings, PHASES, blocking, lane::Lane, log, topic, unavailable};
use crate::core::{
    client::{
        clock::Clock,
        queue::{Message, QueueError},
    },
    job::{JobKind, Phase},
    market::quantity::{Micros, Timestamp},
};

/// How often acknowledgements are told to the broker.
const COMMIT_EVERY_MS: &str = "500";
/// After a failure of the driver, which makes lost connections anew by itself.
const PAUSE: Duration = Duration::from_millis(200);

/// Takes hints for this process.
pub(super) struct HintReader {
    consumer: Option<Arc<StreamConsumer<Context>>>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What the task, the driver's callbacks and the callers share.
struct Shared {
    clock: Arc<dyn Clock>,
    prefix: String,
    lanes: HashMap<String, Line>,
    max_held: usize,
}

/// A lane with those who wait for it.
#[derive(Default)]
struct Line {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    lane: Lane,
    /// Nothing is fetched, because too much is held.
    paused: bool,
}

/// Follows the rebalances.
struct Context(Arc<Shared>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = crate::error::chain(&error), reason, "kafka consumer");
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            // Before the first hint of an assignment can arrive.
            Rebalance::Assign(list) => self.0.each(list, Lane::assign),
            Rebalance::Revoke(list) => self.0.each(list, Lane::revoke),
            Rebalance::Error(error) => {
                tracing::warn!(
                    error = crate::error::chain(error),
                    "kafka could not share out its partitions"
                );
            }
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            // A pause may or may not have outlived the assignment before.
            for line in self.0.lanes.values() {
                line.state.lock().paused = false;
            }
            if let Err(error) = consumer.resume(list) {
                tracing::warn!(error = crate::error::chain(&error), "kafka partitions can't be resumed");
            }
        }
    }
}

impl Shared {
    fn each(&self, list: &TopicPartitionList, change: impl Fn(&mut Lane, i32)) {
        for element in list.elements() {
            if let Some(line) = self.lanes.get(element.topic()) {
                change(&mut line.state.lock().lane, element.partition());
            }
        }
    }

    fn arrive(&self, consumer: &StreamConsumer<Context>, message: &BorrowedMessage<'_>) {
        let Some(line) = self.lanes.get(message.topic()) else { return };
        let body = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
        let now = self.clock.now();
        let due = due(message).unwrap_or(now);
        {
            let mut state = line.state.lock();
            state.lane.arrive(message.partition(), message.offset(), body, due, now);
            if state.lane.len() >= self.max_held && !state.paused {
                let list = assigned(message.topic(), &state.lane);
                state.paused = consumer.pause(&list).is_ok();
            }
        }
        line.arrived.notify_waiters();
    }
}

/// Before which time a hint is held back.
fn due(message: &BorrowedMessage<'_>) -> Option<Timestamp> {
    let header = message.headers()?.iter().find(|header| header.key == DUE)?;
    std::str::from_utf8(header.value?).ok()?.parse().ok().map(Timestamp)
}

fn assigned(topic: &str, lane: &Lane) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in lane.partitions() {
        list.add_partition(topic, partition);
    }
    list
}

impl HintReader {
    /// Joins the group.
    pub(super) fn new(settings: &KafkaSettings, clock: Arc<dyn Clock>) -> Result<Self, QueueError> {
        let topics: Vec<String> = JobKind::ALL
            .into_iter()
            .flat_map(|kind| PHASES.map(|phase| topic(&settings.prefix, kind, phase)))
            .collect();
        let lanes = topics.iter().map(|topic| (topic.clone(), Line::default())).collect();
        let prefix = settings.prefix.clone();
        let shared = Arc::new(Shared { clock, prefix, lanes, max_held: settings.max_held.max(1) });
        let session = settings.session.as_millis();
        let consumer: StreamConsumer<Context> = settings
            .client()
            .set("group.id", format!("{}-workers", settings.prefix))
            .set("session.timeout.ms", session.to_string())
            .set("heartbeat.interval.ms", (session / 10).max(1).to_string())
            .set("auto.offset.reset", "earliest")
            // What is acknowledged is stored; what is stored is committed every now and then, and before partitions are given away.
            .set("enable.auto.offset.store", "false")
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", COMMIT_EVERY_MS)
            // After a pause nothing more comes until the request that is under way has ended.
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", "4096")
            .create_with_context(Context(shared.clone()))
            .map_err(unavailable)?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(unavailable)?;
        let consumer = Arc::new(consumer);
        let task = tokio::spawn(pump(consumer.clone(), shared.clone()));
        Ok(Self { consumer: Some(consumer), shared, task })
    }

    fn line(&self, (kind, phase): (JobKind, Phase)) -> Result<(String, &Line), QueueError> {
        let name = topic(&self.shared.prefix, kind, phase);
        match self.shared.lanes.get(&name) {
            Some(line) => Ok((name, line)),
            None => Err(QueueError::NoQueue(name)),
        }
    }

    /// Up to `max` hints; waits for the first.
    pub(super) async fn receive(
        &self,
        of: (JobKind, Phase),
        max: usize,
        visibility: Micros,
        wait: Micros,
    ) -> Result<Vec<Message>, QueueError> {
        let (_, line) = self.line(of)?;
        let until = self.shared.clock.now().plus(wait);
        loop {
            let arrived = line.arrived.notified();
            tokio::pin!(arrived);
            // From here on nothing that arrives is missed.
            arrived.as_mut().enable();
            let now = self.shared.clock.now();
            let (taken, next) = {
                let mut state = line.state.lock();
                (state.lane.take(max, now, visibility), state.lane.next_event())
            };
            if !taken.is_empty() || now >= until || max == 0 {
                return Ok(taken);
            }
            let next = next.map_or(until, |next| next.min(until));
            tokio::select! {
                () = arrived => {}
                () = self.shared.clock.sleep_until(next) => {}
            }
        }
    }

    pub(super) fn extend(
        &self,
        of: (JobKind, Phase),
        receipt: &str,
        visibility: Micros,
    ) -> Result<(), QueueError> {
        let (_, line) = self.line(of)?;
        let now = self.shared.clock.now();
        line.state.lock().lane.extend(receipt, now.plus(visibility), now)?;
        line.arrived.notify_waiters();
        Ok(())
    }

    pub(super) fn acknowledge(&self, of: (JobKind, Phase), receipt: &str) -> Result<(), QueueError> {
        let (topic, line) = self.line(of)?;
        let Some(consumer) = &self.consumer else { return Err(QueueError::StaleReceipt) };
        let mut state = line.state.lock();
        if let Some(done) = state.lane.acknowledge(receipt)? {
            // The driver counts the last that is done, the lane the first that is not.
            let stored = consumer.store_offset(&topic, done.partition, done.below - 1);
            // A partition that has gone meanwhile: the hint comes again elsewhere.
            stored.map_err(unavailable)?;
        }
        if state.paused && state.lane.len() <= self.shared.max_held / 2 {
            consumer.resume(&assigned(&topic, &state.lane)).map_err(unavailable)?;
            state.paused = false;
        }
        Ok(())
    }

    /// Tells the broker now what is acknowledged.
    pub(super) async fn flush(&self) -> Result<(), QueueError> {
        let Some(consumer) = self.consumer.clone() else { return Ok(()) };
        blocking(move || match consumer.commit_consumer_state(CommitMode::Sync) {
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => Ok(()),
            Err(error) => Err(unavailable(error)),
        })
        .await
    }
}

impl Drop for HintReader {
    fn drop(&mut self) {
        self.task.abort();
        // Leaving the group asks the broker, which may take its time: not on a thread that others need.
        let consumer = self.consumer.take();
        std::thread::spawn(move || drop(consumer));
    }
}

/// Moves what arrives into lanes, for ever.
async fn pump(consumer: Arc<StreamConsumer<Context>>, shared: Arc<Shared>) {
    loop {
        match consumer.recv().await {
            Ok(message) => shared.arrive(&consumer, &message),
            Err(error) => {
                tracing::warn!(error = crate::error::chain(&error), "kafka gives no hints");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
