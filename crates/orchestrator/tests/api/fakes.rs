//! Ports that the API's tests stand on: a cache, an event feed, a settlement layer and a storage, as little as is
//! needed.

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
            storage::{ByteStream, ObjectInfo, ObjectPage, StorageClient, StorageError},
        },
        madara::settlement::{
            BlockProof, Deposit, SettledBlock, SettlementClient, SettlementError, TransactionStatus,
            WithdrawalClaim,
        },
        market::{
            account::AccountKey,
            block::{BlockHeader, Hash32},
            event::DomainEvent,
            money::Amount,
            quantity::{Micros, Timestamp},
            terms::DomainId,
        },
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
    pub(crate) down: Arc<std::sync::atomic::AtomicBool>,
}

#[async_trait]
impl Dependency for Part {
    fn name(&self) -> &str {
        self.name
    }
    async fn check(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.down.load(std::sync::atomic::Ordering::Relaxed) { Err("down".into()) } else { Ok(()) }
    }
}

/// A settlement layer that takes deposits, confirmed at once, and nothing else.
pub(crate) struct Chain {
    domain: DomainId,
    deposits: Mutex<Vec<(String, Deposit)>>,
}

impl Chain {
    pub(crate) fn new() -> Self {
        Self { domain: DomainId::local(), deposits: Mutex::default() }
    }
}

fn not_here() -> SettlementError {
    SettlementError::NotSupported("this")
}

#[async_trait]
impl SettlementClient for Chain {
    fn domain(&self) -> &DomainId {
        &self.domain
    }
    async fn register_proof(
        &self,
        _: &str,
        _: &BlockHeader,
        _: &BlockProof,
        _: &str,
    ) -> Result<String, SettlementError> {
        Err(not_here())
    }
    async fn update_state(&self, _: &str, _: &BlockHeader) -> Result<String, SettlementError> {
        Err(not_here())
    }
    async fn transaction(&self, _: &str) -> Result<TransactionStatus, SettlementError> {
        Err(not_here())
    }
    async fn last_settled(&self) -> Result<SettledBlock, SettlementError> {
        Ok(SettledBlock { number: 0, hash: Hash32::default(), state_root: Hash32::default(), is_final: true })
    }
    async fn block(&self, _: u64) -> Result<Option<(BlockHeader, String)>, SettlementError> {
        Ok(None)
    }
    async fn deposits(&self, after: u64, limit: usize) -> Result<Vec<Deposit>, SettlementError> {
        let all = self.deposits.lock().unwrap();
        Ok(all.iter().map(|(_, d)| d.clone()).filter(|d| d.index > after).take(limit).collect())
    }
    async fn deposit(
        &self,
        key: &str,
        account: AccountKey,
        amount: Amount,
    ) -> Result<Deposit, SettlementError> {
        let mut all = self.deposits.lock().unwrap();
        if let Some((_, known)) = all.iter().find(|(known, _)| known == key) {
            return Ok(known.clone());
        }
        let index = all.len() as u64 + 1;
        let deposit = Deposit { index, account, amount, confirmed: true, at: Timestamp(0) };
        all.push((key.to_owned(), deposit.clone()));
        Ok(deposit)
    }
    async fn withdraw(&self, _: &WithdrawalClaim) -> Result<Amount, SettlementError> {
        Err(not_here())
    }
    async fn nonce(&self) -> Result<u64, SettlementError> {
        Ok(0)
    }
}

/// A storage without objects.
pub(crate) struct EmptyStorage;

#[async_trait]
impl StorageClient for EmptyStorage {
    async fn create_bucket(&self, _: &str) -> Result<(), StorageError> {
        Ok(())
    }
    async fn delete_bucket(&self, _: &str) -> Result<(), StorageError> {
        Ok(())
    }
    async fn put(&self, bucket: &str, _: &str, _: ByteStream) -> Result<u64, StorageError> {
        Err(StorageError::NoBucket(bucket.into()))
    }
    async fn get(&self, bucket: &str, _: &str) -> Result<ByteStream, StorageError> {
        Err(StorageError::NoBucket(bucket.into()))
    }
    async fn head(&self, bucket: &str, _: &str) -> Result<ObjectInfo, StorageError> {
        Err(StorageError::NoBucket(bucket.into()))
    }
    async fn list(
        &self,
        bucket: &str,
        _: &str,
        _: Option<&str>,
        _: usize,
    ) -> Result<ObjectPage, StorageError> {
        Err(StorageError::NoBucket(bucket.into()))
    }
    async fn delete(&self, _: &str, _: &str) -> Result<(), StorageError> {
        Ok(())
    }
    async fn presign_get(&self, _: &str, _: &str, _: Micros) -> Result<String, StorageError> {
        Err(StorageError::NotSupported("presigning"))
    }
}
