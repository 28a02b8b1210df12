//! Writing a changed allocation: the document, the marker for the next block, the unit's counters and the event go
//! together, whoever changes it.

use serde_json::json;

use crate::{
    core::{
        client::{
            database::{Changeset, Filter, ReaderExt, Sort, Stored},
            schema,
        },
        market::{
            allocation::Allocation,
            event::Audience,
            ids::{AllocationId, IdGenerator},
            party::Principal,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        allocation::{AllocationQuery, AllocationService},
        ledger::{UnsealedKind, UnsealedMarker},
        outbox,
        page::{self, Listing, PageRequest},
        work::{Call, Work},
    },
};

/// How a change moves the unit's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counters {
    /// Not at all.
    Unchanged,
    /// It came into use.
    Activated,
    /// It is not in use any more, and still holds its capacity.
    Deactivated,
    /// It gave its capacity back.
    Freed,
}

/// Adds a changed allocation, read at `version`, to a changeset: document, marker, counters, and the event `kind`.
pub fn record(
    changes: &mut Changeset,
    ids: &IdGenerator,
    version: u64,
    allocation: &Allocation,
    counters: Counters,
    kind: &str,
) {
    // The guard comes first: of two changes at once the later one meets a version conflict, which is tried again, and not
    // the job or transfer that the earlier one made.
    let rest = std::mem::take(changes);
    changes.replace(version, allocation).insert(&marker(allocation, version + 1)).extend(rest);
    let unit = allocation.unit;
    match counters {
        Counters::Unchanged => {}
        Counters::Activated => {
            changes.add(schema::UNITS, unit, "active", 1, 0);
        }
        Counters::Deactivated => {
            changes.add(schema::UNITS, unit, "active", -1, 0);
        }
        Counters::Freed => {
            changes.add(schema::UNITS, unit, "free", allocation.bytes.signed(), 0);
            changes.add(schema::UNITS, unit, "live", -1, 0);
        }
    }
    announce(changes, ids, allocation, kind);
}

/// The marker that makes the next block commit to the allocation as of `version`.
#[must_use]
pub fn marker(allocation: &Allocation, version: u64) -> UnsealedMarker {
    UnsealedMarker {
        id: format!("{}@{version}", allocation.id),
        domain: allocation.domain.clone(),
        kind: UnsealedKind::Allocation,
    }
}

/// Tells the consumer and the provider.
pub(in crate::service) fn announce(
    changes: &mut Changeset,
    ids: &IdGenerator,
    allocation: &Allocation,
    kind: &str,
) {
    let audience = Audience::Tenants(vec![allocation.consumer.to_string(), allocation.provider.to_string()]);
    let data = json!({
        "state": allocation.state,
        "access": allocation.access,
        "restrictions": allocation.restrictions,
        "unit": allocation.unit,
    });
    outbox::event(changes, ids, kind, allocation.id, audience, data);
}

impl AllocationService {
    /// An allocation: a consumer's own, one on a provider's unit, any for operators.
    ///
    /// # Errors
    /// `NotFound`; database errors.
    pub async fn get(&self, call: &Call, id: AllocationId) -> Result<Allocation> {
        Ok(visible(&self.work, call, id).await?.value)
    }

    /// Allocations that the caller may see.
    ///
    /// # Errors
    /// `Forbidden` for oracles; database errors.
    pub async fn list(
        &self,
        call: &Call,
        query: AllocationQuery,
        page: PageRequest,
    ) -> Result<Listing<Allocation>> {
        let mut filter = match call.principal {
            Principal::Operator(_) | Principal::System => Filter::All,
            Principal::Consumer(id) => Filter::eq("consumer", id.to_string()),
            Principal::Provider(id) => Filter::eq("provider", id.to_string()),
            Principal::Oracle(_) => {
                return Err(Error::new(ErrorCode::Forbidden, "an oracle sees no allocations"));
            }
        };
        let wanted = [
            ("consumer", query.consumer.map(|id| id.to_string())),
            ("provider", query.provider.map(|id| id.to_string())),
            ("unit", query.unit.map(|id| id.to_string())),
            ("state", query.state.map(|state| state.as_str().to_owned())),
        ];
        for (field, value) in wanted {
            if let Some(value) = value {
                filter = filter.and(Filter::eq(field, value));
            }
        }
        page::list(self.work.reader.as_ref(), filter, Sort::Id, page).await
    }

    /// The allocation, for the consumer that owns it or an operator.
    pub(super) async fn own(&self, call: &Call, id: AllocationId) -> Result<Stored<Allocation>> {
        own(&self.work, call, id).await
    }
}

/// The allocation, for somebody who may see it.
pub(in crate::service) async fn visible(
    work: &Work,
    call: &Call,
    id: AllocationId,
) -> Result<Stored<Allocation>> {
    let stored = load(work, id).await?;
    if may_see(call, &stored.value) { Ok(stored) } else { Err(Error::not_found("allocation", id)) }
}

/// Whether the caller may know of the allocation: its consumer, its provider and operators may.
pub(in crate::service) fn may_see(call: &Call, allocation: &Allocation) -> bool {
    match call.principal {
        Principal::Operator(_) | Principal::System => true,
        Principal::Consumer(consumer) => allocation.consumer == consumer,
        Principal::Provider(provider) => allocation.provider == provider,
        Principal::Oracle(_) => false,
    }
}

/// The allocation, for the consumer that owns it or an operator.
pub(in crate::service) async fn own(
    work: &Work,
    call: &Call,
    id: AllocationId,
) -> Result<Stored<Allocation>> {
    let stored = visible(work, call, id).await?;
    if matches!(call.principal, Principal::Provider(_)) {
        return Err(Error::new(ErrorCode::Forbidden, "only the consumer may do this with its allocation"));
    }
    Ok(stored)
}

/// The allocation, whoever asks.
pub(in crate::service) async fn load(work: &Work, id: AllocationId) -> Result<Stored<Allocation>> {
    let stored = work.reader.load::<Allocation>(&id.to_string()).await?;
    stored.ok_or_else(|| Error::not_found("allocation", id))
}
