//! The harness itself: the same seed gives the same run, sound code agrees with the model, and each bug that is put in is
//! found. Runs are short here; `cargo xtask sim` does the long ones.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test that calls them")]

use std::thread;

use orchestrator_sim::{Outcome, Plan, Sabotage, run, shrink::shrink};

fn plan(seed: u64, faults: &str) -> Plan {
    Plan { millihours: 150, faults: faults.parse().unwrap(), consumers: 2, ..Plan::new(seed) }
}

/// Runs plans on two threads.
fn all(plans: Vec<Plan>) -> Vec<Outcome> {
    let half = plans.len() / 2;
    let (one, two) = plans.split_at(half);
    thread::scope(|scope| {
        let first = scope.spawn(|| one.iter().map(run).collect::<Vec<_>>());
        let mut second: Vec<_> = two.iter().map(run).collect();
        let mut all = first.join().unwrap();
        all.append(&mut second);
        all
    })
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let plans: Vec<_> = [("heavy", 3), ("light", 4), ("none", 5)]
        .into_iter()
        .map(|(faults, seed)| Plan { replicas: 2, ..plan(seed, faults) })
        .collect();
    let first = all(plans.clone());
    let again = all(plans);
    assert_eq!(first, again);
    assert!(first.iter().all(|outcome| !outcome.root.is_empty() && outcome.steps > 1_000));
    assert_ne!(first[0].trail, first[1].trail);
}

/// Processes die with many requests in them, while other threads spawn tasks: tokio numbers those of the whole program, and
/// drops the tasks of a runtime in an order that hangs on their numbers.
#[test]
fn what_else_the_program_does_changes_no_run() {
    let busy = Plan { replicas: 1, consumers: 12, ..plan(9, "kills,db=delay:0.3") };
    let alone = run(&busy);
    assert!(alone.kills > 10);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for others in 1..4 {
        (0..others).for_each(|_| drop(runtime.spawn(async {})));
        assert_eq!(run(&busy), alone);
    }
}

#[test]
fn sound_code_agrees_with_the_model_whatever_goes_wrong() {
    let mut plans: Vec<_> = (1..=4).map(|seed| plan(seed, "heavy")).collect();
    plans.extend((5..=6).map(|seed| plan(seed, "kills")));
    let outcomes = all(plans);
    for outcome in &outcomes {
        assert!(outcome.violations.is_empty(), "seed {}: {:#?}", outcome.seed, outcome.violations);
    }
    // The runs are worth something only if much went wrong in them, and the market went on.
    assert!(outcomes.iter().map(|outcome| outcome.kills).sum::<u64>() > 20);
    assert!(outcomes.iter().map(|outcome| outcome.faults).sum::<u64>() > 500);
    assert!(outcomes.iter().map(|outcome| outcome.counts.allocations).sum::<u64>() > 5);
}

/// Where a bug shows soonest.
fn trap(bug: Sabotage, seed: u64) -> Plan {
    let usual = Plan { millihours: 250, consumers: 3, sabotage: bug, ..plan(seed, "light") };
    match bug {
        Sabotage::NoToken => Plan { faults: "heavy".parse().unwrap(), ..usual },
        // Late calls, and jobs that are tried again meanwhile.
        Sabotage::NoGeneration => Plan { faults: "provider=0.15,pause,restart".parse().unwrap(), ..usual },
        // Two reservations that each see room, and take it together.
        Sabotage::NoFloor => {
            Plan { faults: "db=delay:0.2".parse().unwrap(), replicas: 2, consumers: 8, ..usual }
        }
        _ => usual,
    }
}

/// Each bug is found by one of a few seeds, and the run that found it can be made smaller and repeated.
#[test]
fn every_bug_that_is_put_in_is_found() {
    let mut missed = Vec::new();
    for (bug, name) in Sabotage::ALL {
        let found = (1..=16).map(|seed| trap(bug, seed)).find_map(|plan| {
            let outcome = run(&plan);
            (!outcome.violations.is_empty()).then_some((plan, outcome))
        });
        let Some((plan, outcome)) = found else {
            missed.push(name);
            continue;
        };
        assert!(plan.command().contains(&format!("--sabotage {name}")));
        if bug == Sabotage::NoKeys {
            let (smaller, outcome) = shrink(&plan, outcome);
            assert!(smaller.millihours < plan.millihours || smaller.faults != plan.faults);
            assert_eq!(run(&smaller), outcome, "the command repeats what was found");
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
