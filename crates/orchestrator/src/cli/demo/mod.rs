//! `orchestrator demo`: a whole market in a temporary directory, in under a minute, through the same HTTP API and the same
//! S3 endpoints that everybody uses. Windows are seconds instead of months; nothing else is different.

mod market;
mod report;
mod storage;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::{Args, ValueEnum};
use orchestrator_provider::{ProviderHandle, ProviderOptions, ProviderServer};

use super::{Failure, Outcome, output};
use crate::{
    config::{Config, HumanDuration},
    setup::{self, Daemon, StartOptions},
    utils::{logging, random},
};

use market::Market;
use report::Report;

/// How to show it.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Print the report as one JSON object, and no progress.
    #[arg(long)]
    json: bool,
    /// Settle on a chain of the demo's own instead of the local stand-in.
    #[arg(long, value_enum)]
    chain: Option<ChainKind>,
    /// The anvil program.
    #[arg(long, value_name = "PROGRAM", default_value = "anvil", requires = "chain")]
    anvil: PathBuf,
    /// Keep the directory with everything in it, and say where it is.
    #[arg(long)]
    keep: bool,
    /// Show the daemon's log too, filtered as `log.filter` is.
    #[arg(long, value_name = "FILTER", default_value = "error")]
    log: String,
}

/// Which chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ChainKind {
    /// Ethereum, as anvil plays it: with the contract, blobs, and a token.
    Anvil,
}

/// Providers beside the built-in one.
const OTHERS: [&str; 2] = ["slowpoke", "flaky"];

/// Runs the demo.
///
/// # Errors
/// Whatever goes wrong on the way; [`Failure::Difference`] when the books do not balance or a proof does not verify.
pub async fn run(args: &DemoArgs) -> Outcome {
    let started = Instant::now();
    logging::install(&args.log, false).map_err(Failure::Usage)?;
    let directory = tempfile::Builder::new().prefix("orchestrator-demo-").tempdir()?;
    let progress = Progress { started, quiet: args.json };
    let outcome = play(args, directory.path(), &progress).await;
    if args.keep {
        output::note(&format!("everything is kept in {}", directory.keep().display()));
    }
    let report = outcome?;
    if args.json {
        output::json(&report)?
    } else {
        report.print()?
    }
    report.judge()
}

/// Tells people how far it is.
pub struct Progress {
    started: Instant,
    quiet: bool,
}

impl Progress {
    /// One line, with the seconds since the start.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            output::note(&format!("{:>5.1} s  {text}", self.started.elapsed().as_secs_f32()));
        }
    }

    /// Whole seconds since the start, rounded up.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.started.elapsed().as_secs() + 1
    }
}

/// The chain, where there is one; a build without Ethereum has none.
#[cfg(feature = "ethereum")]
type Chain = setup::DevChain;
#[cfg(not(feature = "ethereum"))]
type Chain = std::convert::Infallible;

#[cfg(feature = "ethereum")]
async fn chain(
    args: &DemoArgs,
    directory: &Path,
    config: &mut Config,
    progress: &Progress,
) -> Result<Option<Chain>, Failure> {
    if args.chain.is_none() {
        return Ok(None);
    }
    let chain = Chain::start(&args.anvil, directory).await.map_err(|error| match error.code {
        crate::error::ErrorCode::InvalidField => Failure::Usage(error.detail.into_owned()),
        _ => error.into(),
    })?;
    chain.configure(config)?;
    progress
        .say(&format!("anvil runs on {} with a token and the settlement contract", config.ethereum.rpc_url));
    Ok(Some(chain))
}

#[cfg(not(feature = "ethereum"))]
async fn chain(args: &DemoArgs, _: &Path, _: &mut Config, _: &Progress) -> Result<Option<Chain>, Failure> {
    match args.chain {
        None => Ok(None),
        Some(ChainKind::Anvil) => {
            let _ = &args.anvil;
            Err(Failure::Usage("this build has no Ethereum; build with `--features ethereum`".to_owned()))
        }
    }
}

async fn play(args: &DemoArgs, directory: &Path, progress: &Progress) -> Result<Report, Failure> {
    let mut config = config(directory);
    let chain = chain(args, directory, &mut config, progress).await?;
    let daemon = Daemon::start(&config, StartOptions { provider_faults: true }).await?;
    progress.say(&format!(
        "the daemon listens on http://{} (a bucket is 1 s, a billing period 8 s)",
        daemon.api_addr
    ));
    let mut providers = Vec::new();
    for name in OTHERS {
        providers.push((name, start_provider(directory, name).await?));
    }
    let outcome = async {
        let mut market = Market::open(&daemon, chain.as_ref(), progress).await?;
        market.gather_providers(&daemon, &providers).await?;
        market.gather_consumers().await?;
        market.buy().await?;
        market.store().await?;
        market.break_providers(&providers).await?;
        market.await_verdicts().await?;
        market.close().await?;
        market.await_blocks().await?;
        let report = market.report().await?;
        let report = Report { settled: market.withdraw().await?, ..report };
        // As anybody would, with what the daemon tells everybody.
        let evidence = format!("http://{}", daemon.api_addr);
        Ok::<_, Failure>((report, setup::verify(&config, Some(&evidence)).await?))
    }
    .await;
    for (_, (provider, _)) in providers {
        provider.shutdown().await;
    }
    daemon.stop().await;
    let (mut report, verified) = outcome?;
    if let Some(problem) = verified.all_problems().next() {
        return Err(Failure::Difference(format!("what was published does not agree: {problem}")));
    }
    progress
        .say(&format!("rebuilt the ledger from {} published blocks: every root is equal", verified.blocks));
    report.blocks_verified = verified.blocks;
    if let Some(credits) = verified.credits {
        progress.say(&format!(
            "judged {} verdicts again from their evidence, and held {} credits against them",
            credits.verdicts, credits.credits
        ));
        (report.verdicts_verified, report.credits_verified) = (credits.verdicts, credits.credits);
    }
    report.seconds = progress.seconds();
    Ok(report)
}

/// The embedded default on free ports, with seconds where a real market has minutes and months.
fn config(directory: &Path) -> Config {
    let mut config = Config::default();
    let any_port = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    config.data.dir = directory.join("data");
    config.api.listen = any_port;
    config.provider.s3_listen = any_port;
    config.provider.admin_listen = any_port;
    config.sla.bucket = HumanDuration::secs(1);
    config.sla.billing_period = HumanDuration::secs(8);
    config.sla.rolling_window = HumanDuration::secs(60);
    config.sla.settle_delay = HumanDuration::millis(1_500);
    config.prober.interval = HumanDuration::millis(250);
    config.prober.bulk_interval = HumanDuration::secs(3);
    config.prober.timeout = HumanDuration::secs(2);
    config.market.closing_grace = HumanDuration::secs(1);
    config.settlement.finality = HumanDuration::millis(500);
    for rate in [
        &mut config.triggers.close_sla_windows,
        &mut config.triggers.seal_blocks,
        &mut config.triggers.watch_deposits,
        &mut config.triggers.end_periods,
    ] {
        *rate = HumanDuration::millis(500);
    }
    config
}

/// A provider's server, and the token of its admin API.
pub type Started = (ProviderHandle, String);

async fn start_provider(directory: &Path, name: &str) -> Result<Started, Failure> {
    let token = random::hex(32);
    let mut options = ProviderOptions::new(directory.join(name), token.clone());
    options.capacity = 50 << 30;
    options.region = format!("{name}-1");
    options.allow_faults = true;
    let handle = ProviderServer::start(options).await.map_err(|error| Failure::Failed(error.to_string()))?;
    Ok((handle, token))
}
