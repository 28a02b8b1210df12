//! `orchestrator setup`: plan, apply, verify.

use clap::Args;

use super::{ConfigArgs, Failure, Outcome, output};
use crate::setup;

/// What to do.
#[derive(Debug, Args)]
pub struct SetupArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only show what would be made.
    #[arg(long)]
    plan: bool,
    /// Print JSON for programs.
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
///
/// # Errors
/// When something can't be made, or is not ready afterwards.
pub async fn run(args: &SetupArgs) -> Outcome {
    let config = args.config.load()?;
    let report = if args.plan { setup::plan(&config)? } else { setup::apply(&config).await? };
    if args.json {
        return output::json(&report);
    }
    let rows = report.iter().map(|item| vec![item.kind.to_string(), item.name.clone(), item.status.to_string()]).collect();
    output::table(&["what", "name", "status"], rows, "nothing is needed")?;
    match report.iter().filter(|item| !item.is_ready()).count() {
        0 => Ok(()),
        _ if args.plan => Ok(()),
        count => Err(Failure::Failed(format!("{count} resources are not ready"))),
    }
}
