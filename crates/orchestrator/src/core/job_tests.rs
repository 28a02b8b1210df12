//! The lifecycle of jobs: every pair of state and event, and any sequence of events.

use proptest::prelude::*;

use super::{JobEvent as E, JobState as S, *};

const EVENTS: [E; 10] = [
    E::Claim,
    E::Processed,
    E::Completed,
    E::Verified,
    E::Refuted,
    E::Postpone,
    E::Fail,
    E::LeaseLost,
    E::Retry,
    E::Cancel,
];

/// The lifecycle as it is drawn in the design: from each state, what may happen and where it leads.
fn drawn(from: S) -> &'static [(E, S)] {
    match from {
        S::Created | S::PendingRetry | S::VerificationFailed => {
            &[(E::Claim, S::Running), (E::Cancel, S::Cancelled)]
        }
        S::Running => &[
            (E::Processed, S::PendingVerification),
            (E::Completed, S::Completed),
            (E::Postpone, S::PendingRetry),
            (E::LeaseLost, S::PendingRetry),
            (E::Fail, S::Failed),
        ],
        S::PendingVerification => &[(E::Claim, S::Verifying), (E::Cancel, S::Cancelled)],
        S::Verifying => &[
            (E::Verified, S::Completed),
            (E::Refuted, S::VerificationFailed),
            (E::Postpone, S::PendingVerification),
            (E::LeaseLost, S::PendingVerification),
            (E::Fail, S::Failed),
        ],
        S::Failed => &[(E::Retry, S::PendingRetry), (E::Cancel, S::Cancelled)],
        S::Completed | S::Cancelled => &[],
    }
}

#[test]
fn every_pair_of_state_and_event() {
    for from in S::ALL {
        for event in EVENTS {
            let expected = drawn(from).iter().find(|(known, _)| *known == event).map(|(_, to)| *to);
            assert_eq!(transition(from, event), expected.ok_or(InvalidJobTransition { from, event }));
        }
        assert_eq!(serde_json::to_value(from).unwrap(), from.as_str());
    }
}

#[test]
fn what_is_claimable_is_what_a_claim_may_take_and_leads_to_the_phase_that_asked() {
    for phase in [Phase::Process, Phase::Verify] {
        for from in S::ALL {
            let takes = transition(from, E::Claim) == Ok(phase.active());
            assert_eq!(phase.claimable().contains(&from), takes, "{phase:?} {from:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_events_keep_to_the_graph(events in prop::collection::vec(0..EVENTS.len(), 0..60)) {
        let (mut state, mut claimed, mut verified) = (S::Created, false, false);
        for index in events {
            let (before, event) = (state, EVENTS[index]);
            match transition(before, event) {
                Ok(next) => state = next,
                Err(error) => prop_assert_eq!((error.from, error.event), (before, event)),
            }
            // Only a person brings back what has ended.
            prop_assert!(!before.is_terminal() || state == before || matches!(event, E::Retry | E::Cancel));
            // Work is done by a claim only, and what awaits verification is not done over.
            claimed |= state == S::Running;
            verified |= state == S::PendingVerification;
            prop_assert!(claimed || matches!(state, S::Created | S::Cancelled));
            prop_assert!(verified || state != S::Verifying);
        }
    }
}
