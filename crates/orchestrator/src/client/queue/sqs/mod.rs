//! Queues at SQS: standard queues named `<prefix>-<queue>`. What SQS does ten at a time is asked for ten at a time; waits
//! are long polls; a delay beyond SQS's fifteen minutes is kept by sending the message on.
//!
//! One client serves all queues, and a queue's address is asked for once.

mod attributes;
mod body;
mod coalesce;
mod handle;

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
pub use attributes::{QueueAttributes, Redrive};
use aws_sdk_sqs::types::QueueAttributeName as Name;
use body::{Incoming, Outgoing, seconds_up};
pub use body::{envelope, unwrap_envelope};
use futures::{StreamExt, TryStreamExt, stream};
use handle::Handle;
use parking_lot::RwLock;

use crate::{
    client::aws::{AwsClients, AwsError, Statement, has_statement, with_statement},
    core::{
        client::{
            clock::Clock,
            queue::{Message, NewMessage, QueueClient, QueueError},
        },
        market::quantity::Micros,
    },
};

/// Longest message in bytes, as on every queue.
const MAX_BODY: usize = 64 << 10;
/// Most messages of a batch.
const MAX_BATCH: usize = 1_000;
/// Longest that SQS hides a message, in seconds.
const MAX_VISIBILITY: u64 = 12 * 3_600;
/// Calls of one send or receive that are under way together.
const CALLS: usize = 8;
/// How long to wait until SQS allows the next purge: it takes one a minute.
const PURGE_PAUSE: Micros = Micros::from_secs(5);
/// Tries of a purge, then.
const PURGE_TRIES: u32 = 14;
/// Messages that SQS lets be in flight on one queue; beyond, a long poll gives nothing and says nothing.
pub const IN_FLIGHT_LIMIT: u64 = 120_000;
/// From here on an operator is warned.
const IN_FLIGHT_WARNING: u64 = IN_FLIGHT_LIMIT / 10 * 8;

/// How many messages a queue has. SQS counts approximately, and may be a minute behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDepths {
    /// Waiting to be received.
    pub visible: u64,
    /// Received and hidden.
    pub in_flight: u64,
    /// Not yet due.
    pub delayed: u64,
}

impl QueueDepths {
    /// All of them.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.visible.saturating_add(self.in_flight).saturating_add(self.delayed)
    }

    /// Whether SQS will soon hold messages back because too many are in flight.
    #[must_use]
    pub const fn near_limit(self) -> bool {
        self.in_flight >= IN_FLIGHT_WARNING
    }
}

/// Queues at SQS.
pub struct SqsQueue {
    clients: AwsClients,
    clock: Arc<dyn Clock>,
    attributes: QueueAttributes,
    known: RwLock<HashMap<String, Arc<Handle>>>,
}

fn unavailable(error: AwsError) -> QueueError {
    QueueError::Unavailable(Box::new(error))
}

fn check_batch(messages: &[NewMessage]) -> Result<(), QueueError> {
    if messages.len() > MAX_BATCH {
        return Err(QueueError::Invalid(format!("a batch has at most {MAX_BATCH} messages")));
    }
    if messages.iter().any(|message| message.body.len() > MAX_BODY) {
        return Err(QueueError::Invalid(format!("a message has at most {MAX_BODY} bytes")));
    }
    Ok(())
}

fn visibility_seconds(visibility: Micros) -> Result<i32, QueueError> {
    let seconds = seconds_up(visibility);
    i32::try_from(seconds)
        .ok()
        .filter(|_| seconds <= MAX_VISIBILITY)
        .ok_or_else(|| QueueError::Invalid("SQS hides a message for at most 12 hours".to_owned()))
}

impl SqsQueue {
    /// Queues whose names start with the clients' prefix; `attributes` is what [`QueueClient::create`] makes them with.
    #[must_use]
    pub fn new(clients: AwsClients, clock: Arc<dyn Clock>, attributes: QueueAttributes) -> Self {
        Self { clients, clock, attributes, known: RwLock::default() }
    }

