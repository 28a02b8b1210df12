//! The dispute: a claim about money of an allocation, with its evidence, its outcome and a deadline, and its lifecycle.

use serde::{Deserialize, Serialize};

use super::{
    ids::{AllocationId, ConsumerId, DisputeId, ProviderId},
    money::Amount,
    quantity::{Micros, Ppm, Timestamp},
    terms::DomainId,
};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// How long the operator has to decide; after it the lower figure stands.
pub const DECISION_TIME: Micros = Micros::from_secs(72 * 3_600);

/// Reports that differ by more than this open a dispute by themselves, unless the settings say otherwise: 5 %.
pub const TOLERANCE: Ppm = Ppm(50_000);

/// What is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisputeKind {
    /// Provider and consumer, or oracle, report different usage: the difference is held.
    Metering,
    /// The consumer contests what it paid.
    Billing,
    /// The provider says that the consumer violated its terms: upheld, a capped part of the escrow is forfeit.
    Violation,
}

/// Where a dispute stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisputeState {
    /// The operator has to decide.
    Open,
    /// The held money went to the provider; terminal.
    ForProvider,
    /// The held money went to the consumer; terminal.
    ForConsumer,
    /// Nobody decided in time: the lower figure stands, the held money went to the consumer; terminal.
    Lapsed,
}

/// What happens to a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisputeEvent {
    /// The operator finds for the provider.
    DecideForProvider,
    /// The operator finds for the consumer.
    DecideForConsumer,
    /// The deadline passed.
    Deadline,
}

/// A move that the lifecycle does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {from:?} dispute can't take {event:?}")]
pub struct InvalidDisputeTransition {
    /// The state.
    pub from: DisputeState,
    /// The event.
    pub event: DisputeEvent,
}

/// The lifecycle of disputes.
///
/// # Errors
/// [`InvalidDisputeTransition`] for every pair that is not listed: a decided dispute stays decided.
pub const fn transition(
    from: DisputeState,
    event: DisputeEvent,
) -> Result<DisputeState, InvalidDisputeTransition> {
    use DisputeEvent as E;
    use DisputeState as S;
    Ok(match (from, event) {
        (S::Open, E::DecideForProvider) => S::ForProvider,
        (S::Open, E::DecideForConsumer) => S::ForConsumer,
        (S::Open, E::Deadline) => S::Lapsed,
        _ => return Err(InvalidDisputeTransition { from, event }),
    })
}

/// A dispute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispute {
    /// Its id; the held money lies in the account `held:<id>`.
    pub id: DisputeId,
    /// Its domain.
    pub domain: DomainId,
    /// The allocation.
    pub allocation: AllocationId,
    /// Who pays.
    pub consumer: ConsumerId,
    /// Who earns.
    pub provider: ProviderId,
    /// What is claimed.
    pub kind: DisputeKind,
    /// The claim in words.
    pub claim: String,
    /// What it rests on: ids of reports, verdicts, or hashes.
    pub evidence: Vec<String>,
    /// What is held back until it is decided.
    pub held: Amount,
    /// Where it stands.
    pub state: DisputeState,
    /// Why it was decided as it was.
    pub reason: Option<String>,
    /// Who opened it: a tenant's id, or `system`.
    pub opened_by: String,
    /// Until when the operator may decide.
    pub deadline: Timestamp,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
}

impl Entity for Dispute {
    const NAME: &'static str = "dispute";
    const COLLECTION: Collection = schema::DISPUTES;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}

/// Whether two figures differ by more than the tolerance, measured against the higher.
#[must_use]
pub fn disagree(one: u128, other: u128, tolerance: Ppm) -> bool {
    one.abs_diff(other) > Amount(one.max(other)).ppm(tolerance).get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_open_dispute_moves_and_each_event_has_its_outcome() {
        use DisputeEvent as E;
        use DisputeState as S;
        let events = [E::DecideForProvider, E::DecideForConsumer, E::Deadline];
        let outcomes = [S::ForProvider, S::ForConsumer, S::Lapsed];
        for (event, outcome) in events.into_iter().zip(outcomes) {
            assert_eq!(transition(S::Open, event), Ok(outcome));
            for from in outcomes {
                assert_eq!(transition(from, event), Err(InvalidDisputeTransition { from, event }));
            }
        }
    }

    #[test]
    fn five_percent_is_tolerated_and_not_more() {
        assert!(!disagree(95, 100, TOLERANCE));
        assert!(!disagree(100, 95, TOLERANCE));
        assert!(disagree(94, 100, TOLERANCE));
        assert!(!disagree(0, 0, TOLERANCE));
        assert!(disagree(0, 1, TOLERANCE));
        assert!(!disagree(u128::MAX, u128::MAX, TOLERANCE));
    }
}
