//! The allocation: a consumer's part of a unit, with frozen terms, an escrow and a lifecycle.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    ids::{AllocationId, ConsumerId, ProviderId, UnitId},
    money::Amount,
    quantity::{Bytes, Micros, Timestamp},
    terms::{DomainId, PriceTerms, SlaTerms},
};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// Where an allocation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AllocationState {
    /// Capacity is held; the escrow is awaited.
    Reserved,
    /// Escrow is in; the provision job is due.
    Funded,
    /// The provider is at work.
    Provisioning,
    /// Usable.
    Active,
    /// Read-only.
    Restricted,
    /// Keys are read-only, usage is read, money is settled, the grace runs.
    Closing,
    /// Done; terminal.
    Closed,
    /// Given up by the consumer before it was provisioned; terminal.
    Cancelled,
    /// Not funded in time; terminal.
    Expired,
    /// Provisioning gave up; terminal, escrow refunded.
    Failed,
}

/// What the consumer's keys open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessState {
    /// Reading and writing.
    Active,
    /// Reading only.
    Restricted,
    /// Nothing.
    Expired,
}

/// Why an allocation is restricted; access returns when the last reason is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestrictReason {
    /// The escrow is used up.
    EscrowExhausted,
    /// More is stored, or was sent, than was bought.
    Quota,
    /// A violation by the consumer was upheld in a dispute.
    Violation,
}

/// How the consumer reaches its storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// Base address of the S3 endpoint.
    pub endpoint: String,
    /// Region to sign for.
    pub region: String,
    /// The allocation's bucket.
    pub bucket: String,
    /// The compatibility profile, `s3`.
    pub profile: String,
    /// Whether the bucket goes into the path, as opposed to the host name.
    pub path_style: bool,
}

/// A meter reading of the provider, cumulative since the allocation began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes stored at the reading.
    pub stored: Bytes,
    /// Integral of the stored bytes over time.
    #[serde(with = "super::json::decimal")]
    pub byte_seconds: u128,
    /// Bytes sent to the consumer.
    pub egress: Bytes,
    /// When it was read.
    pub read_at: Timestamp,
}

/// What a renewal changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Egress that the escrow covers.
    pub egress_allowance: Bytes,
    /// How long it runs from activation.
    pub period: Micros,
    /// When its period ends.
    pub ends_at: Option<Timestamp>,
}

/// An allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Its id; the provider knows it by the same.
    pub id: AllocationId,
    /// Who pays.
    pub consumer: ConsumerId,
    /// What it is cut from.
    pub unit: UnitId,
    /// Who earns.
    pub provider: ProviderId,
    /// Where it is settled.
    pub domain: DomainId,
    /// Size.
    pub bytes: Bytes,
    /// Egress that the escrow covers.
    pub egress_allowance: Bytes,
    /// How long it runs from activation.
    pub period: Micros,
    /// Frozen price.
    pub price: PriceTerms,
    /// Frozen promise.
    pub sla: SlaTerms,
    /// What funding draws: the price ceiling of the whole period.
    pub escrow_required: Amount,
    /// Where it stands.
    pub state: AllocationState,
    /// What the keys open.
    pub access: AccessState,
    /// Why it is restricted.
    pub restrictions: BTreeSet<RestrictReason>,
    /// How to reach it, once provisioned.
    pub routing: Option<Routing>,
    /// Funding is awaited until then.
    pub reserved_until: Timestamp,
    /// When it became active.
    pub activated_at: Option<Timestamp>,
    /// When its period ends.
    pub ends_at: Option<Timestamp>,
    /// When closing began.
    pub closing_at: Option<Timestamp>,
    /// When the grace after closing ends and the data goes.
    pub purge_at: Option<Timestamp>,
    /// Billing periods judged and paid so far.
    pub periods_settled: u32,
    /// Time up to which usage has been paid.
    pub settled_through: Option<Timestamp>,
    /// The reading that was last paid.
    pub settled_usage: Usage,
    /// The latest reading.
    pub usage: Usage,
    /// Paid from escrow so far, fee included.
    pub paid: Amount,
    /// Credited back so far.
    pub credited: Amount,
    /// Breached billing periods in a row, up to the last one that was judged.
    #[serde(default)]
    pub breached_in_a_row: u32,
    /// What renewals replaced, oldest first: with them every text that the market tree was ever given for this allocation can
    /// be written again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Span>,
    /// Why it failed, for people.
    pub failure: Option<String>,
    /// When it was reserved.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Entity for Allocation {
    const NAME: &'static str = "allocation";
    const COLLECTION: Collection = schema::ALLOCATIONS;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}

/// What happens to an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AllocationEvent {
    /// The escrow came in.
    Fund,
    /// The consumer gave it up before it was provisioned.
    Cancel,
    /// It was not funded in time.
    Expire,
    /// The provider was asked and is at work.
    StartProvisioning,
    /// The provider is done.
    Activate,
    /// Provisioning gave up.
    Fail,
    /// The first reason to restrict it came up.
    Restrict,
    /// The last reason to restrict it is gone.
    Unrestrict,
    /// The consumer closed it, or its period ended.
    Close,
    /// The grace is over, keys and data are gone.
    Purged,
}

/// A move that the lifecycle of allocations does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an allocation that is {} can't take {event:?}", .from.as_str())]
pub struct InvalidAllocationTransition {
    /// The state.
    pub from: AllocationState,
    /// The event.
    pub event: AllocationEvent,
}

