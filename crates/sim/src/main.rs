//! `orchestrator-sim`: runs seeds, and says which ones fail and how to run them again.

use orchestrator_sim::{Plan, run};

fn main() {
    let seed = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1);
    let faults = std::env::args().nth(2).unwrap_or_else(|| "none".into());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let t = std::time::Instant::now();
    let mut plan = Plan::new(seed);
    plan.faults = faults.parse().unwrap_or_default();
    let outcome = run(&plan);
    eprintln!("{outcome:#?} {:?}", t.elapsed());
}
