//! The driver: the loops that make the job engine go. Claims follow wake-ups, the next due time and a slow fallback;
//! heartbeat and reaper run apart from them, so that no job and no claim can hold them up.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::idle::IdlePause;
use crate::{
    core::{client::clock::Clock, market::quantity::Micros},
    error,
    service::job::Engine,
};

/// Due jobs are counted once in so many looks for leases that ran out.
const MEASURE_EVERY: u64 = 3;

/// How the driver behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverSettings {
    /// Time between two looks at the queue that nobody called for, while there is work now and then.
    pub fallback: Micros,
    /// Longest such time, when nothing happens. No longer than the engine looks ahead, or jobs start late.
    pub idle_fallback: Micros,
    /// Time between two heartbeats; a third of the lease at most.
    pub heartbeat: Micros,
    /// Time between two looks for leases that ran out.
    pub reap_every: Micros,
    /// How long running jobs may go on after the shutdown began.
    pub drain: Micros,
}

impl Default for DriverSettings {
    fn default() -> Self {
        Self {
            fallback: Micros::from_secs(1),
            idle_fallback: Micros::from_secs(5),
            heartbeat: Micros::from_secs(5),
            reap_every: Micros::from_secs(5),
            drain: Micros::from_secs(10),
        }
    }
}

/// Drives an engine.
pub struct Driver {
    engine: Engine,
    settings: DriverSettings,
    clock: Arc<dyn Clock>,
}

impl Driver {
    /// A driver; nothing happens before [`Driver::run`].
    #[must_use]
    pub fn new(engine: Engine, settings: DriverSettings) -> Self {
        let clock = engine.clock();
        Self { engine, settings, clock }
    }

    /// Runs until `shutdown` is cancelled and the running jobs have ended or were given back.
    pub async fn run(self, shutdown: CancellationToken) {
        let upkeep_ends = CancellationToken::new();
        let claims = async {
            self.claim_until(&shutdown).await;
            let given_back = self.engine.drain(self.settings.drain).await;
            tracing::info!(given_back, "the job engine has stopped");
            // Heartbeats go on while jobs drain.
            upkeep_ends.cancel();
        };
        tokio::join!(claims, self.heartbeat_until(&upkeep_ends), self.reap_until(&upkeep_ends));
    }

    async fn claim_until(&self, shutdown: &CancellationToken) {
        let wake = self.engine.wake();
        let longest = self.settings.idle_fallback.min(self.engine.settings().look_ahead);
        let idle = IdlePause::new(self.settings.fallback.min(longest), longest);
        let mut worked = true;
        while !shutdown.is_cancelled() {
            let pause = match self.engine.tick().await {
                Ok(tick) if tick.claimed > 0 => {
                    // What was started gets a turn, so that the next claim finds more slots at once.
                    if !tick.claim_ahead {
                        tokio::task::yield_now().await;
                    }
                    worked = true;
                    continue;
                }
                Ok(tick) => {
                    let pause = idle.after(std::mem::take(&mut worked));
                    tick.next_due.map_or(pause, |due| due.since(self.clock.now()).min(pause))
                }
                Err(error) => {
                    tracing::error!(error = error::chain(&error), "jobs could not be claimed");
                    self.settings.fallback
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = wake.jobs.notified() => {}
                () = self.clock.sleep(pause) => {}
            }
        }
    }

    async fn heartbeat_until(&self, end: &CancellationToken) {
        while self.pause(self.settings.heartbeat, end).await {
            if let Err(error) = self.engine.renew().await {
                tracing::error!(error = error::chain(&error), "leases could not be renewed");
            }
        }
    }

    async fn reap_until(&self, end: &CancellationToken) {
        let mut round = 0_u64;
        while self.pause(self.settings.reap_every, end).await {
            if let Err(error) = self.engine.reap().await {
                tracing::error!(error = error::chain(&error), "leases could not be reaped");
            } else if round.is_multiple_of(MEASURE_EVERY)
                && let Err(error) = self.engine.measure().await
            {
                tracing::warn!(error = error::chain(&error), "due jobs could not be counted");
            }
            round += 1;
        }
    }

    /// Waits; false when it is over.
    async fn pause(&self, time: Micros, end: &CancellationToken) -> bool {
        tokio::select! {
            biased;
            () = end.cancelled() => false,
            () = self.clock.sleep(time) => true,
        }
    }
}
