//! The project's single entry: `cargo xtask test`, `cargo xtask backends up`, `cargo xtask bench NAME --json`.

mod backends;
mod cache;
mod contracts;
mod fuzz;
mod interrupt;
mod peers;
mod sim;
mod soak;
mod testbed;

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
};

use clap::{Parser, Subcommand};

/// Tests and benchmarks of the orchestrator.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Formatting, lints and all tests, on real servers: fetches them and stock S3 clients into a cache first.
    Test {
        /// Minutes of processor time for simulated markets from seeds, beside the tests and after them; 5 unless given, 0 leaves them out.
        /// A run with a filter has none unless given.
        #[arg(long)]
        seeds: Option<f64>,
        /// Leave out the back ends of a cluster and the tests with stock clients: for machines without package registries.
        #[arg(long)]
        embedded: bool,
        /// Passed on to the test programs, such as a name to filter by.
        #[arg(trailing_var_arg = true)]
        filter: Vec<OsString>,
    },
    /// The servers of a cluster, without containers: start, end, show. `eval "$(cargo xtask backends up)"` sets what tests read.
    Backends {
        #[command(subcommand)]
        action: backends::Action,
    },
    /// Fetch the job engines that `bench jobs` runs beside ours, and say where the file is that names them.
    Peers,
    /// Build a chain's contract and compare it with the committed one; `--test` for its tests, gas limits and coverage.
    Contracts(contracts::ContractsArgs),
    /// Run whole markets from seeds, under faults, and compare them with a model; `-- --help` lists what can be asked for.
    Sim {
        /// Passed on to the simulator, such as `--seed 7 --faults heavy --trace`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Feed every parser of outside bytes with inputs of libFuzzer's making, and say what breaks a law.
    Fuzz(fuzz::FuzzArgs),
    /// Kill the real daemon thousands of times under load and count what was lost or doubled; goes on from its report.
    Soak(soak::SoakArgs),
    /// Measure, in a build like the shipped one, and print the figures beside the machine's own limits.
    Bench {
        /// Which benchmark; `list` names them, `all` runs them all.
        name: String,
        /// Print an array of rows {name, value, unit, baseline, ratio, goal, holds}.
        #[arg(long)]
        json: bool,
        /// For `jobs`: write the raw figures and the plot to docs/benchmarks.
        #[arg(long)]
        record: bool,
        /// Passed on to the benchmark, such as `--ours` or `--jobs 2000 --rounds 1` for `jobs`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<OsString>,
    },
}

/// Minutes of processor time for the seeds of each test run.
const USUAL_SEEDS: f64 = 5.0;

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Test { embedded, seeds, filter } => {
            let usual = if filter.is_empty() { USUAL_SEEDS } else { 0.0 };
            test(embedded, seeds.unwrap_or(usual), &filter)
        }
        Task::Backends { action } => backends::act(action),
        Task::Peers => peers::kit(&root()).and_then(|kit| {
            use std::io::Write as _;
            writeln!(std::io::stdout(), "{}", kit.display()).map_err(|error| error.to_string())
        }),
        Task::Bench { name, json, record, rest } => bench(&name, json, record, &rest),
        Task::Sim { arguments } => sim::run(&arguments),
        Task::Contracts(args) => contracts::contracts(&root(), &args),
        Task::Fuzz(args) => fuzz::fuzz(&args),
        Task::Soak(args) => soak::soak(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The checkout. As cargo says it when it runs this: two checkouts that share a target directory share this program, too, and
/// what it was compiled with may be the other one's path.
fn root() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(here).join("..")
}

fn run(what: &str, command: &mut Command) -> Result<(), String> {
    eprintln!("== {what}");
    let status = interrupt::wait(command).map_err(|error| format!("{what}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed ({status})")) }
}

fn test(embedded: bool, seeds: f64, filter: &[OsString]) -> Result<(), String> {
    interrupt::watch()?;
    let seeds = (seeds > 0.0).then(|| sim::Seeds::begin(seeds)).transpose()?;
    tests(embedded, filter)?;
    seeds.map_or(Ok(()), sim::Seeds::end)
}

fn tests(embedded: bool, filter: &[OsString]) -> Result<(), String> {
    let features: &[&str] = match embedded {
        true => &[],
        false => &["--features", "orchestrator/cluster,orchestrator-bench/cluster"],
    };
    if filter.is_empty() {
        run("formatting", cargo().args(["fmt", "--all", "--check"]))?;
        let mut clippy = cargo();
        clippy.args(["clippy", "--workspace", "--all-targets", "--locked"]).args(features);
        run("lints", clippy.args(["--", "-D", "warnings"]))?;
        if !embedded {
            run("the default build", cargo().args(["check", "--package", "orchestrator", "--locked"]))?;
        }
    }
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--locked"]).args(features).arg("--").args(filter);
    if embedded {
        tests.env("ORCHESTRATOR_TEST_EMBEDDED_ONLY", "1");
        return run("tests", &mut tests);
    }
    tests.envs(testbed::ensure(&root())?.environment());
    eprintln!("== servers");
    let hint = |problem| format!("{problem}\n`cargo xtask test --embedded` tests without servers");
    let servers = backends::Hold::new().map_err(hint)?;
    tests.envs(servers.environment.iter().map(|(name, value)| (name, value)));
    let outcome = run("tests", &mut tests);
    servers.release().and(outcome)
}

fn bench(name: &str, json: bool, record: bool, rest: &[OsString]) -> Result<(), String> {
    let on_servers = name == "cluster";
    let features: &[&str] = match name {
        "cluster" => &["--features", "orchestrator-bench/cluster,orchestrator/cluster"],
        "settlement" | "all" => &["--features", "orchestrator-bench/ethereum,orchestrator/ethereum"],
        _ => &[],
    };
    let mut build = cargo();
    // The daemon's program as well: `idle` starts it.
    build.args(["build", "--profile", "dist", "--quiet", "--locked", "--bins"]);
    build.args(["--package", "orchestrator-bench", "--package", "orchestrator"]).args(features);
    run("build", &mut build)?;
    let mut command = cargo();
    command
        .args(["run", "--profile", "dist", "--quiet", "--locked", "--package", "orchestrator-bench"])
        .args(features);
    // Servers that the environment names are taken as they are: that is how one measures one's own cluster.
    let own = on_servers && env::var_os("ORCHESTRATOR_TEST_MONGODB_URL").is_none();
    let servers = own.then(backends::Hold::new).transpose()?;
    if let Some(servers) = &servers {
        command.envs(servers.environment.iter().map(|(name, value)| (name, value)));
    }
    if matches!(name, "settlement" | "all") {
        command.env("ORCHESTRATOR_TEST_ANVIL", contracts::anvil(&root())?);
    }
    command.args(["--bin", "orchestrator-bench", "--", name]);
    // Flags of this program may stand behind what is passed on.
    let given = |flag: &str| rest.iter().any(|word| word == flag);
    if json || given("--json") {
        command.arg("--json");
    }
    if name == "jobs" && !given("--ours") {
        command.arg("--kit").arg(peers::kit(&root())?);
    }
    if record || given("--record") {
        command.arg("--out").arg(root().join("docs/benchmarks"));
    }
    command.args(rest.iter().filter(|word| *word != "--json" && *word != "--record"));
    let outcome = run(&format!("bench {name}"), &mut command);
    match servers {
        Some(servers) => servers.release().and(outcome),
        None => outcome,
    }
}