    /// Makes sure that a queue exists; one that exists is left as it is (`setup` shows and mends what differs).
    ///
    /// # Errors
    /// [`QueueError::Invalid`] on a name that SQS does not take; [`QueueError::Unavailable`].
    pub async fn ensure(&self, queue: &str, attributes: &QueueAttributes) -> Result<(), QueueError> {
        let name = self.name(queue)?;
        // The daemon's own policy lets it look, not make: only what is missing is made.
        if self.exists(queue).await? {
            return Ok(());
        }
        let create = self.clients.sqs().create_queue().queue_name(name);
        let made = create.set_attributes(Some(attributes.to_map())).send().await;
        let url = made.map_err(|error| unavailable(AwsError::new("sqs:CreateQueue", error)))?.queue_url;
        self.remember(queue, url.unwrap_or_default());
        Ok(())
    }

    /// Whether a queue exists.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`].
    pub async fn exists(&self, queue: &str) -> Result<bool, QueueError> {
        match self.handle(queue).await {
            Ok(_) => Ok(true),
            Err(QueueError::NoQueue(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The ARN of a queue.
    ///
    /// # Errors
    /// [`QueueError::NoQueue`], [`QueueError::Unavailable`].
    pub async fn arn(&self, queue: &str) -> Result<String, QueueError> {
        let handle = self.handle(queue).await?;
        let ask = || async {
            let attributes = self.attributes_of(queue, &handle, &[Name::QueueArn]).await?;
            Ok(attributes.get(&Name::QueueArn).cloned().unwrap_or_default())
        };
        handle.arn.get_or_try_init(ask).await.cloned()
    }

    /// The messages of a queue by their state; also sets the gauge `orchestrator_queue_messages` and warns when so many are
    /// in flight that SQS will stop handing out more.
    ///
    /// # Errors
    /// [`QueueError::NoQueue`], [`QueueError::Unavailable`].
    pub async fn depths(&self, queue: &str) -> Result<QueueDepths, QueueError> {
        let handle = self.handle(queue).await?;
        let names = [
            Name::ApproximateNumberOfMessages,
            Name::ApproximateNumberOfMessagesNotVisible,
            Name::ApproximateNumberOfMessagesDelayed,
        ];
        let found = self.attributes_of(queue, &handle, &names).await?;
        let [visible, in_flight, delayed] =
            names.map(|name| found.get(&name).and_then(|count| count.parse().ok()).unwrap_or(0));
        for (state, count) in [("visible", visible), ("in_flight", in_flight), ("delayed", delayed)] {
            let labels = [("queue", queue.to_owned()), ("state", state.to_owned())];
            metrics::gauge!("orchestrator_queue_messages", &labels).set(count as f64);
        }
        let depths = QueueDepths { visible, in_flight, delayed };
        if depths.near_limit() {
            tracing::error!(
                alert = true,
                queue,
                in_flight,
                limit = IN_FLIGHT_LIMIT,
                "the queue will soon hand out nothing more: its receivers neither finish nor fail"
            );
        }
        Ok(depths)
    }

    /// Lets a service of AWS send to a queue, for the sources that `source` names; statements of others stay.
    ///
    /// # Errors
    /// [`QueueError::NoQueue`], [`QueueError::Unavailable`].
    pub async fn allow(
        &self,
        queue: &str,
        service: &'static str,
        sid: &str,
        source: &str,
    ) -> Result<(), QueueError> {
        let handle = self.handle(queue).await?;
        let statement = Statement {
            sid: sid.to_owned(),
            service,
            action: "sqs:SendMessage",
            resource: self.arn(queue).await?,
            source: source.to_owned(),
        };
        let found = self.attributes_of(queue, &handle, &[Name::Policy]).await?;
        let policy = found.get(&Name::Policy).map(String::as_str);
        if has_statement(policy, &statement) {
            return Ok(());
        }
        let set = self.clients.sqs().set_queue_attributes().queue_url(&handle.url);
        let set = set.attributes(Name::Policy, with_statement(policy, &statement));
        set.send()
            .await
            .map_err(|error| self.failed(queue, AwsError::new("sqs:SetQueueAttributes", error)))?;
        Ok(())
    }

    /// The queue's name at SQS.
    fn name(&self, queue: &str) -> Result<String, QueueError> {
        let name = self.clients.name(queue);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if queue.is_empty() || name.len() > 80 || !queue.bytes().all(allowed) {
            let prefix = self.clients.prefix();
            let reason = format!("with the prefix `{prefix}-` a queue's name has 1 to 80 of a-z A-Z 0-9 - _");
            return Err(QueueError::Invalid(reason));
        }
        Ok(name)
    }

    async fn handle(&self, queue: &str) -> Result<Arc<Handle>, QueueError> {
        if let Some(handle) = self.known.read().get(queue) {
            return Ok(handle.clone());
        }
        let name = self.name(queue).map_err(|_| QueueError::NoQueue(queue.to_owned()))?;
        let found = self.clients.sqs().get_queue_url().queue_name(name).send().await;
        let url = found.map_err(|error| self.failed(queue, AwsError::new("sqs:GetQueueUrl", error)))?;
        Ok(self.remember(queue, url.queue_url.unwrap_or_default()))
    }

    fn remember(&self, queue: &str, url: String) -> Arc<Handle> {
        let make = || Arc::new(Handle::new(self.clients.sqs().clone(), self.clock.clone(), url));
        self.known.write().entry(queue.to_owned()).or_insert_with(make).clone()
    }

    /// The port's error; a queue that is gone is looked up anew next time.
    fn failed(&self, queue: &str, error: AwsError) -> QueueError {
        if error.is_missing() {
            self.known.write().remove(queue);
            return QueueError::NoQueue(queue.to_owned());
        }
        unavailable(error)
    }

    async fn attributes_of(
        &self,
        queue: &str,
        handle: &Handle,
        names: &[Name],
    ) -> Result<HashMap<Name, String>, QueueError> {
        let get = self.clients.sqs().get_queue_attributes().queue_url(&handle.url);
        let got = get.set_attribute_names(Some(names.to_vec())).send().await;
        let got = got.map_err(|error| self.failed(queue, AwsError::new("sqs:GetQueueAttributes", error)))?;
        Ok(got.attributes.unwrap_or_default())
    }

    /// One round: a call that waits and, when it came back full, as many more at once as could bring the rest.
    async fn take(
        &self,
        queue: &str,
        handle: &Arc<Handle>,
        max: usize,
        visibility: i32,
        wait: Micros,
    ) -> Result<Vec<Incoming>, QueueError> {
        let call = |max: usize, wait: Micros| async move {
            let taken = handle.receive(max, visibility, wait).await;
            taken.map_err(|error| self.failed(queue, error))
        };
        let mut taken = call(max, wait).await?;
        if taken.len() < coalesce::ENTRIES || max <= coalesce::ENTRIES {
            return Ok(taken);
        }
        let mut left = (max - taken.len()).min(MAX_BATCH);
        while left > 0 {
            let round = left.min(CALLS * coalesce::ENTRIES);
            let sizes =
                (0..round).step_by(coalesce::ENTRIES).map(|from| (round - from).min(coalesce::ENTRIES));
            let calls: Vec<_> = sizes.map(|size| call(size, Micros::ZERO)).collect();
            let mut came = 0;
            for more in futures::future::join_all(calls).await {
                match more {
                    Ok(more) => {
                        came += more.len();
                        taken.extend(more);
                    }
                    // What was taken already is delivered; the next call meets the error again.
                    Err(error) => {
                        tracing::debug!(queue, error = crate::error::chain(&error), "part of a batch")
                    }
                }
            }
            if came < round {
                break;
            }
            left -= came.min(left);
        }
        Ok(taken)
    }

    /// Sends on what came before its time: SQS's delays end after fifteen minutes. A crash in between doubles the message.
    async fn sort_out_early(
        &self,
        handle: &Arc<Handle>,
        taken: Vec<Incoming>,
    ) -> Result<Vec<Message>, QueueError> {
        let now = self.clock.now();
        let mut due = Vec::with_capacity(taken.len());
        for Incoming { message, not_before } in taken {
            match not_before.filter(|at| *at > now) {
                None => due.push(message),
                Some(at) => {
                    handle.sends.run(Outgoing::new(&message.body, at.since(now), now)).await?;
                    handle.deletes.run(message.receipt).await?;
                }
            }
        }
        Ok(due)
    }
}

#[async_trait]
impl QueueClient for SqsQueue {
    async fn create(&self, queue: &str) -> Result<(), QueueError> {
        self.ensure(queue, &self.attributes).await
    }

    async fn send(&self, queue: &str, messages: Vec<NewMessage>) -> Result<(), QueueError> {
        let handle = self.handle(queue).await?;
        check_batch(&messages)?;
        let now = self.clock.now();
        let outgoing = messages.iter().map(|message| Outgoing::new(&message.body, message.delay, now));
        let sent = stream::iter(outgoing.map(|message| handle.sends.run(message)).collect::<Vec<_>>())
            .buffer_unordered(MAX_BATCH)
            .try_collect::<()>()
            .await;
        sent.map_err(|error| self.forget(queue, error))
    }

    async fn receive(
        &self,
        queue: &str,
        max: usize,
        visibility: Micros,
        wait: Micros,
    ) -> Result<Vec<Message>, QueueError> {
        let handle = self.handle(queue).await?;
        let visibility = visibility_seconds(visibility)?;
        if max == 0 {
            return Ok(Vec::new());
        }
        let deadline = self.clock.now().plus(wait);
        loop {
            let left = deadline.since(self.clock.now());
            let taken = self.take(queue, &handle, max, visibility, left).await?;
            let came = taken.len();
            let messages = self.sort_out_early(&handle, taken).await?;
            let now = self.clock.now();
            if !messages.is_empty() || (now >= deadline && came == 0) || wait == Micros::ZERO {
                return Ok(messages);
            }
            if came == 0 {
                // A server that answers at once although it was asked to wait must not make this a busy loop.
                self.clock.sleep(Micros::from_millis(50).min(deadline.since(now))).await;
            }
        }
    }

    async fn delete(&self, queue: &str, receipt: &str) -> Result<(), QueueError> {
        let handle = self.handle(queue).await?;
        handle.deletes.run(receipt.to_owned()).await.map_err(|error| self.forget(queue, error))
    }

    async fn change_visibility(
        &self,
        queue: &str,
        receipt: &str,
        visibility: Micros,
    ) -> Result<(), QueueError> {
        let handle = self.handle(queue).await?;
        let change = (receipt.to_owned(), visibility_seconds(visibility)?);
        handle.changes.run(change).await.map_err(|error| self.forget(queue, error))
    }

    async fn purge(&self, queue: &str) -> Result<(), QueueError> {
        let handle = self.handle(queue).await?;
        for attempt in 1.. {
            let Err(error) = self.clients.sqs().purge_queue().queue_url(&handle.url).send().await else {
                break;
            };
            let busy = error.as_service_error().is_some_and(|error| error.is_purge_queue_in_progress());
            if !busy || attempt >= PURGE_TRIES {
                return Err(self.failed(queue, AwsError::new("sqs:PurgeQueue", error)));
            }
            self.clock.sleep(PURGE_PAUSE).await;
        }
        Ok(())
    }

    async fn depth(&self, queue: &str) -> Result<u64, QueueError> {
        Ok(self.depths(queue).await?.total())
    }
}

impl SqsQueue {
    /// Gives the queue of a call that met none its name, and looks it up anew next time.
    fn forget(&self, queue: &str, error: QueueError) -> QueueError {
        match error {
            QueueError::NoQueue(_) => {
                self.known.write().remove(queue);
                QueueError::NoQueue(queue.to_owned())
            }
            error => error,
        }
    }
}
