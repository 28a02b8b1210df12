//! Configuration → clients: every port with the back end that the configuration names, and the decorators between them and
//! the services.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{backends, secret};
use crate::{
    client::{
        breaker::{
            Breakers, GuardedDa, GuardedNotification, GuardedProviders, GuardedSettlement, GuardedStorage,
        },
        clock::{SystemClock, SystemEntropy},
        cron::LocalScheduler,
        da::LocalDa,
        network::s3_probe::{S3Probe, S3ProbeSettings},
        provider::{AdapterDirectory, CoHosted, EmbeddedSettings},
        settlement::{LocalRules, LocalSettlement},
        vault::AesVault,
    },
    config::{
        Config,
        section::{CacheBackend, Dispatch, NotificationBackend, Settlement},
    },
    controller::worker::OutboxFeed,
    core::{
        client::{
            cache::CacheClient,
            changes::ChangeSource,
            clock::{Clock, Entropy},
            database::{Committer, DatabaseClient},
            event_bus::{EventBusClient, EventFeed},
            notification::NotificationClient,
            probe::ProbeClient,
            provider::ProviderDirectory,
            queue::QueueClient,
            scheduler::SchedulerClient,
            storage::StorageClient,
            vault::Vault,
        },
        madara::{cron::CronClient, da::DaClient, job_queue::JobQueueClient, settlement::SettlementClient},
        market::{ids::IdGenerator, quantity::Micros, terms::DomainId},
    },
    error::{Error, ErrorCode, Result},
    service::{
        access::check_vault,
        answers::SharedAnswers,
        job::{HintingCommitter, Wake, WakingCommitter, hints},
        scoring::{ChangeFeed, WatchedCommitter},
        settlement::SettlementDomains,
        work::Work,
    },
};

/// The event bus of domain events.
pub const BUS: &str = "market";
/// Events that a slow reader of the stream may be behind.
pub const FEED_CAPACITY: usize = 4_096;

/// The ports of a replica, whatever is behind each, before anything is put between them and the services.
pub struct Ports {
    /// Names this process among the replicas.
    pub node: String,
    /// Whether other replicas may work on the same database.
    pub shared: bool,
    /// Whether workers learn of jobs by hints.
    pub hinted: bool,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// The state of the market.
    pub database: Arc<dyn DatabaseClient>,
    /// What tells of other replicas' changes, where there are others.
    pub change_source: Option<Arc<dyn ChangeSource>>,
    /// Seals secrets.
    pub vault: Arc<dyn Vault>,
    /// Counters of requests.
    pub cache: Arc<dyn CacheClient>,
    /// Answers that replicas share.
    pub answers: SharedAnswers,
    /// Blocks and evidence.
    pub storage: Arc<dyn StorageClient>,
    /// Triggers and events.
    pub queue: Arc<dyn QueueClient>,
    /// Queues whose depth is to be watched.
    pub watched: Option<(Arc<dyn QueueClient>, Vec<String>)>,
    /// Hints and dead letters.
    pub job_queue: Arc<dyn JobQueueClient>,
    /// The bus of domain events.
    pub events: Arc<dyn EventBusClient>,
    /// The bus's own feed, where it has one.
    pub local_feed: Option<Arc<dyn EventFeed>>,
    /// Alerts.
    pub notification: Arc<dyn NotificationClient>,
    /// Recurring schedules.
    pub cron: Arc<dyn CronClient>,
    /// One-time schedules.
    pub one_time: Arc<dyn SchedulerClient>,
    /// What fires the local ones.
    pub schedules: Arc<LocalScheduler>,
    /// The settlement layer.
    pub settlement: Arc<dyn SettlementClient>,
    /// The data-availability layer.
    pub da: Arc<dyn DaClient>,
    /// The adapters of providers.
    pub providers: Arc<dyn ProviderDirectory>,
    /// Single S3 operations.
    pub probe: Arc<dyn ProbeClient>,
    /// The breakers around what lies outside.
    pub breakers: Breakers,
}

