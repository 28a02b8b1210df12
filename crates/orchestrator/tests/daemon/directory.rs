//! The data directory and its mishaps: a second daemon, something in the way, bad secrets, a port that is taken, files that
//! were changed.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::cli::{orchestrator, text};

/// Arguments of a daemon with everything on free ports.
fn arguments(directory: &Path) -> Vec<String> {
    let mut all = vec!["run".to_owned()];
    for setting in [
        format!("data.dir={}", directory.display()),
        "api.listen=127.0.0.1:0".into(),
        "provider.s3_listen=127.0.0.1:0".into(),
        "provider.admin_listen=127.0.0.1:0".into(),
        "triggers.seal_blocks=200ms".into(),
        "settlement.finality=1ms".into(),
    ] {
        all.extend(["--set".to_owned(), setting]);
    }
    all
}

/// A daemon that is ended with the test.
struct Running(Child, String);

impl Running {
    /// Starts it, waits until it is ready.
    fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[])
    }

    /// As [`Running::start`], with more arguments; keeps the API's address.
    fn start_with(directory: &Path, more: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
            .args(arguments(directory))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut running = Self(child, String::new());
        for line in BufReader::new(running.0.stdout.take().unwrap()).lines().map_while(Result::ok) {
            if line.starts_with("api ") {
                running.1 = line.split_whitespace().nth(1).unwrap().to_owned();
            }
            if line.starts_with("ready") {
                return running;
            }
        }
        panic!("it never became ready");
    }

    /// Ctrl-C; returns the exit code.
    fn interrupt(mut self) -> Option<i32> {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the daemon says when it can't start.
fn refusal(directory: &Path, more: &[&str]) -> String {
    let own = arguments(directory);
    let all: Vec<&str> = own.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let output = orchestrator(&all);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let first = Running::start(directory.path());
    let told = refusal(directory.path(), &[]);
    assert!(told.contains("holds the data directory") && told.contains(&first.0.id().to_string()), "{told}");
    let setup = orchestrator(&["setup", "--set", &format!("data.dir={}", directory.path().display())]);
    assert_eq!(setup.status.code(), Some(1));
    assert_eq!(first.interrupt(), Some(0), "the first one was harmed");
    assert_eq!(Running::start(directory.path()).interrupt(), Some(0), "the lock outlived its holder");
}

#[test]
fn what_stands_in_the_way_of_the_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let told = refusal(&file.join("data"), &[]);
    assert!(told.contains("file"), "{told}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "in the way");
}

#[test]
fn secrets_that_others_may_read_or_that_are_none_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("vault.key");
    fs::write(&key, "ab".repeat(32)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refusal(directory.path(), &[]).contains("chmod 600"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "not a key").unwrap();
    assert!(refusal(directory.path(), &[]).contains("64 hex digits"));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let told = refusal(directory.path(), &["--set", &format!("api.listen={address}")]);
    assert!(told.contains(&address) && told.contains("api.listen"), "{told}");
}

#[test]
fn operator_key_and_vault_key_are_private_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    assert_eq!(Running::start(directory.path()).interrupt(), Some(0));
    let first = (read("operator.key"), read("vault.key"));
    for name in ["operator.key", "vault.key", "provider/admin.token"] {
        let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    assert_eq!(Running::start(directory.path()).interrupt(), Some(0));
    assert_eq!((read("operator.key"), read("vault.key")), first);
}

#[test]
fn verify_runs_beside_the_daemon_and_sees_a_changed_byte() {
    let directory = tempfile::tempdir().unwrap();
    let data = format!("data.dir={}", directory.path().display());
    let daemon = Running::start(directory.path());
    // The unit's terms are committed to by the first block.
    let published = directory.path().join("chain/da");
    let agreed = (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let report = orchestrator(&["verify", "--json", "--set", &data]);
        let value: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap_or_default();
        report.status.success() && value["blocks"].as_u64() >= Some(1)
    });
    assert!(agreed, "no block was settled");
    assert_eq!(daemon.interrupt(), Some(0));
    let mut files = Vec::new();
    collect(&published, &mut files);
    let file = files.iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    let mut bytes = fs::read(file).unwrap();
    bytes[0] ^= 1;
    fs::write(file, bytes).unwrap();
    let report = orchestrator(&["verify", "--set", &data]);
    assert_eq!(report.status.code(), Some(4), "{}{}", text(&report.stdout), text(&report.stderr));
}

fn collect(directory: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

#[tokio::test]
async fn no_limit_on_requests_means_none() {
    orchestrator::client::network::http::install_crypto_provider();
    let directory = tempfile::tempdir().unwrap();
    let daemon = Running::start_with(directory.path(), &["--set", "api.requests_per_minute=0"]);
    let key = fs::read_to_string(directory.path().join("operator.key")).unwrap();
    let url = format!("{}/me", daemon.1);
    for _ in 0..3 {
        let answer = reqwest::Client::new().get(&url).bearer_auth(key.trim()).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
    }
    assert_eq!(daemon.interrupt(), Some(0));
}
