//! Offerings: what the market shows of a unit that has free capacity.

use serde::{Deserialize, Serialize};

use super::{
    money::Amount,
    quantity::{Bytes, Micros, Ppm},
};

/// What a consumer looks for. Every field that is `None` filters nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OfferingFilter {
    /// Kind of unit; `storage` unless said otherwise.
    pub kind: Option<String>,
    /// Compatibility profile.
    pub profile: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Country, ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// Free bytes, at least.
    pub min_free: Option<Bytes>,
    /// Price per GiB-month, at most.
    pub max_price: Option<Amount>,
    /// Promised mean latency, at most.
    pub max_latency: Option<Micros>,
    /// Promised uptime, at least.
    pub min_uptime: Option<Ppm>,
    /// Promised upload throughput, at least, bytes per second.
    pub min_upload: Option<u64>,
    /// Promised download throughput, at least, bytes per second.
    pub min_download: Option<u64>,
    /// Must keep versions.
    pub versioning: Option<bool>,
    /// Must encrypt at rest.
    pub encryption_at_rest: Option<bool>,
    /// Must lock objects.
    pub object_lock: Option<bool>,
}
