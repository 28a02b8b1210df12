//! The daemon as a whole: everything is started in order, and stopped in order.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use orchestrator_provider::ProviderHandle;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    background,
    clients::{self, Clients},
    first, host, readiness,
    services::Services,
};
use crate::{
    config::Config,
    controller::{
        route::{self, ApiSettings, ApiState, ServeSettings},
        worker::{TriggerRegistry, prober},
    },
    core::{client::database::DatabaseClient, market::quantity::Micros},
    error::{Error, ErrorCode, Result},
    resource::{
        Resource,
        embedded::{DataDirLock, next_boot_epoch},
    },
    service::{job::Backlog, market::DefaultMarket},
};

/// What only the demo and tests ask for.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartOptions {
    /// Whether the co-hosted provider takes injected faults.
    pub provider_faults: bool,
}

/// A running daemon.
pub struct Daemon {
    /// Where the API listens.
    pub api_addr: SocketAddr,
    /// Where the co-hosted provider's S3 endpoint listens, if there is one.
    pub s3_addr: Option<SocketAddr>,
    /// The provider and the unit of the first start.
    pub default_market: Option<DefaultMarket>,
    /// The operator's API key.
    pub operator_key: String,
    /// Whether this was the first start on this data directory.
    pub first_start: bool,
    stop_intake: CancellationToken,
    stop_background: CancellationToken,
    intake: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    provider: Option<ProviderHandle>,
    database: Arc<dyn DatabaseClient>,
    _lock: DataDirLock,
}

impl Daemon {
    /// Starts everything: directories, provider, clients, services, background, API. When it returns, the API answers.
    ///
    /// # Errors
    /// [`ErrorCode::DataDirLocked`], [`ErrorCode::DataDirUnwritable`], [`ErrorCode::InvalidConfig`], and whatever keeps a
    /// client from opening; what was started until then is stopped.
    pub async fn start(config: &Config, options: StartOptions) -> Result<Self> {
        let directory = host::data_dir(config);
        directory.apply()?;
        let lock = directory.lock()?;
        let listener = bind(config.api.listen, "api.listen").await?;
        let provider = match config.provider.cohosted {
            true => Some(first::start_provider(config, options.provider_faults).await?),
            false => None,
        };
        match Self::start_inside(config, lock, listener, provider.as_ref()).await {
            Ok(daemon) => Ok(Self { s3_addr: provider.as_ref().map(|p| p.s3_addr), provider, ..daemon }),
            Err(error) => {
                if let Some(provider) = provider {
                    provider.shutdown().await;
                }
                Err(error)
            }
        }
    }

    async fn start_inside(
        config: &Config,
        lock: DataDirLock,
        listener: TcpListener,
        provider: Option<&ProviderHandle>,
    ) -> Result<Self> {
        let co_hosted = match provider {
            Some(handle) => Some((handle.admin_url(), first::provider_token(config)?)),
            None => None,
        };
        let clients = clients::open(config, co_hosted).await?;
        let mut services = Services::build(config, &clients);
        let epoch = next_boot_epoch(clients.committer.as_ref(), clients.database.as_ref()).await?;
        tracing::info!(epoch, data = %config.data.dir.display(), "starting");

        let default_market = match config.provider.cohosted {
            true => Some(first::first_market(config, &services).await?),
            false => None,
        };
        let (operator_key, first_start) = first::operator_key(config, &services, &clients).await?;
        let api_addr = listener.local_addr().map_err(Error::internal)?;

        let background_stop = CancellationToken::new();
        let registry = Arc::new(TriggerRegistry::new(
            clients.database.clone(),
            clients.committer.clone(),
            clients.clock.clone(),
            std::mem::take(&mut services.triggers),
        ));
        let canary = canary(api_addr)?;
        let background =
            background::start(config, &clients, &services, registry.clone(), &canary, &background_stop)
                .await?;
        let stop_intake = CancellationToken::new();
        let state = api_state(config, &clients, services, registry, stop_intake.clone());
        let database: Arc<dyn DatabaseClient> = clients.database.clone();
        let intake = {
            let (router, stop) = (route::router(state), stop_intake.clone());
            let settings = ServeSettings { drain: config.jobs.drain.0.to_std(), ..ServeSettings::default() };
            tokio::spawn(async move {
                if let Err(error) = route::serve(listener, router, stop, settings).await {
                    tracing::error!(%error, "the API stopped");
                }
            })
        };
        Ok(Self {
            api_addr,
            s3_addr: None,
            default_market,
            operator_key,
            first_start,
            stop_intake,
            stop_background: background_stop,
            intake,
            background,
            provider: None,
            database,
            _lock: lock,
        })
    }

