//! Keeps messages hidden while they are worked on. A message is received with a short visibility, so that another receiver
//! has it soon after a crash; as long as it is worked on its hiding is renewed at a third of that, by a loop of its own: work
//! that blocks or waits holds up no renewal.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{
        client::{
            clock::Clock,
            queue::{QueueClient, QueueError},
        },
        market::quantity::{Micros, Timestamp},
    },
    error,
};

/// Renewals that are under way at the same time.
const CONCURRENCY: usize = 32;

/// Renews the hiding of messages in work. Clones share everything.
#[derive(Clone)]
pub struct VisibilityKeeper {
    queue: Arc<dyn QueueClient>,
    clock: Arc<dyn Clock>,
    visibility: Micros,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    kept: Mutex<Kept>,
    changed: Notify,
}

#[derive(Default)]
struct Kept {
    next_id: u64,
    messages: BTreeMap<u64, Entry>,
}

#[derive(Clone)]
struct Entry {
    queue: String,
    receipt: String,
    due: Timestamp,
    lost: Arc<AtomicBool>,
}

/// A message that is kept hidden until this is dropped.
pub struct KeptMessage {
    id: u64,
    state: Arc<State>,
    lost: Arc<AtomicBool>,
}

impl KeptMessage {
    /// Whether the message was delivered again, or removed, by somebody else: the work on it is no longer ours alone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for KeptMessage {
    fn drop(&mut self) {
        self.state.kept.lock().messages.remove(&self.id);
    }
}

impl VisibilityKeeper {
    /// A keeper for messages that are received with this visibility; nothing is renewed before [`VisibilityKeeper::run`].
    #[must_use]
    pub fn new(queue: Arc<dyn QueueClient>, clock: Arc<dyn Clock>, visibility: Micros) -> Self {
        Self { queue, clock, visibility, state: Arc::default() }
    }

    /// Keeps a message that was just received hidden until the answer is dropped.
    #[must_use]
    pub fn keep(&self, queue: &str, receipt: &str) -> KeptMessage {
        let lost = Arc::new(AtomicBool::new(false));
        let entry = Entry {
            queue: queue.to_owned(),
            receipt: receipt.to_owned(),
            due: self.clock.now().plus(self.third()),
            lost: lost.clone(),
        };
        let id = {
            let mut kept = self.state.kept.lock();
            kept.next_id += 1;
            let id = kept.next_id;
            kept.messages.insert(id, entry);
            id
        };
        self.state.changed.notify_one();
        KeptMessage { id, state: self.state.clone(), lost }
    }

    /// How many messages are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.state.kept.lock().messages.len()
    }

    /// Renews until `shutdown` is cancelled, which should be after the last work was drained.
    pub async fn run(&self, shutdown: CancellationToken) {
        loop {
            let next = self.step().await;
            let wait = async {
                match next {
                    Some(due) => self.clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.state.changed.notified() => {}
                () = wait => {}
            }
        }
    }

    /// Renews what is due, and tells when the next is.
    pub async fn step(&self) -> Option<Timestamp> {
        let now = self.clock.now();
        let due: Vec<(u64, Entry)> = {
            let kept = self.state.kept.lock();
            let due = kept.messages.iter().filter(|(_, entry)| entry.due <= now);
            due.map(|(id, entry)| (*id, entry.clone())).collect()
        };
        let renewals: Vec<_> = due.into_iter().map(|(id, entry)| self.renew(id, entry)).collect();
        stream::iter(renewals).buffer_unordered(CONCURRENCY).collect::<()>().await;
        self.state.kept.lock().messages.values().map(|entry| entry.due).min()
    }

    async fn renew(&self, id: u64, entry: Entry) {
        let started = self.clock.now();
        let renewed = self.queue.change_visibility(&entry.queue, &entry.receipt, self.visibility).await;
        let due = match renewed {
            Ok(()) => Some(started.plus(self.third())),
            // The hiding lasts for two thirds yet: there is time for some tries.
            Err(error) if error.retryable() => {
                tracing::warn!(
                    queue = entry.queue,
                    error = error::chain(&error),
                    "a message was not kept hidden"
                );
                Some(self.clock.now().plus(Micros((self.third().get() / 4).max(1))))
            }
            Err(error) => {
                entry.lost.store(true, Ordering::Relaxed);
                if !matches!(error, QueueError::StaleReceipt) {
                    tracing::error!(
                        queue = entry.queue,
                        error = error::chain(&error),
                        "a message can't be kept hidden"
                    );
                }
                None
            }
        };
        let mut kept = self.state.kept.lock();
        match due {
            // It may have been released meanwhile.
            Some(due) => {
                if let Some(entry) = kept.messages.get_mut(&id) {
                    entry.due = due;
                }
            }
            None => {
                kept.messages.remove(&id);
            }
        }
    }

    fn third(&self) -> Micros {
        Micros((self.visibility.get() / 3).max(1))
    }
}
