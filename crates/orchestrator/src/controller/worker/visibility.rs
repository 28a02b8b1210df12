//! Keeps messages hidden while they are worked on, those of queues and the hints of job queues alike. A message is received with a
//! short visibility, so that another receiver has it soon after a crash; as long as it is worked on its hiding is renewed at a
//! third of that, by a loop of its own: work that blocks or waits holds up no renewal, and no renewal holds up another one.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{
        client::{
            clock::Clock,
            queue::{Message, QueueClient, QueueError},
        },
        job::{JobKind, Phase},
        madara::job_queue::JobQueueClient,
        market::quantity::{Micros, Timestamp},
    },
    error,
};

/// A message that was received and is being worked on.
#[async_trait]
pub trait InWork: Send + Sync + 'static {
    /// The queue that it came from, for people.
    fn queue(&self) -> String;

    /// Hides it for `visibility` from now.
    ///
    /// # Errors
    /// [`QueueError::StaleReceipt`] when it was delivered again, or removed.
    async fn hide(&self, visibility: Micros) -> Result<(), QueueError>;
}

/// A message of a queue.
pub struct QueueMessage {
    /// Where it lies.
    pub client: Arc<dyn QueueClient>,
    /// The queue's name.
    pub queue: String,
    /// The receipt of the delivery.
    pub receipt: String,
}

#[async_trait]
impl InWork for QueueMessage {
    fn queue(&self) -> String {
        self.queue.clone()
    }

    async fn hide(&self, visibility: Micros) -> Result<(), QueueError> {
        self.client.change_visibility(&self.queue, &self.receipt, visibility).await
    }
}

/// A hint of a job queue.
pub struct Hint {
    /// Where it lies.
    pub client: Arc<dyn JobQueueClient>,
    /// What kind of job it names.
    pub kind: JobKind,
    /// In which phase.
    pub phase: Phase,
    /// The delivery.
    pub message: Message,
}

#[async_trait]
impl InWork for Hint {
    fn queue(&self) -> String {
        format!("{}/{}", self.kind, self.phase.as_str())
    }

    async fn hide(&self, visibility: Micros) -> Result<(), QueueError> {
        self.client.extend(self.kind, self.phase, &self.message, visibility).await
    }
}

/// Renews the hiding of messages in work. Clones share everything.
#[derive(Clone)]
pub struct VisibilityKeeper {
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
    messages: HashMap<u64, Entry>,
}

#[derive(Clone)]
struct Entry {
    message: Arc<dyn InWork>,
    /// `None` while it is being renewed.
    due: Option<Timestamp>,
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
    pub fn new(clock: Arc<dyn Clock>, visibility: Micros) -> Self {
        Self { clock, visibility, state: Arc::default() }
    }

    /// Keeps a message that was just received hidden until the answer is dropped.
    #[must_use]
    pub fn keep(&self, message: impl InWork) -> KeptMessage {
        let lost = Arc::new(AtomicBool::new(false));
        let due = Some(self.clock.now().plus(self.third()));
        let entry = Entry { message: Arc::new(message), due, lost: lost.clone() };
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
        let mut renewals = FuturesUnordered::new();
        loop {
            renewals.extend(self.take_due().into_iter().map(|(id, entry)| self.renew(id, entry)));
            let next = self.next_due();
            let wait = async {
                match next {
                    Some(due) => self.clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(()) = renewals.next() => {}
                () = self.state.changed.notified() => {}
                () = wait => {}
            }
        }
    }

    /// Renews what is due, and tells when the next is.
    pub async fn step(&self) -> Option<Timestamp> {
        join_all(self.take_due().into_iter().map(|(id, entry)| self.renew(id, entry))).await;
        self.next_due()
    }

    /// What is due, to be renewed by who takes it.
    fn take_due(&self) -> Vec<(u64, Entry)> {
        let now = self.clock.now();
        let mut kept = self.state.kept.lock();
        let due = kept.messages.iter_mut().filter(|(_, entry)| entry.due.is_some_and(|due| due <= now));
        due.map(|(id, entry)| {
            entry.due = None;
            (*id, entry.clone())
        })
        .collect()
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.state.kept.lock().messages.values().filter_map(|entry| entry.due).min()
    }

    async fn renew(&self, id: u64, entry: Entry) {
        let started = self.clock.now();
        let renewed = entry.message.hide(self.visibility).await;
        let due = match renewed {
            Ok(()) => Some(started.plus(self.third())),
            // The hiding lasts for two thirds yet: there is time for some tries.
            Err(error) if error.retryable() => {
                tracing::warn!(
                    queue = entry.message.queue(),
                    error = error::chain(&error),
                    "a message was not kept hidden"
                );
                Some(self.clock.now().plus(Micros((self.third().get() / 4).max(1))))
            }
            Err(error) => {
                entry.lost.store(true, Ordering::Relaxed);
                if !matches!(error, QueueError::StaleReceipt) {
                    tracing::error!(
                        queue = entry.message.queue(),
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
                    entry.due = Some(due);
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
