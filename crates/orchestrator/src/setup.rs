//! The one place that names concrete clients: config → resource → client → service → controller. Starts and stops the
//! daemon, and opens parts of it for commands.

mod clients;
mod readiness;
mod secret;
mod services;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use orchestrator_provider::{ProviderHandle, ProviderOptions, ProviderServer};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::{clients::Clients, services::Services};
use crate::{
    client::clock::{SystemClock, SystemEntropy},
    config::Config,
    controller::{
        route::{self, ApiSettings, ApiState, ServeSettings},
        worker::{
            Driver, DriverSettings, Relay, RelayPorts, RelaySettings, TriggerConsumer, TriggerRegistry,
            prober,
        },
    },
    core::{
        client::{clock::Entropy, database::DatabaseClient},
        market::{
            ids::{IdGenerator, OperatorId},
            money::Amount,
            party::Principal,
            quantity::{Bytes, Micros, Ppm},
            terms::{PriceTerms, SlaTerms},
            unit::Features,
        },
    },
    error::{Error, ErrorCode, Result},
    resource::{
        Plan, Resource,
        embedded::{DataDir, DataDirLock, next_boot_epoch},
    },
    service::{
        access::{KeyService, KeySettings},
        job::{Engine, EnginePorts, EngineSettings},
        market::{DefaultMarket, NewAdapter, NewProvider, NewUnit, ensure_default_market},
        proof::{ProvedAccount, verify_account_proof},
        settlement::{VerifyReport, verify_ledger},
        sla::prober::{Prober, ProberPorts, ProberSettings},
        work::{Call, Work},
    },
};

/// File in the data directory that holds the operator's API key.
pub const OPERATOR_KEY_FILE: &str = "operator.key";
/// File in the provider's directory that holds its admin token.
const PROVIDER_TOKEN_FILE: &str = "admin.token";
/// Length of the probe allocation's quota over the bulk size: room for the object that is being replaced.
const PROBE_ROOM: u64 = 4;

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
        let directory = data_dir(config);
        directory.apply()?;
        let lock = directory.lock()?;
        let listener = bind(config.api.listen, "api.listen").await?;
        let provider = match config.provider.cohosted {
            true => Some(start_provider(config, options.provider_faults).await?),
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
            Some(handle) => Some((handle.admin_url(), provider_token(config)?)),
            None => None,
        };
        let clients = clients::open(config, co_hosted).await?;
        let mut services = Services::build(config, &clients);
        let epoch = next_boot_epoch(clients.committer.as_ref(), clients.database.as_ref()).await?;
        tracing::info!(epoch, data = %config.data.dir.display(), "starting");

        let default_market = match config.provider.cohosted {
            true => Some(first_market(config, &services).await?),
            false => None,
        };
        let (operator_key, first_start) = operator_key(config, &services, &clients).await?;
        let api_addr = listener.local_addr().map_err(Error::internal)?;

        let background_stop = CancellationToken::new();
        let registry = Arc::new(TriggerRegistry::new(
            clients.database.clone(),
            clients.committer.clone(),
            clients.clock.clone(),
            std::mem::take(&mut services.triggers),
        ));
        let background =
            start_background(config, &clients, &services, registry.clone(), api_addr, &background_stop)
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

