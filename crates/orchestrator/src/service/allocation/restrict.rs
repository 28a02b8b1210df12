//! Restricting to read-only and lifting it again. Several reasons may hold at once; access returns with the last one.

use super::{AllocationService, Counters, record};
use crate::{
    core::{
        client::database::{Changeset, Stored},
        job::{JobKind, NewJob},
        market::{
            allocation::{Allocation, AllocationEvent, AllocationState, RestrictReason},
            ids::{AllocationId, IdGenerator},
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        allocation::change,
        work::{Answer, Call, Draft},
    },
};

impl AllocationService {
    /// Adds a reason to restrict; for operators and the daemon itself. A reason that is known already changes nothing.
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`, `InvalidState`.
    pub async fn restrict(
        &self,
        call: &Call,
        id: AllocationId,
        reason: RestrictReason,
    ) -> Result<Answer<Allocation>> {
        operators_only(call)?;
        let compute = || async {
            let Stored { version, value: mut allocation } = change::load(&self.work, id).await?;
            let mut changes = Changeset::new();
            if impose(&mut changes, &self.work.ids, &mut allocation, version, reason)? {
                record(
                    &mut changes,
                    &self.work.ids,
                    version,
                    &allocation,
                    Counters::Unchanged,
                    "allocation.restricted",
                );
            }
            Ok(Draft::new(changes, allocation))
        };
        self.work.run(call, "allocation.restrict", compute).await
    }

    /// Takes a reason away; for operators and the daemon itself. A reason that is not there changes nothing.
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`, `InvalidState`.
    pub async fn unrestrict(
        &self,
        call: &Call,
        id: AllocationId,
        reason: RestrictReason,
    ) -> Result<Answer<Allocation>> {
        operators_only(call)?;
        let compute = || async {
            let Stored { version, value: mut allocation } = change::load(&self.work, id).await?;
            let mut changes = Changeset::new();
            if lift(&mut changes, &self.work.ids, &mut allocation, version, reason)? {
                record(
                    &mut changes,
                    &self.work.ids,
                    version,
                    &allocation,
                    Counters::Unchanged,
                    "allocation.unrestricted",
                );
            }
            Ok(Draft::new(changes, allocation))
        };
        self.work.run(call, "allocation.unrestrict", compute).await
    }
}

/// Adds a reason to an allocation that was read at `version`, with the job that tells the provider when the access changes.
/// Answers whether anything changed; the caller records the allocation.
///
/// # Errors
/// `InvalidState` unless it is active or restricted.
pub fn impose(
    changes: &mut Changeset,
    ids: &IdGenerator,
    allocation: &mut Allocation,
    version: u64,
    reason: RestrictReason,
) -> Result<bool> {
    if allocation.state != AllocationState::Restricted {
        allocation.apply(AllocationEvent::Restrict, ids.now())?;
        sync(changes, ids, allocation, version);
    }
    allocation.updated_at = ids.now();
    Ok(allocation.restrictions.insert(reason))
}

/// Takes a reason away, as [`impose`] adds one.
///
/// # Errors
/// None in a consistent database.
pub fn lift(
    changes: &mut Changeset,
    ids: &IdGenerator,
    allocation: &mut Allocation,
    version: u64,
    reason: RestrictReason,
) -> Result<bool> {
    if !allocation.restrictions.remove(&reason) {
        return Ok(false);
    }
    allocation.updated_at = ids.now();
    if allocation.restrictions.is_empty() && allocation.state == AllocationState::Restricted {
        allocation.apply(AllocationEvent::Unrestrict, ids.now())?;
        sync(changes, ids, allocation, version);
    }
    Ok(true)
}

fn sync(changes: &mut Changeset, ids: &IdGenerator, allocation: &Allocation, version: u64) {
    let id = allocation.id;
    NewJob::now(JobKind::SyncAccess, id, format!("{id}@{version}"), ids.now()).enqueue(changes, ids);
}

fn operators_only(call: &Call) -> Result<()> {
    if call.principal.is_operator() {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Forbidden, "only operators may restrict an allocation or lift it"))
}
