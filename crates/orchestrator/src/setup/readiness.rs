//! What is asked before the daemon calls itself ready, at the same time and with the least that each can be asked.
//!
//! Without database, storage, queues and settlement layer nothing can be done: one that does not answer makes the replica
//! unready. Bus, alerts, schedules, cache and what is behind an open breaker are only reported: what they are to carry waits in the database until they
//! are back, and a replica that leaves the load balancer for their sake would leave with all others at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::sync::Mutex;

use super::clients::Clients;
use crate::{
    config::{
        Config,
        section::{CacheBackend, Dispatch},
    },
    controller::route::Dependency,
    core::client::storage::StorageError,
    error::Source,
};

type Check = Box<dyn Fn() -> BoxFuture<'static, Result<(), Source>> + Send + Sync>;

/// An answer is given again for so long: whoever asks needs no key, and must not be able to make us ask others as often.
const KEPT: Duration = Duration::from_secs(1);

/// A dependency with its check.
struct Checked {
    name: &'static str,
    needed: bool,
    check: Check,
    /// When it was asked last, and why it did not answer then.
    last: Mutex<Option<(Instant, Option<String>)>>,
}

#[async_trait]
impl Dependency for Checked {
    fn name(&self) -> &str {
        self.name
    }

    fn needed(&self) -> bool {
        self.needed
    }

    async fn check(&self) -> Result<(), Source> {
        // Held while it is asked: those who come meanwhile share the answer.
        let mut last = self.last.lock().await;
        let known = last.as_ref().filter(|(at, _)| at.elapsed() < KEPT);
        let problem = match known {
            Some((_, problem)) => problem.clone(),
            None => {
                let answer = (self.check)().await;
                let problem = answer.err().map(|error| crate::error::chain(error.as_ref()));
                last.insert((Instant::now(), problem)).1.clone()
            }
        };
        problem.map_or(Ok(()), |problem| Err(problem.into()))
    }
}

/// A check of one client.
fn checked<C, F>(
    name: &'static str,
    client: &Arc<C>,
    ask: impl Fn(Arc<C>) -> F + Send + Sync + 'static,
) -> Checked
where
    C: ?Sized + Send + Sync + 'static,
    F: Future<Output = Result<(), Source>> + Send + 'static,
{
    let client = Arc::clone(client);
    let check: Check = Box::new(move || Box::pin(ask(Arc::clone(&client))));
    Checked { name, needed: true, check, last: Mutex::new(None) }
}

/// What the daemon of this configuration is asked for.
pub fn of(config: &Config, clients: &Clients) -> Vec<Arc<dyn Dependency>> {
    let mut all = vec![
        checked("database", &clients.database, async |database| Ok(database.health().await?)),
        checked("storage", &clients.storage, async |storage| match storage.head("health", "ready").await {
            Ok(_) | Err(StorageError::NoBucket(_) | StorageError::NoObject(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }),
        checked("queue", &clients.queue, async |queue| Ok(queue.depth("triggers").await.map(|_| ())?)),
        checked("settlement", &clients.settlement, async |layer| {
            Ok(layer.last_settled().await.map(|_| ())?)
        }),
    ];
    if config.jobs.dispatch != Dispatch::Database {
        all.push(checked("job queue", &clients.job_queue, async |jobs| {
            Ok(jobs.dead_letters().await.map(|_| ())?)
        }));
    }
    if config.cache.backend != CacheBackend::Memory {
        // To read a cache that is away is no error; to remove what is not there is one then, and nothing else.
        let cache =
            checked("cache", &clients.cache, async |cache| Ok(cache.remove("ready").await.map(|_| ())?));
        all.push(Checked { needed: false, ..cache });
    }
    // Those that failed too often and are left alone: their jobs wait, and everything else goes on.
    let breakers = Arc::new(clients.breakers.clone());
    let outside = checked("outside", &breakers, async |breakers| {
        let left_alone = breakers.left_alone();
        if left_alone.is_empty() {
            Ok(())
        } else {
            Err(format!("left alone: {}", left_alone.join(", ")).into())
        }
    });
    all.push(Checked { needed: false, ..outside });
    all.extend(aside(config, clients));
    all.into_iter().map(|one| -> Arc<dyn Dependency> { Arc::new(one) }).collect()
}

#[cfg(not(feature = "aws"))]
const fn aside(_: &Config, _: &Clients) -> Vec<Checked> {
    Vec::new()
}

/// Bus, alerts and schedules where they are services of their own.
#[cfg(feature = "aws")]
fn aside(config: &Config, clients: &Clients) -> Vec<Checked> {
    let Some(aws) = &clients.aws else { return Vec::new() };
    let one = |aside: super::cloud::Aside| {
        let resources = Arc::new(aside.resources);
        let asked = checked(aside.port, &resources, async |resources| Ok(resources.answers().await?));
        Checked { needed: false, ..asked }
    };
    super::cloud::asides(config, aws).into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn an_answer_serves_all_who_ask_within_a_second() {
        let asked = Arc::new(AtomicU32::new(0));
        let dependency = checked("one", &asked, async |asked| match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Err("away".into()),
            _ => Ok(()),
        });
        for _ in 0..5 {
            assert_eq!(dependency.check().await.unwrap_err().to_string(), "away");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        *dependency.last.lock().await = None;
        dependency.check().await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
