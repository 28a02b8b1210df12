//! What a consumer looks for.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::common::{Millis, Money};
use crate::core::market::{
    offering::OfferingFilter,
    quantity::{Bytes, Ppm},
};

/// What an offering must be like. What is left out filters nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FilterView {
    /// Kind of unit; `storage` unless said otherwise.
    pub kind: Option<String>,
    /// Compatibility profile.
    pub profile: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Country, ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// Free bytes, at least.
    pub min_free_bytes: Option<u64>,
    /// Price per GiB-month, at most.
    pub max_price: Option<Money>,
    /// Promised mean latency, at most.
    pub max_latency_ms: Option<Millis>,
    /// Promised uptime, at least, in ppm.
    pub min_uptime_ppm: Option<u32>,
    /// Promised upload, at least, in bytes per second.
    pub min_upload_bytes_per_s: Option<u64>,
    /// Promised download, at least, in bytes per second.
    pub min_download_bytes_per_s: Option<u64>,
    /// Must keep versions.
    pub versioning: Option<bool>,
    /// Must encrypt at rest.
    pub encryption_at_rest: Option<bool>,
    /// Must lock objects.
    pub object_lock: Option<bool>,
}

impl From<FilterView> for OfferingFilter {
    fn from(view: FilterView) -> Self {
        Self {
            kind: view.kind,
            profile: view.profile,
            region: view.region,
            country: view.country,
            min_free: view.min_free_bytes.map(Bytes),
            max_price: view.max_price.map(|price| price.0),
            max_latency: view.max_latency_ms.map(|latency| latency.0),
            min_uptime: view.min_uptime_ppm.map(Ppm),
            min_upload: view.min_upload_bytes_per_s,
            min_download: view.min_download_bytes_per_s,
            versioning: view.versioning,
            encryption_at_rest: view.encryption_at_rest,
            object_lock: view.object_lock,
        }
    }
}
