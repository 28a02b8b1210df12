//! Writes the seeds, and runs single inputs without libFuzzer.

#![allow(clippy::panic, reason = "a law that does not hold stops the run")]

use std::{fs, io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use orchestrator_fuzz_targets::{TARGETS, files, seeds, target};

#[derive(Debug, Parser)]
#[command(about = "What is fuzzed, without a fuzzer")]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Names of the targets and the longest input of each.
    List,
    /// Runs files through a target.
    Replay {
        /// The target.
        target: String,
        /// Files with one input each.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Writes the seeds anew.
    Seeds,
}

fn main() -> ExitCode {
    match act(Cli::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn act(action: Action) -> Result<(), String> {
    match action {
        Action::List => {
            for target in TARGETS {
                writeln!(std::io::stdout(), "{} {}", target.name, target.max_len)
                    .map_err(|e| e.to_string())?;
            }
            Ok(())
        }
        Action::Replay { target: name, files } => {
            let target =
                target(&name).ok_or_else(|| format!("there is no target `{name}`; `list` names them"))?;
            for file in files {
                let input = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
                eprintln!("{}", file.display());
                (target.run)(&input);
            }
            Ok(())
        }
        Action::Seeds => write_seeds().map_err(|error| format!("the seeds can't be written: {error}")),
    }
}

fn write_seeds() -> std::io::Result<()> {
    let root = files::directory("seeds");
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for (target, name, bytes) in seeds::all() {
        fs::create_dir_all(root.join(target))?;
        fs::write(root.join(target).join(name), bytes)?;
    }
    Ok(())
}
