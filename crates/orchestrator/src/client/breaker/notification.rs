//! A notification service behind a breaker. Only a service that is one dependency is put behind one: where each subscriber is
//! called by this process itself, one that is away must not keep alerts from the others.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Guard, Symptom};
use crate::core::{
    client::notification::{Notification, NotificationClient, NotificationError},
    market::quantity::Micros,
};

impl Symptom for NotificationError {
    fn is_sick(&self) -> bool {
        match self {
            Self::Undelivered(_) => true,
            Self::NoTopic(_) | Self::InvalidAddress { .. } | Self::Deferred(_) => false,
        }
    }

    fn deferred(after: Micros) -> Self {
        Self::Deferred(after)
    }
}

/// The notification service behind its breaker.
pub struct GuardedNotification {
    inner: Arc<dyn NotificationClient>,
    guard: Guard,
}

impl GuardedNotification {
    /// Puts a service behind a breaker.
    #[must_use]
    pub fn new(inner: Arc<dyn NotificationClient>, guard: Guard) -> Self {
        Self { inner, guard }
    }
}

#[async_trait]
impl NotificationClient for GuardedNotification {
    async fn create_topic(&self, topic: &str) -> Result<(), NotificationError> {
        self.guard.call(self.inner.create_topic(topic)).await
    }

    async fn topics(&self) -> Result<Vec<String>, NotificationError> {
        self.guard.call(self.inner.topics()).await
    }

    async fn subscribe(&self, topic: &str, address: &str) -> Result<(), NotificationError> {
        self.guard.call(self.inner.subscribe(topic, address)).await
    }

    async fn unsubscribe(&self, topic: &str, address: &str) -> Result<(), NotificationError> {
        self.guard.call(self.inner.unsubscribe(topic, address)).await
    }

    async fn publish(&self, topic: &str, notification: &Notification) -> Result<(), NotificationError> {
        self.guard.call(self.inner.publish(topic, notification)).await
    }
}
