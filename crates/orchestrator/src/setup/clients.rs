//! Configuration → clients: every port with the back end that the configuration names, and the decorators between them and
//! the services.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{backends, secret};
use crate::{
    client::{
        breaker::{Breakers, GuardedDa, GuardedProviders, GuardedSettlement, GuardedStorage},
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
        section::{CacheBackend, Dispatch, Settlement},
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
    let ids = IdGenerator::new(clock.clone(), entropy.clone());
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
    let cache = base.cache().await?;
    let answers = answers(config, &cache, &ids);
    let (events, local_feed) = base.events(&queue).await?;
    let schedule = base.schedule(&queue, &node)?;

    let wake = Arc::new(Wake::default());
    let changes = ChangeFeed::new();
    let waking = WakingCommitter::new(database.clone(), wake.clone());
    let signalling: Arc<dyn Committer> = match hinted {
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

    let co_hosted =
        co_hosted.map(|(admin_url, token)| CoHosted { admin_url, admin_token: Zeroizing::new(token) });
    let providers: Arc<dyn ProviderDirectory> =
        Arc::new(AdapterDirectory::new(vault.clone(), co_hosted, EmbeddedSettings::default()));
    let providers: Arc<dyn ProviderDirectory> = Arc::new(GuardedProviders::new(providers, breakers.clone()));
    let probe_settings =
        S3ProbeSettings { timeout: config.prober.timeout.0.to_std(), ..S3ProbeSettings::default() };
    let probe: Arc<dyn ProbeClient> = Arc::new(S3Probe::new(probe_settings).map_err(Error::internal)?);

    let feed_task = match local_feed {
        Some(_) if !shared => None,
        _ => Some(OutboxFeed::new(database.clone(), clock.clone(), FEED_CAPACITY)),
    };
    let feed: Arc<dyn EventFeed> = match (&feed_task, local_feed) {
        (None, Some(feed)) => feed,
        (Some(task), _) => task.clone(),
        (None, None) => return Err(Error::internal("no event feed")),
    };
    let (settlement, da) = settlement_layer(config, clock.clone())?;
    let settlement: Arc<dyn SettlementClient> =
        Arc::new(GuardedSettlement::new(settlement, breakers.of("settlement", "settlement layer")));
    let da: Arc<dyn DaClient> = Arc::new(GuardedDa::new(da, breakers.of("da", "data availability")));
    let domains = SettlementDomains::new([settlement.clone()]);
    Ok(Clients {
        node,
        shared,
        hinted,
        cache,
        answers,
        feed,
        feed_task,
        clock,
        entropy,
        database,
        committer,
        engine_committer,
        work,
        wake,
        changes,
        change_source,
        vault,
        storage,
        #[cfg(feature = "aws")]
        watched: cloud.watched(config),
        #[cfg(not(feature = "aws"))]
        watched: None,
        queue,
        job_queue,
        events,
        notification,
        cron: schedule.cron,
        one_time: schedule.one_time,
        schedules: schedule.runner,
        settlement,
        domains,
        da,
        providers,
        probe,
        breakers,
        #[cfg(feature = "aws")]
        aws: cloud.aws,
    })
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
