//! `orchestrator provider`: the built-in provider as a process of its own.

use super::{ConfigArgs, Failure, Outcome, output};
use crate::{
    setup,
    utils::{logging, signal},
};

/// Runs the provider until the process is told to end.
///
/// # Errors
/// A wrong configuration; an address or a directory that can't be used.
pub async fn run(args: &ConfigArgs) -> Outcome {
    let config = args.load()?;
    logging::install(&config.log.filter, config.log.format == crate::config::section::LogFormat::Json)
        .map_err(Failure::Usage)?;
    let provider = setup::start_provider(&config, false).await?;
    output::note(&format!("s3 endpoint    http://{}", provider.s3_addr));
    output::note(&format!("admin api      http://{}", provider.admin_addr));
    output::note(&format!("admin token    in {}", setup::provider_token_path(&config).display()));
    signal::terminated().await;
    provider.shutdown().await;
    Ok(())
}
