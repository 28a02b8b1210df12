//! Simulated time: it stands still while anybody can go on, and then jumps to the next instant that somebody waits for.
//! Each lane (a replica, or the world outside) reads it through a clock of its own, which may be wrong.

use std::{
    cell::Cell,
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use orchestrator::core::{client::clock::Clock, market::quantity::Timestamp};
use parking_lot::Mutex;

/// When every run begins.
pub const START: Timestamp = Timestamp(1_760_000_000_000_000);

thread_local! {
    static HERE: Cell<i64> = const { Cell::new(START.0) };
}

/// The simulated seconds since the start in the run of this thread, for its log.
#[must_use]
pub fn seconds_here() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let micros = (HERE.get() - START.0) as f64;
    micros / 1e6
}

/// Names a lane.
pub type LaneId = usize;

type Key = (i64, u64);

#[derive(Default)]
struct Timers {
    sequence: u64,
    waiting: BTreeMap<Key, (LaneId, Option<Waker>)>,
}

struct Inner {
    now: AtomicI64,
    timers: Mutex<Timers>,
    /// A bit for each lane that may be able to go on.
    ready: AtomicU64,
}

/// The time of one run. Clones share it.
#[derive(Clone)]
pub struct Time {
    inner: Arc<Inner>,
}

impl Default for Time {
    fn default() -> Self {
        let inner = Inner {
            now: AtomicI64::new(START.as_micros()),
            timers: Mutex::default(),
            ready: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Time {
    /// The true instant.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(self.inner.now.load(Ordering::Relaxed))
    }

    /// Notes that a lane may be able to go on.
    pub fn mark(&self, lane: LaneId) {
        self.inner.ready.fetch_or(1 << lane, Ordering::Relaxed);
    }

    /// Notes that a lane has nothing to do.
    pub fn clear(&self, lane: LaneId) {
        self.inner.ready.fetch_and(!(1 << lane), Ordering::Relaxed);
    }

    /// The lanes that may be able to go on.
    #[must_use]
    pub fn ready(&self) -> u64 {
        self.inner.ready.load(Ordering::Relaxed)
    }

    /// The next instant that somebody waits for.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.inner.timers.lock().waiting.keys().next().map(|key| Timestamp(key.0))
    }

    /// Moves to an instant and wakes those whose time has come.
    pub fn advance_to(&self, to: Timestamp) {
        self.inner.now.fetch_max(to.as_micros(), Ordering::Relaxed);
        HERE.set(to.as_micros());
        let due = {
            let mut timers = self.inner.timers.lock();
            let rest = timers.waiting.split_off(&(to.as_micros(), u64::MAX));
            std::mem::replace(&mut timers.waiting, rest)
        };
        for (lane, waker) in due.into_values() {
            self.mark(lane);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Waits for a true instant, as somebody of this lane.
    pub fn sleep_until(&self, lane: LaneId, until: Timestamp) -> Sleep {
        Sleep { time: self.clone(), lane, until, key: None }
    }
}

/// Waits for an instant.
pub struct Sleep {
    time: Time,
    lane: LaneId,
    until: Timestamp,
    key: Option<Key>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.time.now() >= self.until {
            return Poll::Ready(());
        }
        let waker = Some(context.waker().clone());
        let (lane, until, known) = (self.lane, self.until.as_micros(), self.key);
        let key = {
            let mut timers = self.time.inner.timers.lock();
            let key = known.unwrap_or_else(|| {
                timers.sequence += 1;
                (until, timers.sequence)
            });
            timers.waiting.insert(key, (lane, waker));
            key
        };
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.time.inner.timers.lock().waiting.remove(&key);
        }
    }
}

/// The clock of one lane: the true time and an error that stays the same while the process lives.
pub struct LaneClock {
    time: Time,
    lane: LaneId,
    error: i64,
}

impl LaneClock {
    /// A clock that is wrong by `error` microseconds.
    #[must_use]
    pub const fn new(time: Time, lane: LaneId, error: i64) -> Self {
        Self { time, lane, error }
    }
}

#[async_trait]
impl Clock for LaneClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.time.now().as_micros().saturating_add(self.error))
    }

    async fn sleep_until(&self, until: Timestamp) {
        let until = Timestamp(until.as_micros().saturating_sub(self.error));
        self.time.sleep_until(self.lane, until).await;
    }
}
