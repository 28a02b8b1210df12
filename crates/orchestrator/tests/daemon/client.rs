//! boto3, as it comes, with keys that the daemon issued over its API.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use super::process::Home;

/// The Python with boto3, or `None` when stock clients are switched off.
fn python() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ORCHESTRATOR_TEST_PYTHON") {
        return Some(path.into());
    }
    if std::env::var("ORCHESTRATOR_TEST_EMBEDDED_ONLY").is_ok_and(|value| value == "1") {
        return None;
    }
    panic!(
        "ORCHESTRATOR_TEST_PYTHON is not set: `cargo xtask test` sets the stock clients up and says where they are; \
         ORCHESTRATOR_TEST_EMBEDDED_ONLY=1 goes without them"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boto3_buys_stores_rotates_and_loses_access() {
    let Some(python) = python() else { return };
    let home = Home::new(&["market.closing_grace=6s"]);
    let daemon = home.start().await;
    let mut command = Command::new(python);
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/daemon/boto3_market.py"))
        .args([&daemon.api, &daemon.key, &daemon.s3])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert_eq!(daemon.terminate().await, Some(0));
}
