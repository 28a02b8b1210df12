//! The sections of the configuration, one file each, and the list of all keys.

mod access;
mod api;
pub(super) mod backend;
mod data;
mod dependencies;
mod ethereum;
mod jobs;
mod kafka;
mod market;
mod prober;
mod provider;
mod settlement;
mod sla;

use std::collections::BTreeMap;

pub use access::Access;
pub use api::Api;
pub use backend::{
    Aws, Cache, CacheBackend, Database, DatabaseBackend, Events, EventsBackend, Feature, Notification,
    NotificationBackend, Queue, QueueBackend, Schedule, ScheduleBackend, Storage, StorageBackend,
};
pub use data::{Data, Log, LogFormat};
pub use dependencies::Dependencies;
pub use ethereum::{ChainFinality, Ethereum};
pub use jobs::{Dispatch, Jobs, Triggers};
pub use kafka::{Kafka, KafkaMechanism, KafkaSecurity};
pub use market::{Market, Pricing};
pub use prober::Prober;
pub use provider::Provider;
pub use settlement::{Settlement, SettlementBackend};
pub use sla::Sla;

/// Declares a section: a struct with a default for every key, and the list of its keys.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty = $default:expr;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self { Self { $($field: $default,)* } }
        }

        impl $name {
            /// The keys of the section.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($field)),*];
        }
    };
}
pub(crate) use section;

/// Every section with its keys.
#[must_use]
pub fn keys() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("data", Data::KEYS),
        ("api", Api::KEYS),
        ("log", Log::KEYS),
        ("database", Database::KEYS),
        ("storage", Storage::KEYS),
        ("queue", Queue::KEYS),
        ("schedule", Schedule::KEYS),
        ("events", Events::KEYS),
        ("cache", Cache::KEYS),
        ("notification", Notification::KEYS),
        ("aws", Aws::KEYS),
        ("kafka", Kafka::KEYS),
        ("jobs", Jobs::KEYS),
        ("triggers", Triggers::KEYS),
        ("dependencies", Dependencies::KEYS),
        ("market", Market::KEYS),
        ("access", Access::KEYS),
        ("sla", Sla::KEYS),
        ("prober", Prober::KEYS),
        ("pricing", Pricing::KEYS),
        ("provider", Provider::KEYS),
        ("settlement", Settlement::KEYS),
        ("ethereum", Ethereum::KEYS),
    ])
}
