//! The data directory and its mishaps: a second daemon, something in the way, bad secrets, files that others may read.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;

use super::harness::{Place, mode, output};

/// Flags that put every address on a free port: a start that gets that far must not fail for a port that is taken.
const ANYWHERE: [&str; 6] = [
    "--set",
    "api.listen=127.0.0.1:0",
    "--set",
    "provider.s3_listen=127.0.0.1:0",
    "--set",
    "provider.admin_listen=127.0.0.1:0",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let place = Place::new();
    let first = place.start().await;
    let holder = first.id().to_string();
    let second = place.cli(&[&["run"][..], &ANYWHERE].concat()).await;
    second.ends(1, &["data_dir_locked", "holds the data directory", &holder]);
    place.cli(&["setup"]).await.ends(1, &["holds the data directory", &holder]);
    first.api.get("/me").await;
    first.stop_well().await;
    // The lock does not outlive its holder.
    place.start().await.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_the_way_of_the_directory_is_named() {
    let place = Place::new();
    let file = place.dir.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let below = file.join("data").display().to_string();
    let refused = place.cli(&["run", "--set", &format!("data.dir={below}")]).await;
    refused.ends(1, &["data_dir_unwritable", &below]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "in the way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_that_others_may_read_or_that_are_none_are_refused() {
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    let key = place.data().join("vault.key");
    fs::write(&key, "ab".repeat(32)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    place.cli(&["run"]).await.ends(1, &["chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "not a key").unwrap();
    place.cli(&["run"]).await.ends(1, &["64 hex digits"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_private_and_kept() {
    let place = Place::new();
    let names = ["operator.key", "vault.key", "provider/admin.token"];
    let read = || names.map(|name| fs::read_to_string(place.data().join(name)).unwrap());
    place.start().await.stop_well().await;
    let first = read();
    for name in names {
        assert_eq!(mode(&place.data().join(name)), 0o600, "{name}");
    }
    place.start().await.stop_well().await;
    assert_eq!(read(), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vault_key_may_come_from_the_environment() {
    let place = Place::new();
    let mut command = place.command(&["run"]);
    command.env("ORCHESTRATOR_VAULT_KEY", "ab".repeat(32));
    let running = place.start_with(command).await;
    assert!(!place.data().join("vault.key").exists());
    let (_, consumer) = running.api.consumer("sealed").await;
    let allocation = consumer.buy().await;
    consumer.until(&allocation, "active").await;
    consumer.post(&format!("/allocations/{allocation}/credentials"), json!({})).await;
    running.stop_well().await;
    let mut command = place.command(&["run"]);
    command.env("ORCHESTRATOR_VAULT_KEY", "short");
    output(command).await.ends(1, &["ORCHESTRATOR_VAULT_KEY", "64 hex digits"]);
}
