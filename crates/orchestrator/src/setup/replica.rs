//! A replica over ports that are given: the services, workers and triggers of the daemon, wired as the daemon wires them.
//! The simulation runs these.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    background,
    clients::{Clients, Ports},
    services::Services,
};
use crate::{
    config::Config,
    controller::worker::{TriggerRegistry, prober},
    error::Result,
};

/// A running replica without an API.
pub struct Replica {
    /// What the API would call.
    pub services: Services,
    /// The triggers, and what they did.
    pub triggers: Arc<TriggerRegistry>,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Replica {
    /// Starts the services and every loop of the background. `canary` tells whether the replica reaches itself.
    ///
    /// # Errors
    /// What keeps the background from starting: a port that does not answer.
    pub async fn start(config: &Config, ports: Ports, canary: &prober::Canary) -> Result<Self> {
        let clients = Clients::over(ports)?;
        let mut services = Services::build(config, &clients);
        let triggers = Arc::new(TriggerRegistry::new(
            clients.database.clone(),
            clients.committer.clone(),
            clients.clock.clone(),
            std::mem::take(&mut services.triggers),
        ));
        let stop = CancellationToken::new();
        let tasks = background::start(config, &clients, &services, triggers.clone(), canary, &stop).await?;
        Ok(Self { services, triggers, tasks, stop })
    }

    /// Stops in order: running jobs are drained, leases given back.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a background task ended badly");
            }
        }
    }
}
