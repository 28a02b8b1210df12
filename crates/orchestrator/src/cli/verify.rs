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
    /// Check every credit from its evidence, which a daemon's API at this address has, or a web server with its answers as
    /// files `evidence/<subject>`.
    #[arg(long, value_name = "URL")]
    evidence: Option<String>,
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
    let report = setup::verify(&config, args.evidence.as_deref()).await?;
    if args.json {
        output::json(&report)?
    } else {
        show(&report)?;
        show_credits(&report)?
    }
    judge(&report)
}

/// Rebuilds from a chain alone: no database, no configuration.
#[cfg(feature = "ethereum")]
async fn run_on_chain(args: &VerifyArgs) -> Outcome {
    let Some(place) = args.chain.place()? else { return Ok(()) };
    let report = setup::verify_chain(&place, args.evidence.as_deref()).await?;
    if args.json {
        output::json(&report)?;
    } else {
        show(&report.ledger)?;
        output::line(&format!(
            "{} signatures of oracles checked{}",
            report.signatures,
            match report.signatures_unseen {
                0 => String::new(),
                unseen => format!(", those of {unseen} blocks are known to the contract only"),
            },
        ))?;
        show_credits(&report.ledger)?;
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

fn show_credits(report: &VerifyReport) -> Outcome {
    let Some(credits) = &report.credits else {
        return output::line("credits not checked: that needs the evidence (--evidence URL)");
    };
    output::line(&format!(
        "{} verdicts judged again from their evidence, by {}; {} payments and {} credits (of {} in all) held against them, {} still open{}",
        credits.verdicts,
        match credits.rules.len() {
            1 => "one set of rules".to_owned(),
            sets => format!("{sets} sets of rules"),
        },
        credits.payments,
        credits.credits,
        credits.credited,
        credits.open,
        match credits.by_reputation {
            0 => String::new(),
            some => format!("; {some} credits hang on a reputation, which the chain does not bind"),
        },
    ))
}

fn judge(report: &VerifyReport) -> Outcome {
    if report.holds() {
        return Ok(());
    }
    let problems: Vec<_> = report.all_problems().collect();
    let more = report.credits.as_ref().map_or(0, |credits| credits.more_problems);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    Err(Failure::Difference(format!("what was published does not agree: {}{more}", problems.join("; "))))
}
