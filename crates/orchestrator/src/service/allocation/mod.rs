//! Allocations: reserve, fund, renew, close and what else happens to a consumer's part of a unit.

pub(crate) mod blast;
pub(in crate::service) mod change;
mod close;
pub(in crate::service) mod fund;
mod input;
mod port;
pub(crate) mod reconcile;
mod reserve;
pub mod restored;
mod restrict;
mod trigger;

pub use blast::{BlastRadius, Teardowns};
pub use change::{Counters, marker, record};
pub use input::{AllocationQuery, RenewRequest, ReserveRequest, Target};
pub use port::{FinalSettlement, OfferingPicker};
pub use reconcile::{Reconcile, ReconcileSettings};
pub use reserve::{EXPIRE_RESERVATIONS, TRIGGER_QUEUE};
pub use restrict::{impose, lift};
pub use trigger::{EndPeriods, ExpireReservations};

use std::sync::Arc;

use super::work::Work;
use crate::core::market::quantity::Micros;

/// What the service is tuned by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllocationSettings {
    /// How long a reservation waits for its funding.
    pub reservation: Micros,
    /// Shortest period that may be bought.
    pub shortest_period: Micros,
    /// Longest period that may be bought, renewals included.
    pub longest_period: Micros,
}

impl Default for AllocationSettings {
    fn default() -> Self {
        Self {
            reservation: Micros::from_secs(15 * 60),
            shortest_period: Micros::from_secs(60),
            longest_period: Micros::from_days(5 * 366),
        }
    }
}

/// Leads allocations through their lifecycle.
#[derive(Clone)]
pub struct AllocationService {
    work: Work,
    offerings: Arc<dyn OfferingPicker>,
    settings: AllocationSettings,
}

impl AllocationService {
    /// A service over the unit of work and the offerings.
    #[must_use]
    pub fn new(work: Work, offerings: Arc<dyn OfferingPicker>, settings: AllocationSettings) -> Self {
        Self { work, offerings, settings }
    }
}
