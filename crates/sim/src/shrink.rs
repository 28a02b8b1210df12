//! Makes a failing run smaller: less time, fewer replicas and consumers, fewer kinds of faults, as long as it still fails.

use crate::run::{Outcome, Plan, run};

/// Most runs that are tried.
const TRIES: u32 = 80;

/// The smallest failing plan that was found, and what came of it. `plan` fails with `outcome`.
#[must_use]
pub fn shrink(plan: &Plan, outcome: Outcome) -> (Plan, Outcome) {
    let mut best = (plan.clone(), outcome);
    let mut tries = 0;
    loop {
        let mut smaller = false;
        for candidate in candidates(&best.0) {
            if tries >= TRIES {
                return best;
            }
            tries += 1;
            let outcome = run(&candidate);
            if !outcome.violations.is_empty() {
                best = (candidate, outcome);
                smaller = true;
                break;
            }
        }
        if !smaller {
            return best;
        }
    }
}

/// Plans that are smaller in one way, the boldest first.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut found = Vec::new();
    for share in [4, 2] {
        let millihours = plan.millihours / share;
        if millihours >= 25 {
            found.push(Plan { millihours, ..plan.clone() });
        }
    }
    for replicas in 1..=3 {
        if plan.replicas == 0 || replicas < plan.replicas {
            found.push(Plan { replicas, ..plan.clone() });
        }
    }
    if plan.consumers > 1 {
        found.push(Plan { consumers: 1, ..plan.clone() });
        found.push(Plan { consumers: plan.consumers - 1, ..plan.clone() });
    }
    found.extend(plan.faults.simpler().into_iter().map(|faults| Plan { faults, ..plan.clone() }));
    let shorter = plan.millihours - plan.millihours / 4;
    if shorter >= 25 && shorter < plan.millihours {
        found.push(Plan { millihours: shorter, ..plan.clone() });
    }
    found
}
