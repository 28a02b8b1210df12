//! Benchmarks: closed programs that print their figures beside the machine's own limits. Never a timed test.

use clap::{Parser, Subcommand};
use row::Row;

mod jobs;
mod offerings;
mod row;
mod seal;
mod store;

#[derive(Parser)]
#[command(about = "Benchmarks of the orchestrator, beside the machine's own limits")]
struct Cli {
    /// Which benchmark.
    #[command(subcommand)]
    bench: Bench,
    /// Print one JSON array of rows.
    #[arg(long, global = true)]
    json: bool,
}

/// A benchmark; one module each.
#[derive(Subcommand)]
enum Bench {
    /// Jobs enqueued, claimed and completed on SQLite with durable commits.
    Jobs,
    /// Jobs through the database alone: insert, claim, complete.
    Store(store::Args),
    /// A block of 100,000 accounts sealed and proved.
    Seal,
    /// Offerings filtered and ranked over 100,000 units.
    Offerings,
}

type BenchResult = Result<Vec<Row>, Box<dyn std::error::Error>>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cli = Cli::parse();
    let rows = match cli.bench {
        Bench::Jobs => jobs::run()?,
        Bench::Store(args) => store::store(&args),
        Bench::Seal => seal::run()?,
        Bench::Offerings => offerings::run()?,
    };
    row::print(&rows, cli.json)?;
    Ok(())
}
