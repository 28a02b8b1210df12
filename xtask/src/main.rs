//! The project's single entry: `cargo xtask test`, `cargo xtask bench NAME --json`.

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
    /// Formatting, lints and all tests; prepares stock S3 clients in a cache of its own first.
    Test {
        /// Leave the tests with stock clients out: for machines without package registries.
        #[arg(long)]
        embedded: bool,
        /// Passed on to the test programs, such as a name to filter by.
        #[arg(trailing_var_arg = true)]
        filter: Vec<OsString>,
    },
    /// Measure, in a release build, and print the figures beside the machine's own limits.
    Bench {
        /// Which benchmark; `list` names them, `all` runs them all.
        name: String,
        /// Print an array of rows {name, value, unit, baseline, ratio, goal, holds}.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Test { embedded, filter } => test(embedded, &filter),
        Task::Bench { name, json } => bench(&name, json),
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

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(what: &str, command: &mut Command) -> Result<(), String> {
    eprintln!("== {what}");
    let status = command.status().map_err(|error| format!("{what}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed ({status})")) }
}

fn test(embedded: bool, filter: &[OsString]) -> Result<(), String> {
    if filter.is_empty() {
        run("formatting", cargo().args(["fmt", "--all", "--check"]))?;
        let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        run("lints", cargo().args(clippy))?;
    }
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--locked", "--"]).args(filter);
    if embedded {
        tests.env("ORCHESTRATOR_TEST_EMBEDDED_ONLY", "1");
    } else {
        tests.envs(testbed::ensure()?.environment());
    }
    run("tests", &mut tests)
}

fn bench(name: &str, json: bool) -> Result<(), String> {
    // The daemon's program as well: `idle` starts it.
    let packages = ["--package", "orchestrator-bench", "--package", "orchestrator"];
    let mut build = cargo();
    build.args(["build", "--release", "--quiet", "--locked", "--bins"]).args(packages);
    run("build", &mut build)?;
    let mut command = cargo();
    command.args(["run", "--release", "--quiet", "--locked"]).args(packages);
    command.args(["--bin", "orchestrator-bench", "--", name]);
    if json {
        command.arg("--json");
    }
    run(&format!("bench {name}"), &mut command)
}
