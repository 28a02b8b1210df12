//! Closing: the release job takes over from here.

use super::{AllocationService, Counters, record};
use crate::{
    core::{
        client::database::{Changeset, Stored},
        job::{JobKind, NewJob},
        market::{
            allocation::{Allocation, AllocationEvent, AllocationState},
            ids::AllocationId,
        },
    },
    error::Result,
    service::work::{Answer, Call, Draft},
};

impl AllocationService {
    /// Begins closing: keys become read-only, usage is read, money is settled and the rest refunded, and after a grace the
    /// data goes.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `InvalidState`.
    pub async fn close(&self, call: &Call, id: AllocationId) -> Result<Answer<Allocation>> {
        let compute = || async {
            let stored = self.own(call, id).await?;
            self.draft_closing(call, stored)
        };
        self.work.run(call, "allocation.close", compute).await
    }

    /// Begins closing an allocation whose period is over; one that was renewed or closed meanwhile is left alone. Answers
    /// whether it changed.
    pub(super) async fn end(&self, id: AllocationId) -> Result<bool> {
        let call = Call::system(format!("end_periods/{id}"));
        let compute = || async {
            let stored = self.own(&call, id).await?;
            let over = stored.value.ends_at.is_some_and(|ends_at| ends_at <= self.work.now());
            if !over || !stored.value.state.is_in_use() {
                return Ok(Draft::new(Changeset::new(), false));
            }
            let Draft { changes, .. } = self.draft_closing(&call, stored)?;
            Ok(Draft::new(changes, true))
        };
        Ok(self.work.run(&call, "allocation.end", compute).await?.value)
    }

    /// Expires a reservation that was not funded in time. Answers whether it changed.
    pub(super) async fn expire(&self, id: AllocationId) -> Result<bool> {
        let call = Call::system(format!("expire_reservations/{id}"));
        let compute = || async {
            let Stored { version, value: mut allocation } = self.own(&call, id).await?;
            let now = self.work.now();
            if allocation.state != AllocationState::Reserved || allocation.reserved_until > now {
                return Ok(Draft::new(Changeset::new(), false));
            }
            allocation.apply(AllocationEvent::Expire, now)?;
            let mut changes = Changeset::new();
            record(&mut changes, &self.work.ids, version, &allocation, Counters::Freed, "allocation.expired");
            Ok(Draft::new(changes, true))
        };
        Ok(self.work.run(&call, "allocation.expire", compute).await?.value)
    }

    fn draft_closing(&self, call: &Call, stored: Stored<Allocation>) -> Result<Draft<Allocation>> {
        let Stored { version, value: mut allocation } = stored;
        let now = self.work.now();
        allocation.apply(AllocationEvent::Close, now)?;
        allocation.closing_at = Some(now);
        let mut changes = Changeset::new();
        let mut job = NewJob::now(JobKind::Release, allocation.id, allocation.id, now);
        job.trace_id.clone_from(&call.trace_id);
        job.enqueue(&mut changes, &self.work.ids);
        record(
            &mut changes,
            &self.work.ids,
            version,
            &allocation,
            Counters::Deactivated,
            "allocation.closing",
        );
        Ok(Draft::new(changes, allocation))
    }
}
