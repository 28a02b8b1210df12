//! Soaking: rounds of kills of the real daemon, counted in a report that grows with each round, so that a run can be
//! stopped and gone on with at any time.
//!
//! The daemon is an optimised build; the test program that kills and judges it is built once and started directly. Each round
//! is a process of its own with a market of its own, so rounds run side by side.

mod round;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::round::{Ended, Programs};
use crate::{interrupt, root};

/// The seed of the first round of a new report.
const FIRST_SEED: u64 = 1_000;
/// Rounds that may fail one after another before a run stops by itself: what they all find is found.
const ENOUGH: u64 = 5;

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
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(3..))]
    round: u64,
    /// Rounds side by side.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    jobs: u64,
    /// The profile that the daemon is built in.
    #[arg(long, default_value = "sim")]
    profile: String,
    /// The report that is gone on with.
    #[arg(long, default_value = "docs/soak.json")]
    report: PathBuf,
    /// Run one round with this seed, as often as `--jobs` says, and leave the report alone.
    #[arg(long)]
    seed: Option<u64>,
}

/// What all rounds came to.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kills {
    /// Rounds that were judged.
    rounds: u64,
    /// Kills in them, starts that were killed included.
    kills: u64,
    /// Kills that hit a daemon which had acknowledged something since its start.
    at_work: u64,
    /// Answers that were acknowledged and held against the state after the last kill.
    acknowledged: u64,
    /// What took effect at the provider and at the settlement layer.
    effects: u64,
    /// Effects and answers that are there more often than they were asked for.
    doubled: u64,
    /// Effects and answers that are not there, although they were acknowledged or follow from what was.
    lost: u64,
    /// Rounds that could not be judged to their end for another reason: not ready, not settled, a panic. Their kills are not
    /// counted.
    failed: u64,
    /// By the seed of the round: what was found first.
    found: BTreeMap<u64, String>,
    /// The seed of the next round.
    next_seed: u64,
}

/// The report: what this program counts, and what others keep in the same file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    /// Kills of the real daemon.
    #[serde(default)]
    real: Kills,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Kills {
    fn add(&mut self, seed: u64, ended: Ended) {
        let found = match ended {
            Ended::Judged(round) => {
                self.rounds += 1;
                self.kills += round.kills;
                self.at_work += round.at_work;
                self.acknowledged += round.acknowledged;
                self.effects += round.effects;
                self.doubled += round.doubled.len() as u64;
                self.lost += round.lost.len() as u64;
                let doubled = round.doubled.first().map(|what| format!("doubled: {what}"));
                doubled.or_else(|| round.lost.first().map(|what| format!("lost: {what}")))
            }
            Ended::Failed(found) => {
                self.failed += 1;
                Some(format!("failed: {found}"))
            }
        };
        if let Some(found) = found {
            self.found.insert(seed, found);
        }
    }

    fn told(&self) -> String {
        let Self { kills, effects, doubled, lost, failed, .. } = self;
        format!(
            "{kills} kills, {effects} effects: {doubled} doubled, {lost} lost, {failed} rounds failed otherwise"
        )
    }
}

/// Runs rounds until there are enough kills.
pub fn soak(args: &SoakArgs) -> Result<(), String> {
    if let Some(kills) = args.simulated {
        return crate::sim::soak(kills);
    }
    interrupt::watch()?;
    let programs = round::build(&args.profile)?;
    if let Some(seed) = args.seed {
        return one_seed(args, &programs, seed);
    }
    let path = root().join(&args.report);
    let report = Mutex::new(read(&path)?);
    let found_before = lock(&report).real.found.len();
    // How many rounds failed one after another.
    let in_a_row = Mutex::new(0);
    let outcomes = thread::scope(|scope| {
        let workers: Vec<_> = (0..args.jobs)
            .map(|_| scope.spawn(|| go_on(args, &programs, &path, &report, &in_a_row)))
            .collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
    });
    for outcome in outcomes {
        outcome.map_err(|_| "a worker panicked")??;
    }
    match lock(&report).real.found.len() - found_before {
        0 => Ok(()),
        found => Err(format!("{found} rounds found something; their seeds are in {}", path.display())),
    }
}

