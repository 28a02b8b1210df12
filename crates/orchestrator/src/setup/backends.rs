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
            changes::ChangeSource,
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
        market::quantity::Micros,
    },
    error::{Error, ErrorCode, Result},
    service::outbox::ALERT_TOPIC,
};

#[cfg(feature = "aws")]
use crate::client::aws::{AwsClients, AwsSettings};
#[cfg(feature = "redis")]
use crate::client::cache::{GuardedCache, GuardedCacheSettings, RedisCache, RedisSettings};
#[cfg(feature = "mongodb")]
use crate::client::db::mongodb::{MongoDatabase, MongoSettings};
#[cfg(feature = "kafka")]
use crate::client::job_queue::{KafkaJobQueue, KafkaSasl, KafkaSecurity, KafkaSettings};
#[cfg(feature = "sns")]
use crate::client::notification::SnsNotifier;
#[cfg(feature = "s3")]
use crate::client::storage::S3Storage;
#[cfg(feature = "eventbridge")]
use crate::client::{cron::EventBridgeCron, event_bus::EventBridgeBus};
#[cfg(feature = "sqs")]
use crate::client::{
    job_queue::{SqsJobQueue, SqsJobQueueSettings},
    queue::{QueueAttributes, SqsQueue},
};
#[cfg(feature = "mongodb")]
use crate::resource::mongodb::MongoResource;

/// First part of the names of the queues of jobs.
pub const JOBS: &str = "jobs";

/// The bucket of the daemon's own data.
#[cfg(feature = "s3")]
pub fn bucket(config: &Config, aws: &AwsClients) -> String {
    match config.storage.bucket_arn.rsplit_once(':') {
        Some((_, name)) => name.to_owned(),
        None => aws.name("data"),
    }
}

/// What the configuration names and this build lacks.
#[cfg_attr(feature = "cluster", expect(dead_code, reason = "a build with everything lacks nothing"))]
fn lacking(what: &str) -> Error {
    Error::new(ErrorCode::InvalidConfig, format!("{what} is not in this build"))
}

/// The database, with its schema.
pub async fn database(config: &Config) -> Result<Arc<dyn DatabaseClient>> {
    Ok(open_database(config).await?.0)
}

/// The database, with its schema, and what tells of other processes' changes, where there are others.
pub async fn open_database(
    config: &Config,
) -> Result<(Arc<dyn DatabaseClient>, Option<Arc<dyn ChangeSource>>)> {
    #[cfg_attr(not(feature = "mongodb"), expect(unused_mut, reason = "only a shared database sets it"))]
    let mut changes: Option<Arc<dyn ChangeSource>> = None;
    let database: Arc<dyn DatabaseClient> = match config.database.backend {
        DatabaseBackend::Sqlite => {
            super::backup::interrupted(config)?;
            SqliteDatabase::open(&config.data.dir.join("orchestrator.db"), Options::default())?
        }
        #[cfg(feature = "mongodb")]
        DatabaseBackend::Mongodb => {
            let mongodb = MongoDatabase::open(mongo_settings(config)).await?;
            changes = Some(mongodb.clone());
            mongodb
        }
        #[cfg(not(feature = "mongodb"))]
        DatabaseBackend::Mongodb => return Err(lacking("database.backend = \"mongodb\"")),
    };
    database.connect(schema::ALL).await?;
    Ok((database, changes))
}

/// How Kafka is reached.
///
/// # Errors
/// When a password is missing, or the driver of this build lacks what the configuration asks for.
#[cfg(feature = "kafka")]
pub fn kafka_settings(config: &Config) -> Result<KafkaSettings> {
    let kafka = &config.kafka;
    let sasl = match kafka.security.has_user() {
        false => None,
        true => Some(KafkaSasl {
            mechanism: kafka.mechanism.as_str(),
            user: kafka.user.clone(),
            password: super::secret::kafka_password(config)?,
        }),
    };
    let (protocol, ca_file) = (kafka.security.as_str(), kafka.ca_file.clone());
    let security = KafkaSecurity { protocol, ca_file, sasl };
    if let Some(lacking) = security.lacking() {
        return Err(Error::new(ErrorCode::InvalidConfig, format!("kafka.security: {lacking}")));
    }
    Ok(KafkaSettings {
        partitions: kafka.partitions,
        replication: kafka.replication,
        security,
        ..KafkaSettings::new(&kafka.brokers, &config.aws.prefix)
    })
}

