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
    use async_trait::async_trait;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        client::clock::ManualClock,
        core::{
            client::queue::{Message, NewMessage, QueueError},
            market::quantity::Timestamp,
        },
    };

    /// Tells which queue's depth was asked for; some are missing.
    struct Asked(mpsc::UnboundedSender<String>);

    #[async_trait]
    impl QueueClient for Asked {
        async fn depth(&self, queue: &str) -> Result<u64, QueueError> {
            self.0.send(queue.to_owned()).unwrap();
            match queue {
                "missing" => Err(QueueError::NoQueue(queue.to_owned())),
                _ => Ok(3),
            }
        }
        async fn create(&self, _: &str) -> Result<(), QueueError> {
            unreachable!("only depths are asked for")
        }
        async fn send(&self, _: &str, _: Vec<NewMessage>) -> Result<(), QueueError> {
            unreachable!("only depths are asked for")
        }
        async fn receive(&self, _: &str, _: usize, _: Micros, _: Micros) -> Result<Vec<Message>, QueueError> {
            unreachable!("only depths are asked for")
        }
        async fn delete(&self, _: &str, _: &str) -> Result<(), QueueError> {
            unreachable!("only depths are asked for")
        }
        async fn change_visibility(&self, _: &str, _: &str, _: Micros) -> Result<(), QueueError> {
            unreachable!("only depths are asked for")
        }
        async fn purge(&self, _: &str) -> Result<(), QueueError> {
            unreachable!("only depths are asked for")
        }
    }

    #[tokio::test]
    async fn every_queue_is_looked_at_time_and_again_even_behind_one_that_is_missing_until_a_stop() {
        let clock = ManualClock::new(Timestamp(1_000_000));
        let (asked, mut told) = mpsc::unbounded_channel();
        let names = vec!["missing".to_owned(), "there".to_owned()];
        let stop = CancellationToken::new();
        let watching =
            tokio::spawn(watch(Arc::new(Asked(asked)), names, Arc::new(clock.clone()), stop.clone()));
        for _ in 0..3 {
            // The test's own time-out ends a wait in vain.
            assert_eq!(told.recv().await.as_deref(), Some("missing"));
            assert_eq!(told.recv().await.as_deref(), Some("there"));
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            clock.advance(Micros(EVERY.get() - 1));
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert!(told.try_recv().is_err(), "too early");
            clock.advance(Micros(1));
        }
        stop.cancel();
        watching.await.unwrap();
    }
}
