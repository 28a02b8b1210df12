//! Work that one replica does for all: it runs while this process holds a lease, is stopped when the lease is lost, and
//! another replica goes on when this one is gone. What runs must bear that for a moment two of them do: a process that was
//! paused learns late that it leads no longer.

use std::{pin::pin, sync::Arc};

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{
        client::{
            clock::Clock,
            lease::{Held, Leadership, Lease},
        },
        market::quantity::Micros,
    },
    error,
};

/// Longest time between two tries to take a lease that another replica holds.
const LOOK: Micros = Micros::from_secs(10);
/// Time to the next try when the database did not answer.
const RETRY: Micros = Micros::from_secs(1);

/// Starts the work; it ends when its token is cancelled.
pub type Work = Box<dyn Fn(CancellationToken) -> BoxFuture<'static, ()> + Send + Sync>;

/// Runs work while a lease is held.
pub struct Leader {
    what: &'static str,
    lease: Lease,
    clock: Arc<dyn Clock>,
}

impl Leader {
    /// Over a lease; `what` names the work in the log.
    #[must_use]
    pub fn new(what: &'static str, lease: Lease, clock: Arc<dyn Clock>) -> Self {
        Self { what, lease, clock }
    }

    /// Runs `work` whenever this process leads, until `shutdown` is cancelled; then gives the lease back.
    pub async fn run(&self, work: Work, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let pause = match self.lease.hold(None, self.clock.now()).await {
                Ok(Leadership::Ours(held)) => {
                    self.lead(held, &work, &shutdown).await;
                    Micros::ZERO
                }
                Ok(Leadership::Theirs(until)) => {
                    until.since(self.clock.now()).clamp(Micros::from_millis(100), LOOK)
                }
                Err(error) => {
                    tracing::warn!(what = self.what, error = error::chain(&error), "a lease can't be read");
                    RETRY
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = self.clock.sleep(pause) => {}
            }
        }
    }

    /// Leads until the lease is lost or the process stops.
    async fn lead(&self, held: Held, work: &Work, shutdown: &CancellationToken) {
        tracing::info!(what = self.what, "this replica leads");
        let stop = shutdown.child_token();
        let mut running = tokio::spawn(work(stop.clone()));
        let mut keep = pin!(self.keep(held, shutdown));
        let held = tokio::select! {
            biased;
            held = &mut keep => {
                stop.cancel();
                if let Err(error) = running.await {
                    tracing::error!(what = self.what, %error, "a leader's work ended badly");
                }
                held
            }
            // The shutdown ends the work, too, and is often seen there first: the lease is still ours to give back.
            _ = &mut running => if shutdown.is_cancelled() { keep.await } else { None },
        };
        if let Some(held) = held
            && let Err(error) = self.lease.release(held).await
        {
            tracing::warn!(what = self.what, error = error::chain(&error), "a lease could not be given back");
        }
    }

    /// Renews the lease until it is lost, which is answered with `None`, or the process stops. A lease that runs out is lost
    /// at that instant, whatever the database says or keeps silent about: another replica takes it then.
    async fn keep(&self, mut held: Held, shutdown: &CancellationToken) -> Option<Held> {
        let step = Micros((self.lease.length().get() / 3).max(1));
        loop {
            let until = held.until;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Some(held),
                () = self.clock.sleep_until(until.min(self.clock.now().plus(step))) => {}
            }
            let renewed = tokio::select! {
                biased;
                () = self.clock.sleep_until(until) => {
                    tracing::warn!(what = self.what, "this replica leads no longer: its lease ran out");
                    return None;
                }
                renewed = self.lease.hold(Some(held.clone()), self.clock.now()) => renewed,
            };
            match renewed {
                Ok(Leadership::Ours(renewed)) => held = renewed,
                Ok(Leadership::Theirs(_)) => {
                    tracing::warn!(what = self.what, "this replica leads no longer");
                    return None;
                }
                Err(error) => {
                    tracing::warn!(what = self.what, error = error::chain(&error), "a lease was not renewed");
                }
            }
        }
    }
}
