//! Looks at the depth of queues every now and then: the adapter turns what it finds into gauges, and into an alert where a
//! service silently stops handing out messages because too many are in flight.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    core::{
        client::{clock::Clock, queue::QueueClient},
        market::quantity::Micros,
    },
    error,
};

/// Time between two looks.
const EVERY: Micros = Micros::from_secs(60);

/// Looks until `stop` is cancelled.
pub async fn watch(
    queue: Arc<dyn QueueClient>,
    names: Vec<String>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    loop {
        for name in &names {
            if stop.is_cancelled() {
                return;
            }
            if let Err(error) = queue.depth(name).await {
                tracing::warn!(
                    queue = name,
                    error = error::chain(&error),
                    "the depth of a queue is not known"
                );
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = clock.sleep(EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::{
            clock::{ManualClock, SeededEntropy},
            db::memory::MemoryDatabase,
            queue::{DatabaseQueue, DatabaseQueueSettings},
        },
        core::market::quantity::Timestamp,
    };

    #[tokio::test]
    async fn a_queue_that_is_missing_keeps_nobody_from_looking_at_others_and_a_stop_ends_it() {
        let clock = ManualClock::new(Timestamp(1_000_000));
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let entropy = Arc::new(SeededEntropy::new(1));
        let settings = DatabaseQueueSettings::default();
        let queue = DatabaseQueue::new(MemoryDatabase::with_schema(), shared.clone(), entropy, settings);
        queue.create("there").await.unwrap();
        let stop = CancellationToken::new();
        let names = vec!["missing".to_owned(), "there".to_owned()];
        let watching = tokio::spawn(watch(Arc::new(queue), names, shared, stop.clone()));
        for _ in 0..3 {
            clock.advance(EVERY);
            tokio::task::yield_now().await;
        }
        assert!(!watching.is_finished());
        stop.cancel();
        watching.await.unwrap();
    }
}
