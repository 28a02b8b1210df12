//! Configuration → clients: every port with the back end that the configuration names.

use std::{path::Path, sync::Arc};

use tokio::sync::Notify;
use zeroize::Zeroizing;

use super::secret;
use crate::{
    client::{
        cache::{MemoryCache, MemoryCacheSettings},
        clock::{SystemClock, SystemEntropy},
        cron::{LocalCron, LocalOneTime, LocalScheduler, LocalSchedulerSettings},
        da::LocalDa,
        db::sqlite::{Options, SqliteDatabase},
        event_bus::LocalEventBus,
        job_queue::OverQueue,
        network::{
            http::{HttpClient, HttpSettings},
            s3_probe::{S3Probe, S3ProbeSettings},
        },
        notification::{LocalNotifier, NotifierSettings},
        provider::{AdapterDirectory, CoHosted, EmbeddedSettings},
        queue::{DatabaseQueue, DatabaseQueueSettings},
        settlement::{LocalRules, LocalSettlement},
        storage::FilesystemStorage,
        vault::AesVault,
    },
    config::Config,
    core::{
        client::{
            cache::CacheClient,
            clock::{Clock, Entropy},
            database::{Committer, DatabaseClient},
            event_bus::EventFeed,
            notification::NotificationClient,
            probe::ProbeClient,
            provider::ProviderDirectory,
            queue::QueueClient,
            scheduler::SchedulerClient,
            schema,
            storage::StorageClient,
            vault::Vault,
        },
        madara::{cron::CronClient, da::DaClient, job_queue::JobQueueClient, settlement::SettlementClient},
        market::{ids::IdGenerator, quantity::Micros, terms::DomainId},
    },
    error::{Error, ErrorCode, Result},
    service::{
        job::{Wake, WakingCommitter},
        outbox::ALERT_TOPIC,
        scoring::{ChangeFeed, WatchedCommitter},
        settlement::SettlementDomains,
        work::Work,
    },
};

/// The event bus of domain events.
pub const BUS: &str = "market";
/// Events that a slow reader of the stream may be behind.
const FEED_CAPACITY: usize = 4_096;

/// Every client of the daemon.
pub struct Clients {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub database: Arc<SqliteDatabase>,
    /// The one write path, with the signals that follow a commit.
    pub committer: Arc<dyn Committer>,
    /// What the job engine commits through: it wakes itself, so only the offerings are told.
    pub engine_committer: Arc<dyn Committer>,
    pub work: Work,
    pub wake: Arc<Wake>,
    pub changes: ChangeFeed,
    pub vault: Arc<dyn Vault>,
    pub cache: Arc<dyn CacheClient>,
    pub storage: Arc<dyn StorageClient>,
    pub queue: Arc<dyn QueueClient>,
    pub job_queue: Arc<dyn JobQueueClient>,
    pub events: Arc<LocalEventBus>,
    pub feed: Arc<dyn EventFeed>,
    pub notification: Arc<dyn NotificationClient>,
    pub cron: Arc<dyn CronClient>,
    pub one_time: Arc<dyn SchedulerClient>,
    pub schedules: Arc<LocalScheduler>,
    pub settlement: Arc<dyn SettlementClient>,
    pub domains: SettlementDomains,
    pub da: Arc<dyn DaClient>,
    pub providers: Arc<dyn ProviderDirectory>,
    pub probe: Arc<dyn ProbeClient>,
}

