//! `[database]`, `[storage]`, `[queue]`, `[schedule]`, `[events]`, `[cache]` and `[notification]`: which back end serves a
//! port. The embedded default of each is the first of its kinds.

use serde::{Deserialize, Serialize};

use super::{Dispatch, section};
use crate::{
    config::{Config, HumanDuration, Problems},
    core::market::quantity::Micros,
};

/// A choice of back end that a build may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// The cargo feature.
    pub name: &'static str,
    /// Whether this build has it.
    pub built: bool,
}

impl Feature {
    /// Tells when the build lacks what the configuration asks for.
    pub(super) fn require(self, key: &str, value: &str, problems: &mut Problems) {
        let name = self.name;
        let problem = format!(
            "`{value}` is not in this build; build with `--features {name}`, or use the shipped image"
        );
        problems.require(self.built, key, problem);
    }
}

/// Declares the back ends of one port: the name of each in a configuration, and the cargo feature that it needs.
macro_rules! backends {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal $(needs $feature:literal)?,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Its name in a configuration.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The cargo feature that it needs; `None` for what every build has.
            #[must_use]
            pub const fn feature(self) -> Option<Feature> {
                match self { $(Self::$variant => backends!(@feature $($feature)?),)+ }
            }

            pub(super) fn validate(self, key: &str, problems: &mut Problems) {
                if let Some(feature) = self.feature() {
                    feature.require(key, self.as_str(), problems);
                }
            }
        }
    };
    (@feature) => { None };
    (@feature $feature:literal) => { Some(Feature { name: $feature, built: cfg!(feature = $feature) }) };
}
pub(crate) use backends;

backends! {
    /// Databases.
    DatabaseBackend {
        /// SQLite in the data directory: the embedded default.
        Sqlite = "sqlite",
        /// MongoDB: a replica set or a sharded cluster.
        Mongodb = "mongodb" needs "mongodb",
    }
}

section! {
    /// The database.
    Database {
        /// `sqlite` or `mongodb`.
        backend: DatabaseBackend = DatabaseBackend::Sqlite;
        /// With `mongodb`: its connection string, `mongodb://…` or `mongodb+srv://…`.
        url: String = String::new();
        /// With `mongodb`: the name of the database.
        name: String = "orchestrator".into();
    }
}

backends! {
    /// Object storages.
    StorageBackend {
        /// A directory inside the data directory: the embedded default.
        Filesystem = "filesystem",
        /// S3, or what speaks its protocol.
        S3 = "s3" needs "s3",
    }
}

section! {
    /// Object storage for the daemon's own data: block records, evidence.
    Storage {
        /// `filesystem` or `s3`.
        backend: StorageBackend = StorageBackend::Filesystem;
        /// With `s3`: an existing bucket by its ARN, in which everything is kept. Empty: `setup` makes `<aws.prefix>-data`.
        bucket_arn: String = String::new();
    }
}

backends! {
    /// Message queues.
    QueueBackend {
        /// Rows of the database: the embedded default.
        Database = "database",
        /// SQS.
        Sqs = "sqs" needs "sqs",
    }
}

section! {
    /// The queue of triggers and events.
    Queue {
        /// `database` or `sqs`.
        backend: QueueBackend = QueueBackend::Database;
        /// How long a received message is hidden from others unless it is extended.
        visibility: HumanDuration = HumanDuration::secs(60);
    }
}

backends! {
    /// What fires the triggers.
    ScheduleBackend {
        /// One leader among the replicas: the embedded default.
        Local = "local",
        /// EventBridge rules with SQS targets.
        EventBridge = "event_bridge" needs "eventbridge",
    }
}

section! {
    /// What fires the triggers.
    Schedule {
        /// `local` or `event_bridge`, which needs `queue.backend = "sqs"` and triggers of whole minutes.
        backend: ScheduleBackend = ScheduleBackend::Local;
    }
}

backends! {
    /// Event buses.
    EventsBackend {
        /// In process: the embedded default.
        Local = "local",
        /// An EventBridge bus.
        EventBridge = "event_bridge" needs "eventbridge",
    }
}

section! {
    /// The bus of domain events.
    Events {
        /// `local` or `event_bridge`.
        backend: EventsBackend = EventsBackend::Local;
        /// With `event_bridge`: an existing bus by its ARN. Empty: `setup` makes `<aws.prefix>-market`.
        bus_arn: String = String::new();
    }
}

backends! {
    /// Caches.
    CacheBackend {
        /// In process: the embedded default.
        Memory = "memory",
        /// Redis, or what speaks its protocol.
        Redis = "redis" needs "redis",
    }
}

section! {
    /// The cache of rate limits, offerings and scores.
    Cache {
        /// `memory` or `redis`.
        backend: CacheBackend = CacheBackend::Memory;
        /// With `redis`: its address, `redis://…` or `rediss://…`.
        url: String = String::new();
    }
}

