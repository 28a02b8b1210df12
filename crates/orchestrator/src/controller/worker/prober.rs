//! The prober's loop: every interval each unit that is not still being probed is probed, until the daemon stops. A slow
//! unit delays its own probes only.

use std::{collections::HashSet, sync::Arc};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{client::clock::Clock, market::ids::UnitId},
    error::Result,
    service::sla::prober::Prober,
};

/// Asks whether the orchestrator's own endpoint answers.
pub type Canary = Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// Probes until `stop` is cancelled; probes that are under way then are dropped.
pub async fn run(
    prober: Arc<Prober>,
    clock: Arc<dyn Clock>,
    canary: Option<Canary>,
    stop: CancellationToken,
) {
    let busy = Arc::new(Mutex::new(HashSet::new()));
    let mut probes = JoinSet::new();
    loop {
        let next = clock.now().plus(prober.interval());
        if let Some(canary) = &canary {
            prober.set_canary(canary().await);
        }
        if let Err(error) = begin(&prober, &busy, &mut probes).await {
            tracing::warn!(error = %crate::error::chain(&error), "a round of probes failed");
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = clock.sleep_until(next) => {}
        }
        while probes.try_join_next().is_some() {}
    }
}

async fn begin(
    prober: &Arc<Prober>,
    busy: &Arc<Mutex<HashSet<UnitId>>>,
    probes: &mut JoinSet<()>,
) -> Result<()> {
    prober.flush().await;
    prober.watch_canary().await?;
    for unit in prober.units().await? {
        if !busy.lock().insert(unit.id) {
            continue;
        }
        let place = Busy { set: busy.clone(), unit: unit.id };
        let prober = prober.clone();
        probes.spawn(async move {
            let _place = place;
            prober.probe_unit(&unit).await;
        });
    }
    Ok(())
}

/// Frees the unit when its probe ends, however it ends.
struct Busy {
    set: Arc<Mutex<HashSet<UnitId>>>,
    unit: UnitId,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.set.lock().remove(&self.unit);
    }
}
