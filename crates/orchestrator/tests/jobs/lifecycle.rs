//! The lifecycle of jobs: every state with every event.

use orchestrator::core::job::{JobEvent as E, JobState as S, transition};

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

/// Where each state goes with each event, in the order of [`EVENTS`]; `None` is a refusal.
fn row(state: S) -> [Option<S>; 10] {
    let waits = [Some(S::Running), None, None, None, None, None, None, None, None, Some(S::Cancelled)];
    match state {
        S::Created | S::PendingRetry | S::VerificationFailed => waits,
        S::Running => [
            None,
            Some(S::PendingVerification),
            Some(S::Completed),
            None,
            None,
            Some(S::PendingRetry),
            Some(S::Failed),
            Some(S::PendingRetry),
            None,
            None,
        ],
        S::PendingVerification => {
            [Some(S::Verifying), None, None, None, None, None, None, None, None, Some(S::Cancelled)]
        }
        S::Verifying => [
            None,
            None,
            None,
            Some(S::Completed),
            Some(S::VerificationFailed),
            Some(S::PendingVerification),
            Some(S::Failed),
            Some(S::PendingVerification),
            None,
            None,
        ],
        S::Completed | S::Cancelled => [None; 10],
        S::Failed => {
            [None, None, None, None, None, None, None, None, Some(S::PendingRetry), Some(S::Cancelled)]
        }
    }
}

#[test]
fn every_state_takes_exactly_the_events_of_the_table() {
    for state in S::ALL {
        for (event, expected) in EVENTS.into_iter().zip(row(state)) {
            let answer = transition(state, event);
            assert_eq!(answer.ok(), expected, "{state:?} × {event:?}");
            if let Err(refused) = answer {
                assert_eq!((refused.from, refused.event), (state, event));
            }
        }
    }
}

#[test]
fn only_a_person_moves_a_terminal_job() {
    for state in S::ALL.into_iter().filter(|state| state.is_terminal()) {
        for event in EVENTS.into_iter().filter(|event| !matches!(event, E::Retry | E::Cancel)) {
            assert!(transition(state, event).is_err(), "{state:?} × {event:?}");
        }
    }
}