/// Starts every loop of the background.
async fn start_background(
    config: &Config,
    clients: &Clients,
    services: &Services,
    registry: Arc<TriggerRegistry>,
    api: SocketAddr,
    stop: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>> {
    let ports = EnginePorts {
        reader: clients.database.clone(),
        claimer: clients.database.clone(),
        committer: clients.engine_committer.clone(),
        ids: clients.work.ids.clone(),
        clock: clients.clock.clone(),
        entropy: clients.entropy.clone(),
        wake: clients.wake.clone(),
    };
    let settings = EngineSettings { lease: config.jobs.lease.0, ..EngineSettings::default() };
    let engine = Engine::new(ports, settings, services.handlers.clone());
    engine.release_leases_of_previous_process().await?;
    let driver_settings = DriverSettings {
        heartbeat: config.jobs.heartbeat.0,
        drain: config.jobs.drain.0,
        ..DriverSettings::default()
    };
    let driver = Driver::new(engine, driver_settings);
    let relay_ports = RelayPorts {
        reader: clients.database.clone(),
        committer: clients.database.clone(),
        ids: clients.work.ids.clone(),
        clock: clients.clock.clone(),
        events: clients.events.clone(),
        queue: clients.queue.clone(),
        job_queue: clients.job_queue.clone(),
        notification: clients.notification.clone(),
        scheduler: clients.one_time.clone(),
        wake: clients.wake.clone(),
    };
    let events: &dyn crate::core::client::event_bus::EventBusClient = clients.events.as_ref();
    events.create_bus(clients::BUS).await.map_err(Error::internal)?;
    let relay =
        Relay::new(relay_ports, RelaySettings { bus: clients::BUS.into(), ..RelaySettings::default() });
    registry.load().await?;
    let consumer =
        TriggerConsumer::new(registry, clients.queue.clone(), clients.cron.clone(), clients.clock.clone());
    consumer.declare().await?;

    let mut tasks = Vec::new();
    let token = || stop.clone();
    tasks.push(tokio::spawn(driver.run(token())));
    tasks.push(tokio::spawn({
        let stop = token();
        async move { relay.run(stop).await }
    }));
    tasks.push(tokio::spawn({
        let stop = token();
        async move { consumer.run(stop).await }
    }));
    tasks.push(tokio::spawn({
        let (stop, schedules) = (token(), clients.schedules.clone());
        async move { schedules.run(stop).await }
    }));
    if config.prober.enabled {
        tasks.push(tokio::spawn(start_prober(config, clients, services, api, token()).await?));
    }
    Ok(tasks)
}

async fn start_prober(
    config: &Config,
    clients: &Clients,
    services: &Services,
    api: SocketAddr,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + 'static> {
    let ports = ProberPorts {
        client: clients.probe.clone(),
        providers: clients.providers.clone(),
        vault: clients.vault.clone(),
        entropy: clients.entropy.clone(),
    };
    let bulk = config.prober.bulk_size.0.get();
    let settings = ProberSettings {
        interval: config.prober.interval.0,
        bulk_interval: config.prober.bulk_interval.0,
        quota: Bytes(bulk.saturating_mul(PROBE_ROOM)),
        ..ProberSettings::default()
    };
    let prober = Prober::start(
        clients.work.clone(),
        services.evidence.clone(),
        ports,
        services.sla_settings.clone(),
        settings,
    )
    .await?;
    let client =
        reqwest::Client::builder().timeout(Duration::from_secs(2)).build().map_err(Error::internal)?;
    // Our own canary: while our own endpoint does not answer us, what the prober sees is not the providers' fault.
    let canary: prober::Canary = Arc::new(move || {
        let request = client.get(format!("http://{api}/health/live"));
        Box::pin(async move { request.send().await.is_ok_and(|answer| answer.status().is_success()) })
    });
    Ok(prober::run(Arc::new(prober), clients.clock.clone(), Some(canary), stop))
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
        ..ApiSettings::default()
    };
    ApiState::new(route::Services {
        settings,
        work: clients.work.clone(),
        cache: clients.cache.clone(),
        feed: clients.feed.clone(),
        dependencies: readiness::of(clients),
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
        offerings: services.offerings,
        reputations: services.reputations,
        pricing: services.pricing,
        jobs: services.jobs,
        blocks: services.blocks,
        proofs: services.proofs,
        triggers,
    })
}

/// The process's metrics recorder, installed once; `None` when something else installed one.
fn metrics_handle() -> Option<PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE.get_or_init(|| PrometheusBuilder::new().install_recorder().ok()).clone()
}

/// The built-in provider, co-hosted or alone.
///
/// # Errors
/// An address or a directory that can't be used.
pub async fn start_provider(config: &Config, allow_faults: bool) -> Result<ProviderHandle> {
    let mut options = ProviderOptions::new(provider_dir(config), provider_token(config)?);
    options.s3_listen = config.provider.s3_listen;
    options.admin_listen = config.provider.admin_listen;
    options.capacity = config.provider.capacity.0.get();
    options.region.clone_from(&config.provider.region);
    options.public_endpoint =
        Some(config.provider.public_endpoint.clone()).filter(|endpoint| !endpoint.is_empty());
    options.allow_faults = allow_faults;
    ProviderServer::start(options).await.map_err(|error| {
        let detail = format!("the built-in provider can't start: {}", crate::error::chain(&error));
        Error::new(ErrorCode::InvalidConfig, detail).because(error)
    })
}

fn provider_dir(config: &Config) -> PathBuf {
    match config.provider.dir.as_os_str().is_empty() {
        true => config.data.dir.join("provider"),
        false => config.provider.dir.clone(),
    }
}

/// Where the provider's admin token lies.
#[must_use]
pub fn provider_token_path(config: &Config) -> PathBuf {
    provider_dir(config).join(PROVIDER_TOKEN_FILE)
}

fn provider_token(config: &Config) -> Result<String> {
    std::fs::create_dir_all(provider_dir(config)).map_err(|error| {
        let detail = format!("{}: {error}", provider_dir(config).display());
        Error::new(ErrorCode::DataDirUnwritable, detail).because(error)
    })?;
    Ok(secret::read_or_make(&provider_token_path(config), &SystemEntropy)?.trim().to_owned())
}

