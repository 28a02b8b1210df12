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
    error::Result,
    service::{
        allocation::change,
        work::{Answer, Call, Draft},
    },
};

/// What is done with a reason: [`impose`] or [`lift`].
type Step = fn(&mut Changeset, &IdGenerator, &mut Allocation, u64, RestrictReason) -> Result<bool>;

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
        self.take_step(call, id, reason, impose, ("allocation.restrict", "allocation.restricted")).await
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
        self.take_step(call, id, reason, lift, ("allocation.unrestrict", "allocation.unrestricted")).await
    }

    /// One commit with the step, if it changes anything, under the names of its action and of its event.
    async fn take_step(
        &self,
        call: &Call,
        id: AllocationId,
        reason: RestrictReason,
        step: Step,
        (action, event): (&str, &str),
    ) -> Result<Answer<Allocation>> {
        call.operators_only("restrict an allocation or lift it")?;
        let compute = || async {
            let Stored { version, value: mut allocation } = change::load(&self.work, id).await?;
            let (ids, mut changes) = (&self.work.ids, Changeset::new());
            if step(&mut changes, ids, &mut allocation, version, reason)? {
                record(&mut changes, ids, version, &allocation, Counters::Unchanged, event);
            }
            Ok(Draft::new(changes, allocation))
        };
        self.work.run(call, action, compute).await
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
