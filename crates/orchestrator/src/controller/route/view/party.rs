//! Providers, consumers and oracles.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::common::Time;
use crate::{
    core::market::{
        address::Address,
        party::{AdapterConfig, Consumer, Oracle, Provider},
        terms::DomainId,
    },
    service::{
        allocation::Teardowns,
        market::{NewAdapter, NewConsumer, NewProvider},
        sla::NewOracle,
    },
};

/// A provider.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderView {
    /// Its id.
    pub id: String,
    /// A name for people.
    pub name: String,
    /// The settlement domain it is paid in.
    pub domain: String,
    /// The address that the chain of that domain pays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Which adapter serves it.
    #[schema(example = "embedded")]
    pub adapter: &'static str,
    /// When it was registered.
    pub created_at: Time,
}

impl From<Provider> for ProviderView {
    fn from(provider: Provider) -> Self {
        // The adapter's address and its sealed token are the operator's affair.
        let adapter = match provider.adapter {
            AdapterConfig::Embedded { .. } => "embedded",
        };
        Self {
            id: provider.id.to_string(),
            name: provider.name,
            domain: provider.domain.0,
            owner: provider.owner.map(|owner| owner.to_string()),
            adapter,
            created_at: provider.created_at.into(),
        }
    }
}

/// How much may be torn down at a provider.
#[derive(Debug, Serialize, ToSchema)]
pub struct TeardownsView {
    /// The provider.
    pub provider: String,
    /// When the present hour began.
    pub since: Time,
    /// Teardowns in it.
    pub used: u32,
    /// How many there may be.
    pub limit: u32,
}

impl From<Teardowns> for TeardownsView {
    fn from(teardowns: Teardowns) -> Self {
        let Teardowns { provider, since, used, limit, .. } = teardowns;
        Self { provider: provider.to_string(), since: since.into(), used, limit }
    }
}

/// A provider to register. It is served by the co-hosted storage server.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterProvider {
    /// A name for people, 1 to 100 characters.
    #[schema(example = "North Storage")]
    pub name: String,
    /// Where it is paid; the market's first domain unless said otherwise.
    #[serde(default)]
    pub domain: Option<String>,
    /// The address that the chain of that domain pays: needed where accounts have owners, and left out where they have
    /// none. It can't be changed later.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")]
    pub owner: Option<Address>,
    /// How its units are reached; the server that this daemon hosts unless said otherwise.
    #[serde(default)]
    pub adapter: RegisterAdapter,
}

/// How the units of a provider are reached.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RegisterAdapter {
    /// The server that this daemon hosts.
    #[default]
    CoHosted,
    /// A built-in S3 server elsewhere.
    Embedded {
        /// Base address of its admin API.
        #[schema(example = "http://127.0.0.1:7702")]
        admin_url: String,
        /// The admin API's token; it is stored sealed and never shown.
        admin_token: String,
    },
}

impl From<RegisterProvider> for NewProvider {
    fn from(view: RegisterProvider) -> Self {
        let adapter = match view.adapter {
            RegisterAdapter::CoHosted => NewAdapter::CoHosted,
            RegisterAdapter::Embedded { admin_url, admin_token } => {
                NewAdapter::Embedded { admin_url, admin_token }
            }
        };
        Self { name: view.name, domain: view.domain.map(DomainId), owner: view.owner, adapter }
    }
}

/// A consumer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConsumerView {
    /// Its id.
    pub id: String,
    /// A name for people.
    pub name: String,
    /// The settlement domain it pays in.
    pub domain: String,
    /// The address that gets its money back on the chain of that domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// When it was registered.
    pub created_at: Time,
}

impl From<Consumer> for ConsumerView {
    fn from(consumer: Consumer) -> Self {
        Self {
            id: consumer.id.to_string(),
            name: consumer.name,
            domain: consumer.domain.0,
            owner: consumer.owner.map(|owner| owner.to_string()),
            created_at: consumer.created_at.into(),
        }
    }
}

/// A consumer to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterConsumer {
    /// A name for people, 1 to 100 characters.
    #[schema(example = "Ada's archive")]
    pub name: String,
    /// Where it pays; the market's first domain unless said otherwise.
    #[serde(default)]
    pub domain: Option<String>,
    /// The address that the chain of that domain pays: needed where accounts have owners, and left out where they have
    /// none. It can't be changed later.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")]
    pub owner: Option<Address>,
}

impl From<RegisterConsumer> for NewConsumer {
    fn from(view: RegisterConsumer) -> Self {
        Self { name: view.name, domain: view.domain.map(DomainId), owner: view.owner }
    }
}

/// An oracle.
#[derive(Debug, Serialize, ToSchema)]
pub struct OracleView {
    /// Its id.
    pub id: String,
    /// A name for people.
    pub name: String,
    /// Ed25519 public key in hex.
    pub public_key: String,
    /// Names the key inside reports.
    pub key_id: String,
    /// Highest nonce taken so far.
    pub last_nonce: u64,
    /// How far it may be trusted, in ppm.
    pub standing_ppm: u32,
    /// Whether its reports are taken.
    pub enabled: bool,
    /// When it was registered.
    pub created_at: Time,
}

impl From<Oracle> for OracleView {
    fn from(oracle: Oracle) -> Self {
        Self {
            id: oracle.id.to_string(),
            name: oracle.name,
            public_key: oracle.public_key,
            key_id: oracle.key_id,
            last_nonce: oracle.last_nonce,
            standing_ppm: oracle.standing.get(),
            enabled: oracle.enabled,
            created_at: oracle.created_at.into(),
        }
    }
}

/// An oracle to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterOracle {
    /// A name for people, 1 to 100 characters.
    pub name: String,
    /// Ed25519 public key, 64 lower-case hex digits.
    pub public_key: String,
    /// Names the key inside reports, 1 to 64 visible ASCII characters.
    pub key_id: String,
}

impl From<RegisterOracle> for NewOracle {
    fn from(view: RegisterOracle) -> Self {
        Self { name: view.name, public_key: view.public_key, key_id: view.key_id }
    }
}
