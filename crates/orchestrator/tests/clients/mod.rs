//! Stock S3 clients against the built-in server: boto3 and rclone, which nobody here wrote.

use std::process::{Command, Stdio};

use orchestrator_provider::{ProviderHandle, ProviderOptions, ProviderServer};

use crate::tools::{python, tool};

const TOKEN: &str = "an admin token of the tests";

async fn server(directory: &std::path::Path) -> ProviderHandle {
    ProviderServer::start(ProviderOptions::new(directory.join("provider"), TOKEN)).await.unwrap()
}

async fn succeeds(mut command: Command) {
    command.stdin(Stdio::null());
    let (command, output) = tokio::task::spawn_blocking(move || {
        let output = command.output();
        (command, output)
    })
    .await
    .unwrap();
    let output = output.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boto3_stores_reads_and_is_kept_in_bounds() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path()).await;
    let mut command = Command::new(python);
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/boto3_suite.py"))
        .args([server.s3_url(), server.admin_url(), TOKEN.to_owned()])
        .env("PYTHONDONTWRITEBYTECODE", "1");
    succeeds(command).await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rclone_syncs_and_checks() {
    let (Some(rclone), Some(python)) = (tool("ORCHESTRATOR_TEST_RCLONE"), python()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path()).await;
    let mut command = Command::new(python);
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/rclone_suite.py"))
        .args([server.s3_url(), server.admin_url(), TOKEN.to_owned()])
        .arg(rclone)
        .arg(directory.path())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    succeeds(command).await;
    server.shutdown().await;
}
