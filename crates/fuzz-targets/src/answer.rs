//! Answers of others: of a provider's admin API, of the shared cache, and the manifest of a backup.

use std::{
    fmt::Debug,
    sync::{Arc, LazyLock, Mutex},
};

use async_trait::async_trait;
use orchestrator::{
    client::clock::{ManualClock, SeededEntropy},
    core::{
        client::cache::{CacheClient, CacheError},
        market::{
            allocation::Routing,
            block::BlockHeader,
            event::DomainEvent,
            ids::IdGenerator,
            quantity::{Micros, Timestamp},
        },
    },
    service::{answers::SharedAnswers, sla::BucketView},
    setup::Manifest,
};
use orchestrator_provider::wire;
use serde::{Serialize, de::DeserializeOwned};

use crate::market::block_on;

/// What can be read is written and read back as the same; a foreign entry of the cache is left alone or is whole.
///
/// The input is the text.
pub fn answer(data: &[u8]) {
    same::<wire::Allocate>(data);
    same::<wire::Allocations>(data);
    same::<wire::AtGeneration>(data);
    same::<wire::Description>(data);
    same::<wire::Effects>(data);
    same::<wire::Faults>(data);
    same::<wire::Problem>(data);
    same::<wire::PutKey>(data);
    same::<wire::Qos>(data);
    same::<wire::Restrict>(data);
    same::<wire::Routing>(data);
    same::<wire::Usage>(data);
    same::<Manifest>(data);
    same::<Routing>(data);
    same::<BlockHeader>(data);
    same::<DomainEvent>(data);
    cached(data);
}

fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(data) {
        let text = serde_json::to_string(&value).unwrap();
        let again = serde_json::from_str::<T>(&text);
        assert!(again.as_ref().is_ok_and(|again| *again == value), "{text}: {again:?}");
    }
}

/// A cache that holds one value under every key.
struct Cache(Mutex<Vec<u8>>);

#[async_trait]
impl CacheClient for Cache {
    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, CacheError> {
        Ok(Some(self.0.lock().unwrap().clone()))
    }
    async fn set(&self, _: &str, value: Vec<u8>, _: Micros) -> Result<(), CacheError> {
        *self.0.lock().unwrap() = value;
        Ok(())
    }
    async fn remove(&self, _: &str) -> Result<(), CacheError> {
        Ok(())
    }
    async fn increment(&self, _: &str, _: Micros) -> Result<u64, CacheError> {
        Ok(0)
    }
}

const NOW: Timestamp = Timestamp(1_790_000_000_000_000);
const MOST: Micros = Micros::from_secs(1);

static SHARED: LazyLock<(Arc<Cache>, SharedAnswers)> = LazyLock::new(|| {
    let cache = Arc::new(Cache(Mutex::default()));
    let ids = IdGenerator::new(Arc::new(ManualClock::new(NOW)), Arc::new(SeededEntropy::new(1)));
    (cache.clone(), SharedAnswers::over(cache, ids, "m"))
});

fn cached(data: &[u8]) {
    let (cache, answers) = &*SHARED;
    data.clone_into(&mut *cache.0.lock().unwrap());
    block_on(async {
        let Some(told) = answers.get::<Vec<BucketView>>("k", MOST).await else { return };
        assert!(NOW.since(told.as_of).max(told.as_of.since(NOW)) <= MOST);
        // What is told on is what was understood.
        answers.put("k", &told.value, told.as_of, MOST).await;
        if told.as_of.plus(MOST) > NOW {
            let again = answers.get::<Vec<BucketView>>("k", MOST).await.unwrap();
            assert_eq!(again.value, told.value);
        }
    });
}
