//! One figure of a benchmark, beside the machine's own limit and the goal.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

/// A figure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// The raw limit of the machine in the same run, in the same unit, where there is one.
    pub baseline: Option<f64>,
    /// `value / baseline`.
    pub ratio: Option<f64>,
    /// What it should reach or stay below, as a person reads it.
    pub goal: Option<String>,
    /// Whether it does; `None` without a goal.
    pub holds: Option<bool>,
}

impl Row {
    /// A figure without goal and baseline.
    #[must_use]
    pub fn new(name: &str, value: f64, unit: &str) -> Self {
        Self {
            name: name.to_owned(),
            value,
            unit: unit.to_owned(),
            baseline: None,
            ratio: None,
            goal: None,
            holds: None,
        }
    }

    /// Beside the machine's own limit.
    #[must_use]
    pub fn beside(mut self, baseline: f64) -> Self {
        self.baseline = Some(baseline);
        self.ratio = (baseline != 0.0).then(|| self.value / baseline);
        self
    }

    /// Should reach at least `goal`.
    #[must_use]
    pub fn at_least(mut self, goal: f64) -> Self {
        self.goal = Some(format!(">= {goal}"));
        self.holds = Some(self.value >= goal);
        self
    }

    /// Should stay at or below `goal`.
    #[must_use]
    pub fn at_most(mut self, goal: f64) -> Self {
        self.goal = Some(format!("<= {goal}"));
        self.holds = Some(self.value <= goal);
        self
    }
}

/// Prints the names of benchmarks and what each is about.
///
/// # Errors
/// When standard output can't be written.
pub fn list(all: &[(&str, &str)], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        serde_json::to_writer(&mut out, &names)?;
        return writeln!(out);
    }
    all.iter().try_for_each(|(name, about)| writeln!(out, "{name:<12} {about}"))
}

/// Prints rows for people, or as one JSON array.
///
/// # Errors
/// When standard output can't be written.
pub fn print(rows: &[Row], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, rows)?;
        return writeln!(out);
    }
    for row in rows {
        write!(out, "{:<60} {:>14.3} {:<8}", row.name, row.value, row.unit)?;
        if let (Some(baseline), Some(ratio)) = (row.baseline, row.ratio) {
            write!(out, "  limit {baseline:.3}  ratio {ratio:.4}")?;
        }
        if let (Some(goal), Some(holds)) = (&row.goal, row.holds) {
            write!(out, "  goal {goal}: {}", if holds { "holds" } else { "MISSED" })?;
        }
        writeln!(out)?;
    }
    Ok(())
}
