//! The data unit: what a provider registers and allocations are cut from, and its lifecycle.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    ids::{ProviderId, UnitId},
    quantity::{Bytes, Timestamp},
    terms::{DomainId, PriceBounds, PriceTerms, SlaTerms},
};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// Optional abilities of a unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// Keeps old versions of objects.
    #[serde(default)]
    pub versioning: bool,
    /// Encrypts at rest.
    #[serde(default)]
    pub encryption_at_rest: bool,
    /// Can lock objects against deletion.
    #[serde(default)]
    pub object_lock: bool,
}

/// What the provider or the operator decided about the unit; the shown [`UnitState`] is derived from it and from the
/// allocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitMode {
    /// In service.
    Open,
    /// Under announced maintenance: no new allocations.
    Maintenance,
    /// Being taken out: no new allocations, live ones move away.
    Decommissioning,
    /// Gone; terminal.
    Decommissioned,
}

/// The lifecycle state that the market shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitState {
    /// Open, without allocations.
    Available,
    /// Open, with allocations, none of which is in use yet.
    Reserved,
    /// Open, and at least one allocation is active.
    InUse,
    /// Under maintenance.
    Maintenance,
    /// Being taken out.
    Decommissioning,
    /// Gone.
    Decommissioned,
}

/// An announced maintenance window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceWindow {
    /// When it was announced.
    pub announced_at: Timestamp,
    /// First instant of the window.
    pub from: Timestamp,
    /// First instant after the window.
    pub to: Timestamp,
}

/// A data unit. `free`, `live` and `active` are counters that only guarded `add`s touch outside of registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataUnit {
    /// Its id.
    pub id: UnitId,
    /// Its owner.
    pub provider: ProviderId,
    /// A name for people.
    pub name: String,
    /// Where it is settled.
    pub domain: DomainId,
    /// The kind of resource, `storage` first; an open set.
    pub kind: String,
    /// The compatibility profile: `s3`.
    pub profile: String,
    /// Region name, as the provider's endpoint uses it.
    pub region: String,
    /// ISO 3166-1 alpha-2 country code.
    pub country: String,
    /// All of it.
    pub capacity: Bytes,
    /// Bytes not reserved; never below zero.
    pub free: i64,
    /// Allocations that hold capacity.
    pub live: i64,
    /// Allocations whose state is active or restricted.
    pub active: i64,
    /// Optional abilities.
    pub features: Features,
    /// Free words for filters.
    pub tags: BTreeMap<String, String>,
    /// Current price; allocations keep the one of their reservation.
    pub price: PriceTerms,
    /// Bounds for the price advisor; `None` keeps the price fixed.
    pub price_bounds: Option<PriceBounds>,
    /// The promise.
    pub sla: SlaTerms,
    /// What was decided about it.
    pub mode: UnitMode,
    /// Announced windows, oldest first.
    pub maintenance: Vec<MaintenanceWindow>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it last changed, counters apart.
    pub updated_at: Timestamp,
}

impl DataUnit {
    /// The lifecycle state, derived from the mode and the allocations.
    #[must_use]
    pub const fn state(&self) -> UnitState {
        match self.mode {
            UnitMode::Maintenance => UnitState::Maintenance,
            UnitMode::Decommissioning => UnitState::Decommissioning,
            UnitMode::Decommissioned => UnitState::Decommissioned,
            UnitMode::Open if self.active > 0 => UnitState::InUse,
            UnitMode::Open if self.live > 0 => UnitState::Reserved,
            UnitMode::Open => UnitState::Available,
        }
    }
}

impl Entity for DataUnit {
    const COLLECTION: Collection = schema::UNITS;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}
