//! The data unit: what a provider registers and allocations are cut from, and its lifecycle.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    ids::{ProviderId, UnitId},
    quantity::{Bytes, Micros, Timestamp},
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
    const NAME: &'static str = "data_unit";
    const COLLECTION: Collection = schema::UNITS;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}

/// What happens to a unit's mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnitEvent {
    /// A maintenance window begins.
    BeginMaintenance,
    /// The maintenance window is over.
    EndMaintenance,
    /// It is to be taken out.
    Decommission,
    /// The last allocation is gone.
    Emptied,
}

/// A move that the lifecycle of units does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnitTransition {
    /// The mode does not take the event.
    #[error("a unit that is {from} can't take {event:?}")]
    NotAllowed {
        /// The mode.
        from: &'static str,
        /// The event.
        event: UnitEvent,
    },
    /// Allocations still hold capacity.
    #[error("a unit with {live} live allocations can't be decommissioned yet")]
    StillInUse {
        /// How many.
        live: i64,
    },
}

impl UnitMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Open, Self::Maintenance, Self::Decommissioning, Self::Decommissioned];

    /// The name that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Maintenance => "maintenance",
            Self::Decommissioning => "decommissioning",
            Self::Decommissioned => "decommissioned",
        }
    }
}

impl UnitEvent {
    /// Every event.
    pub const ALL: [Self; 4] =
        [Self::BeginMaintenance, Self::EndMaintenance, Self::Decommission, Self::Emptied];
}

/// The lifecycle of a unit's mode; `live` is the number of allocations that hold capacity. Coming back from maintenance
/// needs no memory, because the shown state is derived from the allocations.
///
/// # Errors
/// [`InvalidUnitTransition`] for every pair that is not listed, and while allocations keep the unit from going.
pub const fn transition(
    from: UnitMode,
    event: UnitEvent,
    live: i64,
) -> Result<UnitMode, InvalidUnitTransition> {
    use UnitEvent as E;
    use UnitMode as M;
    Ok(match (from, event) {
        (M::Open, E::BeginMaintenance) => M::Maintenance,
        (M::Maintenance, E::EndMaintenance) => M::Open,
        (M::Open | M::Maintenance, E::Decommission) => M::Decommissioning,
        (M::Decommissioning, E::Emptied) if live > 0 => {
            return Err(InvalidUnitTransition::StillInUse { live });
        }
        (M::Decommissioning, E::Emptied) => M::Decommissioned,
        _ => return Err(InvalidUnitTransition::NotAllowed { from: from.as_str(), event }),
    })
}

impl MaintenanceWindow {
    /// How long before its begin a window must be announced to be left out of the SLA.
    pub const NOTICE: Micros = Micros::from_secs(24 * 3_600);

    /// Whether it was announced early enough to be left out of the SLA; the cap per month is the verdict's business.
    #[must_use]
    pub fn is_excluded(&self) -> bool {
        self.announced_at.plus(Self::NOTICE) <= self.from
    }

    /// Whether it covers the instant.
    #[must_use]
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_and_event() {
        use UnitEvent as E;
        use UnitMode as M;
        let allowed = [
            (M::Open, E::BeginMaintenance, M::Maintenance),
            (M::Maintenance, E::EndMaintenance, M::Open),
            (M::Open, E::Decommission, M::Decommissioning),
            (M::Maintenance, E::Decommission, M::Decommissioning),
            (M::Decommissioning, E::Emptied, M::Decommissioned),
        ];
        for from in M::ALL {
            for event in E::ALL {
                let expected = allowed.iter().find(|a| a.0 == from && a.1 == event).map(|a| a.2);
                assert_eq!(transition(from, event, 0).ok(), expected, "{from:?} {event:?}");
            }
        }
        assert_eq!(
            transition(M::Decommissioning, E::Emptied, 2),
            Err(InvalidUnitTransition::StillInUse { live: 2 })
        );
    }

    #[test]
    fn notice_of_exactly_a_day_counts() {
        let from = Timestamp::EPOCH.plus(MaintenanceWindow::NOTICE);
        let window =
            MaintenanceWindow { announced_at: Timestamp::EPOCH, from, to: from.plus(Micros::from_secs(1)) };
        assert!(window.is_excluded());
        assert!(!MaintenanceWindow { announced_at: Timestamp(1), ..window }.is_excluded());
        assert!(window.contains(from));
        assert!(!window.contains(window.to));
    }
}
