//! One round of a soak: a real daemon killed again and again under load, and judged by what the outside saw. Run by
//! `cargo xtask soak`, which counts rounds, and by the ordinary tests in `crash`.

use std::{env, fs};

use serde_json::json;

use super::crash::{Lives, kill_under_load};

fn number(name: &str) -> u64 {
    let text =
        env::var(name).unwrap_or_else(|_| panic!("{name} says how to run; see `cargo xtask soak --help`"));
    text.parse().unwrap_or_else(|_| panic!("{name}={text}: give a number"))
}

/// What is doubled or lost is written to the report; anything else that goes wrong fails the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by `cargo xtask soak`"]
async fn one_round() {
    let (seed, kills) = (number("ORCHESTRATOR_SOAK_SEED"), number("ORCHESTRATOR_SOAK_KILLS"));
    let out = env::var("ORCHESTRATOR_SOAK_OUT").expect("ORCHESTRATOR_SOAK_OUT names the report");
    let counted = kill_under_load(seed, kills, Lives::Short).await;
    let report = json!({
        "kills": counted.kills,
        "at_work": counted.at_work,
        "acknowledged": counted.judged.acknowledged,
        "effects": counted.judged.effects,
        "doubled": counted.judged.doubled,
        "lost": counted.judged.lost,
    });
    fs::write(out, report.to_string()).unwrap();
}
