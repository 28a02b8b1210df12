//! `orchestrator config check|show`.

use clap::{Args, Subcommand};

use super::{ConfigArgs, Failure, Outcome, output};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Tell everything that is wrong with the configuration, with its place.
    Check(ConfigArgs),
    /// Print the configuration that is in force after all layers, without passwords in addresses.
    Show(ShowArgs),
}

/// How to show it.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON for programs.
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
///
/// # Errors
/// The faults of the configuration.
pub fn run(command: &ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Check(args) => {
            args.load()?;
            output::line("the configuration is valid")
        }
        ConfigCommand::Show(args) => {
            let config = args.config.load()?.masked();
            if args.json {
                return output::json(&config);
            }
            let text = toml::to_string(&config).map_err(|error| Failure::Failed(error.to_string()))?;
            output::line(text.trim_end())
        }
    }
}
