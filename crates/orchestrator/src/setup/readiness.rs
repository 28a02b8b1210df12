//! What must answer for the daemon to be ready: the database, the storage, the queue, the settlement layer.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::clients::Clients;
use crate::{controller::route::Dependency, error::Source};

type Check = Box<dyn Fn() -> BoxFuture<'static, Result<(), Source>> + Send + Sync>;

/// A dependency with its check.
struct Checked {
    name: &'static str,
    check: Check,
}

#[async_trait]
impl Dependency for Checked {
    fn name(&self) -> &str {
        self.name
    }

    async fn check(&self) -> Result<(), Source> {
        (self.check)().await
    }
}

/// The dependencies of the embedded daemon.
pub fn of(clients: &Clients) -> Vec<Arc<dyn Dependency>> {
    let database = clients.database.clone();
    let storage = clients.storage.clone();
    let queue = clients.queue.clone();
    let settlement = clients.settlement.clone();
    let all: [(&'static str, Check); 4] = [
        (
            "database",
            Box::new(move || {
                let database = database.clone();
                Box::pin(async move { database.health().await.map_err(Source::from) })
            }),
        ),
        (
            "storage",
            Box::new(move || {
                let storage = storage.clone();
                Box::pin(async move { storage.create_bucket("health").await.map_err(Source::from) })
            }),
        ),
        (
            "queue",
            Box::new(move || {
                let queue = queue.clone();
                Box::pin(async move { queue.depth("triggers").await.map(|_| ()).map_err(Source::from) })
            }),
        ),
        (
            "settlement",
            Box::new(move || {
                let settlement = settlement.clone();
                Box::pin(async move { settlement.last_settled().await.map(|_| ()).map_err(Source::from) })
            }),
        ),
    ];
    all.into_iter()
        .map(|(name, check)| -> Arc<dyn Dependency> { Arc::new(Checked { name, check }) })
        .collect()
}
