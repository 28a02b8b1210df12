//! One queue: its address, and the calls that go ten entries at a time.

use std::{sync::Arc, time::Duration};

use aws_sdk_sqs::{
    Client, Config,
    config::timeout::TimeoutConfig,
    types::{
        BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
        MessageSystemAttributeName, SendMessageBatchRequestEntry,
    },
};
use futures::FutureExt;
use tokio::sync::OnceCell;

use super::{
    body::{ENCODING, Incoming, NOT_BEFORE, Outgoing, seconds_up},
    coalesce::{Coalescer, ENTRIES, Outcome},
};
use crate::{
    client::aws::AwsError,
    core::{
        client::{clock::Clock, queue::QueueError},
        market::quantity::Micros,
    },
};

/// Longest wait of one poll, in seconds.
const LONGEST_POLL: u64 = 20;
/// How much longer than its wait a poll may take.
const POLL_GRACE: Duration = Duration::from_secs(10);
/// Bytes of one call.
const MAX_CALL: usize = 256 << 10;
/// Tries of an entry that a call did not take.
const TRIES: u32 = 4;
/// Pause before the second try; doubles with each.
const PAUSE: Micros = Micros::from_millis(100);

/// A queue that is known to exist.
pub(super) struct Handle {
    client: Client,
    pub(super) url: String,
    pub(super) arn: OnceCell<String>,
    pub(super) sends: Coalescer<Outgoing>,
    pub(super) deletes: Coalescer<String>,
    pub(super) changes: Coalescer<(String, i32)>,
}

/// What the calls of one queue need.
#[derive(Clone)]
struct Calls {
    client: Client,
    clock: Arc<dyn Clock>,
    url: String,
}

impl Handle {
    pub(super) fn new(client: Client, clock: Arc<dyn Clock>, url: String) -> Self {
        let calls = Calls { client: client.clone(), clock, url: url.clone() };
        let (sends, deletes, changes) = (calls.clone(), calls.clone(), calls);
        Self {
            client,
            url,
            arn: OnceCell::new(),
            sends: Coalescer::new(move |entries| {
                let calls = sends.clone();
                async move { calls.send(entries).await }.boxed()
            }),
            deletes: Coalescer::new(move |entries| {
                let calls = deletes.clone();
                async move { calls.delete(entries).await }.boxed()
            }),
            changes: Coalescer::new(move |entries| {
                let calls = changes.clone();
                async move { calls.change(entries).await }.boxed()
            }),
        }
    }

    /// One poll.
    pub(super) async fn receive(
        &self,
        max: usize,
        visibility: i32,
        wait: Micros,
    ) -> Result<Vec<Incoming>, AwsError> {
        let wait = seconds_up(wait).min(LONGEST_POLL);
        let attempt = Duration::from_secs(wait) + POLL_GRACE;
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(attempt)
            .operation_timeout(attempt * 2)
            .build();
        let received = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(max.min(ENTRIES)).unwrap_or(1))
            .visibility_timeout(visibility)
            .wait_time_seconds(i32::try_from(wait).unwrap_or(0))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_attribute_names(ENCODING)
            .message_attribute_names(NOT_BEFORE)
            .customize()
            .config_override(Config::builder().timeout_config(timeouts))
            .send()
            .await
            .map_err(|error| AwsError::new("sqs:ReceiveMessage", error))?;
        Ok(received.messages.unwrap_or_default().into_iter().map(Incoming::read).collect())
    }
}

/// The outcomes of entries whose ids are their places, from those that failed.
fn outcomes(operation: &'static str, count: usize, failed: &[BatchResultErrorEntry]) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = std::iter::repeat_with(|| Ok(())).take(count).collect();
    for entry in failed {
        let place = entry.id().parse::<usize>().ok().and_then(|place| outcomes.get_mut(place));
        if let Some(outcome) = place {
            *outcome = Err(entry_error(operation, entry));
        }
    }
    outcomes
}

fn entry_error(operation: &'static str, entry: &BatchResultErrorEntry) -> QueueError {
    let gone = entry.message().is_some_and(|text| text.contains("not available for visibility timeout"));
    if gone
        || entry.code().ends_with("ReceiptHandleIsInvalid")
        || entry.code().ends_with("MessageNotInflight")
    {
        return QueueError::StaleReceipt;
    }
    let error = AwsError::entry(operation, entry.code(), entry.message(), entry.sender_fault());
    match error.retryable() || !entry.sender_fault() {
        true => QueueError::Unavailable(Box::new(error)),
        false => QueueError::Invalid(error.to_string()),
    }
}

