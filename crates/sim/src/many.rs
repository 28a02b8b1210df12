//! Many seeds on all cores, until they are through or the time is up.

use std::{
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    judge::Counts,
    run::{Outcome, Plan},
};

/// What came of many runs.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// The first one that was not run.
    pub next_seed: u64,
    /// Wall time.
    pub elapsed_seconds: f64,
    /// Seeds in a minute.
    pub seeds_per_minute: f64,
    /// Simulated hours.
    pub simulated_hours: f64,
    /// Processes that were killed.
    pub kills: u64,
    /// Faults that were injected, kills apart.
    pub faults: u64,
    /// Steps at ports.
    pub steps: u64,
    /// What the judge counted.
    pub counts: Counts,
    /// Seeds that failed, with what was wrong.
    pub failures: Vec<Failure>,
}

/// A seed that failed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was wrong.
    pub violations: Vec<String>,
    /// What repeats it.
    pub command: String,
}

impl Summary {
    fn add(&mut self, outcome: &Outcome, plan: &Plan) {
        self.seeds += 1;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let hours = outcome.seconds as f64 / 3_600.0;
        self.simulated_hours += hours;
        self.kills += outcome.kills;
        self.faults += outcome.faults;
        self.steps += outcome.steps;
        self.counts.add(&outcome.counts);
        if !outcome.violations.is_empty() {
            self.failures.push(Failure {
                seed: outcome.seed,
                violations: outcome.violations.clone(),
                command: plan.command(),
            });
        }
    }
}

/// How many are to be run, and where it ends.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// The first seed.
    pub from: u64,
    /// The first seed that is not run any more.
    pub to: u64,
    /// Runs no longer than this.
    pub time: Option<Duration>,
    /// Threads.
    pub threads: usize,
    /// Ends after so many failures.
    pub failures: usize,
}

/// Runs the plans of many seeds. `seen` hears of each outcome.
pub fn many(
    batch: Batch,
    plan_of: impl Fn(u64) -> Plan + Sync,
    run: impl Fn(&Plan) -> Outcome + Sync,
    mut seen: impl FnMut(&Outcome, &Summary),
) -> Summary {
    let (next, enough) = (AtomicU64::new(batch.from), AtomicBool::new(false));
    let started = Instant::now();
    let mut summary = Summary::default();
    let (sender, outcomes) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..batch.threads.max(1) {
            let (sender, next, enough) = (sender.clone(), &next, &enough);
            let (plan_of, run) = (&plan_of, &run);
            scope.spawn(move || {
                while !enough.load(Ordering::Relaxed) {
                    if batch.time.is_some_and(|time| started.elapsed() >= time) {
                        return;
                    }
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= batch.to {
                        return;
                    }
                    let plan = plan_of(seed);
                    let outcome = run(&plan);
                    if sender.send((plan, outcome)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (plan, outcome) in outcomes {
            summary.add(&outcome, &plan);
            summary.elapsed_seconds = started.elapsed().as_secs_f64();
            seen(&outcome, &summary);
            if summary.failures.len() >= batch.failures {
                enough.store(true, Ordering::Relaxed);
            }
        }
    });
    summary.elapsed_seconds = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let seeds = summary.seeds as f64;
    summary.seeds_per_minute = seeds * 60.0 / summary.elapsed_seconds.max(1e-9);
    summary.next_seed = next.load(Ordering::Relaxed).min(batch.to);
    summary.failures.sort_by_key(|failure| failure.seed);
    summary
}
