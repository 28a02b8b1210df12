//! Ports that the API's tests stand on: a cache, an event feed and a dependency, as little as is needed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use orchestrator::{
    controller::route::Dependency,
    core::{
        client::{
            cache::{CacheClient, CacheError},
            event_bus::EventFeed,
        },
        market::{event::DomainEvent, quantity::Micros},
    },
};
use tokio::sync::broadcast;

/// A cache that never forgets, or that can't be reached.
#[derive(Default)]
pub(crate) struct Cache {
    counts: Mutex<HashMap<String, u64>>,
    pub(crate) broken: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl CacheClient for Cache {
    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, CacheError> {
        Ok(None)
    }
    async fn set(&self, _: &str, _: Vec<u8>, _: Micros) -> Result<(), CacheError> {
        Ok(())
    }
    async fn remove(&self, _: &str) -> Result<(), CacheError> {
        Ok(())
    }
    async fn increment(&self, key: &str, _: Micros) -> Result<u64, CacheError> {
        if self.broken.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(CacheError::Unavailable("gone".into()));
        }
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry(key.to_owned()).or_insert(0);
        *count += 1;
        Ok(*count)
    }
}

/// A feed that tests speak into.
pub(crate) struct Feed(pub(crate) broadcast::Sender<DomainEvent>);

impl EventFeed for Feed {
    fn subscribe(&self) -> broadcast::Receiver<DomainEvent> {
        self.0.subscribe()
    }
}

/// A dependency that answers, or does not.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) needed: bool,
    pub(crate) down: Arc<std::sync::atomic::AtomicBool>,
}

#[async_trait]
impl Dependency for Part {
    fn name(&self) -> &str {
        self.name
    }
    fn needed(&self) -> bool {
        self.needed
    }
    async fn check(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.down.load(std::sync::atomic::Ordering::Relaxed) { Err("down".into()) } else { Ok(()) }
    }
}
