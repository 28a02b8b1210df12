//! `orchestrator setup`: plan, apply, verify; destroy; the policy that the daemon needs.

use std::io::IsTerminal as _;

use clap::Args;

use super::{ConfigArgs, Failure, Outcome, output};
use crate::{
    config::Config,
    resource::{Action, Plan},
    setup,
};

/// What to do.
#[derive(Debug, Args)]
pub struct SetupArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only show what would be made, changed or, with --destroy, removed.
    #[arg(long)]
    plan: bool,
    /// Remove what setup made at services elsewhere. Databases, data directories and what was named by ARN stay.
    #[arg(long, conflicts_with = "policy")]
    destroy: bool,
    /// With --destroy: don't ask.
    #[arg(long, requires = "destroy")]
    yes: bool,
    /// Print the least-privilege policy for the daemon, as an IAM policy document, and do nothing else.
    #[arg(long)]
    policy: bool,
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
    if args.policy {
        return policy(&config).await;
    }
    if args.destroy {
        return destroy(args, &config).await;
    }
    let plan = if args.plan { setup::plan(&config).await? } else { setup::apply(&config).await? };
    show(args, &plan)?;
    if args.plan || args.json { Ok(()) } else { output::line("everything is ready") }
}

async fn policy(config: &Config) -> Outcome {
    match setup::policy(config).await? {
        Some(policy) => output::json(&policy),
        None => Err(Failure::Usage(
            "--policy: this configuration uses nothing at AWS, so that no policy is needed".into(),
        )),
    }
}

async fn destroy(args: &SetupArgs, config: &Config) -> Outcome {
    let plan = setup::plan_destroy(config).await?;
    if args.plan || plan.steps.is_empty() {
        return show(args, &plan);
    }
    if !args.yes {
        confirm(args, config, &plan)?;
    }
    show(args, &setup::destroy(config).await?)
}

/// Asks for the prefix of the names: what nobody types by accident.
fn confirm(args: &SetupArgs, config: &Config, plan: &Plan) -> Outcome {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("--destroy removes for good: confirm it with --yes".into()));
    }
    show(args, plan)?;
    let prefix = &config.aws.prefix;
    output::line(&format!("type `{prefix}` to remove all of this for good:"))?;
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match read.is_ok() && answer.trim() == prefix {
        true => Ok(()),
        false => Err(Failure::Usage("nothing was removed".into())),
    }
}

fn show(args: &SetupArgs, plan: &Plan) -> Outcome {
    if args.json {
        return output::json(plan);
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
        .map(|step| {
            vec![step.kind.into(), step.name.clone(), word(step.action).into(), step.changes.join("; ")]
        })
        .collect();
    let nothing = if args.destroy { "there is nothing to remove" } else { "nothing is needed" };
    output::table(&["what", "name", "state", "changes"], rows, nothing)?;
    plan.notes.iter().try_for_each(|note| output::line(note))
}
