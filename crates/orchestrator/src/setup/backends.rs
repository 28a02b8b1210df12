//! The choice of a client for each port. What a build lacks was refused when the configuration was read.

use std::sync::Arc;

use tokio::sync::Notify;

use super::clients::{FEED_CAPACITY, unready};
use crate::{
    client::{
        cache::{MemoryCache, MemoryCacheSettings},
        cron::{LocalCron, LocalOneTime, LocalScheduler, LocalSchedulerSettings},
        db::sqlite::{Options, SqliteDatabase},
        event_bus::LocalEventBus,
        job_queue::OverQueue,
        network::http::{HttpClient, HttpSettings},
        notification::{LocalNotifier, NotifierSettings},
        queue::{DatabaseQueue, DatabaseQueueSettings},
        storage::FilesystemStorage,
    },
    config::{
        Config,
        section::{
            CacheBackend, DatabaseBackend, Dispatch, EventsBackend, NotificationBackend, QueueBackend,
            ScheduleBackend, StorageBackend,
        },
    },
    core::{
        client::{
            cache::CacheClient,
            clock::{Clock, Entropy},
            database::DatabaseClient,
            event_bus::{EventBusClient, EventFeed},
            notification::NotificationClient,
            queue::QueueClient,
            scheduler::SchedulerClient,
            schema,
            storage::StorageClient,
        },
        madara::{cron::CronClient, job_queue::JobQueueClient},
    },
    error::{Error, ErrorCode, Result},
    service::outbox::ALERT_TOPIC,
};

/// What the configuration names and this build lacks.
fn lacking(what: &str) -> Error {
    Error::new(ErrorCode::InvalidConfig, format!("{what} is not in this build"))
}

/// The database, with its schema.
pub async fn database(config: &Config) -> Result<Arc<dyn DatabaseClient>> {
    let database: Arc<dyn DatabaseClient> = match config.database.backend {
        DatabaseBackend::Sqlite => {
            SqliteDatabase::open(&config.data.dir.join("orchestrator.db"), Options::default())?
        }
        DatabaseBackend::Mongodb => return Err(lacking("database.backend = \"mongodb\"")),
    };
    database.connect(schema::ALL).await?;
    Ok(database)
}

/// What several ports of the cloud share.
pub struct Cloud {}

impl Cloud {
    /// Opens what the configuration calls for, and nothing else.
    pub async fn open(_config: &Config) -> Result<Self> {
        Ok(Self {})
    }
}

/// What fires triggers.
pub struct Schedule {
    pub cron: Arc<dyn CronClient>,
    pub one_time: Arc<dyn SchedulerClient>,
    /// Fires what is kept in the database.
    pub runner: Arc<LocalScheduler>,
}

/// What clients are made from.
pub struct Base<'a> {
    pub config: &'a Config,
    pub cloud: &'a Cloud,
    pub database: &'a Arc<dyn DatabaseClient>,
    pub clock: &'a Arc<dyn Clock>,
    pub entropy: &'a Arc<dyn Entropy>,
}

