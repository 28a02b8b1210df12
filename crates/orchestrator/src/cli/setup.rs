//! `orchestrator setup`: plan, apply, verify.

use clap::Args;

use super::{ConfigArgs, Outcome, output};
use crate::{resource::Action, setup};

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
    let plan = if args.plan { setup::plan(&config)? } else { setup::apply(&config).await? };
    if args.json {
        return output::json(&plan);
    }
    let word = |action| match (action, args.plan) {
        (Action::Exists, _) => "is there",
        (Action::Create, true) => "will be made",
        (Action::Create, false) => "made",
        (Action::Change, true) => "will be changed",
        (Action::Change, false) => "changed",
        (Action::Remove, true) => "will be removed",
        (Action::Remove, false) => "removed",
    };
    let rows = plan
        .steps
        .iter()
        .map(|step| vec![step.kind.into(), step.name.clone(), word(step.action).into()])
        .collect();
    output::table(&["what", "name", "state"], rows, "nothing is needed")?;
    if args.plan { Ok(()) } else { output::line("everything is ready") }
}
