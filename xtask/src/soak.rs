//! Soaking: rounds of kills of the real daemon, counted in a report that grows with each round, so that a run can be
//! stopped and gone on with at any time.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{cargo, root, run};

/// How long to go on.
#[derive(Debug, Args)]
pub struct SoakArgs {
    /// Go on until the report has so many kills.
    #[arg(long, default_value_t = 10_000)]
    kills: u64,
    /// Kill simulated processes instead, until docs/soak-simulated.json has so many.
    #[arg(long, value_name = "KILLS", conflicts_with = "kills")]
    simulated: Option<u64>,
    /// Kills of one round: one market, judged at its end.
    #[arg(long, default_value_t = 50)]
    round: u64,
    /// The report that is gone on with.
    #[arg(long, default_value = "docs/soak.json")]
    report: PathBuf,
}

/// What all rounds came to.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    /// Rounds that were judged and found good.
    rounds: u64,
    /// Kills in them, starts that were killed included.
    kills: u64,
    /// Answers that were acknowledged and held against the state after the last kill.
    acknowledged: u64,
    /// Calls that took effect at the provider.
    effects: u64,
    /// Of these, how many took effect twice or were lost: a round that finds one fails.
    doubled_or_lost: u64,
    /// Rounds that failed: the seed, and what was found first.
    failures: BTreeMap<u64, String>,
    /// The seed of the next round.
    next_seed: u64,
}

/// What a round says.
#[derive(Debug, Deserialize)]
struct Round {
    kills: u64,
    acknowledged: u64,
    effects: u64,
}

/// Runs rounds until there are enough kills.
pub fn soak(args: &SoakArgs) -> Result<(), String> {
    if let Some(kills) = args.simulated {
        return crate::sim::soak(kills);
    }
    let path = root().join(&args.report);
    let mut report = match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?,
        Err(_) => Report { next_seed: 1_000, ..Report::default() },
    };
    run(
        "build",
        cargo().args(["test", "--package", "orchestrator", "--test", "it", "--locked", "--no-run"]),
    )?;
    while report.kills < args.kills {
        let seed = report.next_seed;
        report.next_seed += 1;
        match round(seed, args.round) {
            Ok(done) => {
                report.rounds += 1;
                report.kills += done.kills;
                report.acknowledged += done.acknowledged;
                report.effects += done.effects;
            }
            Err(found) => {
                report.doubled_or_lost += 1;
                report.failures.insert(seed, found);
            }
        }
        write(&path, &report)?;
        eprintln!("{} of {} kills, {} rounds failed", report.kills, args.kills, report.failures.len());
    }
    match report.failures.len() {
        0 => Ok(()),
        failed => Err(format!("{failed} rounds failed; their seeds are in {}", path.display())),
    }
}

fn round(seed: u64, kills: u64) -> Result<Round, String> {
    let out = std::env::temp_dir().join(format!("orchestrator-soak-{}-{seed}.json", std::process::id()));
    let mut command = cargo();
    command
        .args(["test", "--package", "orchestrator", "--test", "it", "--locked", "--quiet", "--"])
        .args(["--ignored", "--exact", "daemon::soak::one_round"])
        .env("ORCHESTRATOR_SOAK_SEED", seed.to_string())
        .env("ORCHESTRATOR_SOAK_KILLS", kills.to_string())
        .env("ORCHESTRATOR_SOAK_OUT", &out)
        // The machine's own services are not needed.
        .env("ORCHESTRATOR_TEST_EMBEDDED_ONLY", "1");
    let judged = judge(&mut command, &out);
    let _ = fs::remove_file(&out);
    judged
}

/// The round's own report, or the first line that says what was found.
fn judge(command: &mut Command, out: &Path) -> Result<Round, String> {
    let ended = command.output().map_err(|error| error.to_string())?;
    if !ended.status.success() {
        let text = String::from_utf8_lossy(&ended.stdout);
        eprintln!("{text}");
        let found = text.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
        return Err(found.unwrap_or("it ended without a word").to_owned());
    }
    let text = fs::read(out).map_err(|error| format!("{}: {error}", out.display()))?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}

fn write(path: &Path, report: &Report) -> Result<(), String> {
    let mut text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    text.push('\n');
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
