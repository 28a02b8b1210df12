//! What the market's service is asked.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::core::market::{
    address::Address,
    ids::ProviderId,
    quantity::{Bytes, Timestamp},
    terms::{DomainId, PriceBounds, PriceTerms, SlaTerms},
    unit::{Features, UnitMode},
};

/// A provider to register.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewProvider {
    /// A name for people, 1 to 100 characters.
    pub name: String,
    /// Where it is paid; the market's first one unless said otherwise.
    #[serde(default)]
    pub domain: Option<DomainId>,
    /// Whom the chain of that domain pays: needed where accounts have owners, and left out where they have none.
    #[serde(default)]
    pub owner: Option<Address>,
    /// How its units are reached.
    #[serde(default)]
    pub adapter: NewAdapter,
}

/// How the units of a new provider are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum NewAdapter {
    /// The server that this daemon hosts.
    #[default]
    CoHosted,
    /// A built-in S3 server elsewhere.
    Embedded {
        /// Base address of its admin API.
        admin_url: String,
        /// The admin API's token; sealed before it is stored.
        admin_token: String,
    },
}

/// A consumer to register.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewConsumer {
    /// A name for people, 1 to 100 characters.
    pub name: String,
    /// Where it pays; the market's first one unless said otherwise.
    #[serde(default)]
    pub domain: Option<DomainId>,
    /// Who gets its money back on the chain of that domain: needed where accounts have owners, and left out where they have
    /// none.
    #[serde(default)]
    pub owner: Option<Address>,
}

/// A data unit to register.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUnit {
    /// Its owner: given by operators, left out by providers.
    #[serde(default)]
    pub provider: Option<ProviderId>,
    /// A name for people, 1 to 100 characters.
    pub name: String,
    /// The kind of resource; `storage` unless said otherwise.
    #[serde(default)]
    pub kind: Option<String>,
    /// The compatibility profile; `s3` unless said otherwise.
    #[serde(default)]
    pub profile: Option<String>,
    /// Region name.
    pub region: String,
    /// ISO 3166-1 alpha-2 country code, upper case.
    pub country: String,
    /// Size.
    pub capacity: Bytes,
    /// Optional abilities.
    #[serde(default)]
    pub features: Features,
    /// Free words for filters, at most 32.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Price.
    pub price: PriceTerms,
    /// Bounds for the price advisor.
    #[serde(default)]
    pub price_bounds: Option<PriceBounds>,
    /// Promise; the network's example level unless said otherwise.
    #[serde(default)]
    pub sla: SlaTerms,
}

/// New terms of a unit, for reservations from now on. What is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TermsUpdate {
    /// Price.
    pub price: Option<PriceTerms>,
    /// Bounds for the price advisor; `Some(None)` takes them away.
    #[serde(deserialize_with = "given")]
    pub price_bounds: Option<Option<PriceBounds>>,
    /// Promise.
    pub sla: Option<SlaTerms>,
    /// Free words for filters.
    pub tags: Option<BTreeMap<String, String>>,
}

/// Tells a field that is null from one that was left out.
fn given<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(de: D) -> Result<Option<T>, D::Error> {
    T::deserialize(de).map(Some)
}

/// A maintenance window to announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaintenanceRequest {
    /// First instant; not in the past.
    pub from: Timestamp,
    /// First instant after it.
    pub to: Timestamp,
}

/// Which units to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitQuery {
    /// Only this provider's.
    pub provider: Option<ProviderId>,
    /// Only in this mode.
    pub mode: Option<UnitMode>,
}
