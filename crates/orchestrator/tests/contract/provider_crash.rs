//! The built-in server is killed in the middle of writes, several times: what was acknowledged is there, nothing partial
//! is, and the meter is the sum of what is stored.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes as Body;
use orchestrator::{
    client::{
        network::s3_probe::{S3Probe, S3ProbeSettings},
        provider::{EmbeddedProvider, EmbeddedSettings},
    },
    core::{
        client::{
            probe::{ProbeClient, ProbeTarget},
            provider::{AllocateRequest, Generation, IssueRequest, IssuedKey, Operation, ProviderClient},
        },
        market::{
            credential::Permissions,
            ids::{AllocationId, Id},
            quantity::Bytes,
        },
    },
};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const TOKEN: &str = "an admin token of the tests";
const ROUNDS: usize = 3;
const WRITERS: usize = 4;

/// Killed when it goes out of scope, too.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL: nothing is flushed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The provider as a process of its own, on free ports.
async fn start(directory: &Path) -> (Process, EmbeddedProvider) {
    let data = directory.join("data");
    fs::create_dir_all(&data).unwrap();
    let token = data.join("admin.token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
    command.arg("provider");
    for setting in [
        format!("provider.dir={}", data.display()),
        "provider.s3_listen=127.0.0.1:0".into(),
        "provider.admin_listen=127.0.0.1:0".into(),
        "log.filter=off".into(),
    ] {
        command.args(["--set", &setting]);
    }
    let mut process =
        Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(process.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let said = lines.find_map(|line| line.strip_prefix("admin api").map(|rest| rest.trim().to_owned()));
    let url = said.expect("the provider says where its admin api is");
    // What it says later is read all the same: a closed pipe must not trouble it.
    std::thread::spawn(move || lines.for_each(drop));
    let token = Zeroizing::new(TOKEN.to_owned());
    (process, EmbeddedProvider::new(&url, token, EmbeddedSettings::default()).unwrap())
}

async fn target(client: &EmbeddedProvider, key: &IssuedKey) -> ProbeTarget {
    let (allocation, generation) = (AllocationId::from_uuid(uuid::Uuid::from_u128(1)), Generation(1));
    let wish = AllocateRequest { allocation, generation, bytes: Bytes(1 << 30), region: String::new() };
    let Operation::Done(routing) = client.allocate(&wish).await.unwrap() else { panic!("pending") };
    let permissions = Permissions::ReadWrite;
    client
        .issue_credential(&IssueRequest { allocation, generation, key: key.clone(), permissions })
        .await
        .unwrap();
    ProbeTarget { routing, key: key.clone() }
}

fn body(name: &str, version: usize) -> Body {
    let seed = Sha256::digest(format!("{name} {version}"));
    Body::from(seed.repeat(1000 + version % 7 * 300))
}

/// Per object: the last acknowledged version, and those begun since, any of which may have taken effect.
type Written = Arc<Mutex<BTreeMap<String, (Option<usize>, Vec<usize>)>>>;

async fn write_until_it_breaks(probe: Arc<S3Probe>, target: ProbeTarget, written: Written, writer: usize) {
    for step in 0.. {
        let name = format!("writer {writer}/object {}", step % 5);
        let version = {
            let mut written = written.lock();
            let entry = written.entry(name.clone()).or_default();
            let version = entry.0.max(entry.1.last().copied()).map_or(0, |version| version + 1);
            entry.1.push(version);
            version
        };
        if probe.put(&target, &name, body(&name, version)).await.is_err() {
            return;
        }
        written.lock().insert(name, (Some(version), Vec::new()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_keeps_what_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let key = IssuedKey { access_key_id: "AKCRASHTEST".into(), secret: "a secret of this test".into() };
    let probe = Arc::new(S3Probe::new(S3ProbeSettings::default()).unwrap());
    let written = Written::default();
    for round in 0..ROUNDS {
        let (process, client) = start(directory.path()).await;
        let target = target(&client, &key).await;
        let writers = (0..WRITERS).map(|writer| {
            tokio::spawn(write_until_it_breaks(probe.clone(), target.clone(), written.clone(), writer))
        });
        let writers: Vec<_> = writers.collect();
        // Killed once enough of this round was acknowledged, wherever the other writers are then.
        let enough = 3 + round * 4;
        let before = total(&written);
        while total(&written) < before + enough {
            assert!(writers.iter().any(|writer| !writer.is_finished()), "no writer gets on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(process);
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let (_process, client) = start(directory.path()).await;
    let target = target(&client, &key).await;
    let mut stored = 0;
    let written = written.lock().clone();
    for (name, (acknowledged, begun)) in &written {
        match probe.get(&target, name).await {
            Ok(read) => {
                stored += read.bytes;
                let versions = begun.iter().chain(acknowledged);
                let mut hashes = versions.map(|version| hex::encode(Sha256::digest(body(name, *version))));
                let whole = hashes.any(|hash| read.sha256.as_ref() == Some(&hash));
                assert!(whole, "{name} is neither what was acknowledged nor what was begun");
            }
            Err(failure) => assert!(acknowledged.is_none(), "{name} was acknowledged and is gone: {failure}"),
        }
    }
    assert!(stored > 0);
    let allocation = AllocationId::from_uuid(uuid::Uuid::from_u128(1));
    assert_eq!(client.usage(allocation).await.unwrap().stored, Bytes(stored));
    let shards = std::fs::read_dir(directory.path().join("data/objects")).unwrap();
    let files = shards.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap());
    let on_disk: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(on_disk, stored, "files that nothing names were left");
}

fn total(written: &Written) -> usize {
    written.lock().values().filter_map(|(acknowledged, _)| acknowledged.map(|version| version + 1)).sum()
}
