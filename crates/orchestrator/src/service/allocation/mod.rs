//! Allocations: reserve, fund, renew, close and what else happens to a consumer's part of a unit.

mod input;
mod port;

pub use input::{AllocationQuery, RenewRequest, ReserveRequest, Target};
pub use port::{FinalSettlement, OfferingPicker};

use std::sync::Arc;

use super::{
    market::{Listing, PageRequest},
    work::{Answer, Call, Work},
};
use crate::{
    core::market::{
        allocation::{Allocation, RestrictReason},
        ids::AllocationId,
        quantity::Micros,
    },
    error::{Error, ErrorCode, Result},
};

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

#[expect(
    missing_docs,
    clippy::missing_errors_doc,
    clippy::unused_async,
    unused_variables,
    reason = "signatures first"
)]
impl AllocationService {
    pub async fn reserve(&self, call: &Call, request: ReserveRequest) -> Result<Answer<Allocation>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn get(&self, call: &Call, id: AllocationId) -> Result<Allocation> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn list(
        &self,
        call: &Call,
        query: AllocationQuery,
        page: PageRequest,
    ) -> Result<Listing<Allocation>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn fund(&self, call: &Call, id: AllocationId) -> Result<Answer<Allocation>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn cancel(&self, call: &Call, id: AllocationId) -> Result<Answer<Allocation>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn close(&self, call: &Call, id: AllocationId) -> Result<Answer<Allocation>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn renew(
        &self,
        call: &Call,
        id: AllocationId,
        request: RenewRequest,
    ) -> Result<Answer<Allocation>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn restrict(
        &self,
        call: &Call,
        id: AllocationId,
        reason: RestrictReason,
    ) -> Result<Answer<Allocation>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn unrestrict(
        &self,
        call: &Call,
        id: AllocationId,
        reason: RestrictReason,
    ) -> Result<Answer<Allocation>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
}
