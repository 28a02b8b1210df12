//! What an idle replica asks of its database: the program itself on MongoDB, SQS and S3, asked for its own count of calls.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{Args, Fault};

/// How long a replica may take until it is at rest: every trigger of a minute has run once and written that down.
const SETTLE: Duration = Duration::from_secs(130);
const COUNTER: &str = "orchestrator_database_requests_total";

/// Calls of the database in a second.
pub(super) async fn operations_a_second(args: &Args, name: &str) -> Result<f64, Fault> {
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("config.toml");
    let mut file = std::fs::File::create(&config)?;
    let quoted = |text: &str| serde_json::to_string(text);
    let place = |part: &str| quoted(&directory.path().join(part).display().to_string());
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    writeln!(file, "[data]\ndir = {}", place("data")?)?;
    writeln!(file, "[api]\nlisten = \"127.0.0.1:{port}\"")?;
    writeln!(
        file,
        "[database]\nbackend = \"mongodb\"\nurl = {}\nname = \"{name}-idle\"",
        quoted(&args.mongodb)?
    )?;
    writeln!(file, "[storage]\nbackend = \"s3\"\n[queue]\nbackend = \"sqs\"\n[jobs]\ndispatch = \"sqs\"")?;
    // As the configuration for a cluster in `deploy` has them.
    writeln!(file, "[schedule]\nbackend = \"event_bridge\"\n[triggers]\nexpire_disputes = \"5m\"")?;
    for trigger in [
        "expire_reservations",
        "end_periods",
        "close_sla_windows",
        "seal_blocks",
        "watch_deposits",
        "unit_maintenance",
        "expire_credentials",
    ] {
        writeln!(file, "{trigger} = \"60s\"")?;
    }
    writeln!(file, "[aws]\nendpoint = {}\nprefix = \"{name}-idle\"", quoted(&args.aws_endpoint)?)?;
    writeln!(file, "[provider]\ncohosted = false\n[settlement]\ndir = {}", place("chain")?)?;
    drop(file);
    let program = std::env::current_exe()?.with_file_name("orchestrator");
    for arguments in [["setup", "--config"], ["run", "--config"]] {
        let mut command = Command::new(&program);
        command.args(arguments).arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("ORCHESTRATOR_VAULT_KEY", "0".repeat(64));
        if arguments[0] == "setup" {
            let status = command.status()?;
            if !status.success() {
                return Err(format!("setup ended with {status}").into());
            }
            continue;
        }
        let mut daemon = command.spawn()?;
        let counted = watch(port, args.idle_seconds).await;
        // Told to end, it may do so in its own time; then it is killed.
        daemon.kill()?;
        daemon.wait()?;
        let client = mongodb::Client::with_uri_str(&args.mongodb).await?;
        client.database(&format!("{name}-idle")).drop().await?;
        return counted;
    }
    Err("the daemon was not started".into())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn watch(port: u16, seconds: u64) -> Result<f64, Fault> {
    let base = format!("http://127.0.0.1:{port}");
    let began = Instant::now();
    while reqwest::get(format!("{base}/health/ready"))
        .await
        .map_or(true, |answer| !answer.status().is_success())
    {
        if began.elapsed() > Duration::from_secs(60) {
            return Err("the replica did not become ready".into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(SETTLE).await;
    let before = count(&base).await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    Ok((count(&base).await? - before) / seconds as f64)
}

async fn count(base: &str) -> Result<f64, Fault> {
    let text = reqwest::get(format!("{base}/metrics")).await?.text().await?;
    let figures = text.lines().filter(|line| line.starts_with(COUNTER));
    Ok(figures.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}
