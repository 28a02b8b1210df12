//! One round: the test program is started with a seed, and what it writes is read.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;
use serde_json::Value;

use crate::{cargo, interrupt, run};

/// What a round says that was judged to its end.
#[derive(Debug, Deserialize)]
pub(super) struct Round {
    pub(super) kills: u64,
    pub(super) at_work: u64,
    pub(super) acknowledged: u64,
    pub(super) effects: u64,
    pub(super) doubled: Vec<String>,
    pub(super) lost: Vec<String>,
}

/// How a round ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was judged.
    Judged(Round),
    /// It was not: the first line that says why.
    Failed(String),
}

/// What is run.
pub(super) struct Programs {
    /// Kills and judges.
    tests: PathBuf,
    /// The daemon.
    daemon: PathBuf,
}

/// Builds the daemon in a profile, and the tests in their own.
pub(super) fn build(profile: &str) -> Result<Programs, String> {
    let package = ["--package", "orchestrator", "--locked"];
    let daemon = ["build", "--bin", "orchestrator", "--profile", profile];
    let daemon = built("build of the daemon", cargo().args(daemon).args(package), "bin", "orchestrator")?;
    let tests = ["test", "--test", "it", "--no-run"];
    let tests = built("build of the tests", cargo().args(tests).args(package), "test", "it")?;
    Ok(Programs { tests, daemon })
}

/// Runs a build, and finds the program that it made among its messages.
fn built(what: &str, command: &mut Command, kind: &str, name: &str) -> Result<PathBuf, String> {
    let (mut reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    command.arg("--message-format=json-render-diagnostics").stdout(writer);
    let messages = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    let outcome = run(what, command);
    // The command holds the other end of the pipe.
    command.stdout(Stdio::null());
    outcome?;
    let messages = messages.join().map_err(|_| "the reader of messages panicked")?;
    let messages = messages.map_err(|error| error.to_string())?;
    let path = messages.lines().find_map(|line| program(line, kind, name));
    path.ok_or_else(|| format!("{what}: there is no program `{name}`"))
}

/// The program that a message of cargo's tells of, if it is this one.
fn program(message: &str, kind: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let target = message.get("target")?;
    let is_it = target.get("name")? == name && target.get("kind")?.as_array()?.iter().any(|it| it == kind);
    if !is_it {
        return None;
    }
    Some(message.get("executable")?.as_str()?.into())
}

impl Programs {
    /// Runs a round. An error is one of this machine's, not of the round.
    pub(super) fn round(&self, seed: u64, kills: u64) -> Result<Ended, String> {
        let name = format!("orchestrator-soak-{}-{seed}", std::process::id());
        // The same seed may run beside itself.
        let unique = std::thread::current().id();
        let out = std::env::temp_dir().join(format!("{name}-{unique:?}.json"));
        let log = out.with_extension("log");
        let ended = self.run(seed, kills, &out, &log);
        if let Ok(Ended::Judged(_)) = ended {
            let _ = fs::remove_file(&log);
        }
        let _ = fs::remove_file(&out);
        ended
    }

    fn run(&self, seed: u64, kills: u64, out: &Path, log: &Path) -> Result<Ended, String> {
        let said = |error: std::io::Error| format!("{}: {error}", log.display());
        let sink = fs::File::create(log).map_err(said)?;
        let mut command = Command::new(&self.tests);
        command
            .args(["--ignored", "--exact", "daemon::soak::one_round", "--nocapture"])
            .env("ORCHESTRATOR_SOAK_SEED", seed.to_string())
            .env("ORCHESTRATOR_SOAK_KILLS", kills.to_string())
            .env("ORCHESTRATOR_SOAK_OUT", out)
            .env("ORCHESTRATOR_TEST_BINARY", &self.daemon)
            // The machine's own services are not needed.
            .env("ORCHESTRATOR_TEST_EMBEDDED_ONLY", "1")
            .stdin(Stdio::null())
            .stderr(sink.try_clone().map_err(said)?)
            .stdout(sink);
        let status = interrupt::wait(&mut command).map_err(|error| format!("a round: {error}"))?;
        if !status.success() {
            let text = fs::read_to_string(log).map_err(said)?;
            let found = first_found(&text).unwrap_or("it ended without a word");
            return Ok(Ended::Failed(found.to_owned()));
        }
        let text = fs::read(out).map_err(|error| format!("{}: {error}", out.display()))?;
        serde_json::from_slice(&text).map(Ended::Judged).map_err(|error| error.to_string())
    }
}

/// What the first panic said.
fn first_found(log: &str) -> Option<&str> {
    log.lines().skip_while(|line| !line.contains("panicked at")).nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_among_messages() {
        let message =
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"it"},"executable":"/t/it-1"}"#;
        assert_eq!(program(message, "test", "it"), Some("/t/it-1".into()));
        assert_eq!(program(message, "bin", "it"), None);
        assert_eq!(program("not json", "test", "it"), None);
        let library = r#"{"target":{"kind":["lib"],"name":"it"},"executable":null}"#;
        assert_eq!(program(library, "lib", "it"), None);
    }

    #[test]
    fn the_first_panic_is_what_was_found() {
        let log =
            "running\nthread 'x' panicked at a.rs:1:2:\nlost it\nthread 'y' panicked at b.rs:1:2:\nmore";
        assert_eq!(first_found(log), Some("lost it"));
        assert_eq!(first_found("fine"), None);
    }
}