/// Every client of the daemon.
pub struct Clients {
    /// Names this process among the replicas.
    pub node: String,
    /// Whether other replicas may work on the same database.
    pub shared: bool,
    /// Whether workers learn of jobs by hints.
    pub hinted: bool,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub database: Arc<dyn DatabaseClient>,
    /// The one write path, with the signals that follow a commit.
    pub committer: Arc<dyn Committer>,
    /// What the job engine commits through: it wakes itself, so only the offerings are told.
    pub engine_committer: Arc<dyn Committer>,
    pub work: Work,
    pub wake: Arc<Wake>,
    pub changes: ChangeFeed,
    /// What tells of other replicas' changes, where there are others.
    pub change_source: Option<Arc<dyn ChangeSource>>,
    pub vault: Arc<dyn Vault>,
    pub cache: Arc<dyn CacheClient>,
    /// What replicas tell each other through the cache.
    pub answers: SharedAnswers,
    pub storage: Arc<dyn StorageClient>,
    pub queue: Arc<dyn QueueClient>,
    /// Queues whose depth is to be watched.
    pub watched: Option<(Arc<dyn QueueClient>, Vec<String>)>,
    pub job_queue: Arc<dyn JobQueueClient>,
    pub events: Arc<dyn EventBusClient>,
    pub feed: Arc<dyn EventFeed>,
    /// What the feed needs to run, where it does not run by itself.
    pub feed_task: Option<Arc<OutboxFeed>>,
    pub notification: Arc<dyn NotificationClient>,
    pub cron: Arc<dyn CronClient>,
    pub one_time: Arc<dyn SchedulerClient>,
    pub schedules: Arc<LocalScheduler>,
    pub settlement: Arc<dyn SettlementClient>,
    pub domains: SettlementDomains,
    pub da: Arc<dyn DaClient>,
    pub providers: Arc<dyn ProviderDirectory>,
    pub probe: Arc<dyn ProbeClient>,
    /// The breakers around providers, settlement layer, data availability and storage.
    pub breakers: Breakers,
    /// What the ports at AWS share, where there are any.
    #[cfg(feature = "aws")]
    pub aws: Option<crate::client::aws::AwsClients>,
}

/// Opens everything. `co_hosted` is the built-in provider of this process, if it has one.
pub async fn open(config: &Config, co_hosted: Option<(String, String)>) -> Result<Clients> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let (shared, hinted) = (config.shared(), config.jobs.dispatch != Dispatch::Database);
    let node = match shared {
        true => format!("replica-{}-{:08x}", std::process::id(), entropy.below(1 << 32)),
        // One process alone may open the data directory, so it goes on with its own leases at once.
        false => "embedded".to_owned(),
    };
    let (database, change_source) = backends::open_database(config).await?;
    let vault_key = secret::vault_key(config, entropy.as_ref())?;
    let vault: Arc<dyn Vault> = Arc::new(AesVault::new(&vault_key, entropy.clone()));

    check_vault(database.as_ref(), database.as_ref(), vault.as_ref()).await?;
    #[cfg(feature = "aws")]
    let cloud = backends::Cloud::open(config, &clock).await?;
    let base = backends::Base {
        config,
        #[cfg(feature = "aws")]
        cloud: &cloud,
        database: &database,
        clock: &clock,
        entropy: &entropy,
    };
    let queue = base.queue().await?;
    let job_queue = base.job_queue(&queue).await?;
    let storage = base.storage().await?;
    let breakers = Breakers::new(config.dependencies.breaker(), clock.clone(), entropy.clone());
    let storage: Arc<dyn StorageClient> =
        Arc::new(GuardedStorage::new(storage, breakers.of("storage", "storage")));
    let notification = base.notification().await?;
    let notification: Arc<dyn NotificationClient> = match config.notification.backend {
        NotificationBackend::Local => notification,
        NotificationBackend::Sns => {
            Arc::new(GuardedNotification::new(notification, breakers.of("notification", "notification")))
        }
    };
    let cache = base.cache().await?;
    let answers = answers(config, &cache, &IdGenerator::new(clock.clone(), entropy.clone()));
    let (events, local_feed) = base.events(&queue).await?;
    let schedule = base.schedule(&queue, &node)?;

    let co_hosted =
        co_hosted.map(|(admin_url, token)| CoHosted { admin_url, admin_token: Zeroizing::new(token) });
    let providers: Arc<dyn ProviderDirectory> =
        Arc::new(AdapterDirectory::new(vault.clone(), co_hosted, EmbeddedSettings::default()));
    let providers: Arc<dyn ProviderDirectory> = Arc::new(GuardedProviders::new(providers, breakers.clone()));
    let probe_settings =
        S3ProbeSettings { timeout: config.prober.timeout.0.to_std(), ..S3ProbeSettings::default() };
    let probe: Arc<dyn ProbeClient> = Arc::new(S3Probe::new(probe_settings).map_err(Error::internal)?);
    let (settlement, da) = super::chain::layers(config, &database, &clock).await?;
    let settlement: Arc<dyn SettlementClient> =
        Arc::new(GuardedSettlement::new(settlement, breakers.of("settlement", "settlement layer")));
    let da: Arc<dyn DaClient> = Arc::new(GuardedDa::new(da, breakers.of("da", "data availability")));
    let clients = Clients::over(Ports {
        node,
        shared,
        hinted,
        answers,
        clock,
        entropy,
        database,
        change_source,
        vault,
        cache,
        storage,
        queue,
        #[cfg(feature = "aws")]
        watched: cloud.watched(config),
        #[cfg(not(feature = "aws"))]
        watched: None,
        job_queue,
        events,
        local_feed,
        notification,
        cron: schedule.cron,
        one_time: schedule.one_time,
        schedules: schedule.runner,
        settlement,
        da,
        providers,
        probe,
        breakers,
    })?;
    #[cfg(feature = "aws")]
    let clients = Clients { aws: cloud.aws, ..clients };
    Ok(clients)
}

