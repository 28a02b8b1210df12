//! Triggers that move allocations on when their time has come.

use std::future::Future;

use async_trait::async_trait;

use super::{AllocationService, reserve::EXPIRE_RESERVATIONS};
use crate::{
    core::{
        client::{
            database::{Filter, Query, Sort},
            schema,
        },
        market::{allocation::AllocationState, ids::AllocationId},
    },
    error::{Result, chain},
    service::{
        job::{Trigger, TriggerReport},
        work::Work,
    },
};

/// Allocations dealt with per run and state.
const BATCH: usize = 1_000;

/// Expires reservations that were not funded in time, and frees their capacity.
pub struct ExpireReservations {
    allocations: AllocationService,
}

impl ExpireReservations {
    /// The trigger over the allocation service.
    #[must_use]
    pub const fn new(allocations: AllocationService) -> Self {
        Self { allocations }
    }
}

#[async_trait]
impl Trigger for ExpireReservations {
    fn name(&self) -> &'static str {
        EXPIRE_RESERVATIONS
    }

    async fn fire(&self) -> Result<TriggerReport> {
        let work = &self.allocations.work;
        let states = [AllocationState::Reserved];
        sweep(work, "reserved_until", &states, |id| self.allocations.expire(id)).await
    }
}

/// Begins to close allocations whose period is over.
pub struct EndPeriods {
    allocations: AllocationService,
}

impl EndPeriods {
    /// The trigger over the allocation service.
    #[must_use]
    pub const fn new(allocations: AllocationService) -> Self {
        Self { allocations }
    }
}

#[async_trait]
impl Trigger for EndPeriods {
    fn name(&self) -> &'static str {
        "end_periods"
    }

    async fn fire(&self) -> Result<TriggerReport> {
        let work = &self.allocations.work;
        let states = [AllocationState::Active, AllocationState::Restricted];
        sweep(work, "ends_at", &states, |id| self.allocations.end(id)).await
    }
}

/// Calls `act` on every allocation in one of the states whose `field` has come. One that fails does not stop the rest.
async fn sweep<F, Fut>(work: &Work, field: &str, states: &[AllocationState], act: F) -> Result<TriggerReport>
where
    F: Fn(AllocationId) -> Fut + Send + Sync,
    Fut: Future<Output = Result<bool>> + Send,
{
    let mut report = TriggerReport::default();
    for state in states {
        let filter =
            Filter::eq("state", state.as_str()).and(Filter::Le(field.into(), work.now().as_micros().into()));
        let query =
            Query::new(schema::ALLOCATIONS).filter(filter).sort(Sort::Field(field.into())).limit(BATCH);
        for document in work.reader.find(query).await?.documents {
            report.examined += 1;
            let Ok(id) = document.id.parse() else {
                report.failed += 1;
                continue;
            };
            match act(id).await {
                Ok(changed) => report.changed += u64::from(changed),
                Err(error) => {
                    report.failed += 1;
                    tracing::warn!(allocation = %id, error = chain(&error), "allocation not moved on");
                }
            }
        }
    }
    Ok(report)
}
