//! Data units.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    common::{Time, word},
    terms::{BoundsView, PriceView, SlaView},
};
use crate::{
    core::market::{
        ids::ProviderId,
        quantity::Bytes,
        unit::{DataUnit, Features, MaintenanceWindow},
    },
    service::market::{NewUnit, TermsUpdate},
};

/// Optional abilities.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FeaturesView {
    /// Keeps old versions of objects.
    pub versioning: bool,
    /// Encrypts at rest.
    pub encryption_at_rest: bool,
    /// Can lock objects against deletion.
    pub object_lock: bool,
}

impl From<Features> for FeaturesView {
    fn from(features: Features) -> Self {
        let Features { versioning, encryption_at_rest, object_lock } = features;
        Self { versioning, encryption_at_rest, object_lock }
    }
}

impl From<FeaturesView> for Features {
    fn from(view: FeaturesView) -> Self {
        let FeaturesView { versioning, encryption_at_rest, object_lock } = view;
        Self { versioning, encryption_at_rest, object_lock }
    }
}

/// A maintenance window.
#[derive(Debug, Serialize, ToSchema)]
pub struct MaintenanceView {
    /// When it was announced.
    pub announced_at: Time,
    /// First instant.
    pub from: Time,
    /// First instant after it.
    pub to: Time,
}

impl From<MaintenanceWindow> for MaintenanceView {
    fn from(window: MaintenanceWindow) -> Self {
        Self { announced_at: window.announced_at.into(), from: window.from.into(), to: window.to.into() }
    }
}

/// A data unit.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnitView {
    /// Its id.
    pub id: String,
    /// Its owner.
    pub provider: String,
    /// A name for people.
    pub name: String,
    /// Where it is settled.
    pub domain: String,
    /// The kind of resource.
    pub kind: String,
    /// The compatibility profile.
    pub profile: String,
    /// Region.
    pub region: String,
    /// Country, ISO 3166-1 alpha-2.
    pub country: String,
    /// `available`, `reserved`, `in_use`, `maintenance`, `decommissioning` or `decommissioned`.
    #[schema(example = "available")]
    pub state: String,
    /// All of it, in bytes.
    pub capacity_bytes: u64,
    /// Not reserved, in bytes.
    pub free_bytes: u64,
    /// Allocations that hold capacity.
    pub allocations: u64,
    /// Optional abilities.
    pub features: FeaturesView,
    /// Free words.
    pub tags: BTreeMap<String, String>,
    /// Price for new reservations.
    pub price: PriceView,
    /// Bounds for the price advisor, if it may move the price.
    pub price_bounds: Option<BoundsView>,
    /// Promise for new reservations.
    pub sla: SlaView,
    /// Maintenance windows, oldest first.
    pub maintenance: Vec<MaintenanceView>,
    /// When it was registered.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

impl From<DataUnit> for UnitView {
    fn from(unit: DataUnit) -> Self {
        Self {
            state: word(&unit.state()),
            id: unit.id.to_string(),
            provider: unit.provider.to_string(),
            name: unit.name,
            domain: unit.domain.0,
            kind: unit.kind,
            profile: unit.profile,
            region: unit.region,
            country: unit.country,
            capacity_bytes: unit.capacity.get(),
            free_bytes: u64::try_from(unit.free).unwrap_or(0),
            allocations: u64::try_from(unit.live).unwrap_or(0),
            features: unit.features.into(),
            tags: unit.tags,
            price: unit.price.into(),
            price_bounds: unit.price_bounds.map(BoundsView::from),
            sla: unit.sla.into(),
            maintenance: unit.maintenance.into_iter().map(MaintenanceView::from).collect(),
            created_at: unit.created_at.into(),
            updated_at: unit.updated_at.into(),
        }
    }
}

/// A unit to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterUnit {
    /// Its owner: given by operators, left out by providers.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub provider: Option<ProviderId>,
    /// A name for people, 1 to 100 characters.
    pub name: String,
    /// The kind of resource; `storage` unless said otherwise.
    #[serde(default)]
    pub kind: Option<String>,
    /// The compatibility profile; `s3` unless said otherwise.
    #[serde(default)]
    pub profile: Option<String>,
    /// Region.
    #[schema(example = "eu-central-1")]
    pub region: String,
    /// Country, ISO 3166-1 alpha-2, upper case.
    #[schema(example = "DE")]
    pub country: String,
    /// Size in bytes.
    pub capacity_bytes: u64,
    /// Optional abilities.
    #[serde(default)]
    pub features: FeaturesView,
    /// Free words, at most 32.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Price.
    pub price: PriceView,
    /// Bounds for the price advisor; without them the price stays.
    #[serde(default)]
    pub price_bounds: Option<BoundsView>,
    /// Promise.
    #[serde(default)]
    pub sla: SlaView,
}

impl From<RegisterUnit> for NewUnit {
    fn from(view: RegisterUnit) -> Self {
        Self {
            provider: view.provider,
            name: view.name,
            kind: view.kind,
            profile: view.profile,
            region: view.region,
            country: view.country,
            capacity: Bytes(view.capacity_bytes),
            features: view.features.into(),
            tags: view.tags,
            price: view.price.into(),
            price_bounds: view.price_bounds.map(Into::into),
            sla: view.sla.into(),
        }
    }
}

/// A new price, for reservations from now on. Running allocations keep theirs.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPrice {
    /// The price; left out, it stays.
    #[serde(default)]
    pub price: Option<PriceView>,
    /// Bounds for the price advisor; left out, they stay.
    #[serde(default)]
    pub price_bounds: Option<BoundsView>,
    /// Takes the bounds away, so that the price stays as it is.
    #[serde(default)]
    pub fixed: bool,
}

impl From<SetPrice> for TermsUpdate {
    fn from(view: SetPrice) -> Self {
        let bounds = if view.fixed { Some(None) } else { view.price_bounds.map(|b| Some(b.into())) };
        Self { price: view.price.map(Into::into), price_bounds: bounds, ..Self::default() }
    }
}

/// Maintenance to announce.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnnounceMaintenance {
    /// First instant; announced 24 hours ahead it is left out of the SLA.
    pub from: Time,
    /// First instant after it.
    pub to: Time,
}

/// Maintenance that begins now.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginMaintenance {
    /// When it ends at the latest.
    pub until: Time,
}
