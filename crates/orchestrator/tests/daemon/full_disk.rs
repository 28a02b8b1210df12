//! A disk that is full in the middle of a market: each request that needs room is refused with a clear code, what was
//! acknowledged stays, and the daemon goes on when there is room. Once with a file system of a few megabytes, once, which
//! needs no rights at all, with a limit on the size of files. And a disk that can only be read.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use reqwest::Method;
use serde_json::{Value, json};

use super::harness::{Api, MIB, MONTH_MS, Place, Running, output, wait_for};

/// What the small file system is mounted with.
const SMALL: &str = "size=24m,mode=0700";

/// A small file system over a data directory, and how a daemon is started on it.
enum Small {
    /// Mounted here; unmounted at the end.
    Mounted(PathBuf),
    /// In a namespace of the daemon's own, which nobody needs rights for.
    Apart,
}

impl Small {
    /// `None` when this machine permits neither.
    fn over(data: &Path) -> Option<Self> {
        let succeeds = |mut command: Command| {
            command.stdin(Stdio::null()).output().is_ok_and(|ended| ended.status.success())
        };
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SMALL, "tmpfs"]).arg(data);
        if succeeds(mount) {
            return Some(Self::Mounted(data.to_owned()));
        }
        let mut apart = Command::new(APART[0]);
        apart.args(&APART[1..]).arg(data).arg("true");
        succeeds(apart).then_some(Self::Apart)
    }

    /// The daemon, and where its data directory is seen from here.
    async fn start(&self, place: &Place) -> (Running, PathBuf) {
        match self {
            Self::Mounted(data) => (place.start().await, data.clone()),
            Self::Apart => {
                let data = place.data().display().to_string();
                let wrapper: Vec<&str> = APART.into_iter().chain([data.as_str()]).collect();
                let starting = place.spawn_at(place.wrapped(&wrapper, &["run"]), place.data());
                let seen = PathBuf::from(format!("/proc/{}/root{data}", starting.id()));
                (starting.seen_at(seen.clone()).until_ready().await, seen)
            }
        }
    }

    /// What `orchestrator verify` finds beside the daemon.
    async fn verify(&self, place: &Place, running: &Running) -> Value {
        let pid = running.id().to_string();
        let enter = ["nsenter", "--target", &pid, "--user", "--preserve-credentials", "--mount", "--"];
        let data = format!("data.dir={}", place.data().display());
        let wrapper: &[&str] = if matches!(self, Self::Apart) { &enter } else { &[] };
        output(place.wrapped(wrapper, &["verify", "--json", "--set", &data])).await.json()
    }
}

/// Runs the rest of its arguments where the first one is a small file system.
const APART: [&str; 7] = [
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "bash",
    "-c",
    "mount -t tmpfs -o size=24m,mode=0700 tmpfs \"$0\" && exec \"$@\"",
];

impl Drop for Small {
    fn drop(&mut self) {
        if let Self::Mounted(data) = self {
            let _ = Command::new("umount").arg("-l").arg(data).status();
        }
    }
}

/// A small reservation, again and again until three were refused; how many were acknowledged.
async fn reserve_until_refused(consumer: &Api, ask: &Value) -> usize {
    let (mut acknowledged, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let (status, answer) =
            consumer.send(Method::POST, "/allocations/reserve", Some(ask), None).await.unwrap();
        if status == 202 {
            acknowledged += 1;
            continue;
        }
        assert_eq!((status.as_u16(), &answer["code"]), (507, &json!("storage_full")), "{answer}");
        refused += 1;
        if refused == 3 {
            return acknowledged;
        }
    }
    panic!("the disk never became full");
}

async fn goes_on(running: &Running, consumer: &Api, ask: &Value, known: usize) {
    wait_for("room", || async {
        let (status, _) = consumer.send(Method::POST, "/allocations/reserve", Some(ask), None).await?;
        (status == 202).then_some(())
    })
    .await;
    assert_eq!(consumer.all("/allocations").await.len(), known + 1);
    let after = consumer.buy().await;
    consumer.until(&after, "active").await;
    running.api.until_settled().await;
}

