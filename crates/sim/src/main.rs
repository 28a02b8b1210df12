//! `orchestrator-sim`: runs seeds, and says which ones fail and how to run them again.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::Parser;
use orchestrator_sim::{
    Outcome, Plan, Profile, Sabotage,
    many::{Batch, Failure, Limit, Summary, many},
    run,
    shrink::shrink,
    soak::Report,
    time::seconds_here,
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{format::Writer, time::FormatTime},
};

/// How many failing seeds are made smaller.
const SHRUNK: usize = 3;

/// Whole markets from a seed, under faults, compared with a model.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim")]
struct Cli {
    /// Run this seed alone, and say what came of it.
    #[arg(long)]
    seed: Option<u64>,
    /// Run the seeds A..B, or from A on with `A..`.
    #[arg(long, value_parser = seeds, default_value = "1..", conflicts_with = "seed")]
    seeds: (u64, u64),
    /// Stop after so many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// `--minutes` are those that each thread gets of a processor: for runs beside something that goes first.
    #[arg(long, requires = "minutes")]
    beside: bool,
    /// Go on from `--report` until so many processes were killed in all.
    #[arg(long, value_name = "KILLS", requires = "report", conflicts_with_all = ["seed", "seeds", "minutes"])]
    soak: Option<u64>,
    /// The report of a soak, written after every few seeds.
    #[arg(long, requires = "soak")]
    report: Option<PathBuf>,
    /// How long people and faults are let loose, in simulated hours; by the seed, 0.05 to 0.25, unless given.
    #[arg(long)]
    hours: Option<f64>,
    /// none, light, heavy, kills; or a list such as `db=0.02,provider=0.1,queue=drop:0.1+reorder:0.2,pause,restart,skew`;
    /// mixed: by the seed.
    #[arg(long, default_value = "mixed")]
    faults: String,
    /// Replicas; by the seed, one to three, unless given.
    #[arg(long, default_value_t = 0)]
    replicas: usize,
    /// Consumers.
    #[arg(long, default_value_t = 3)]
    consumers: usize,
    /// Put a bug in, to see that it is found.
    #[arg(long, default_value = "none", value_parser = sabotage)]
    sabotage: Sabotage,
    /// Threads; all cores unless given.
    #[arg(long)]
    threads: Option<usize>,
    /// Run each seed twice and compare.
    #[arg(long)]
    twice: bool,
    /// Say nothing on the way.
    #[arg(long)]
    quiet: bool,
    /// Leave failing seeds as they are.
    #[arg(long)]
    no_shrink: bool,
    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,
    /// With `--seed`: write what the replicas log to standard error; `RUST_LOG` filters.
    #[arg(long)]
    trace: bool,
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("`{text}`: give A..B or A..");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let from = from.parse().map_err(|_| wrong())?;
    let to = if to.is_empty() { u64::MAX } else { to.parse().map_err(|_| wrong())? };
    Ok((from, to))
}

fn sabotage(text: &str) -> Result<Sabotage, String> {
    if text == "none" { Ok(Sabotage::None) } else { text.parse() }
}

/// The faults of a seed.
fn profile(text: &str, seed: u64) -> Result<Profile, String> {
    let text = match (text, seed % 8) {
        ("mixed", 0) => "none",
        ("mixed", 1..=4) => "light",
        ("mixed", _) => "heavy",
        (given, _) => given,
    };
    text.parse()
}

/// How long a seed's people and faults are let loose, in thousandths of an hour: most runs are short, for much happens in
/// the first minutes, and coming to rest takes as long after each.
const fn usual_length(seed: u64) -> u32 {
    match seed / 8 % 4 {
        0 => 250,
        1 => 50,
        _ => 100,
    }
}

impl Cli {
    fn plan(&self, seed: u64) -> Plan {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked before")]
        let given = self.hours.map(|hours| (hours * 1e3).round() as u32);
        Plan {
            millihours: given.unwrap_or_else(|| usual_length(seed)),
            faults: profile(&self.faults, seed).unwrap_or_default(),
            replicas: self.replicas,
            consumers: self.consumers.max(1),
            sabotage: self.sabotage,
            ..Plan::new(seed)
        }
    }

    fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
    }

    /// Runs a plan, twice if that was asked for.
    fn run(&self, plan: &Plan) -> Outcome {
        let mut outcome = run(plan);
        if self.twice {
            let again = run(plan);
            if again != outcome {
                let text = format!("a second run differs: {} and {}", outcome.trail, again.trail);
                outcome.violations.push(text);
            }
        }
        outcome
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(problem) = profile(&cli.faults, 1) {
        eprintln!("error: --faults: {problem}");
        return ExitCode::from(2);
    }
    if cli.hours.is_some_and(|hours| !(0.01..=1_000.0).contains(&hours)) {
        eprintln!("error: --hours: give a number from 0.01 to 1000");
        return ExitCode::from(2);
    }
    match (cli.seed, &cli.report) {
        (Some(seed), _) => one(&cli, seed),
        (None, Some(report)) => soaked(&cli, report),
        (None, None) => several(&cli),
    }
}

