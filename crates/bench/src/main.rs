//! Benchmarks: each prints its figures beside the machine's own limits, taken in the same run.

mod store;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    bench: Bench,
    /// Print an array of rows instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Bench {
    /// Jobs through the database alone: insert, claim, complete.
    Store(store::Args),
}

fn main() {
    let args = Args::parse();
    let rows = match args.bench {
        Bench::Store(store) => store::store(&store),
    };
    report(&rows, args.json);
}

/// One figure.
#[derive(Debug, serde::Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The machine's own limit, in the same unit.
    pub baseline: Option<f64>,
    /// Value by baseline.
    pub ratio: Option<f64>,
    /// What it should be.
    pub goal: Option<f64>,
    /// Whether it is.
    pub holds: Option<bool>,
}

#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn report(rows: &[Row], json: bool) {
    if json {
        println!("{}", serde_json::to_string_pretty(rows).unwrap_or_default());
        return;
    }
    for row in rows {
        let baseline = row.baseline.map_or(String::new(), |limit| format!("  (bare: {limit:.1})"));
        let goal = row.goal.map_or(String::new(), |goal| {
            format!("  goal {goal}: {}", if row.holds == Some(true) { "holds" } else { "MISSED" })
        });
        println!("{:<44} {:>14.3} {}{baseline}{goal}", row.name, row.value, row.unit);
    }
}
