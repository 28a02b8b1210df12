//! Asks every configured dependency how it is, all at once: whether it answers and how fast, what version it is, what
//! is wrong with it, and how that is mended. Changes nothing.

#[cfg(feature = "ethereum")]
mod chain;
mod running;

use std::{
    future::Future,
    time::{Duration, Instant},
};

#[cfg(any(feature = "mongodb", feature = "aws", feature = "redis", feature = "kafka"))]
use futures::FutureExt as _;
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use serde::Serialize;

use super::host::data_dir;
use crate::{
    config::{
        Config,
        section::{DatabaseBackend, Settlement, SettlementBackend, StorageBackend},
    },
    error::ErrorCode,
    resource::{Resource as _, check::Finding},
};

/// Clocks that are further apart than this are told of: leases and schedules rest on them.
#[cfg(feature = "mongodb")]
const MAX_SKEW: crate::core::market::quantity::Micros = crate::core::market::quantity::Micros::from_secs(2);
/// Longest time for one dependency.
const PATIENCE: Duration = Duration::from_secs(15);

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
        self.findings.push(Finding { what: problem.into(), fix: fix.into() });
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
                what: format!("it did not answer within {} s", PATIENCE.as_secs()),
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

/// Asks every dependency that the configuration names, and the daemon, if it runs here.
pub async fn doctor(config: &Config) -> Vec<Checkup> {
    let mut checks: FuturesOrdered<BoxFuture<'static, Checkup>> = FuturesOrdered::new();
    checks.push_back(data_directory(config));
    if config.database.backend == DatabaseBackend::Sqlite {
        checks.push_back(embedded_database(config));
    }
    if config.storage.backend == StorageBackend::Filesystem {
        checks.push_back(directory("storage", config.data.dir.join("storage")));
    }
    match config.settlement.backend {
        SettlementBackend::Local => {
            checks.push_back(directory("settlement", Settlement::directory(config)));
        }
        SettlementBackend::Ethereum => {
            #[cfg(feature = "ethereum")]
            checks.push_back(chain::chain(config));
        }
    }
    checks.push_back(vault_key(config));
    let (daemon, here, elsewhere) =
        tokio::join!(running::running(config), checks.collect::<Vec<_>>(), remote(config));
    daemon.into_iter().chain(here).chain(elsewhere).collect()
}

/// What lies elsewhere, all at once.
async fn remote(config: &Config) -> Vec<Checkup> {
    let mut checks: FuturesOrdered<BoxFuture<'static, Vec<Checkup>>> = FuturesOrdered::new();
    #[cfg(feature = "mongodb")]
    if config.database.backend == DatabaseBackend::Mongodb {
        checks.push_back(mongodb(config).map(|one| vec![one]).boxed());
    }
    #[cfg(feature = "aws")]
    if super::backends::uses_aws(config) {
        checks.push_back(aws(config.clone()).boxed());
    }
    #[cfg(feature = "redis")]
    if config.cache.backend == crate::config::section::CacheBackend::Redis {
        checks.push_back(redis(config).map(|one| vec![one]).boxed());
    }
    #[cfg(feature = "kafka")]
    if config.jobs.dispatch == crate::config::section::Dispatch::Kafka {
        checks.push_back(kafka(config).map(|one| vec![one]).boxed());
    }
    #[cfg(not(any(feature = "mongodb", feature = "aws", feature = "redis", feature = "kafka")))]
    let _ = (config, &mut checks);
    checks.collect::<Vec<_>>().await.into_iter().flatten().collect()
}

/// What an examination found.
#[cfg(any(feature = "redis", feature = "kafka"))]
fn examined(check: crate::resource::check::Check) -> Answer {
    Answer {
        version: check.version,
        latency: Some(Duration::from_micros(check.latency.get())),
        findings: check.findings,
    }
}