/// Log lines carry the simulated time.
struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:12.6}", seconds_here())
    }
}

fn say(text: &str) {
    // A closed pipe is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn one(cli: &Cli, seed: u64) -> ExitCode {
    if cli.trace {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("debug"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_timer(SimulatedTime)
            .init();
    }
    let plan = cli.plan(seed);
    let outcome = cli.run(&plan);
    if cli.json {
        say(&serde_json::to_string_pretty(&outcome).unwrap_or_default());
    } else {
        say(&format!("{outcome:#?}"));
        say(&plan.command());
    }
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn several(cli: &Cli) -> ExitCode {
    let time = cli.minutes.map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0));
    let limit = match time {
        None => Limit::None,
        Some(time) if cli.beside => Limit::Processor(time),
        Some(time) => Limit::Wall(time),
    };
    let batch = Batch { from: cli.seeds.0, to: cli.seeds.1, limit, threads: cli.threads(), failures: 20 };
    let mut last = 0.0;
    let mut summary = many(
        batch,
        |seed| cli.plan(seed),
        |plan| cli.run(plan),
        |outcome, so_far| {
            if !outcome.violations.is_empty() {
                eprintln!("seed {} fails: {}", outcome.seed, outcome.violations.join("\n    "));
            }
            if !cli.quiet && so_far.elapsed_seconds - last >= 10.0 {
                last = so_far.elapsed_seconds;
                let (seeds, kills) = (so_far.seeds, so_far.kills);
                eprintln!("{last:.0} s: {seeds} seeds, {kills} kills, {} failures", so_far.failures.len());
            }
        },
    );
    if !cli.no_shrink {
        for failure in summary.failures.iter_mut().take(SHRUNK) {
            smaller(cli, failure);
        }
    }
    if cli.json {
        say(&serde_json::to_string_pretty(&summary).unwrap_or_default());
    } else {
        tell(&summary);
    }
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Goes on from a report until there are enough kills.
fn soaked(cli: &Cli, path: &Path) -> ExitCode {
    let soaking = || -> Result<Report, String> {
        let mut report = Report::open(path, &cli.faults, cli.hours)?;
        while report.kills < cli.soak.unwrap_or(0) {
            let summary =
                many(report.batch(cli.threads()), |seed| cli.plan(seed), |plan| cli.run(plan), |_, _| {});
            report.add(&summary);
            report.write(path)?;
            if !cli.quiet {
                eprintln!(
                    "{} kills in {} seeds, {} failures",
                    report.kills,
                    report.seeds,
                    report.failures.len()
                );
            }
        }
        Ok(report)
    };
    match soaking() {
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(2)
        }
        Ok(report) => {
            say(&report.to_string());
            if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
    }
}

fn smaller(cli: &Cli, failure: &mut Failure) {
    eprintln!("making seed {} smaller …", failure.seed);
    let plan = cli.plan(failure.seed);
    let outcome = Outcome { violations: failure.violations.clone(), ..Outcome::default() };
    let (plan, outcome) = shrink(&plan, outcome);
    failure.violations = outcome.violations;
    failure.command = plan.command();
}

fn tell(summary: &Summary) {
    let Summary { seeds, seeds_per_minute, simulated_hours, kills, faults, counts, .. } = summary;
    say(&format!(
        "{seeds} seeds in {:.0} s ({seeds_per_minute:.0} a minute), {simulated_hours:.0} simulated hours",
        summary.elapsed_seconds
    ));
    say(&format!(
        "{kills} kills, {faults} other faults; {} allocations {:?}, {} transfers, {} verdicts, {} disputes, {} blocks",
        counts.allocations, counts.ends, counts.transfers, counts.verdicts, counts.disputes, counts.blocks
    ));
    say(&format!(
        "{} acknowledged, {} effects: {} duplicates, {} lost",
        counts.acknowledged, counts.effects, counts.duplicates, counts.lost
    ));
    for failure in &summary.failures {
        say(&format!("seed {} fails:", failure.seed));
        for violation in failure.violations.iter().take(8) {
            say(&format!("    {violation}"));
        }
        say(&format!("    {}", failure.command));
    }
    say(&match summary.failures.len() {
        0 => "all agree with the model".to_owned(),
        failures => format!("{failures} failures"),
    });
}
