//! Many seeds on all cores, until they are through or the time is up.

use std::{
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

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
    /// Time on processors.
    pub processor_seconds: f64,
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
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

/// When no more seeds are begun.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// When all are through.
    None,
    /// After so much time.
    Wall(Duration),
    /// When a thread was on a processor for so long, each for itself.
    Processor(Duration),
}

impl Limit {
    fn is_reached(self, started: Instant) -> bool {
        match self {
            Self::None => false,
            Self::Wall(limit) => started.elapsed() >= limit,
            Self::Processor(limit) => processor_time() >= limit,
        }
    }
}

/// How long this thread was on a processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// How many are to be run, and where it ends.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// The first seed.
    pub from: u64,
    /// The first seed that is not run any more.
    pub to: u64,
    /// When no more are begun.
    pub limit: Limit,
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
                    if batch.limit.is_reached(started) {
                        return;
                    }
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= batch.to {
                        return;
                    }
                    let plan = plan_of(seed);
                    let before = processor_time();
                    let outcome = run(&plan);
                    let took = processor_time().saturating_sub(before);
                    if sender.send((plan, outcome, took)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (plan, outcome, took) in outcomes {
            summary.add(&outcome, &plan);
            summary.processor_seconds += took.as_secs_f64();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(limit: Limit) -> Summary {
        let fails_at_seven = |plan: &Plan| {
            let violations = if plan.seed == 7 { vec!["it is wrong".into()] } else { Vec::new() };
            Outcome { seed: plan.seed, kills: 2, violations, ..Outcome::default() }
        };
        let batch = Batch { from: 1, to: 11, limit, threads: 2, failures: 20 };
        many(batch, Plan::new, fails_at_seven, |_, _| {})
    }

    #[test]
    fn every_seed_is_run_until_the_time_is_up() {
        let summary = batch(Limit::None);
        assert_eq!((summary.seeds, summary.next_seed, summary.kills), (10, 11, 20));
        let failed: Vec<u64> = summary.failures.iter().map(|failure| failure.seed).collect();
        assert_eq!(failed, [7]);
        assert!(summary.failures[0].command.contains("--seed 7 "));
        // Neither a clock that has run long enough nor a thread that has: no seed is begun.
        assert_eq!(batch(Limit::Wall(Duration::ZERO)).seeds, 0);
        assert_eq!(batch(Limit::Processor(Duration::ZERO)).seeds, 0);
    }
}