    /// Stops in order: no new requests, running jobs drained, leases released, provider, database.
    pub async fn stop(self) {
        self.stop_intake.cancel();
        finished(self.intake).await;
        self.stop_background.cancel();
        for task in self.background {
            finished(task).await;
        }
        if let Some(provider) = self.provider {
            provider.shutdown().await;
        }
        if let Err(error) = self.database.disconnect().await {
            tracing::warn!(error = %crate::error::chain(&error), "the database did not close cleanly");
        }
    }
}

/// Our own canary: while our own endpoint does not answer us, what the prober sees is not the providers' fault.
fn canary(api: SocketAddr) -> Result<prober::Canary> {
    let client =
        reqwest::Client::builder().timeout(Duration::from_secs(2)).build().map_err(Error::internal)?;
    Ok(Arc::new(move || {
        let request = client.get(format!("http://{api}/health/live"));
        Box::pin(async move { request.send().await.is_ok_and(|answer| answer.status().is_success()) })
    }))
}

async fn finished(task: JoinHandle<()>) {
    if let Err(error) = task.await {
        tracing::error!(%error, "a background task ended badly");
    }
}

async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let detail = format!("{key}: {address} can't be listened on ({error}); choose another address");
        Error::new(ErrorCode::InvalidConfig, detail).because(error)
    })
}

fn api_state(
    config: &Config,
    clients: &Clients,
    services: Services,
    triggers: Arc<TriggerRegistry>,
    closing: CancellationToken,
) -> ApiState {
    let settings = ApiSettings {
        body_limit: usize::try_from(config.api.max_body.0.get()).unwrap_or(usize::MAX),
        timeout: config.api.timeout.0.to_std(),
        // The configuration says "no limit" by 0.
        rate_limit: match config.api.requests_per_minute {
            0 => u64::MAX,
            limit => limit,
        },
        rate_window: Micros::from_secs(60),
        max_in_flight: config.api.max_in_flight,
        ..ApiSettings::default()
    };
    ApiState::new(route::Services {
        settings,
        work: clients.work.clone(),
        cache: clients.cache.clone(),
        feed: clients.feed.clone(),
        dependencies: readiness::of(config, clients),
        metrics: metrics_handle().map(|handle| -> route::RenderMetrics { Arc::new(move || handle.render()) }),
        closing,
        keys: services.keys,
        audit: services.audit,
        market: services.market,
        allocations: services.allocations,
        credentials: services.credentials,
        oracles: services.oracles,
        evidence: services.evidence,
        sla: services.sla,
        accounts: services.accounts,
        disputes: services.disputes,
        payouts: services.payouts,
        offerings: services.offerings,
        reputations: services.reputations,
        pricing: services.pricing,
        jobs: services.jobs,
        backlog: Backlog::new(clients.database.clone(), clients.clock.clone(), config.jobs.max_backlog),
        blocks: services.blocks,
        attestations: services.attestations,
        proofs: services.proofs,
        triggers,
    })
}

/// The process's metrics recorder, installed once; `None` when something else installed one.
fn metrics_handle() -> Option<PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE.get_or_init(|| PrometheusBuilder::new().install_recorder().ok()).clone()
}
