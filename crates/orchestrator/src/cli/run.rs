//! `orchestrator run`: the daemon, until it is told to end.

use super::{ConfigArgs, Failure, Outcome, output};
use crate::{
    config::{Config, section::LogFormat},
    setup::{Daemon, OPERATOR_KEY_FILE, StartOptions},
    utils::{logging, signal},
};

/// Runs the daemon.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn run(args: &ConfigArgs) -> Outcome {
    let config = args.load()?;
    logging::install(&config.log.filter, config.log.format == LogFormat::Json).map_err(Failure::Usage)?;
    // A signal that comes while the daemon starts must not be lost.
    let terminated = tokio::spawn(signal::terminated());
    let daemon = Daemon::start(&config, StartOptions::default()).await?;
    greet(args, &config, &daemon)?;
    if terminated.await.is_err() {
        tracing::warn!("the signal task ended badly; stopping");
    }
    tracing::info!("stopping: no new requests, running jobs are drained");
    daemon.stop().await;
    tracing::info!("stopped");
    Ok(())
}

fn greet(args: &ConfigArgs, config: &Config, daemon: &Daemon) -> Outcome {
    let data = config.data.dir.display();
    if args.config.is_none() {
        output::line(&format!("no configuration file: everything is embedded, in {data}"))?;
    }
    output::line(&format!("api            http://{}   (docs at /docs)", daemon.api_addr))?;
    if let Some(s3) = daemon.s3_addr {
        output::line(&format!("s3 endpoint    http://{s3}"))?;
    }
    output::line(&format!("operator key   {}", config.data.dir.join(OPERATOR_KEY_FILE).display()))?;
    if let (true, Some(market)) = (daemon.first_start, &daemon.default_market) {
        output::line(&format!("first start    registered {} with {}", market.provider, market.unit))?;
        let key_file = config.data.dir.join(OPERATOR_KEY_FILE);
        output::line(&walkthrough(
            &daemon.api_addr.to_string(),
            &key_file.display().to_string(),
            &market.unit.to_string(),
            &config.provider.region,
        ))?;
    }
    output::line("ready; Ctrl-C drains and stops")
}

/// Commands that a newcomer can paste as they are: a consumer, money, a reservation, keys, a file.
fn walkthrough(api: &str, key_file: &str, unit: &str, region: &str) -> String {
    format!(
        r#"
paste this into another terminal to buy a GiB and store a file:

  API=http://{api}; KEY=$(cat {key_file})
  field() {{ grep -o "\"$1\":\"[^\"]*\"" | head -1 | cut -d'"' -f4; }}
  post() {{ curl -sS -X POST "$API$1" -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' -d "$2"; }}
  get() {{ curl -sS "$API$1" -H "Authorization: Bearer $KEY"; }}
  CONSUMER=$(post /consumers '{{"name":"me"}}' | field id)
  post /accounts/consumer:$CONSUMER/deposits '{{"amount":"100000000000000000000"}}'; echo
  KEY=$(post /keys "{{\"role\":\"consumer\",\"tenant\":\"$CONSUMER\",\"label\":\"me\"}}" | field text)
  ALLOCATION=$(post /allocations/reserve '{{"unit":"{unit}","bytes":1073741824,"period_ms":2592000000,"egress_allowance_bytes":1073741824}}' | field id)
  post /allocations/$ALLOCATION/fund '{{}}' >/dev/null; sleep 1
  ROUTE=$(get /allocations/$ALLOCATION); KEYS=$(post /allocations/$ALLOCATION/credentials '{{}}')
  S3="$(echo "$ROUTE" | field endpoint)/$(echo "$ROUTE" | field bucket)"
  S3_USER="$(echo "$KEYS" | field access_key_id):$(echo "$KEYS" | field secret_access_key)"
  s3() {{ curl -sS -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' --aws-sigv4 aws:amz:{region}:s3 --user "$S3_USER" "$@"; }}
  echo hello > hello.txt
  s3 -T hello.txt "$S3/hello.txt"; s3 "$S3/hello.txt"
"#
    )
}
