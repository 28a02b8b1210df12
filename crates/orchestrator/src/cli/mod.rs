//! The command line: what an operator types. Thin: it parses, calls the daemon's API or [`crate::setup`], and prints.
//!
//! Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 the daemon can't be reached; 4 a check found a
//! difference.

mod api;
mod backup;
mod chain;
mod config;
mod demo;
mod doctor;
mod jobs;
mod keys;
mod output;
mod proof;
mod provider;
mod run;
mod setup;
mod verify;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{Config, ConfigError, Layers, load},
    error::{Error, chain},
};

/// How a command ended, other than well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
    /// The configuration or the call is wrong.
    #[error("{0}")]
    Usage(String),
    /// The daemon does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// A check found a difference; it was printed.
    #[error("{0}")]
    Difference(String),
    /// Whoever reads the output has read enough (`| head`).
    #[error("standard output was closed")]
    Enough,
}

impl Failure {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Difference(_) => 4,
            Self::Enough => 0,
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(format!("{} ({})", chain(&error), error.code.as_str()))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

type Outcome = Result<(), Failure>;

/// A storage market without a middleman: sells, provisions, measures and settles storage allocations.
#[derive(Debug, Parser)]
#[command(name = "orchestrator", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  orchestrator demo                                   see a whole market run in under a minute
  orchestrator run                                    start the daemon with its embedded back ends in ./data
  orchestrator run --config orchestrator.toml         start it with a configuration
  orchestrator keys create --role consumer --tenant cons_…   let somebody in
  orchestrator jobs list --state failed               see what needs a person

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 daemon not reachable, 4 a check found a difference.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until Ctrl-C or SIGTERM.
    #[command(
        after_help = "Examples:\n  orchestrator run\n  orchestrator run --config orchestrator.toml --set api.listen=127.0.0.1:8080"
    )]
    Run(ConfigArgs),
    /// Run the built-in provider alone: its S3 endpoint and its admin API.
    #[command(after_help = "Example:\n  orchestrator provider --config provider.toml")]
    Provider(ConfigArgs),
    /// Show what the daemon needs, make what is missing, and check it.
    #[command(after_help = "Examples:\n  orchestrator setup --plan\n  orchestrator setup --json")]
    Setup(setup::SetupArgs),
    /// Ask every configured dependency how it is, and say how to mend what is wrong.
    #[command(
        after_help = "Examples:\n  orchestrator doctor --config orchestrator.toml\n  orchestrator doctor --json"
    )]
    Doctor(doctor::DoctorArgs),
    /// Run a whole market in a temporary directory and report on it.
    #[command(after_help = "Examples:\n  orchestrator demo\n  orchestrator demo --json | jq .credits_total")]
    Demo(demo::DemoArgs),
    /// Rebuild the ledger from what was published and compare every root.
    #[command(
        after_help = "Examples:\n  orchestrator verify\n  orchestrator verify --json\n  orchestrator verify --chain https://node.example --beacon https://beacon.example --contract 0x…"
    )]
    Verify(verify::VerifyArgs),
    /// Execute every block of a contract again, and show the contract the first wrong one.
    #[command(
        after_help = "Examples:\n  orchestrator challenge --chain https://node.example --beacon https://beacon.example --contract 0x…\n  orchestrator challenge --chain … --contract 0x… --keystore key.json --password-file password"
    )]
    Challenge(chain::ChallengeArgs),
    /// Fetch the inclusion proof of accounts, and check it.
    #[command(
        after_help = "Examples:\n  orchestrator proof consumer:cons_… provider:prov_…\n  orchestrator proof --json fees | node verify-proof.mjs"
    )]
    Proof(proof::ProofArgs),
    /// Copy the embedded database, ledger, storage and keys as of one instant, beside a daemon that runs, and check the copy.
    #[command(
        after_help = "Examples:\n  orchestrator backup /mnt/backups/2026-11-21\n  orchestrator backup --without-keys --json /mnt/backups/now"
    )]
    Backup(backup::BackupArgs),
    /// Check a backup and put it in place of what the data directory holds, which is set aside.
    #[command(
        after_help = "Examples:\n  orchestrator restore --check /mnt/backups/2026-11-21\n  orchestrator restore --replace /mnt/backups/2026-11-21"
    )]
    Restore(backup::RestoreArgs),
    /// Create, list and revoke API keys.
    #[command(
        subcommand,
        after_help = "Examples:\n  orchestrator keys create --role operator --label laptop\n  orchestrator keys list\n  orchestrator keys revoke key_…"
    )]
    Keys(keys::KeysCommand),
    /// Look at jobs and retry them.
    #[command(
        subcommand,
        after_help = "Examples:\n  orchestrator jobs list --state failed\n  orchestrator jobs show job_…\n  orchestrator jobs retry job_…"
    )]
    Jobs(jobs::JobsCommand),
    /// Check or show the configuration.
    #[command(
        subcommand,
        after_help = "Examples:\n  orchestrator config check --config orchestrator.toml\n  orchestrator config show"
    )]
    Config(config::ConfigCommand),
    /// Print the API's OpenAPI document.
    #[command(after_help = "Example:\n  orchestrator openapi > openapi.json")]
    Openapi,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// A TOML file; without it, everything is embedded, in ./data.
    #[arg(long, short, env = "ORCHESTRATOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key, over file and environment; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// The configuration of all layers.
    ///
    /// # Errors
    /// Every fault of it.
    pub fn load(&self) -> Result<Config, Failure> {
        let mut flags = Vec::new();
        for pair in &self.set {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Failure::Usage(format!(
                    "--set {pair}: write SECTION.KEY=VALUE, such as api.listen=127.0.0.1:8080"
                )));
            };
            flags.push((key.trim().to_owned(), value.trim().to_owned()));
        }
        Ok(load(&Layers::gather(self.config.as_deref(), flags)?)?)
    }
}

/// Parses the command line, carries the command out, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // The ring provider is the one that is compiled in; a second installation can only mean that it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&format!("the runtime could not be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(dispatch(cli.command)) {
        Ok(()) | Err(Failure::Enough) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Run(args) => run::run(&args).await,
        Command::Provider(args) => provider::run(&args).await,
        Command::Setup(args) => setup::run(&args).await,
        Command::Doctor(args) => doctor::run(&args).await,
        Command::Demo(args) => demo::run(&args).await,
        Command::Verify(args) => verify::run(&args).await,
        Command::Proof(args) => proof::run(&args).await,
        Command::Challenge(args) => chain::challenge(&args).await,
        Command::Backup(args) => backup::backup(&args).await,
        Command::Restore(args) => backup::restore(&args).await,
        Command::Keys(command) => keys::run(&command).await,
        Command::Jobs(command) => jobs::run(&command).await,
        Command::Config(command) => config::run(&command),
        Command::Openapi => output::json(&crate::controller::route::openapi()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
