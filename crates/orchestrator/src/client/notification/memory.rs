//! Notifications that are kept in memory, for tests: any address of the form `scheme:…` may subscribe.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::core::client::notification::{Notification, NotificationClient, NotificationError};

/// A notifier that remembers what it delivered.
#[derive(Default)]
pub struct MemoryNotifier {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, BTreeSet<String>>,
    delivered: Vec<(String, Notification)>,
}

impl MemoryNotifier {
    /// A notifier without topics.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was delivered, with the address that it went to, in order.
    #[must_use]
    pub fn delivered(&self) -> Vec<(String, Notification)> {
        self.state.lock().delivered.clone()
    }
}

impl State {
    fn topic(&mut self, topic: &str) -> Result<&mut BTreeSet<String>, NotificationError> {
        self.topics.get_mut(topic).ok_or_else(|| NotificationError::NoTopic(topic.to_owned()))
    }
}

#[async_trait]
impl NotificationClient for MemoryNotifier {
    async fn create_topic(&self, topic: &str) -> Result<(), NotificationError> {
        self.state.lock().topics.entry(topic.to_owned()).or_default();
        Ok(())
    }

    async fn topics(&self) -> Result<Vec<String>, NotificationError> {
        Ok(self.state.lock().topics.keys().cloned().collect())
    }

    async fn subscribe(&self, topic: &str, address: &str) -> Result<(), NotificationError> {
        if url::Url::parse(address).is_err() {
            return Err(NotificationError::InvalidAddress {
                address: address.to_owned(),
                reason: "it has no scheme".to_owned(),
            });
        }
        self.state.lock().topic(topic)?.insert(address.to_owned());
        Ok(())
    }

    async fn unsubscribe(&self, topic: &str, address: &str) -> Result<(), NotificationError> {
        self.state.lock().topic(topic)?.remove(address);
        Ok(())
    }

    async fn publish(&self, topic: &str, notification: &Notification) -> Result<(), NotificationError> {
        let mut state = self.state.lock();
        let addresses = state.topic(topic)?.clone();
        state.delivered.extend(addresses.into_iter().map(|address| (address, notification.clone())));
        Ok(())
    }
}
