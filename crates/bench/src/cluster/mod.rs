//! Jobs on a cluster: MongoDB and SQS, with 1, 8, 64 and 256 workers, beside what the bare servers do with the same calls
//! from the same number of bare workers in the same run; and what an idle replica asks of its database. On emulators the
//! ratios mean something and the numbers do not: run it on your own servers.

mod bare;
mod engine;
mod idle;

use crate::{BenchResult, process, row::Row};

/// Workers of each round.
const WORKERS: [usize; 4] = [1, 8, 64, 256];
/// A burst of jobs is enqueued in commits of so many.
const BATCH: usize = 50;

/// How it is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The database: a connection string.
    #[arg(long, env = "ORCHESTRATOR_TEST_MONGODB_URL")]
    mongodb: String,
    /// The address of an AWS emulator; empty for AWS itself.
    #[arg(long, env = "ORCHESTRATOR_TEST_AWS_ENDPOINT", default_value = "")]
    aws_endpoint: String,
    /// Jobs of each round.
    #[arg(long, default_value_t = 300)]
    jobs: usize,
    /// Rounds with each number of workers; their median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// For how many seconds the idle replica is watched; 0 leaves it out.
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
}

pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What a round came to.
pub(crate) struct Round {
    /// Jobs a second.
    rate: f64,
    /// Jobs for a second of this process's processor time.
    per_cpu: f64,
}

/// Measures a round in this process.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn measured(jobs: usize, work: impl Future<Output = Result<(), Fault>>) -> Result<Round, Fault> {
    let cpu = || process::cpu(std::process::id()).unwrap_or_default();
    let (before, began) = (cpu(), std::time::Instant::now());
    work.await?;
    let seconds = began.elapsed().as_secs_f64();
    let used = (cpu() - before).max(0.01);
    Ok(Round { rate: jobs as f64 / seconds, per_cpu: jobs as f64 / used })
}

/// The median of each figure by itself.
fn median(rounds: Vec<Round>) -> Round {
    let middle = |figure: fn(&Round) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or_default()
    };
    Round { rate: middle(|round| round.rate), per_cpu: middle(|round| round.per_cpu) }
}

/// Runs it.
///
/// # Errors
/// When a server fails.
pub fn run(args: &Args) -> BenchResult {
    orchestrator::client::network::http::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let name = format!("bench-{:08x}", std::process::id());
    Ok(runtime.block_on(all(args, &name)).map_err(|fault| fault.to_string())?)
}

async fn all(args: &Args, name: &str) -> Result<Vec<Row>, Fault> {
    let mut medians = Vec::new();
    for workers in WORKERS {
        let (mut all_ours, mut all_limits) = (Vec::new(), Vec::new());
        for round in 0..args.rounds.max(1) {
            // In turns, so that a change of the machine's mood meets both.
            let name = format!("{name}-{round}");
            let limit = bare::round(args, &name, workers).await?;
            let ours = engine::round(args, &name, workers).await?;
            eprintln!(
                "{workers} workers: {:.1} jobs/s, bare servers {:.1}, ratio {:.2}",
                ours.rate,
                limit.rate,
                ours.rate / limit.rate
            );
            all_limits.push(limit);
            all_ours.push(ours);
        }
        medians.push((workers, median(all_ours), median(all_limits)));
    }
    let mut rows = Vec::new();
    for (workers, ours, limit) in &medians {
        let row = Row::new(&format!("cluster: jobs a second, {workers} workers"), ours.rate, "jobs/s");
        rows.push(row.beside(limit.rate));
        let row = Row::new(
            &format!("cluster: jobs for a second of one core, {workers} workers"),
            ours.per_cpu,
            "jobs/s",
        );
        rows.push(row.beside(limit.per_cpu));
    }
    let last = medians.last().map_or(0.0, |(_, ours, limit)| ours.rate / limit.rate);
    rows.push(Row::new("cluster: share of the bare servers' rate at 256 workers", last, "").at_least(0.9));
    if args.idle_seconds == 0 {
        return Ok(rows);
    }
    let operations = idle::operations_a_second(args, name).await?;
    rows.push(Row::new("cluster: database operations of an idle replica", operations, "1/s").at_most(1.0));
    Ok(rows)
}