fn ask(unit: &str) -> Value {
    json!({ "unit": unit, "bytes": MIB, "period_ms": MONTH_MS })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_the_daemon_goes_on_when_there_is_room() {
    let place = Place::hurried();
    std::fs::create_dir(place.data()).unwrap();
    let Some(small) = Small::over(&place.data()) else {
        // The test below has the same case by other means, and runs everywhere.
        eprintln!(
            "not run: neither root's `mount` nor `unshare --user --mount` is permitted on this machine"
        );
        return;
    };
    let (running, data) = small.start(&place).await;
    let (_, consumer) = running.api.consumer("squeezed").await;
    let before = consumer.buy().await;
    consumer.until(&before, "active").await;
    running.api.until_settled().await;

    // All that is left.
    let filler = data.join("filler");
    let mut fill = Command::new("bash");
    fill.args(["-c", "cat /dev/zero > \"$0\" 2>/dev/null; true"]).arg(&filler);
    assert_eq!(output(fill).await.code, Some(0));
    let ask = ask(&running.api.unit().await);
    let acknowledged = 1 + reserve_until_refused(&consumer, &ask).await;
    assert_eq!(consumer.all("/allocations").await.len(), acknowledged);

    std::fs::remove_file(&filler).unwrap();
    goes_on(&running, &consumer, &ask, acknowledged).await;
    let report = small.verify(&place, &running).await;
    assert_eq!(report["problems"], json!([]));
    running.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_may_not_grow_are_told_and_the_daemon_goes_on_when_they_may() {
    let place = Place::hurried();
    // 6 MiB a file; a write beyond fails, instead of ending the daemon by a signal.
    let limited = ["bash", "-c", "trap '' XFSZ; ulimit -S -f 6144; exec \"$0\" \"$@\""];
    let running = place.start_with(place.wrapped(&limited, &["run"])).await;
    let (_, consumer) = running.api.consumer("squeezed").await;
    let ask = ask(&running.api.unit().await);
    let acknowledged = reserve_until_refused(&consumer, &ask).await;
    assert_eq!(consumer.all("/allocations").await.len(), acknowledged);
    let mut lift = Command::new("prlimit");
    lift.args(["--pid", &running.id().to_string(), "--fsize=unlimited:unlimited"]);
    assert_eq!(output(lift).await.code, Some(0));
    goes_on(&running, &consumer, &ask, acknowledged).await;
    running.stop_well().await;
    let report = place.cli(&["verify", "--json"]).await.json();
    assert_eq!(report["problems"], json!([]));
}

/// Runs the rest of its arguments where the first one can only be read.
const READ_ONLY: [&str; 7] = [
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "bash",
    "-c",
    "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_can_only_be_read_is_told_and_left_as_it_is() {
    let place = Place::hurried();
    let running = place.start().await;
    let (_, consumer) = running.api.consumer("careful").await;
    let bought = consumer.buy().await;
    consumer.until(&bought, "active").await;
    running.api.until_settled().await;
    running.stop_well().await;
    let data = place.data().display().to_string();
    let wrapper: Vec<&str> = READ_ONLY.into_iter().chain([data.as_str()]).collect();
    let mut tried = Command::new(wrapper[0]);
    tried.args(&wrapper[1..]).arg("true");
    if output(tried).await.code != Some(0) {
        eprintln!("not run: `unshare --user --mount` is not permitted on this machine");
        return;
    }
    for command in [&["run"][..], &["setup"], &["restore", "--replace", "nowhere"]] {
        let ended = output(place.wrapped(&wrapper, command)).await;
        let words: &[&str] =
            if command[0] == "restore" { &["is no backup"] } else { &["read-only file system"] };
        ended.ends(1, words);
    }
    // Whatever only reads goes on: the state can be looked at, and saved elsewhere.
    let backup = place.dir.path().join("backup").display().to_string();
    output(place.wrapped(&wrapper, &["backup", &backup])).await.ends(0, &["was checked"]);
    let running = place.start().await;
    running.api.with_key(&consumer.key).until(&bought, "active").await;
    running.stop_well().await;
}
