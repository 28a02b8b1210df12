//! Benchmarks: closed programs that print their figures beside the machine's own limits. Never a timed test.

use clap::{Parser, Subcommand};
use row::Row;

mod client;
#[cfg(feature = "cluster")]
mod cluster;
mod idle;
mod jobs;
mod market;
mod offerings;
mod process;
mod reserve;
mod row;
mod seal;
mod settlement;
mod store;

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Name the benchmarks.
    List,
    /// Run all of them, one after the other, each in a process of its own.
    All,
    /// From a reservation to S3 keys over HTTP, one client.
    Reserve,
    /// Offerings filtered and ranked over 100,000 units, through the whole API.
    Offerings,
    /// Jobs on our engine and on others, side by side: burn-down, open loop, loss of a worker.
    Jobs(jobs::Args),
    /// Keeps a server alive as long as its own standard input is open; `jobs` starts it.
    #[command(hide = true)]
    JobsKeep {
        /// The command line.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<std::ffi::OsString>,
    },
    /// Our engine, told what to do by lines; `jobs` starts it.
    #[command(hide = true)]
    JobsOurs(jobs::ours::Args),
    /// The fake provider and chain; `jobs` starts it.
    #[command(hide = true)]
    JobsWorld,
    /// A block of 100,000 accounts sealed and proved.
    Seal,
    /// A million transfers sealed, proved, encoded and rebuilt, on one core.
    Settlement,
    /// What a daemon takes that nobody calls.
    Idle(idle::Args),
    /// Jobs through the database alone: insert, claim, complete.
    Store(store::Args),
    /// Jobs on MongoDB and SQS, beside the bare servers; what an idle replica asks of its database.
    #[cfg(feature = "cluster")]
    Cluster(cluster::Args),
    /// The baseline of `idle`; runs until it is killed.
    #[command(hide = true)]
    BareIdle,
}

type BenchResult = Result<Vec<Row>, Box<dyn std::error::Error>>;

/// What `list` names and `all` runs.
const ALL: [(&str, &str); 7] = [
    ("reserve", "from a reservation to S3 keys over HTTP, one client"),
    ("offerings", "GET /market/offerings over 100,000 units, through the whole API"),
    ("jobs", "jobs on our engine and on others, side by side"),
    ("seal", "a block of 100,000 accounts sealed and proved"),
    ("settlement", "a million transfers sealed, proved, encoded and rebuilt, on one core"),
    ("idle", "memory and processor time of a daemon that nobody calls"),
    ("store", "jobs through the database alone: insert, claim, complete"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cli = Cli::parse();
    let rows = match cli.bench {
        Bench::List => return Ok(row::list(&ALL, cli.json)?),
        Bench::All => all()?,
        Bench::Reserve => reserve::run()?,
        Bench::Offerings => offerings::run()?,
        Bench::Jobs(args) => {
            let (rows, complaint) = jobs::run(&args)?;
            row::print(&rows, cli.json)?;
            return complaint.map_or(Ok(()), |complaint| Err(complaint.into()));
        }
        Bench::JobsKeep { words } => return jobs::program::keep(&words),
        Bench::JobsOurs(args) => return jobs::ours::run(&args),
        Bench::JobsWorld => return jobs::world::serve(),
        Bench::Seal => seal::run()?,
        Bench::Settlement => settlement::run()?,
        Bench::Idle(args) => idle::run(&args)?,
        Bench::Store(args) => store::store(&args),
        #[cfg(feature = "cluster")]
        Bench::Cluster(args) => cluster::run(&args)?,
        Bench::BareIdle => idle::bare()?,
    };
    row::print(&rows, cli.json)?;
    Ok(())
}

/// Each in a process of its own, so that none has the memory or the threads of another.
fn all() -> BenchResult {
    let own = std::env::current_exe()?;
    let mut rows = Vec::new();
    for (name, _) in ALL {
        // The peers are for `cargo xtask bench jobs`, which installs them.
        let alone: &[&str] = if name == "jobs" { &["--ours", "--rounds", "3"] } else { &[] };
        let output = std::process::Command::new(&own)
            .args([name, "--json"])
            .args(alone)
            .stderr(std::process::Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(format!("{name} ended with {}", output.status).into());
        }
        rows.extend(serde_json::from_slice::<Vec<Row>>(&output.stdout)?);
    }
    Ok(rows)
}
