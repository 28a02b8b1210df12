//! What the allocation service is asked.

use serde::{Deserialize, Serialize};

use crate::core::market::{
    allocation::AllocationState,
    ids::{ConsumerId, ProviderId, UnitId},
    offering::OfferingFilter,
    quantity::{Bytes, Micros},
};

/// Where to reserve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// On this unit.
    Unit(UnitId),
    /// On the best offering that this filter leaves.
    Best(OfferingFilter),
}

/// A reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReserveRequest {
    /// Who pays: given by operators, left out by consumers.
    pub consumer: Option<ConsumerId>,
    /// Where.
    pub target: Target,
    /// Size.
    pub bytes: Bytes,
    /// How long it runs from activation.
    pub period: Micros,
    /// Egress that the escrow covers.
    pub egress_allowance: Bytes,
}

/// A renewal, paid at the frozen price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// How much longer it runs.
    pub period: Micros,
    /// How much more egress the escrow covers.
    pub egress_allowance: Bytes,
}

/// Which allocations to list. A consumer sees its own, a provider those on its units, an operator all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AllocationQuery {
    /// Only this consumer's.
    pub consumer: Option<ConsumerId>,
    /// Only on this provider's units.
    pub provider: Option<ProviderId>,
    /// Only on this unit.
    pub unit: Option<UnitId>,
    /// Only in this state.
    pub state: Option<AllocationState>,
}
