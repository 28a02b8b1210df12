//! The report of a soak: what many seeds came to, written down after every few of them, so that a run can be stopped and
//! gone on with at any time.

use std::{fmt, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::many::{Batch, Failure, Limit, Summary};

/// Seeds from one writing to the next, for each thread.
const BATCH: u64 = 32;
/// Where the seeds of a soak begin.
const FIRST_SEED: u64 = 1;

/// What all seeds came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What went wrong in them, as `--faults` takes it.
    pub faults: String,
    /// How long it did, in simulated hours; by the seed where nothing is said.
    pub hours: Option<f64>,
    /// Seeds that were run: those from 1 to the one before `next_seed`.
    pub seeds: u64,
    /// The next seed.
    pub next_seed: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Faults that were injected, kills apart.
    pub other_faults: u64,
    /// Time on processors.
    pub processor_seconds: u64,
    /// Allocations that were made, used and ended.
    pub allocations: u64,
    /// Answers that were acknowledged to clients, and held against the market at its end.
    pub acknowledged: u64,
    /// Effects at providers, at the settlement layer, and movements of money.
    pub effects: u64,
    /// Effects that took hold more often than they should.
    pub doubled: u64,
    /// Effects that were acknowledged and did not take hold.
    pub lost: u64,
    /// Seeds on which model and market did not agree, with what repeats each.
    pub failures: Vec<Failure>,
}

impl Report {
    /// The report at this path, or a new one. One that was begun with other faults can't be gone on with.
    ///
    /// # Errors
    /// When it can't be read, or was begun with something else.
    pub fn open(path: &Path, faults: &str, hours: Option<f64>) -> Result<Self, String> {
        let problem = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new(faults, hours)),
            Err(error) => return Err(problem(&error)),
        };
        let found: Self = serde_json::from_slice(&text).map_err(|error| problem(&error))?;
        if (found.faults.as_str(), found.hours) != (faults, hours) {
            let begun = format!("it was begun with --faults {} and --hours {:?}", found.faults, found.hours);
            return Err(problem(&begun));
        }
        Ok(found)
    }

    fn new(faults: &str, hours: Option<f64>) -> Self {
        Self {
            faults: faults.to_owned(),
            hours,
            seeds: 0,
            next_seed: FIRST_SEED,
            kills: 0,
            other_faults: 0,
            processor_seconds: 0,
            allocations: 0,
            acknowledged: 0,
            effects: 0,
            doubled: 0,
            lost: 0,
            failures: Vec::new(),
        }
    }

    /// The seeds that are next.
    #[must_use]
    pub fn batch(&self, threads: usize) -> Batch {
        let to = self.next_seed + BATCH * threads.max(1) as u64;
        // All of them are run, whatever they come to: no seed is left out.
        Batch { from: self.next_seed, to, limit: Limit::None, threads, failures: usize::MAX }
    }

    /// Adds what a batch came to.
    pub fn add(&mut self, summary: &Summary) {
        self.seeds += summary.seeds;
        self.next_seed = summary.next_seed;
        self.kills += summary.kills;
        self.other_faults += summary.faults;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a figure for people")]
        let seconds = summary.processor_seconds.round() as u64;
        self.processor_seconds += seconds;
        self.allocations += summary.counts.allocations;
        self.acknowledged += summary.counts.acknowledged;
        self.effects += summary.counts.effects;
        self.doubled += summary.counts.duplicates;
        self.lost += summary.counts.lost;
        self.failures.extend(summary.failures.iter().cloned());
    }

    /// Writes it down, in place of what is there.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let problem = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
        let mut text = serde_json::to_string_pretty(self).map_err(|error| problem(&error))?;
        text.push('\n');
        // Whoever is stopped meanwhile leaves the old one or the new one.
        let fresh = path.with_extension("json.new");
        fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, path)).map_err(|error| problem(&error))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, kills, acknowledged, effects, doubled, lost, .. } = self;
        write!(
            f,
            "{kills} kills in {seeds} seeds, {acknowledged} answers acknowledged, {effects} effects: "
        )?;
        write!(f, "{doubled} doubled, {lost} lost, {} seeds failed", self.failures.len())?;
        self.failures.iter().try_for_each(|failure| write!(f, "\n    {}", failure.command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_gone_on_with_where_it_was_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        let mut report = Report::open(&path, "kills", None).unwrap();
        let batch = report.batch(2);
        assert_eq!((batch.from, batch.to), (1, 65));
        let failure =
            Failure { seed: 7, violations: vec!["it is wrong".into()], command: "sim --seed 7".into() };
        let summary = Summary {
            seeds: 64,
            next_seed: 65,
            kills: 900,
            processor_seconds: 1.6,
            failures: vec![failure],
            ..Summary::default()
        };
        report.add(&summary);
        report.write(&path).unwrap();
        let again = Report::open(&path, "kills", None).unwrap();
        assert_eq!(again, report);
        assert_eq!((again.kills, again.batch(1).from, again.processor_seconds), (900, 65, 2));
        assert!(again.to_string().ends_with("1 seeds failed\n    sim --seed 7"));
        assert!(Report::open(&path, "heavy", None).unwrap_err().contains("kills"));
        fs::write(&path, "{").unwrap();
        assert!(Report::open(&path, "kills", None).is_err());
    }
}
