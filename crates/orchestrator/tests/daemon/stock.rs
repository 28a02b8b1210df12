//! A stock S3 client with credentials that the daemon issued.

use std::process::Command;

use super::harness::{Place, output};
use crate::tools::python;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boto3_stores_with_the_keys_that_the_daemon_issued() {
    let Some(python) = python() else { return };
    let place = Place::hurried().with("market.closing_grace", "1h");
    let running = place.start().await;
    let key = std::fs::read_to_string(place.data().join("operator.key")).unwrap();
    let mut command = Command::new(python);
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/daemon/boto3_daemon.py"))
        .args([running.address("api"), key.trim().to_owned()])
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let done = output(command).await;
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    running.stop_well().await;
}