/// One error for all entries of a call.
fn all(count: usize, error: AwsError) -> Vec<Outcome> {
    if error.is_missing() {
        return std::iter::repeat_with(|| Err(QueueError::NoQueue(String::new()))).take(count).collect();
    }
    let error = Arc::new(error);
    std::iter::repeat_with(|| Err(QueueError::Unavailable(Box::new(error.clone())))).take(count).collect()
}

fn odd(operation: &'static str, error: impl std::fmt::Display) -> AwsError {
    AwsError::odd(operation, error.to_string())
}

impl Calls {
    /// Sends up to ten messages, in as many calls as their size needs; what fails for the moment is tried again.
    async fn send(&self, messages: Vec<Outgoing>) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = std::iter::repeat_with(|| Ok(())).take(messages.len()).collect();
        let mut open: Vec<(usize, Outgoing)> = messages.into_iter().enumerate().collect();
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            let mut failed = Vec::new();
            let mut rest = open.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(fitting(rest));
                for ((place, message), outcome) in now.iter().zip(self.send_call(now).await) {
                    match outcome {
                        Err(QueueError::Unavailable(_)) if attempt < TRIES => {
                            failed.push((*place, message.clone()));
                        }
                        outcome => {
                            if let Some(slot) = outcomes.get_mut(*place) {
                                *slot = outcome;
                            }
                        }
                    }
                }
                rest = later;
            }
            if failed.is_empty() {
                break;
            }
            open = failed;
            self.clock.sleep(pause).await;
            pause = Micros(pause.get().saturating_mul(2));
        }
        outcomes
    }

    async fn send_call(&self, messages: &[(usize, Outgoing)]) -> Vec<Outcome> {
        const OPERATION: &str = "sqs:SendMessage";
        let mut call = self.client.send_message_batch().queue_url(&self.url);
        for (place, (_, message)) in messages.iter().enumerate() {
            let entry = SendMessageBatchRequestEntry::builder()
                .id(place.to_string())
                .message_body(&message.body)
                .delay_seconds(message.delay_seconds);
            let built = message.attributes().and_then(|attributes| {
                let fill =
                    |entry: aws_sdk_sqs::types::builders::SendMessageBatchRequestEntryBuilder,
                     (name, value)| { entry.message_attributes(name, value) };
                attributes.into_iter().fold(entry, fill).build().map_err(|error| odd(OPERATION, error))
            });
            match built {
                Ok(entry) => call = call.entries(entry),
                Err(error) => return all(messages.len(), error),
            }
        }
        match call.send().await {
            Ok(done) => outcomes(OPERATION, messages.len(), done.failed()),
            Err(error) => all(messages.len(), AwsError::new(OPERATION, error)),
        }
    }

    async fn delete(&self, receipts: Vec<String>) -> Vec<Outcome> {
        const OPERATION: &str = "sqs:DeleteMessage";
        let mut call = self.client.delete_message_batch().queue_url(&self.url);
        let count = receipts.len();
        for (place, receipt) in receipts.into_iter().enumerate() {
            let entry =
                DeleteMessageBatchRequestEntry::builder().id(place.to_string()).receipt_handle(receipt);
            match entry.build() {
                Ok(entry) => call = call.entries(entry),
                Err(error) => return all(count, odd(OPERATION, error)),
            }
        }
        match call.send().await {
            Ok(done) => outcomes(OPERATION, count, done.failed()),
            Err(error) => all(count, AwsError::new(OPERATION, error)),
        }
    }

    async fn change(&self, changes: Vec<(String, i32)>) -> Vec<Outcome> {
        const OPERATION: &str = "sqs:ChangeMessageVisibility";
        let mut call = self.client.change_message_visibility_batch().queue_url(&self.url);
        let count = changes.len();
        for (place, (receipt, visibility)) in changes.into_iter().enumerate() {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(place.to_string())
                .receipt_handle(receipt)
                .visibility_timeout(visibility);
            match entry.build() {
                Ok(entry) => call = call.entries(entry),
                Err(error) => return all(count, odd(OPERATION, error)),
            }
        }
        match call.send().await {
            Ok(done) => outcomes(OPERATION, count, done.failed()),
            Err(error) => all(count, AwsError::new(OPERATION, error)),
        }
    }
}

/// How many of the messages one call takes; at least one.
fn fitting(messages: &[(usize, Outgoing)]) -> usize {
    let mut bytes = 0;
    let fits = |(_, message): &&(usize, Outgoing)| {
        // Attributes count, too.
        bytes += message.body.len() + 64;
        bytes <= MAX_CALL
    };
    messages.iter().take(ENTRIES).take_while(fits).count().max(1)
}
