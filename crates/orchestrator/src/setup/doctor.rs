//! Asks every configured dependency how it is, all at once: whether it answers and how fast, what version it is, what
//! is wrong with it, and how that is mended. Changes nothing.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use serde::Serialize;

use super::host::data_dir;
use crate::{
    config::{
        Config,
        section::{DatabaseBackend, Settlement, StorageBackend},
    },
    error::ErrorCode,
    resource::Resource as _,
};

/// Longest time for one dependency.
const PATIENCE: Duration = Duration::from_secs(15);

/// Something that is wrong, and how it is mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub problem: String,
    /// How it is mended.
    pub fix: String,
}

/// How one dependency is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checkup {
    /// What it serves: `database`, `queue`, …
    pub name: &'static str,
    /// The back end, and where it is, without secrets.
    pub target: String,
    /// One round trip in milliseconds; `None` when it did not answer.
    pub latency_ms: Option<f64>,
    /// Its version, where it tells one.
    pub version: Option<String>,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
}

/// What a check came to, beside the time that it took.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub version: Option<String>,
    /// When it tells better than the whole check does.
    pub latency: Option<Duration>,
    pub findings: Vec<Finding>,
}

impl Answer {
    pub fn find(&mut self, problem: impl Into<String>, fix: impl Into<String>) {
        self.findings.push(Finding { problem: problem.into(), fix: fix.into() });
    }
}

/// Why a dependency did not answer, and what to do.
pub(super) type Silence = Finding;

/// Starts one check.
pub(super) fn check<F>(name: &'static str, target: impl Into<String>, ask: F) -> BoxFuture<'static, Checkup>
where
    F: Future<Output = Result<Answer, Silence>> + Send + 'static,
{
    let target = target.into();
    Box::pin(async move {
        let began = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, ask).await.unwrap_or_else(|_| {
            Err(Finding {
                problem: format!("it did not answer within {} s", PATIENCE.as_secs()),
                fix: "look whether it runs, and whether a firewall or a wrong address lies between".into(),
            })
        });
        let took = began.elapsed();
        match answer {
            Ok(answer) => Checkup {
                name,
                target,
                latency_ms: Some(answer.latency.unwrap_or(took).as_secs_f64() * 1_000.0),
                version: answer.version,
                findings: answer.findings,
            },
            Err(silence) => {
                Checkup { name, target, latency_ms: None, version: None, findings: vec![silence] }
            }
        }
    })
}

/// Asks every dependency that the configuration names.
pub async fn doctor(config: &Config) -> Vec<Checkup> {
    let mut checks: FuturesOrdered<BoxFuture<'static, Checkup>> = FuturesOrdered::new();
    checks.push_back(data_directory(config));
    if config.database.backend == DatabaseBackend::Sqlite {
        checks.push_back(embedded_database(config));
    }
    if config.storage.backend == StorageBackend::Filesystem {
        checks.push_back(directory("storage", config.data.dir.join("storage")));
    }
    checks.push_back(directory("settlement", Settlement::directory(config)));
    checks.push_back(vault_key(config));
    checks.collect().await
}

fn data_directory(config: &Config) -> BoxFuture<'static, Checkup> {
    let (directory, target) = (data_dir(config), config.data.dir.display().to_string());
    check("data directory", target, async move {
        let mut answer = Answer::default();
        if let Err(error) = directory.verify() {
            answer.find(error.to_string(), "run `orchestrator setup`, or mend what stands in the way");
            return Ok(answer);
        }
        if let Err(error) = directory.lock()
            && error.code == ErrorCode::DataDirLocked
        {
            // A daemon that runs is what one hopes for.
            answer.version = Some(error.to_string());
        }
        Ok(answer)
    })
}

fn embedded_database(config: &Config) -> BoxFuture<'static, Checkup> {
    let path = config.data.dir.join("orchestrator.db");
    check("database", format!("sqlite {}", path.display()), async move {
        let mut answer = Answer { version: Some(rusqlite::version().to_owned()), ..Answer::default() };
        if !path.exists() {
            answer.find("it was not made yet", "run `orchestrator setup`, or start the daemon");
            return Ok(answer);
        }
        // Read-only, beside a daemon that may run.
        let looked = tokio::task::spawn_blocking(move || {
            let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
            let database = rusqlite::Connection::open_with_flags(path, flags)?;
            database.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
        });
        match looked.await {
            Ok(Ok(word)) if word == "ok" => {}
            Ok(Ok(word)) => answer.find(
                format!("the file is damaged: {word}"),
                "stop the daemon, keep a copy of the data directory, and restore a backup",
            ),
            Ok(Err(error)) => answer.find(
                format!("it can't be read: {error}"),
                "look at the permissions of the file; keep a copy of the data directory before anything else",
            ),
            Err(error) => answer.find(error.to_string(), "try again"),
        }
        Ok(answer)
    })
}

/// A directory that must be there and be written to.
fn directory(name: &'static str, path: std::path::PathBuf) -> BoxFuture<'static, Checkup> {
    check(name, format!("directory {}", path.display()), async move {
        let mut answer = Answer::default();
        let made = tokio::task::spawn_blocking(move || {
            let probe = path.join(format!(".doctor-{}", std::process::id()));
            std::fs::write(&probe, b"probe").and_then(|()| std::fs::remove_file(&probe))
        });
        match made.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                answer.find("it does not exist", "run `orchestrator setup`, or start the daemon");
            }
            Ok(Err(error)) => answer.find(
                format!("it can't be written: {error}"),
                "mend its permissions, make room on its disk, or choose another directory",
            ),
            Err(error) => answer.find(error.to_string(), "try again"),
        }
        Ok(answer)
    })
}

fn vault_key(config: &Config) -> BoxFuture<'static, Checkup> {
    let (target, shared) = (super::secret::vault_key_place(config), config.shared());
    let found = super::secret::look_at_vault_key(config);
    check("vault key", target, async move {
        let mut answer = Answer::default();
        match found {
            Ok(true) => {}
            Ok(false) if shared => answer.find(
                "this replica would make a key of its own",
                "give every replica the same key: 64 hex digits in ORCHESTRATOR_VAULT_KEY or in data.vault_key_file",
            ),
            Ok(false) => answer.find("it was not made yet", "run `orchestrator setup`, or start the daemon"),
            Err(error) => {
                answer.find(error.to_string(), "64 hex digits in a file of mode 0600; `openssl rand -hex 32` makes them");
            }
        }
        Ok(answer)
    })
}