backends! {
    /// Notification services.
    NotificationBackend {
        /// The log and webhooks: the embedded default.
        Local = "local",
        /// SNS topics.
        Sns = "sns" needs "sns",
    }
}

section! {
    /// Alerts to people.
    Notification {
        /// `local` (log and webhooks) or `sns`.
        backend: NotificationBackend = NotificationBackend::Local;
        /// Addresses that get every alert as a JSON POST; with `sns` also `mailto:` addresses and ARNs of queues.
        webhooks: Vec<String> = Vec::new();
        /// Whether webhooks may go to loopback and private addresses.
        allow_private_addresses: bool = false;
        /// With `sns`: an existing topic by its ARN. Empty: `setup` makes `<aws.prefix>-alerts`.
        topic_arn: String = String::new();
    }
}

section! {
    /// What the back ends at AWS share. Credentials come from the environment, the profile or the instance, as the AWS
    /// tools read them; they are never part of a configuration.
    Aws {
        /// The region. Empty: that of the environment.
        region: String = String::new();
        /// Another address for all services, for emulators such as LocalStack.
        endpoint: String = String::new();
        /// First part of the name of everything that `setup` makes: letters, digits and hyphens.
        prefix: String = "orchestrator".into();
    }
}

/// The shortest rate that EventBridge knows.
const EVENT_BRIDGE_MINUTE: Micros = Micros::from_secs(60);
/// The longest that SQS hides a message.
const SQS_VISIBILITY: Micros = Micros::from_secs(12 * 3_600);

/// Back ends, and the combinations of them that can't work.
pub(in crate::config) fn validate(config: &Config, problems: &mut Problems) {
    config.database.backend.validate("database.backend", problems);
    config.storage.backend.validate("storage.backend", problems);
    config.queue.backend.validate("queue.backend", problems);
    config.schedule.backend.validate("schedule.backend", problems);
    config.events.backend.validate("events.backend", problems);
    config.cache.backend.validate("cache.backend", problems);
    config.notification.backend.validate("notification.backend", problems);
    config.jobs.dispatch.validate("jobs.dispatch", problems);
    problems.require(
        !config.shared() || config.storage.backend == StorageBackend::S3,
        "storage.backend",
        "must be \"s3\" when replicas share a database: a directory of one of them is no place for what all need",
    );
    addresses(config, problems);
    super::kafka::validate(config, problems);
    queues(config, problems);
    schedules(config, problems);
    aws(config, problems);
}

fn addresses(config: &Config, problems: &mut Problems) {
    let scheme = |text: &str, known: &[&str]| known.iter().any(|scheme| text.starts_with(scheme));
    if config.database.backend == DatabaseBackend::Mongodb {
        let holds = scheme(&config.database.url, &["mongodb://", "mongodb+srv://"]);
        problems.require(
            holds,
            "database.url",
            "must be a connection string such as \"mongodb://host:27017/?replicaSet=rs0\"",
        );
        let name = &config.database.name;
        let holds = !name.is_empty()
            && name.len() < 64
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        problems.require(holds, "database.name", "must be 1 to 63 letters, digits, hyphens or underscores");
    }
    if config.cache.backend == CacheBackend::Redis {
        let holds = scheme(&config.cache.url, &["redis://", "rediss://"]);
        problems.require(holds, "cache.url", "must be an address such as \"redis://host:6379\"");
    }
}

fn queues(config: &Config, problems: &mut Problems) {
    let visibility = config.queue.visibility.0;
    problems.require(visibility >= Micros::from_secs(1), "queue.visibility", "must be at least 1s");
    problems.require(
        visibility >= config.jobs.lease.0,
        "queue.visibility",
        "must be at least jobs.lease, or a message comes back while its job is still held",
    );
    if config.queue.backend == QueueBackend::Sqs || config.jobs.dispatch == Dispatch::Sqs {
        problems.require(
            visibility <= SQS_VISIBILITY,
            "queue.visibility",
            "must be at most 12h, the longest that SQS hides a message",
        );
    }
}

fn schedules(config: &Config, problems: &mut Problems) {
    if config.schedule.backend != ScheduleBackend::EventBridge {
        return;
    }
    problems.require(
        config.queue.backend == QueueBackend::Sqs,
        "schedule.backend",
        "`event_bridge` sends to SQS: set queue.backend = \"sqs\" too",
    );
    for (name, rate) in config.triggers.rates() {
        let whole = rate.0 >= EVENT_BRIDGE_MINUTE && rate.0.get() % EVENT_BRIDGE_MINUTE.get() == 0;
        problems.require(
            whole,
            &format!("triggers.{name}"),
            "must be whole minutes, the shortest rate of EventBridge; or use schedule.backend = \"local\"",
        );
    }
}

