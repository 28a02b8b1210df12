//! `orchestrator verify`: rebuild the ledger from what was published, and compare.

use clap::Args;

use super::{ConfigArgs, Failure, Outcome, chain::ChainArgs, output};
use crate::{service::settlement::VerifyReport, setup};

/// What to verify.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    chain: ChainArgs,
    /// Print JSON for programs.
    #[arg(long)]
    json: bool,
}

/// Rebuilds and compares. Reads public data only, so it may run while the daemon does.
///
/// # Errors
/// [`Failure::Difference`] when something does not agree; when a layer can't be read.
pub async fn run(args: &VerifyArgs) -> Outcome {
    if args.chain.chain.is_some() {
        return run_on_chain(args).await;
    }
    let config = args.config.load()?;
    let report = setup::verify(&config).await?;
    if args.json {
        output::json(&report)?
    } else {
        show(&report)?
    }
    judge(&report)
}

/// Rebuilds from a chain alone: no database, no configuration.
#[cfg(feature = "ethereum")]
async fn run_on_chain(args: &VerifyArgs) -> Outcome {
    let Some(place) = args.chain.place()? else { return Ok(()) };
    let report = setup::verify_chain(&place).await?;
    if args.json {
        output::json(&report)?;
    } else {
        show(&report.ledger)?;
        output::line(&format!(
            "{} signatures of oracles checked{}; credits not checked: that needs the evidence",
            report.signatures,
            match report.signatures_unseen {
                0 => String::new(),
                unseen => format!(", those of {unseen} blocks are known to the contract only"),
            },
        ))?;
    }
    judge(&report.ledger)
}

#[cfg(not(feature = "ethereum"))]
async fn run_on_chain(_: &VerifyArgs) -> Outcome {
    Err(super::chain::without())
}

fn show(report: &VerifyReport) -> Outcome {
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
    ))
}

fn judge(report: &VerifyReport) -> Outcome {
    if report.holds() {
        return Ok(());
    }
    Err(Failure::Difference(format!("what was published does not agree: {}", report.problems.join("; "))))
}