impl AllocationEvent {
    /// Every event.
    pub const ALL: [Self; 10] = [
        Self::Fund,
        Self::Cancel,
        Self::Expire,
        Self::StartProvisioning,
        Self::Activate,
        Self::Fail,
        Self::Restrict,
        Self::Unrestrict,
        Self::Close,
        Self::Purged,
    ];
}

impl AllocationState {
    /// Every state.
    pub const ALL: [Self; 10] = [
        Self::Reserved,
        Self::Funded,
        Self::Provisioning,
        Self::Active,
        Self::Restricted,
        Self::Closing,
        Self::Closed,
        Self::Cancelled,
        Self::Expired,
        Self::Failed,
    ];

    /// The name that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Funded => "funded",
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Restricted => "restricted",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing can happen any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Closed | Self::Cancelled | Self::Expired | Self::Failed)
    }

    /// Whether it is in use: active, or read-only for a while.
    #[must_use]
    pub const fn is_in_use(self) -> bool {
        matches!(self, Self::Active | Self::Restricted)
    }

    /// What the keys open in this state. There are no keys before it is active, hence nothing; while it closes, the
    /// consumer may still fetch its data.
    #[must_use]
    pub const fn access(self) -> AccessState {
        match self {
            Self::Active => AccessState::Active,
            Self::Restricted | Self::Closing => AccessState::Restricted,
            Self::Reserved
            | Self::Funded
            | Self::Provisioning
            | Self::Closed
            | Self::Cancelled
            | Self::Expired
            | Self::Failed => AccessState::Expired,
        }
    }
}

/// The lifecycle of allocations.
///
/// # Errors
/// [`InvalidAllocationTransition`] for every pair that is not listed.
pub const fn transition(
    from: AllocationState,
    event: AllocationEvent,
) -> Result<AllocationState, InvalidAllocationTransition> {
    use AllocationEvent as E;
    use AllocationState as S;
    Ok(match (from, event) {
        (S::Reserved, E::Fund) => S::Funded,
        (S::Reserved | S::Funded, E::Cancel) => S::Cancelled,
        (S::Reserved, E::Expire) => S::Expired,
        (S::Funded, E::StartProvisioning) => S::Provisioning,
        (S::Provisioning, E::Activate) | (S::Restricted, E::Unrestrict) => S::Active,
        (S::Funded | S::Provisioning, E::Fail) => S::Failed,
        (S::Active, E::Restrict) => S::Restricted,
        (S::Active | S::Restricted, E::Close) => S::Closing,
        (S::Closing, E::Purged) => S::Closed,
        _ => return Err(InvalidAllocationTransition { from, event }),
    })
}

impl Allocation {
    /// Takes the event: state and access change together.
    ///
    /// # Errors
    /// [`InvalidAllocationTransition`].
    pub fn apply(
        &mut self,
        event: AllocationEvent,
        now: Timestamp,
    ) -> Result<(), InvalidAllocationTransition> {
        self.state = transition(self.state, event)?;
        self.access = self.state.access();
        self.updated_at = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{AllocationEvent as E, AllocationState as S, *};

    const ALLOWED: [(S, E, S); 13] = [
        (S::Reserved, E::Fund, S::Funded),
        (S::Reserved, E::Cancel, S::Cancelled),
        (S::Reserved, E::Expire, S::Expired),
        (S::Funded, E::Cancel, S::Cancelled),
        (S::Funded, E::StartProvisioning, S::Provisioning),
        (S::Funded, E::Fail, S::Failed),
        (S::Provisioning, E::Activate, S::Active),
        (S::Provisioning, E::Fail, S::Failed),
        (S::Active, E::Restrict, S::Restricted),
        (S::Active, E::Close, S::Closing),
        (S::Restricted, E::Unrestrict, S::Active),
        (S::Restricted, E::Close, S::Closing),
        (S::Closing, E::Purged, S::Closed),
    ];

    #[test]
    fn every_state_and_event() {
        for from in S::ALL {
            for event in E::ALL {
                let expected = ALLOWED.iter().find(|a| a.0 == from && a.1 == event).map(|a| a.2);
                assert_eq!(transition(from, event).ok(), expected, "{from:?} {event:?}");
            }
        }
    }

    #[test]
    fn terminal_states_take_nothing_and_open_nothing_and_the_others_can_end() {
        for state in S::ALL {
            let moves = E::ALL.iter().filter(|event| transition(state, **event).is_ok()).count();
            assert_eq!(moves == 0, state.is_terminal(), "{state:?}");
            assert!(!state.is_terminal() || state.access() == AccessState::Expired, "{state:?}");
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn random_events_keep_to_the_graph(events in prop::collection::vec(0..E::ALL.len(), 0..60)) {
            let mut state = S::Reserved;
            let mut seen = BTreeSet::from([state]);
            for index in events {
                let before = state;
                match transition(state, E::ALL[index]) {
                    Ok(next) => state = next,
                    Err(error) => prop_assert_eq!(error.from, before),
                }
                prop_assert!(!before.is_terminal() || state == before);
                seen.insert(state);
            }
            // No money without funding, no use without provisioning, no end of use without closing.
            if seen.contains(&S::Active) {
                prop_assert!(seen.contains(&S::Funded) && seen.contains(&S::Provisioning));
                prop_assert!(!seen.contains(&S::Cancelled) && !seen.contains(&S::Failed) && !seen.contains(&S::Expired));
            }
            if seen.contains(&S::Closed) {
                prop_assert!(seen.contains(&S::Closing) && seen.contains(&S::Active));
            }
        }
    }
}