fn aws(config: &Config, problems: &mut Problems) {
    let prefix = &config.aws.prefix;
    let letters = prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let edges = !prefix.starts_with('-') && !prefix.ends_with('-');
    problems.require(
        (3..=32).contains(&prefix.len()) && letters && edges,
        "aws.prefix",
        "must be 3 to 32 lower-case letters, digits and hyphens, and start and end with none: it is part of bucket names",
    );
    let endpoint = &config.aws.endpoint;
    let holds = endpoint.is_empty() || endpoint.starts_with("http://") || endpoint.starts_with("https://");
    problems.require(holds, "aws.endpoint", "must be empty or an address such as \"http://127.0.0.1:4566\"");
    for (key, arn, service) in [
        ("storage.bucket_arn", &config.storage.bucket_arn, "s3"),
        ("events.bus_arn", &config.events.bus_arn, "events"),
        ("notification.topic_arn", &config.notification.topic_arn, "sns"),
    ] {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let holds = arn.is_empty()
            || matches!(parts[..], ["arn", _, of, _, _, name] if of == service && !name.is_empty());
        problems.require(holds, key, format!("must be empty or an ARN of {service}, `arn:aws:{service}:…`"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, load};

    /// Every back end that a build may lack, with its key.
    fn optional() -> Vec<(&'static str, &'static str, Feature)> {
        [
            ("database.backend", DatabaseBackend::Mongodb.as_str(), DatabaseBackend::Mongodb.feature()),
            ("storage.backend", StorageBackend::S3.as_str(), StorageBackend::S3.feature()),
            ("queue.backend", QueueBackend::Sqs.as_str(), QueueBackend::Sqs.feature()),
            (
                "schedule.backend",
                ScheduleBackend::EventBridge.as_str(),
                ScheduleBackend::EventBridge.feature(),
            ),
            ("events.backend", EventsBackend::EventBridge.as_str(), EventsBackend::EventBridge.feature()),
            ("cache.backend", CacheBackend::Redis.as_str(), CacheBackend::Redis.feature()),
            ("notification.backend", NotificationBackend::Sns.as_str(), NotificationBackend::Sns.feature()),
            ("jobs.dispatch", Dispatch::Sqs.as_str(), Dispatch::Sqs.feature()),
            ("jobs.dispatch", Dispatch::Kafka.as_str(), Dispatch::Kafka.feature()),
        ]
        .into_iter()
        .map(|(key, value, feature)| (key, value, feature.unwrap()))
        .collect()
    }

    /// What a configuration is told for one setting.
    fn told(key: &str, value: &str) -> Vec<String> {
        let layers = Layers { flags: vec![(key.to_owned(), value.to_owned())], ..Layers::default() };
        let faults = load(&layers).err().map(|error| error.faults).unwrap_or_default();
        faults.into_iter().filter(|fault| fault.key == key).map(|fault| fault.problem).collect()
    }

    #[test]
    fn a_build_without_a_back_end_says_so_with_the_flag() {
        for (key, value, feature) in optional() {
            let flag = format!("--features {}`", feature.name);
            let named = told(key, value).iter().any(|problem| problem.contains(&flag));
            assert_eq!(named, !feature.built, "{key} = {value}");

            let (mut lacking, mut having) = (Problems::default(), Problems::default());
            Feature { built: false, ..feature }.require(key, value, &mut lacking);
            Feature { built: true, ..feature }.require(key, value, &mut having);
            assert!(lacking.0[0].1.contains(value) && lacking.0[0].1.contains(&flag), "{lacking:?}");
            assert!(having.0.is_empty());
        }
    }

    #[test]
    fn the_embedded_back_ends_are_in_every_build() {
        for (key, value) in [
            ("database.backend", "sqlite"),
            ("storage.backend", "filesystem"),
            ("queue.backend", "database"),
            ("schedule.backend", "local"),
            ("events.backend", "local"),
            ("cache.backend", "memory"),
            ("notification.backend", "local"),
            ("jobs.dispatch", "database"),
        ] {
            assert_eq!(told(key, value), Vec::<String>::new(), "{key} = {value}");
        }
    }

    #[test]
    fn the_shipped_configuration_of_a_cluster_is_valid_and_the_same_everywhere() {
        let text = include_str!("../../../../../deploy/cluster.toml");
        assert_eq!(text, include_str!("../../../../../deploy/kubernetes/orchestrator.toml"));
        let layers = Layers { file: Some(("cluster.toml".into(), text.into())), ..Layers::default() };
        let faults = load(&layers).err().map(|error| error.faults).unwrap_or_default();
        // A build that lacks a back end says that, and finds nothing else.
        let lacks = optional().iter().any(|(_, _, feature)| feature.name != "kafka" && !feature.built);
        assert_eq!(!faults.is_empty(), lacks, "{faults:?}");
        assert!(faults.iter().all(|fault| fault.problem.contains("is not in this build")), "{faults:?}");
    }
}