#[cfg(feature = "mongodb")]
fn mongodb(config: &Config) -> BoxFuture<'static, Checkup> {
    use crate::{
        client::{clock::SystemClock, db::mongodb::MongoDatabase},
        core::client::schema,
    };
    let settings = super::backends::mongo_settings(config);
    let target = format!("mongodb {} {}", crate::config::masked(&settings.url), settings.name);
    check("database", target, async move {
        let silent = |error: crate::core::client::database::DatabaseError| {
            Finding {
            what: crate::error::chain(&error),
            fix: "look at database.url: host, port, user and password; and whether the server runs and can be reached".into(),
        }
        };
        let database = MongoDatabase::open(settings).await.map_err(silent)?;
        let found = database.inspect(schema::ALL, &SystemClock::new()).await.map_err(silent)?;
        let mut answer =
            Answer { version: Some(found.version), latency: Some(found.round_trip), findings: Vec::new() };
        if let Some(reason) = found.unusable {
            answer.find("it can't keep what the daemon needs", reason);
        }
        for drift in &found.drift {
            answer.find(drift.to_string(), "run `orchestrator setup`");
        }
        if !found.missing_permissions.is_empty() {
            let all = found.missing_permissions.join(", ");
            answer.find(
                format!("the user may not do: {all}"),
                "grant the role `readWrite` on the database to the user of database.url",
            );
        }
        if found.clock_skew > MAX_SKEW {
            let seconds = found.clock_skew.get() / 1_000_000;
            let direction = if found.server_ahead { "behind" } else { "ahead of" };
            answer.find(
                format!("this host's clock is {seconds} s {direction} the database's"),
                "let both hosts follow a time server (NTP)",
            );
        }
        Ok(answer)
    })
}

#[cfg(feature = "redis")]
fn redis(config: &Config) -> BoxFuture<'static, Checkup> {
    use crate::client::cache::{RedisCache, RedisSettings};
    let settings = RedisSettings::new(&config.cache.url, format!("{}:", config.aws.prefix));
    let target = format!("redis {}", crate::config::masked(&config.cache.url));
    check("cache", target, async move {
        let silent = |error: crate::core::client::cache::CacheError| {
            Finding {
            what: crate::error::chain(&error),
            fix: "look at cache.url and whether the server runs; until then the daemon goes on without its cache, slower".into(),
        }
        };
        let cache = RedisCache::new(&settings).map_err(silent)?;
        Ok(examined(crate::resource::redis::examine(&cache).await))
    })
}

#[cfg(feature = "kafka")]
fn kafka(config: &Config) -> BoxFuture<'static, Checkup> {
    use std::sync::Arc;

    use crate::client::{clock::SystemClock, job_queue::KafkaJobQueue};
    let settings = super::backends::kafka_settings(config);
    check("job queue", format!("kafka {}", config.kafka.brokers), async move {
        let settings = settings.map_err(|error| Finding {
            what: error.detail.into_owned(),
            fix: "look at kafka.security, kafka.user and kafka.password_file".into(),
        })?;
        let silent = |error: crate::core::client::queue::QueueError| {
            Finding {
            what: crate::error::chain(&error),
            fix: "look at kafka.brokers, and whether the brokers run and tell clients an address that can be reached"
                .into(),
        }
        };
        let queue = KafkaJobQueue::new(&settings, Arc::new(SystemClock::new())).map_err(silent)?;
        Ok(examined(crate::resource::kafka::examine(&queue).await))
    })
}

#[cfg(feature = "aws")]
async fn aws(config: Config) -> Vec<Checkup> {
    let target = match config.aws.endpoint.as_str() {
        "" => format!("aws {}", config.aws.prefix),
        endpoint => format!("aws {endpoint} {}", config.aws.prefix),
    };
    let silent = |finding| {
        vec![Checkup {
            name: "aws",
            target: target.clone(),
            latency_ms: None,
            version: None,
            findings: vec![finding],
        }]
    };
    let resources = match super::cloud::resources(&config).await {
        Ok(Some(resources)) => resources,
        Ok(None) => return Vec::new(),
        Err(error) => {
            return silent(Finding {
                what: crate::error::chain(&error),
                fix: "set aws.region, or AWS_REGION".into(),
            });
        }
    };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
    let checkup = |check: crate::resource::check::Check| Checkup {
        name: check.name,
        target: target.clone(),
        latency_ms: Some(check.latency.get() as f64 / 1_000.0),
        version: check.version,
        findings: check.findings,
    };
    resources.check().await.into_iter().map(checkup).collect()
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
