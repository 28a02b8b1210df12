//! Offerings: what a consumer looks for, what it finds, and why it is ranked as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    common::{Millis, Money, Time},
    terms::{PriceView, SlaView},
    unit::FeaturesView,
};
use crate::{
    core::market::{
        offering::OfferingFilter,
        pricing::PriceChange,
        quantity::{Bytes, Ppm, Timestamp},
        ranking::Breakdown,
        score::{Reputation, ReputationChange},
    },
    service::scoring::{Offering, OfferingPage, ProviderReputation, Removed},
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

/// What the market shows of a unit that has free capacity.
#[derive(Debug, Serialize, ToSchema)]
pub struct OfferingView {
    /// 1 for the best of all that match.
    pub rank: u32,
    /// The unit.
    pub unit: String,
    /// Its owner.
    pub provider: String,
    /// Its name.
    pub name: String,
    /// Where it is settled.
    pub domain: String,
    /// Its kind.
    pub kind: String,
    /// Its compatibility profile.
    pub profile: String,
    /// Its region.
    pub region: String,
    /// Its country.
    pub country: String,
    /// All of it, in bytes.
    pub capacity_bytes: u64,
    /// What is free of it, in bytes.
    pub free_bytes: u64,
    /// Optional abilities.
    pub features: FeaturesView,
    /// Free words.
    pub tags: BTreeMap<String, String>,
    /// The present price.
    pub price: PriceView,
    /// The promise.
    pub sla: SlaView,
    /// The score and what it is made of.
    pub score: ScoreView,
}

/// A score, with its components, each from 0 to 1,000,000 ppm.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScoreView {
    /// The weighted mean of the four.
    pub score_ppm: u32,
    /// Reputation over 100.
    pub reputation_ppm: u32,
    /// Lower bound of the share of probes that succeeded within the promised latency.
    pub performance_ppm: u32,
    /// Median price over (median price + price).
    pub cost_ppm: u32,
    /// Free over capacity.
    pub headroom_ppm: u32,
    /// The same in words.
    pub explanation: String,
}

impl ScoreView {
    fn new(score: Breakdown, explanation: String) -> Self {
        Self {
            score_ppm: score.score.get(),
            reputation_ppm: score.reputation.get(),
            performance_ppm: score.performance.get(),
            cost_ppm: score.cost.get(),
            headroom_ppm: score.headroom.get(),
            explanation,
        }
    }
}

impl From<Offering> for OfferingView {
    fn from(offering: Offering) -> Self {
        Self {
            rank: offering.rank,
            unit: offering.unit.to_string(),
            provider: offering.provider.to_string(),
            name: offering.name,
            domain: offering.domain.0,
            kind: offering.kind,
            profile: offering.profile,
            region: offering.region,
            country: offering.country,
            capacity_bytes: offering.capacity.get(),
            free_bytes: offering.free.get(),
            features: offering.features.into(),
            tags: offering.tags,
            price: offering.price.into(),
            sla: offering.sla.into(),
            score: ScoreView::new(offering.score, offering.explanation),
        }
    }
}

/// What a filter did.
#[derive(Debug, Serialize, ToSchema)]
pub struct RemovedView {
    /// The filter.
    pub filter: String,
    /// How many of all offerings fail it.
    pub removed: u64,
    /// How many more would match without it.
    pub would_add: u64,
}

/// A page of offerings.
#[derive(Debug, Serialize, ToSchema)]
pub struct OfferingsView {
    /// In the wanted order.
    pub items: Vec<OfferingView>,
    /// Hand it back as `cursor` to go on; `null` at the end.
    pub next: Option<String>,
    /// How many match in all.
    pub matching: u64,
    /// How many are on offer in all.
    pub considered: u64,
    /// What each filter that was given did.
    pub removed: Vec<RemovedView>,
    /// The one filter whose loosening would add most.
    pub loosest: Option<String>,
    /// When the projection behind it was made.
    pub as_of: Time,
}

impl From<&OfferingPage> for OfferingsView {
    fn from(page: &OfferingPage) -> Self {
        let removed = |r: &Removed| RemovedView {
            filter: r.filter.clone(),
            removed: r.removed,
            would_add: r.would_add,
        };
        Self {
            items: page.offerings.iter().cloned().map(OfferingView::from).collect(),
            next: page.next.clone(),
            matching: page.matching,
            considered: page.considered,
            removed: page.removed.iter().map(removed).collect(),
            loosest: page.loosest.clone(),
            as_of: page.as_of.into(),
        }
    }
}

/// A unit's standing: its reputation, day by day, and the score that offerings are ranked by.
#[derive(Debug, Serialize, ToSchema)]
pub struct StandingView {
    /// The unit.
    pub unit: String,
    /// Its owner.
    pub provider: String,
    /// Reputation in thousandths of a point, 0 to 100,000.
    pub reputation_millipoints: u32,
    /// The latest changes, newest last.
    pub history: Vec<ReputationChangeView>,
    /// The ranking score; `null` while the unit is not on offer.
    pub score: Option<ScoreView>,
    /// When the reputation last changed.
    pub updated_at: Time,
}

/// A provider's standing: the mean over its units.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderStandingView {
    /// The provider.
    pub provider: String,
    /// Reputation in thousandths of a point, 0 to 100,000.
    pub reputation_millipoints: u32,
    /// Of how many units.
    pub units: u64,
}

impl From<ProviderReputation> for ProviderStandingView {
    fn from(reputation: ProviderReputation) -> Self {
        Self {
            provider: reputation.provider.to_string(),
            reputation_millipoints: reputation.millipoints,
            units: reputation.units,
        }
    }
}

/// One day's change of a reputation.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReputationChangeView {
    /// First instant of the day.
    pub day: Time,
    /// What was added, in thousandths of a point.
    pub delta_millipoints: i32,
    /// Why.
    pub reason: String,
}

impl StandingView {
    /// A reputation, with the offering if there is one.
    #[must_use]
    pub fn new(reputation: Reputation, offering: Option<Offering>) -> Self {
        let day = |change: ReputationChange| ReputationChangeView {
            day: Time(Timestamp(change.day.saturating_mul(86_400_000_000))),
            delta_millipoints: change.delta,
            reason: change.reason,
        };
        Self {
            unit: reputation.unit.to_string(),
            provider: reputation.provider.to_string(),
            reputation_millipoints: reputation.millipoints,
            history: reputation.history.into_iter().map(day).collect(),
            score: offering.map(|o| ScoreView::new(o.score, o.explanation)),
            updated_at: reputation.updated_at.into(),
        }
    }
}

/// A change of a unit's price by an advisor.
#[derive(Debug, Serialize, ToSchema)]
pub struct PriceChangeView {
    /// Its id.
    pub id: String,
    /// Price per GiB-month before.
    pub before: Money,
    /// Price per GiB-month after.
    pub after: Money,
    /// Which advisor.
    pub advisor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Time,
}

impl From<PriceChange> for PriceChangeView {
    fn from(change: PriceChange) -> Self {
        Self {
            id: change.id.to_string(),
            before: change.before.into(),
            after: change.after.into(),
            advisor: change.advisor,
            reason: change.reason,
            at: change.at.into(),
        }
    }
}