/// The topics of jobs, as `setup` makes them; `None` when jobs go another way.
#[cfg(feature = "kafka")]
pub fn topics(config: &Config) -> Result<Option<Arc<dyn crate::resource::RemoteResource>>> {
    match config.jobs.dispatch {
        Dispatch::Kafka => {
            Ok(Some(Arc::new(crate::resource::topics::KafkaResource::new(kafka_settings(config)?))))
        }
        Dispatch::Database | Dispatch::Sqs => Ok(None),
    }
}

/// The collections and indexes of a database elsewhere, as `setup` makes them; `None` when it is embedded.
#[cfg(feature = "mongodb")]
pub async fn database_layout(config: &Config) -> Result<Option<Arc<dyn crate::resource::RemoteResource>>> {
    match config.database.backend {
        DatabaseBackend::Sqlite => Ok(None),
        DatabaseBackend::Mongodb => {
            Ok(Some(Arc::new(MongoResource::new(mongo_settings(config), schema::ALL))))
        }
    }
}

#[cfg(feature = "mongodb")]
pub fn mongo_settings(config: &Config) -> MongoSettings {
    MongoSettings::new(&config.database.url, &config.database.name)
}

/// What several ports at AWS share: one client of each service for the whole process.
#[cfg(feature = "aws")]
#[derive(Default)]
pub struct Cloud {
    pub aws: Option<AwsClients>,
    #[cfg(feature = "sqs")]
    sqs: Option<Arc<SqsQueue>>,
}

/// Whether a port of the configuration is served by AWS.
#[cfg(feature = "aws")]
pub fn uses_aws(config: &Config) -> bool {
    config.storage.backend == StorageBackend::S3
        || config.notification.backend == NotificationBackend::Sns
        || config.events.backend == EventsBackend::EventBridge
        || crate::config::section::Ethereum::kms_key(config).is_some()
        || uses_sqs(config)
}

/// Whether a port of the configuration is served by SQS.
#[cfg(feature = "aws")]
pub fn uses_sqs(config: &Config) -> bool {
    config.queue.backend == QueueBackend::Sqs
        || config.jobs.dispatch == Dispatch::Sqs
        || config.schedule.backend == ScheduleBackend::EventBridge
        || config.events.backend == EventsBackend::EventBridge
}

/// The settings of everything at AWS.
#[cfg(feature = "aws")]
pub fn aws_settings(config: &Config) -> AwsSettings {
    AwsSettings {
        region: config.aws.region.clone(),
        endpoint: config.aws.endpoint.clone(),
        prefix: config.aws.prefix.clone(),
    }
}

