//! Notifications of the embedded default: `log:` is a line of the log, `http://…` and `https://…` are webhooks, which get
//! the notification as JSON in a POST. A webhook that fails is tried again a few times; what failed in the end is told to
//! the caller, which publishes again later (receivers drop repeats by `id`).

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use serde::Serialize;

use super::{log, topics::Topics};
use crate::{
    client::network::http::{HttpClient, HttpError},
    core::{
        client::{
            clock::Clock,
            database::{DatabaseClient, DatabaseError},
            notification::{Notification, NotificationClient, NotificationError},
        },
        market::quantity::Micros,
    },
};

/// Settings of the notifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifierSettings {
    /// Most attempts for a webhook within one publish; at least one is made.
    pub attempts: u32,
    /// Time before the second attempt; doubles with each.
    pub backoff: Micros,
    /// Webhooks that are called at the same time.
    pub concurrency: usize,
}

impl Default for NotifierSettings {
    fn default() -> Self {
        Self { attempts: 3, backoff: Micros::from_millis(200), concurrency: 8 }
    }
}

/// The notifier of the embedded default.
pub struct LocalNotifier {
    topics: Topics,
    http: HttpClient,
    clock: Arc<dyn Clock>,
    settings: NotifierSettings,
}

/// What a webhook gets.
#[derive(Serialize)]
struct Delivery<'a> {
    topic: &'a str,
    #[serde(flatten)]
    notification: &'a Notification,
}

/// Why a webhook was not reached.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error("the webhook answered with status {0}")]
    Status(u16),
    #[error(transparent)]
    Http(#[from] HttpError),
}

impl DeliveryError {
    /// Refusals by the receiver and by the guard stay what they are; the rest may pass.
    const fn retryable(&self) -> bool {
        match self {
            Self::Status(status) => *status >= 500 || *status == 408 || *status == 429,
            Self::Http(error) => error.retryable(),
        }
    }
}

fn undelivered(error: DatabaseError) -> NotificationError {
    NotificationError::Undelivered(Box::new(error))
}

fn no_topic(topic: &str) -> NotificationError {
    NotificationError::NoTopic(topic.to_owned())
}

impl LocalNotifier {
    /// A notifier that keeps its topics in `database` and calls webhooks by `http`.
    #[must_use]
    pub fn new(
        database: Arc<dyn DatabaseClient>,
        http: HttpClient,
        clock: Arc<dyn Clock>,
        settings: NotifierSettings,
    ) -> Self {
        Self { topics: Topics::new(database), http, clock, settings }
    }

    async fn deliver(
        &self,
        topic: &str,
        address: &str,
        notification: &Notification,
    ) -> Result<(), DeliveryError> {
        if address == log::ADDRESS {
            log::write(topic, notification);
            return Ok(());
        }
        let body = serde_json::json!(Delivery { topic, notification }).to_string();
        let mut backoff = self.settings.backoff;
        let mut attempt = 1;
        loop {
            let error = match self.http.post_json(address, body.clone()).await {
                Ok(response) if (200..300).contains(&response.status) => return Ok(()),
                Ok(response) => DeliveryError::Status(response.status),
                Err(error) => error.into(),
            };
            if attempt >= self.settings.attempts || !error.retryable() {
                return Err(error);
            }
            attempt += 1;
            self.clock.sleep(backoff).await;
            backoff = Micros(backoff.get().saturating_mul(2));
        }
    }
}

#[async_trait]
impl NotificationClient for LocalNotifier {
    async fn create_topic(&self, topic: &str) -> Result<(), NotificationError> {
        self.topics.create(topic).await.map_err(undelivered)
    }

    async fn topics(&self) -> Result<Vec<String>, NotificationError> {
        self.topics.names().await.map_err(undelivered)
    }

    async fn subscribe(&self, topic: &str, address: &str) -> Result<(), NotificationError> {
        if address != log::ADDRESS {
            self.http.check_url(address).map_err(|error| NotificationError::InvalidAddress {
                address: address.to_owned(),
                reason: error.to_string(),
            })?;
        }
        let add = |addresses: &mut std::collections::BTreeSet<String>| {
            addresses.insert(address.to_owned());
        };
        match self.topics.change(topic, add).await.map_err(undelivered)? {
            true => Ok(()),
            false => Err(no_topic(topic)),
        }
    }

    async fn unsubscribe(&self, topic: &str, address: &str) -> Result<(), NotificationError> {
        let remove = |addresses: &mut std::collections::BTreeSet<String>| {
            addresses.remove(address);
        };
        match self.topics.change(topic, remove).await.map_err(undelivered)? {
            true => Ok(()),
            false => Err(no_topic(topic)),
        }
    }

    async fn publish(&self, topic: &str, notification: &Notification) -> Result<(), NotificationError> {
        let stored = self.topics.get(topic).await.map_err(undelivered)?;
        let addresses = stored.ok_or_else(|| no_topic(topic))?.value.addresses;
        let deliveries: Vec<_> =
            addresses.iter().map(|address| self.deliver(topic, address, notification)).collect();
        let mut results = stream::iter(deliveries).buffer_unordered(self.settings.concurrency.max(1));
        let mut last = None;
        while let Some(result) = results.next().await {
            if let Err(error) = result {
                tracing::debug!(topic, id = notification.id, error = %crate::error::chain(&error), "undelivered");
                last = Some(error);
            }
        }
        last.map_or(Ok(()), |error| Err(NotificationError::Undelivered(Box::new(error))))
    }
}