/// One worker's rounds.
fn go_on(
    args: &SoakArgs,
    programs: &Programs,
    path: &Path,
    report: &Mutex<Report>,
    in_a_row: &Mutex<u64>,
) -> Result<(), String> {
    loop {
        let seed = {
            let mut report = lock(report);
            if report.real.kills >= args.kills || *lock(in_a_row) >= ENOUGH || interrupt::came() {
                return Ok(());
            }
            let seed = report.real.next_seed.max(FIRST_SEED);
            report.real.next_seed = seed + 1;
            seed
        };
        let ended = programs.round(seed, args.round)?;
        // Ended by whoever stops the run, and so judged by nobody.
        if interrupt::came() {
            return Ok(());
        }
        let mut report = lock(report);
        let found = report.real.found.len();
        report.real.add(seed, ended);
        let mut in_a_row = lock(in_a_row);
        *in_a_row = if report.real.found.len() > found { *in_a_row + 1 } else { 0 };
        write(path, &report)?;
        eprintln!("{}", report.real.told());
    }
}

/// The same seed side by side with itself: to find again what it found.
fn one_seed(args: &SoakArgs, programs: &Programs, seed: u64) -> Result<(), String> {
    let outcomes = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..args.jobs).map(|_| scope.spawn(|| programs.round(seed, args.round))).collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
    });
    let mut all = Kills::default();
    for outcome in outcomes {
        all.add(seed, outcome.map_err(|_| "a worker panicked")??);
    }
    eprintln!("{}", all.told());
    match all.found.remove(&seed) {
        None => Ok(()),
        Some(found) => Err(found),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(path: &Path) -> Result<Report, String> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display())),
        Err(_) => Ok(Report::default()),
    }
}

/// Replaces the report at once, so that a run that is stopped leaves a whole one.
fn write(path: &Path, report: &Report) -> Result<(), String> {
    let mut text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    text.push('\n');
    let beside = path.with_extension("json.part");
    let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{round::Round, *};

    fn judged(doubled: &[&str], lost: &[&str]) -> Ended {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (doubled, lost) = (texts(doubled), texts(lost));
        Ended::Judged(Round { kills: 50, at_work: 40, acknowledged: 100, effects: 300, doubled, lost })
    }

    #[test]
    fn doubled_lost_and_failed_are_counted_apart() {
        let mut all = Kills::default();
        all.add(1, judged(&[], &[]));
        all.add(2, judged(&["a", "b"], &[]));
        all.add(3, judged(&[], &["c"]));
        all.add(4, Ended::Failed("not ready".into()));
        assert_eq!(
            (all.rounds, all.kills, all.at_work, all.acknowledged, all.effects),
            (3, 150, 120, 300, 900)
        );
        assert_eq!((all.doubled, all.lost, all.failed), (2, 1, 1));
        let found: Vec<_> = all.found.values().map(String::as_str).collect();
        assert_eq!(found, ["doubled: a", "lost: c", "failed: not ready"]);
    }

    #[test]
    fn a_report_is_gone_on_with_and_keeps_what_others_wrote() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("soak.json");
        fs::write(&path, r#"{"simulated": {"seeds": 7}, "real": {"kills": 100, "next_seed": 1002}}"#)
            .unwrap();
        let mut report = read(&path).unwrap();
        report.real.add(1_002, judged(&[], &[]));
        write(&path, &report).unwrap();
        let again = read(&path).unwrap();
        assert_eq!((again.real.kills, again.real.next_seed), (150, 1_002));
        assert_eq!(again.others["simulated"]["seeds"], 7);
        fs::write(&path, "{").unwrap();
        assert!(read(&path).is_err(), "a damaged report is not begun anew");
    }
}