/// Opens everything. `co_hosted` is the built-in provider of this process, if it has one.
pub async fn open(config: &Config, co_hosted: Option<(String, String)>) -> Result<Clients> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let directory = config.data.dir.as_path();
    let database = open_database(directory).await?;
    let port: Arc<dyn DatabaseClient> = database.clone();
    let ids = IdGenerator::new(clock.clone(), entropy.clone());

    let wake = Arc::new(Wake::default());
    let changes = ChangeFeed::new();
    let waking: Arc<dyn Committer> = Arc::new(WakingCommitter::new(database.clone(), wake.clone()));
    let committer: Arc<dyn Committer> = Arc::new(WatchedCommitter::new(waking, changes.clone()));
    let engine_committer: Arc<dyn Committer> =
        Arc::new(WatchedCommitter::new(database.clone(), changes.clone()));
    let work = Work::new(database.clone(), committer.clone(), ids);

    let vault_key = secret::vault_key(config, entropy.as_ref())?;
    let vault: Arc<dyn Vault> = Arc::new(AesVault::new(&vault_key, entropy.clone()));
    let co_hosted =
        co_hosted.map(|(admin_url, token)| CoHosted { admin_url, admin_token: Zeroizing::new(token) });
    let providers: Arc<dyn ProviderDirectory> =
        Arc::new(AdapterDirectory::new(vault.clone(), co_hosted, EmbeddedSettings::default()));
    let probe_settings =
        S3ProbeSettings { timeout: config.prober.timeout.0.to_std(), ..S3ProbeSettings::default() };
    let probe: Arc<dyn ProbeClient> = Arc::new(S3Probe::new(probe_settings).map_err(Error::internal)?);

    let storage: Arc<dyn StorageClient> = Arc::new(
        FilesystemStorage::open(directory.join("storage"))
            .await
            .map_err(|error| unready("storage", error))?,
    );
    let queue: Arc<dyn QueueClient> = Arc::new(DatabaseQueue::new(
        port.clone(),
        clock.clone(),
        entropy.clone(),
        DatabaseQueueSettings::default(),
    ));
    let job_queue: Arc<dyn JobQueueClient> = Arc::new(OverQueue::new(queue.clone(), "jobs"));
    job_queue.create_queues().await.map_err(|error| unready("job queue", error))?;
    let events = Arc::new(LocalEventBus::new(queue.clone(), FEED_CAPACITY));
    let notification = notifier(config, port.clone(), clock.clone()).await?;

    let timer = Arc::new(Notify::new());
    let cron: Arc<dyn CronClient> = Arc::new(LocalCron::new(port.clone(), clock.clone(), timer.clone()));
    let one_time: Arc<dyn SchedulerClient> = Arc::new(LocalOneTime::new(port.clone(), timer.clone()));
    let settings = LocalSchedulerSettings::default();
    // One process alone may open the data directory, so it goes on with its own leader's lease at once.
    let schedules =
        Arc::new(LocalScheduler::new(port, queue.clone(), clock.clone(), timer, "embedded", settings));

    let (settlement, da) = settlement_layer(config, clock.clone())?;
    let domains = SettlementDomains::new([settlement.clone()]);
    Ok(Clients {
        cache: Arc::new(MemoryCache::new(clock.clone(), &MemoryCacheSettings::default())),
        feed: events.clone(),
        clock,
        entropy,
        database,
        committer,
        engine_committer,
        work,
        wake,
        changes,
        vault,
        storage,
        queue,
        job_queue,
        events,
        notification,
        cron,
        one_time,
        schedules,
        settlement,
        domains,
        da,
        providers,
        probe,
    })
}

/// Opens the database of a data directory, with its schema.
pub async fn open_database(directory: &Path) -> Result<Arc<SqliteDatabase>> {
    let database = SqliteDatabase::open(&directory.join("orchestrator.db"), Options::default())?;
    database.connect(schema::ALL).await?;
    Ok(database)
}

/// The local settlement and data-availability layers.
pub fn settlement_layer(
    config: &Config,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<dyn SettlementClient>, Arc<dyn DaClient>)> {
    let chain = config.data.dir.join("chain");
    std::fs::create_dir_all(&chain).map_err(|error| unready("settlement layer", error))?;
    let rules = LocalRules { confirm_after: Micros::ZERO, final_after: config.settlement.finality.0 };
    let settlement = LocalSettlement::open(&chain.join("settlement.db"), DomainId::local(), rules, clock)
        .map_err(|error| unready("settlement layer", error))?;
    let da = LocalDa::open(chain.join("da")).map_err(|error| unready("data-availability layer", error))?;
    Ok((Arc::new(settlement), Arc::new(da)))
}

async fn notifier(
    config: &Config,
    database: Arc<dyn DatabaseClient>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn NotificationClient>> {
    let http = HttpSettings {
        allow_private: config.notification.allow_private_addresses,
        ..HttpSettings::default()
    };
    let http = HttpClient::new(http).map_err(Error::internal)?;
    let notifier = LocalNotifier::new(database, http, clock, NotifierSettings::default());
    let failed = |error| unready("notification", error);
    notifier.create_topic(ALERT_TOPIC).await.map_err(failed)?;
    notifier.subscribe(ALERT_TOPIC, "log:").await.map_err(failed)?;
    for address in &config.notification.webhooks {
        notifier.subscribe(ALERT_TOPIC, address).await.map_err(|error| {
            Error::new(ErrorCode::InvalidConfig, format!("notification.webhooks: {error}")).because(error)
        })?;
    }
    Ok(Arc::new(notifier))
}

fn unready(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorCode::Unavailable, format!("the {what} can't be opened")).because(error)
}
