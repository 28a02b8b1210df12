//! Lanes: what runs as one process. Each has a runtime of one thread that goes on only when the scheduler gives it a turn,
//! until nothing in it can go on or its fuse has burnt down. Each step at a port burns a bit of the fuse, and at its end the
//! step waits. So the scheduler, not the machine, decides who goes on, where a turn ends, and at which await point a process
//! dies: dropping the runtime drops every task where it stands.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

/// What ends the turns of a lane: steps that are used up, or nothing to do.
#[derive(Default)]
pub struct Fuse {
    left: AtomicU64,
    idle: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Fuse {
    /// A fuse that lasts for ever, for what runs in no turns.
    #[must_use]
    pub fn endless() -> Arc<Self> {
        let fuse = Self::default();
        fuse.left.store(u64::MAX, Ordering::Relaxed);
        Arc::new(fuse)
    }

    fn ring(&self) {
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }

    /// Takes a step; at the end of the fuse the step waits for the next turn.
    pub async fn step(&self) {
        let left = self.left.load(Ordering::Relaxed).saturating_sub(1);
        self.left.store(left, Ordering::Relaxed);
        if left == 0 {
            self.ring();
            tokio::task::yield_now().await;
        }
    }
}

/// A runtime that runs in turns.
pub struct Lane {
    runtime: Option<Runtime>,
    fuse: Arc<Fuse>,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Steps that were used.
    pub steps: u64,
    /// Whether nothing is left that can go on.
    pub idle: bool,
}

/// Ends when the fuse has burnt down or the runtime has nothing to do.
struct Burning<'a>(&'a Fuse);

impl Future for Burning<'_> {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        if self.0.idle.load(Ordering::Relaxed) {
            return Poll::Ready(true);
        }
        if self.0.left.load(Ordering::Relaxed) == 0 {
            return Poll::Ready(false);
        }
        *self.0.waker.lock() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Lane {
    /// A lane in which nothing runs.
    ///
    /// # Errors
    /// When the runtime can't be made.
    pub fn new() -> std::io::Result<Self> {
        let fuse = Arc::new(Fuse::default());
        let hook = Arc::clone(&fuse);
        let parked = move || {
            hook.idle.store(true, Ordering::Relaxed);
            hook.ring();
        };
        // One task between two looks at the fuse. No driver for time or sockets: whatever asks for one is found out.
        let runtime = Builder::new_current_thread().event_interval(1).on_thread_park(parked).build()?;
        Ok(Self { runtime: Some(runtime), fuse })
    }

    /// Where tasks are spawned.
    #[must_use]
    pub fn handle(&self) -> Option<Handle> {
        self.runtime.as_ref().map(|runtime| runtime.handle().clone())
    }

    /// What its steps burn.
    #[must_use]
    pub fn fuse(&self) -> Arc<Fuse> {
        Arc::clone(&self.fuse)
    }

    /// Runs for at most so many steps, one at least.
    pub fn run(&mut self, steps: u64) -> Turn {
        let Some(runtime) = &self.runtime else { return Turn { steps: 0, idle: true } };
        self.fuse.idle.store(false, Ordering::Relaxed);
        self.fuse.left.store(steps.max(1), Ordering::Relaxed);
        let idle = runtime.block_on(Burning(&self.fuse));
        Turn { steps: steps.max(1) - self.fuse.left.load(Ordering::Relaxed), idle }
    }

    /// Ends everything at once, each task where it stands.
    pub fn kill(&mut self) {
        drop(self.runtime.take());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn a_turn_is_as_long_as_it_is_given_and_a_killed_lane_drops_its_tasks() {
        let mut lane = Lane::new().unwrap();
        let count = Arc::new(AtomicU64::new(0));
        let (counted, fuse) = (Arc::clone(&count), lane.fuse());
        lane.handle().unwrap().spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                fuse.step().await;
            }
        });
        assert_eq!(lane.run(5), Turn { steps: 5, idle: false });
        assert_eq!(count.load(Ordering::Relaxed), 5);
        assert_eq!(lane.run(3), Turn { steps: 3, idle: false });
        assert_eq!(count.load(Ordering::Relaxed), 8);
        assert_eq!(Arc::strong_count(&count), 2);
        lane.kill();
        assert_eq!(Arc::strong_count(&count), 1);
        assert_eq!(lane.run(5), Turn { steps: 0, idle: true });
    }

    #[test]
    fn a_lane_without_work_says_so() {
        let mut lane = Lane::new().unwrap();
        assert!(lane.run(10).idle);
        let fuse = lane.fuse();
        lane.handle().unwrap().spawn(async move { fuse.step().await });
        assert_eq!(lane.run(10), Turn { steps: 1, idle: true });
        let notify = Arc::new(tokio::sync::Notify::new());
        let (notified, fuse) = (Arc::clone(&notify), lane.fuse());
        lane.handle().unwrap().spawn(async move {
            notified.notified().await;
            fuse.step().await;
        });
        assert_eq!(lane.run(10), Turn { steps: 0, idle: true });
        notify.notify_one();
        assert_eq!(lane.run(10), Turn { steps: 1, idle: true });
    }
}