impl Clients {
    /// Puts between the ports and the services what every replica has there. Starts what sends hints, if there are any.
    pub fn over(ports: Ports) -> Result<Self> {
        let Ports { database, clock, entropy, job_queue, .. } = &ports;
        let ids = IdGenerator::new(clock.clone(), entropy.clone());
        let wake = Arc::new(Wake::default());
        let changes = ChangeFeed::new();
        let waking = WakingCommitter::new(database.clone(), wake.clone());
        let signalling: Arc<dyn Committer> = match ports.hinted {
            false => Arc::new(waking),
            true => {
                let (hints, sender) = hints(job_queue.clone(), clock.clone());
                // Ends by itself when the last committer is gone.
                tokio::spawn(sender.run());
                Arc::new(HintingCommitter::new(Arc::new(waking.outbox_only()), hints))
            }
        };
        let committer: Arc<dyn Committer> = Arc::new(WatchedCommitter::new(signalling, changes.clone()));
        let engine_committer: Arc<dyn Committer> =
            Arc::new(WatchedCommitter::new(database.clone(), changes.clone()));
        let work = Work::new(database.clone(), committer.clone(), ids);
        let feed_task = match ports.local_feed {
            Some(_) if !ports.shared => None,
            _ => Some(OutboxFeed::new(database.clone(), clock.clone(), FEED_CAPACITY)),
        };
        let feed: Arc<dyn EventFeed> = match (&feed_task, ports.local_feed) {
            (None, Some(feed)) => feed,
            (Some(task), _) => task.clone(),
            (None, None) => return Err(Error::internal("no event feed")),
        };
        let domains = SettlementDomains::new([ports.settlement.clone()]);
        Ok(Self {
            node: ports.node,
            shared: ports.shared,
            hinted: ports.hinted,
            cache: ports.cache,
            answers: ports.answers,
            feed,
            feed_task,
            clock: ports.clock,
            entropy: ports.entropy,
            database: ports.database,
            committer,
            engine_committer,
            work,
            wake,
            changes,
            change_source: ports.change_source,
            vault: ports.vault,
            storage: ports.storage,
            watched: ports.watched,
            queue: ports.queue,
            job_queue: ports.job_queue,
            events: ports.events,
            notification: ports.notification,
            cron: ports.cron,
            one_time: ports.one_time,
            schedules: ports.schedules,
            settlement: ports.settlement,
            domains,
            da: ports.da,
            providers: ports.providers,
            probe: ports.probe,
            breakers: ports.breakers,
            #[cfg(feature = "aws")]
            aws: None,
        })
    }
}

/// The answers that replicas share, where they share a cache. Those of another database are told apart by its address: two
/// markets may have one cache, and the same prefix by mistake.
fn answers(config: &Config, cache: &Arc<dyn CacheClient>, ids: &IdGenerator) -> SharedAnswers {
    match config.cache.backend {
        CacheBackend::Memory => SharedAnswers::none(),
        CacheBackend::Redis => {
            let address = format!("{}\n{}", config.database.url, config.database.name);
            let digest = hex::encode(Sha256::digest(address));
            SharedAnswers::over(cache.clone(), ids.clone(), digest.get(..16).unwrap_or(&digest))
        }
    }
}

/// The local settlement and data-availability layers.
pub fn settlement_layer(
    config: &Config,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<dyn SettlementClient>, Arc<dyn DaClient>)> {
    let chain = Settlement::directory(config);
    std::fs::create_dir_all(&chain).map_err(|error| unready("settlement layer", error))?;
    let rules = LocalRules { confirm_after: Micros::ZERO, final_after: config.settlement.finality.0 };
    let settlement = LocalSettlement::open(&chain.join("settlement.db"), DomainId::local(), rules, clock)
        .map_err(|error| unready("settlement layer", error))?;
    let da = LocalDa::open(chain.join("da")).map_err(|error| unready("data-availability layer", error))?;
    Ok((Arc::new(settlement), Arc::new(da)))
}

pub(super) fn unready(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorCode::Unavailable, format!("the {what} can't be opened")).because(error)
}
