//! Single calls that come at the same time are carried out as one: SQS takes ten entries for the price and the time of one.
//! A call that comes alone goes at once; those that come while calls are under way wait for the next to leave, as commits of
//! a database wait for its log.

use std::{collections::VecDeque, sync::Arc};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::core::client::queue::QueueError;

/// Entries of one call.
pub(super) const ENTRIES: usize = 10;
/// Calls that are under way at the same time before entries wait for each other.
const CALLS: usize = 4;

/// The outcome of an entry.
pub(super) type Outcome = Result<(), QueueError>;

/// Carries out up to [`ENTRIES`] entries and tells of each, in order.
type Call<T> = Box<dyn Fn(Vec<T>) -> BoxFuture<'static, Vec<Outcome>> + Send + Sync>;

/// Entries that go together.
pub(super) struct Coalescer<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    call: Call<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    waiting: VecDeque<(T, oneshot::Sender<Outcome>)>,
    calls: usize,
}

impl<T: Send + 'static> Coalescer<T> {
    pub(super) fn new(
        call: impl Fn(Vec<T>) -> BoxFuture<'static, Vec<Outcome>> + Send + Sync + 'static,
    ) -> Self {
        let state = Mutex::new(State { waiting: VecDeque::new(), calls: 0 });
        Self { shared: Arc::new(Shared { call: Box::new(call), state }) }
    }

    /// Carries one entry out, with those that come at the same time. A caller that goes away leaves the others alone.
    pub(super) async fn run(&self, entry: T) -> Outcome {
        let (done, outcome) = oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            state.waiting.push_back((entry, done));
            if state.calls < CALLS {
                state.calls += 1;
                tokio::spawn(drain(self.shared.clone()));
            }
        }
        outcome.await.unwrap_or_else(|lost| Err(QueueError::Unavailable(Box::new(lost))))
    }
}

/// Carries entries out until none waits.
async fn drain<T>(shared: Arc<Shared<T>>) {
    loop {
        let taken: Vec<_> = {
            let mut state = shared.state.lock();
            let count = state.waiting.len().min(ENTRIES);
            if count == 0 {
                state.calls -= 1;
                return;
            }
            state.waiting.drain(..count).collect()
        };
        let (entries, waiting): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
        let outcomes = (shared.call)(entries).await;
        // A caller that went away needs no answer.
        for (done, outcome) in waiting.into_iter().zip(outcomes) {
            let _ = done.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future};
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn entries_that_come_together_go_together_and_each_learns_its_own_outcome() {
        let (gate, sizes) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (held, seen) = (gate.clone(), sizes.clone());
        let coalescer = Coalescer::new(move |entries: Vec<usize>| {
            let (held, seen) = (held.clone(), seen.clone());
            async move {
                let _pass = held.acquire().await;
                seen.lock().push(entries.len());
                let outcome = |n| if n % 2 == 0 { Ok(()) } else { Err(QueueError::StaleReceipt) };
                entries.into_iter().map(outcome).collect()
            }
            .boxed()
        });
        // The first calls leave with what is there when they begin; the rest waits.
        let all = future::join_all((0..64).map(|n| coalescer.run(n)));
        let dropped = coalescer.run(64);
        let open = async {
            tokio::task::yield_now().await;
            gate.add_permits(1);
        };
        drop(dropped);
        let (outcomes, ()) = tokio::join!(all, open);
        assert!(outcomes.iter().enumerate().all(|(n, outcome)| outcome.is_ok() == (n % 2 == 0)));
        let sizes = sizes.lock();
        assert_eq!((sizes.iter().sum::<usize>(), sizes.len()), (64, 7), "{sizes:?}");
    }
}