impl Base<'_> {
    fn database_queue(&self) -> Arc<dyn QueueClient> {
        let settings = DatabaseQueueSettings::default();
        let (clock, entropy) = (self.clock.clone(), self.entropy.clone());
        Arc::new(DatabaseQueue::new(self.database.clone(), clock, entropy, settings))
    }

    pub async fn queue(&self) -> Result<Arc<dyn QueueClient>> {
        match self.config.queue.backend {
            QueueBackend::Database => Ok(self.database_queue()),
            QueueBackend::Sqs => Err(lacking("queue.backend = \"sqs\"")),
        }
    }

    /// The queues of jobs, made when they are missing.
    pub async fn job_queue(&self, queue: &Arc<dyn QueueClient>) -> Result<Arc<dyn JobQueueClient>> {
        let jobs: Arc<dyn JobQueueClient> = match self.config.jobs.dispatch {
            // Dead letters are all that goes over it.
            Dispatch::Database => Arc::new(OverQueue::new(queue.clone(), "jobs")),
            Dispatch::Sqs => return Err(lacking("jobs.dispatch = \"sqs\"")),
            Dispatch::Kafka => return Err(lacking("jobs.dispatch = \"kafka\"")),
        };
        jobs.create_queues().await.map_err(|error| unready("job queue", error))?;
        Ok(jobs)
    }

    pub async fn storage(&self) -> Result<Arc<dyn StorageClient>> {
        match self.config.storage.backend {
            StorageBackend::Filesystem => {
                let storage = FilesystemStorage::open(self.config.data.dir.join("storage")).await;
                Ok(Arc::new(storage.map_err(|error| unready("storage", error))?))
            }
            StorageBackend::S3 => Err(lacking("storage.backend = \"s3\"")),
        }
    }

    pub async fn cache(&self) -> Result<Arc<dyn CacheClient>> {
        match self.config.cache.backend {
            CacheBackend::Memory => {
                Ok(Arc::new(MemoryCache::new(self.clock.clone(), &MemoryCacheSettings::default())))
            }
            CacheBackend::Redis => Err(lacking("cache.backend = \"redis\"")),
        }
    }

    /// The event bus, and its feed if it has one in process.
    pub async fn events(
        &self,
        queue: &Arc<dyn QueueClient>,
    ) -> Result<(Arc<dyn EventBusClient>, Option<Arc<dyn EventFeed>>)> {
        match self.config.events.backend {
            EventsBackend::Local => {
                let bus = Arc::new(LocalEventBus::new(queue.clone(), FEED_CAPACITY));
                Ok((bus.clone(), Some(bus)))
            }
            EventsBackend::EventBridge => Err(lacking("events.backend = \"event_bridge\"")),
        }
    }

    /// One-time schedules are always kept in the database, and fired by the replica that leads.
    pub fn schedule(&self, queue: &Arc<dyn QueueClient>, node: &str) -> Result<Schedule> {
        let timer = Arc::new(Notify::new());
        let one_time = Arc::new(LocalOneTime::new(self.database.clone(), timer.clone()));
        let cron: Arc<dyn CronClient> = match self.config.schedule.backend {
            ScheduleBackend::Local => {
                Arc::new(LocalCron::new(self.database.clone(), self.clock.clone(), timer.clone()))
            }
            ScheduleBackend::EventBridge => return Err(lacking("schedule.backend = \"event_bridge\"")),
        };
        let settings = LocalSchedulerSettings::default();
        let (database, clock) = (self.database.clone(), self.clock.clone());
        let runner = Arc::new(LocalScheduler::new(database, queue.clone(), clock, timer, node, settings));
        Ok(Schedule { cron, one_time, runner })
    }

    pub async fn notification(&self) -> Result<Arc<dyn NotificationClient>> {
        let settings = &self.config.notification;
        let notifier: Arc<dyn NotificationClient> = match settings.backend {
            NotificationBackend::Local => {
                let http = HttpSettings {
                    allow_private: settings.allow_private_addresses,
                    ..HttpSettings::default()
                };
                let http = HttpClient::new(http).map_err(Error::internal)?;
                let (database, clock) = (self.database.clone(), self.clock.clone());
                Arc::new(LocalNotifier::new(database, http, clock, NotifierSettings::default()))
            }
            NotificationBackend::Sns => return Err(lacking("notification.backend = \"sns\"")),
        };
        let failed = |error| unready("notification", error);
        notifier.create_topic(ALERT_TOPIC).await.map_err(failed)?;
        if settings.backend == NotificationBackend::Local {
            notifier.subscribe(ALERT_TOPIC, "log:").await.map_err(failed)?;
        }
        for address in &settings.webhooks {
            notifier.subscribe(ALERT_TOPIC, address).await.map_err(|error| {
                Error::new(ErrorCode::InvalidConfig, format!("notification.webhooks: {error}")).because(error)
            })?;
        }
        Ok(notifier)
    }
}
