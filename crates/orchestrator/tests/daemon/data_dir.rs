//! A vault key from the environment, and a disk that is full in the middle of a market.

use std::process::Command;

use reqwest::Method;
use serde_json::json;

use super::harness::{MIB, MONTH_MS, Place, id, output, wait_for};

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