/// Registers the built-in provider and its unit, once.
async fn first_market(config: &Config, services: &Services) -> Result<DefaultMarket> {
    // A whole token has 18 decimals here; the price is 20 of them for a GiB-month, one for a GiB of egress.
    const TOKEN: u128 = 1_000_000_000_000_000_000;
    let provider = NewProvider { name: "built-in".into(), domain: None, adapter: NewAdapter::CoHosted };
    let sla = SlaTerms {
        upload_bytes_per_s: 1_000_000,
        download_bytes_per_s: 1_000_000,
        min_coverage: Ppm(500_000),
        ..SlaTerms::default()
    };
    let unit = NewUnit {
        provider: None,
        name: "built-in storage".into(),
        kind: None,
        profile: None,
        region: config.provider.region.clone(),
        country: config.provider.country.clone(),
        // The prober's own allocation comes out of the same capacity.
        capacity: Bytes(config.provider.capacity.0.get() / 100 * 95),
        features: Features::default(),
        tags: std::collections::BTreeMap::new(),
        price: PriceTerms { per_gib_month: Amount(20 * TOKEN), per_gib_egress: Amount(TOKEN) },
        price_bounds: None,
        sla,
    };
    ensure_default_market(&services.market, provider, unit).await
}

/// The operator's key: that of its file, or a new one at first start.
async fn operator_key(config: &Config, services: &Services, clients: &Clients) -> Result<(String, bool)> {
    let path = config.data.dir.join(OPERATOR_KEY_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((text.trim().to_owned(), false)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let principal = Principal::Operator(clients.work.ids.next::<OperatorId>());
            let made =
                services.keys.create(&Call::system("first start"), principal, "first operator").await?;
            secret::write(&path, &made.text)?;
            Ok((made.text, true))
        }
        Err(error) => {
            let detail = format!("{}: {error}", path.display());
            Err(Error::new(ErrorCode::DataDirUnwritable, detail).because(error))
        }
    }
}

/// Shows what the configured back ends need, without making anything.
///
/// # Errors
/// When it can't even be looked at.
pub fn plan(config: &Config) -> Result<Plan> {
    data_dir(config).plan()
}

fn data_dir(config: &Config) -> DataDir {
    DataDir::new(&config.data.dir, &["storage", "chain", "provider"])
}

/// Makes what is missing: directories, secrets, schema; doing it twice changes nothing. Answers what
/// was done, after it was verified.
///
/// # Errors
/// [`ErrorCode::DataDirLocked`] while a daemon runs; whatever can't be made.
pub async fn apply(config: &Config) -> Result<Plan> {
    let directory = data_dir(config);
    let done = directory.apply()?;
    let _lock = directory.lock()?;
    secret::vault_key(config, &SystemEntropy)?;
    provider_token(config)?;
    let database = clients::open_database(&config.data.dir).await?;
    database.disconnect().await?;
    directory.verify()?;
    Ok(done)
}

/// Rebuilds the ledger from what was published and compares it. Reads the settlement and data-availability layers
/// only, which are public, so that it may run beside the daemon.
///
/// # Errors
/// When a layer can't be read.
pub async fn verify(config: &Config) -> Result<VerifyReport> {
    let chain = config.data.dir.join("chain");
    if !chain.is_dir() {
        let detail =
            format!("{} does not exist: nothing was settled in this data directory yet", chain.display());
        return Err(Error::new(ErrorCode::NotFound, detail));
    }
    let (settlement, da) = clients::settlement_layer(config, Arc::new(SystemClock::new()))?;
    verify_ledger(settlement.as_ref(), da.as_ref()).await
}

/// Checks an account's inclusion proof as the API gave it.
///
/// # Errors
/// When it is no proof at all.
pub fn check_account_proof(proof: &serde_json::Value) -> Result<bool> {
    let proved: ProvedAccount = serde_json::from_value(proof.clone()).map_err(|error| {
        Error::new(ErrorCode::MalformedBody, format!("this is no account proof: {error}"))
    })?;
    Ok(verify_account_proof(&proved))
}

/// The keys of a data directory on which no daemon runs.
pub struct OfflineKeys {
    /// The service.
    pub keys: KeyService,
    database: Arc<dyn DatabaseClient>,
    _lock: DataDirLock,
}

impl OfflineKeys {
    /// Opens the data directory under its lock.
    ///
    /// # Errors
    /// [`ErrorCode::DataDirLocked`] while a daemon runs; [`ErrorCode::NotFound`] when there is none.
    pub async fn open(config: &Config) -> Result<Self> {
        let directory = data_dir(config);
        if !config.data.dir.join("orchestrator.db").exists() {
            let detail = format!(
                "there is no database in {}; run `orchestrator setup` first",
                config.data.dir.display()
            );
            return Err(Error::new(ErrorCode::NotFound, detail));
        }
        let lock = directory.lock()?;
        let database = clients::open_database(&config.data.dir).await?;
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let ids = IdGenerator::new(Arc::new(SystemClock::new()), entropy.clone());
        let work = Work::new(database.clone(), database.clone(), ids);
        let keys = KeyService::new(work, entropy, KeySettings::default());
        Ok(Self { keys, database, _lock: lock })
    }

    /// Closes the data directory.
    ///
    /// # Errors
    /// When what was written can't be made durable.
    pub async fn close(self) -> Result<()> {
        Ok(self.database.disconnect().await?)
    }
}