#[cfg(feature = "aws")]
impl Cloud {
    /// Opens what the configuration calls for, and nothing else.
    pub async fn open(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self> {
        if !uses_aws(config) {
            return Ok(Self::default());
        }
        let aws =
            AwsClients::new(&aws_settings(config)).await.map_err(|error| unready("AWS client", error))?;
        #[cfg(feature = "sqs")]
        let sqs = uses_sqs(config)
            .then(|| Arc::new(SqsQueue::new(aws.clone(), clock.clone(), QueueAttributes::default())));
        #[cfg(not(feature = "sqs"))]
        let _ = clock;
        Ok(Self {
            aws: Some(aws),
            #[cfg(feature = "sqs")]
            sqs,
        })
    }

    #[cfg(any(feature = "eventbridge", feature = "s3", feature = "sns"))]
    fn aws(&self) -> Result<&AwsClients> {
        self.aws.as_ref().ok_or_else(|| Error::internal("AWS was not opened"))
    }

    /// The queues whose depth is to be watched, where they have a limit.
    pub fn watched(&self, config: &Config) -> Option<(Arc<dyn QueueClient>, Vec<String>)> {
        #[cfg(feature = "sqs")]
        if let Some(sqs) = &self.sqs {
            return Some((sqs.clone(), super::cloud::queue_names(config)));
        }
        let _ = config;
        None
    }

    #[cfg(feature = "sqs")]
    fn sqs(&self) -> Result<&Arc<SqsQueue>> {
        self.sqs.as_ref().ok_or_else(|| Error::internal("SQS was not opened"))
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
    #[cfg(feature = "aws")]
    #[cfg_attr(
        not(any(feature = "eventbridge", feature = "s3", feature = "sns", feature = "sqs")),
        expect(dead_code, reason = "what signs for the chain is no port")
    )]
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
            #[cfg(feature = "sqs")]
            QueueBackend::Sqs => Ok(self.cloud.sqs()?.clone()),
            #[cfg(not(feature = "sqs"))]
            QueueBackend::Sqs => Err(lacking("queue.backend = \"sqs\"")),
        }
    }

    /// The queues of jobs, made when they are missing.
    pub async fn job_queue(&self, queue: &Arc<dyn QueueClient>) -> Result<Arc<dyn JobQueueClient>> {
        let jobs: Arc<dyn JobQueueClient> = match self.config.jobs.dispatch {
            // Dead letters are all that goes over it.
            Dispatch::Database => Arc::new(OverQueue::new(queue.clone(), JOBS)),
            #[cfg(feature = "sqs")]
            Dispatch::Sqs => {
                let settings = SqsJobQueueSettings {
                    visibility: self.config.queue.visibility.0,
                    ..SqsJobQueueSettings::default()
                };
                Arc::new(SqsJobQueue::new(self.cloud.sqs()?.clone(), JOBS, settings))
            }
            #[cfg(not(feature = "sqs"))]
            Dispatch::Sqs => return Err(lacking("jobs.dispatch = \"sqs\"")),
            #[cfg(feature = "kafka")]
            Dispatch::Kafka => {
                let queue = KafkaJobQueue::new(&kafka_settings(self.config)?, self.clock.clone());
                Arc::new(queue.map_err(|error| unready("job queue", error))?)
            }
            #[cfg(not(feature = "kafka"))]
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
            #[cfg(feature = "s3")]
            StorageBackend::S3 => {
                Ok(Arc::new(S3Storage::new(self.cloud.aws()?, bucket(self.config, self.cloud.aws()?))))
            }
            #[cfg(not(feature = "s3"))]
            StorageBackend::S3 => Err(lacking("storage.backend = \"s3\"")),
        }
    }

    pub async fn cache(&self) -> Result<Arc<dyn CacheClient>> {
        match self.config.cache.backend {
            CacheBackend::Memory => {
                Ok(Arc::new(MemoryCache::new(self.clock.clone(), &MemoryCacheSettings::default())))
            }
            #[cfg(feature = "redis")]
            CacheBackend::Redis => {
                let settings =
                    RedisSettings::new(&self.config.cache.url, format!("{}:", self.config.aws.prefix));
                let redis = RedisCache::new(&settings).map_err(|error| unready("cache", error))?;
                let guard = GuardedCacheSettings::default();
                Ok(Arc::new(GuardedCache::new(Arc::new(redis), self.clock.clone(), guard)))
            }
            #[cfg(not(feature = "redis"))]
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
            #[cfg(feature = "eventbridge")]
            EventsBackend::EventBridge => {
                let (aws, sqs) = (self.cloud.aws()?.clone(), self.cloud.sqs()?.clone());
                let bus = EventBridgeBus::new(aws, self.clock.clone(), sqs);
                let bus = match self.config.events.bus_arn.as_str() {
                    "" => bus,
                    arn => bus.with_existing(super::clients::BUS, arn),
                };
                Ok((Arc::new(bus), None))
            }
            #[cfg(not(feature = "eventbridge"))]
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
            #[cfg(feature = "eventbridge")]
            ScheduleBackend::EventBridge => {
                Arc::new(EventBridgeCron::new(self.cloud.aws()?.clone(), self.cloud.sqs()?.clone()))
            }
            #[cfg(not(feature = "eventbridge"))]
            ScheduleBackend::EventBridge => return Err(lacking("schedule.backend = \"event_bridge\"")),
        };
        let mut settings = LocalSchedulerSettings::default();
        if self.config.shared() {
            // Each look is a call over the network, and a leader that is gone is missed for a few triggers at most; for none
            // where another service fires them.
            let elsewhere = self.config.schedule.backend != ScheduleBackend::Local;
            settings.look = Micros::from_secs(if elsewhere { 60 } else { 15 });
            settings.lease = Micros::from_secs(if elsewhere { 120 } else { 30 });
        }
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
            #[cfg(feature = "sns")]
            NotificationBackend::Sns => {
                let notifier = SnsNotifier::new(self.cloud.aws()?.clone());
                Arc::new(match settings.topic_arn.as_str() {
                    "" => notifier,
                    arn => notifier.with_existing(ALERT_TOPIC, arn),
                })
            }
            #[cfg(not(feature = "sns"))]
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
