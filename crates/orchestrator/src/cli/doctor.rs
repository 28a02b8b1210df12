//! `orchestrator doctor`: how every configured dependency is, and how to mend what is wrong.

use clap::Args;

use super::{ConfigArgs, Failure, Outcome, output};
use crate::setup;

/// How many findings with one fix are told one by one.
const TOLD: usize = 5;

/// How to look.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON for programs.
    #[arg(long)]
    json: bool,
}

/// Asks every dependency, and changes nothing.
///
/// # Errors
/// [`Failure::Difference`] when anything is wrong; a wrong configuration.
pub async fn run(args: &DoctorArgs) -> Outcome {
    let config = args.config.load()?;
    let checkups = setup::doctor(&config).await;
    let wrong = checkups.iter().filter(|checkup| !checkup.findings.is_empty()).count();
    if args.json {
        output::json(&checkups)?;
    } else {
        let rows = checkups.iter().map(|checkup| {
            let latency = checkup.latency_ms.map_or_else(|| "no answer".into(), |ms| format!("{ms:.1} ms"));
            let version = checkup.version.clone().unwrap_or_default();
            let state = if checkup.findings.is_empty() { "well" } else { "needs you" };
            vec![checkup.name.into(), state.into(), latency, checkup.target.clone(), version]
        });
        output::table(&["what", "state", "answer", "where", "version"], rows.collect(), "nothing to ask")?;
        for checkup in &checkups {
            for (fix, found) in by_fix(checkup) {
                output::line(&format!("\n{}: {found}\n  fix: {fix}", checkup.name))?;
            }
        }
    }
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::Difference("one dependency needs you".into())),
        many => Err(Failure::Difference(format!("{many} dependencies need you"))),
    }
}

/// What is wrong, together where one fix mends it; long lists are cut.
fn by_fix(checkup: &setup::Checkup) -> Vec<(&str, String)> {
    let mut fixes: Vec<(&str, Vec<&str>)> = Vec::new();
    for finding in &checkup.findings {
        match fixes.iter_mut().find(|(fix, _)| *fix == finding.fix) {
            Some((_, found)) => found.push(&finding.what),
            None => fixes.push((&finding.fix, vec![&finding.what])),
        }
    }
    let told = |mut found: Vec<&str>| {
        let more = found.len().saturating_sub(TOLD);
        found.truncate(TOLD);
        let found = found.join("; ");
        if more > 0 { format!("{found}; and {more} more") } else { found }
    };
    fixes.into_iter().map(|(fix, found)| (fix, told(found))).collect()
}
