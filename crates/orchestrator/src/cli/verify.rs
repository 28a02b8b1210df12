//! `orchestrator verify`: rebuild the ledger from what was published, and compare.

use clap::Args;

use super::{ConfigArgs, Failure, Outcome, output};
use crate::setup;

/// What to verify.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON for programs.
    #[arg(long)]
    json: bool,
}

/// Rebuilds and compares. Reads public data only, so it may run while the daemon does.
///
/// # Errors
/// [`Failure::Difference`] when something does not agree; when a layer can't be read.
pub async fn run(args: &VerifyArgs) -> Outcome {
    let config = args.config.load()?;
    let report = setup::verify(&config).await?;
    if args.json {
        output::json(&report)?;
    } else {
        let rows = report.accounts.iter().map(|account| {
            vec![
                account.index.to_string(),
                account.key_hash.clone(),
                account.balance.to_string(),
                account.withdrawable.to_string(),
            ]
        });
        output::table(
            &["index", "account (hash)", "balance", "withdrawable"],
            rows.collect(),
            "there are no accounts yet",
        )?;
        output::line(&format!(
            "\n{} blocks with {} records executed again; state root {}; deposits {} in total; the last block is {}",
            report.blocks,
            report.records,
            report.state_root,
            report.total,
            match (report.blocks, report.is_final) {
                (0, _) => "still to come",
                (_, true) => "final",
                (_, false) => "not final yet",
            },
        ))?;
    }
    if report.holds() {
        return Ok(());
    }
    Err(Failure::Difference(format!("what was published does not agree: {}", report.problems.join("; "))))
}
