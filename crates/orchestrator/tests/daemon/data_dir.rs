//! The data directory as it should not be: held by another, not writable, full, with a damaged key.

use std::{os::unix::fs::PermissionsExt, process::Command};

use reqwest::Method;
use serde_json::json;

use super::harness::{MIB, MONTH_MS, Place, id, output, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let mut place = Place::new();
    let first = place.start().await;
    let api = place.setting("api.listen").to_owned();
    let (pid, free) = (first.pid().to_string(), format!("127.0.0.1:{}", super::harness::free_port()));
    place = place.with("api.listen", &free);
    for args in [&["run"][..], &["setup"]] {
        place.cli(args).await.ends(1, &["holds the data directory", &pid]);
    }
    first.api.get("/health/ready").await;
    first.api.consumer("after").await;
    // The address is taken, but the directory is another one.
    let other = Place::new().with("api.listen", &api);
    other.cli(&["run"]).await.ends(1, &["api.listen", &api, "choose another address"]);
    first.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_the_way_and_a_damaged_key_are_told() {
    let place = Place::new();
    std::fs::write(place.data(), "mine").unwrap();
    for args in [&["run"][..], &["setup"], &["setup", "--plan"]] {
        place.cli(args).await.ends(1, &["data", "directory"]);
    }
    assert_eq!(std::fs::read_to_string(place.data()).unwrap(), "mine");

    let place = Place::new();
    place.cli(&["setup"]).await.ends(0, &["everything is ready"]);
    let key = place.data().join("vault.key");
    let good = std::fs::read_to_string(&key).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    place.cli(&["run"]).await.ends(1, &["mode 644", "chmod 600"]);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&key, good.replace(good.chars().next().unwrap(), "x")).unwrap();
    let refused = place.cli(&["run"]).await;
    refused.ends(1, &["vault.key", "64 hex digits"]);
    assert!(!refused.err.contains(good.trim()));
    std::fs::write(&key, good).unwrap();
    place.start().await.stop_well().await;
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

/// A file system of a few megabytes; unmounted at the end.
struct Small(std::path::PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_the_daemon_goes_on_when_there_is_room() {
    let place = Place::hurried();
    let data = place.data();
    std::fs::create_dir(&data).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs"]).arg(&data);
    if !mount.output().is_ok_and(|mounted| mounted.status.success()) {
        eprintln!("skipped: this environment does not permit to mount a small tmpfs");
        return;
    }
    let _small = Small(data.clone());
    let running = place.start().await;
    let (_, consumer) = running.api.consumer("squeezed").await;
    let before = consumer.buy().await;
    consumer.until(&before, "active").await;
    running.api.until_settled().await;

    // All that is left.
    let filler = data.join("filler");
    let mut fill = Command::new("bash");
    fill.args(["-c", "cat /dev/zero > \"$0\" 2>/dev/null; true"]).arg(&filler);
    assert_eq!(output(fill).await.code, Some(0));
    let unit = id(&running.api.all("/units").await[0]);
    let ask = json!({ "unit": unit, "bytes": MIB, "period_ms": MONTH_MS });
    let (mut acknowledged, mut refused) = (1, 0);
    for _ in 0..2_000 {
        let (status, answer) =
            consumer.send(Method::POST, "/allocations/reserve", Some(&ask), None).await.unwrap();
        if status == 202 {
            acknowledged += 1;
            continue;
        }
        assert_eq!((status.as_u16(), &answer["code"]), (507, &json!("storage_full")), "{answer}");
        refused += 1;
        if refused == 3 {
            break;
        }
    }
    assert_eq!(refused, 3, "the disk never became full");
    assert_eq!(consumer.all("/allocations").await.len(), acknowledged);

    std::fs::remove_file(&filler).unwrap();
    wait_for("room", || async {
        let (status, _) = consumer.send(Method::POST, "/allocations/reserve", Some(&ask), None).await?;
        (status == 202).then_some(())
    })
    .await;
    assert_eq!(consumer.all("/allocations").await.len(), acknowledged + 1);
    let after = consumer.buy().await;
    consumer.until(&after, "active").await;
    running.api.until_settled().await;
    running.stop_well().await;
    let report = place.cli(&["verify", "--json"]).await.json();
    assert_eq!(report["problems"], json!([]));
}
