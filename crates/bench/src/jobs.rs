//! Jobs through the real engine on the real database, with durable commits: enqueued in batches, claimed, run by a handler
//! that does nothing, and completed by one commit each. Beside it: what bare SQLite does with the same number of row
//! writes.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use orchestrator::{
    client::{
        clock::{SystemClock, SystemEntropy},
        db::sqlite::{Options, SqliteDatabase},
    },
    controller::worker::{Driver, DriverSettings},
    core::{
        client::{
            clock::Clock,
            database::{Changeset, Committer, DatabaseClient},
            schema,
        },
        job::{JobKind, NewJob},
        market::ids::IdGenerator,
    },
    service::job::{
        Engine, EnginePorts, EngineSettings, JobContext, JobError, JobHandler, Policy, Processed, Wake,
        WakingCommitter,
    },
};
use tokio_util::sync::CancellationToken;

use crate::{BenchResult, row::Row};

/// Jobs of the run at full load.
const JOBS: usize = 40_000;
/// Jobs of one enqueuing commit.
const BATCH: usize = 500;
/// How long the run at half load takes.
const HALF_LOAD: Duration = Duration::from_secs(3);

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// A handler that does nothing but note how long each job waited.
#[derive(Default)]
struct Noop {
    done: AtomicUsize,
    waits: std::sync::Mutex<Vec<u64>>,
}

#[async_trait]
impl JobHandler for Noop {
    fn kind(&self) -> JobKind {
        JobKind::SyncAccess
    }

    fn policy(&self) -> Policy {
        Policy { concurrency: 2_048, ..Policy::default() }
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let waited = context.now().since(context.job().created_at).get();
        if let Ok(mut waits) = self.waits.lock() {
            waits.push(waited);
        }
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(Processed::Done(Changeset::new()))
    }
}

/// Runs it.
///
/// # Errors
/// When the disk or the database fails.
pub fn run() -> BenchResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let directory = tempfile::tempdir()?;
    let (commits, jobs) = bare(&directory.path().join("bare.db"))?;
    let rows =
        runtime.block_on(engine(directory.path(), commits, jobs)).map_err(|fault| fault.to_string())?;
    Ok(rows)
}

/// What bare SQLite does here: synced commits a second, and triples of row writes a second in large transactions.
fn bare(path: &Path) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let mut connection = rusqlite::Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT, due INT); \
         CREATE INDEX by_due ON t (due) WHERE due IS NOT NULL;",
    )?;
    let body = "x".repeat(700);
    let started = Instant::now();
    let mut commits = 0_u32;
    while started.elapsed() < Duration::from_secs(1) {
        connection.execute("INSERT INTO t (body, due) VALUES (?1, 1)", [&body])?;
        commits += 1;
    }
    let per_second = f64::from(commits) / started.elapsed().as_secs_f64();
    let started = Instant::now();
    let mut jobs = 0_u32;
    while started.elapsed() < Duration::from_secs(1) {
        let transaction = connection.transaction()?;
        for _ in 0..BATCH {
            transaction.prepare_cached("INSERT INTO t (body, due) VALUES (?1, 1)")?.execute([&body])?;
            let id = transaction.last_insert_rowid();
            transaction.prepare_cached("UPDATE t SET due = NULL WHERE id = ?1")?.execute([id])?;
            transaction
                .prepare_cached("UPDATE t SET body = ?2 WHERE id = ?1")?
                .execute(rusqlite::params![id, body])?;
            jobs += 1;
        }
        transaction.commit()?;
    }
    Ok((per_second, f64::from(jobs) / started.elapsed().as_secs_f64()))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn engine(directory: &Path, bare_commits: f64, bare_jobs: f64) -> Result<Vec<Row>, Fault> {
    let database = SqliteDatabase::open(&directory.join("jobs.db"), Options::default())?;
    database.connect(schema::ALL).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let entropy = Arc::new(SystemEntropy);
    let ids = IdGenerator::new(Arc::clone(&clock), entropy.clone());
    let wake = Arc::new(Wake::default());
    let ports = EnginePorts {
        reader: database.clone(),
        claimer: database.clone(),
        committer: database.clone(),
        ids: ids.clone(),
        clock,
        entropy,
        wake: Arc::clone(&wake),
    };
    let noop = Arc::new(Noop::default());
    let engine = Engine::new(ports, EngineSettings::default(), vec![noop.clone()]);
    let shutdown = CancellationToken::new();
    let driver = tokio::spawn(Driver::new(engine.clone(), DriverSettings::default()).run(shutdown.clone()));
    let committer: Arc<dyn Committer> = Arc::new(WakingCommitter::new(database.clone(), wake));

    let before = database.stats();
    let started = Instant::now();
    let batches = JOBS / BATCH;
    let enqueuers: Vec<_> = (0..4)
        .map(|lane| {
            let (committer, ids) = (Arc::clone(&committer), ids.clone());
            tokio::spawn(async move {
                for batch in (lane..batches).step_by(4) {
                    committer.commit(batch_of(BATCH, &format!("full-{batch}"), &ids)).await?;
                }
                Ok::<_, Fault>(())
            })
        })
        .collect();
    for enqueuer in enqueuers {
        enqueuer.await??;
    }
    let enqueued = started.elapsed().as_secs_f64();
    settled(&engine, &noop, JOBS).await;
    let seconds = started.elapsed().as_secs_f64();
    let after = database.stats();
    let per_second = JOBS as f64 / seconds;
    let syncs = (after.syncs() - before.syncs()) as f64 / JOBS as f64;

    if let Ok(mut waits) = noop.waits.lock() {
        waits.clear();
    }
    let sent = half_load(&committer, &ids, per_second / 2.0).await?;
    settled(&engine, &noop, JOBS + sent).await;
    let mut waits = noop.waits.lock().map(|waits| waits.clone()).unwrap_or_default();
    waits.sort_unstable();
    let percentile =
        |p: usize| waits.get(waits.len().saturating_sub(1) * p / 100).map_or(0.0, |w| *w as f64 / 1_000.0);

    shutdown.cancel();
    driver.await?;
    database.disconnect().await?;
    Ok(vec![
        Row::new("jobs: enqueued, claimed, completed", per_second, "jobs/s")
            .beside(bare_jobs)
            .at_least(10_000.0),
        Row::new("jobs: syncs per job", syncs, "syncs").at_most(0.05),
        Row::new("jobs: enqueued while others run", JOBS as f64 / enqueued, "jobs/s").beside(bare_jobs),
        Row::new("jobs: syncs per second", syncs * per_second, "syncs/s").beside(bare_commits),
        Row::new("jobs: enqueue to start at half load, p50", percentile(50), "ms"),
        Row::new("jobs: enqueue to start at half load, p99", percentile(99), "ms"),
    ])
}

/// Enqueues at this rate, every five milliseconds; returns how many it enqueued.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate of jobs is a small positive number"
)]
async fn half_load(committer: &Arc<dyn Committer>, ids: &IdGenerator, rate: f64) -> Result<usize, Fault> {
    let started = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let mut sent = 0;
    while started.elapsed() < HALF_LOAD {
        ticks.tick().await;
        let wanted = (started.elapsed().as_secs_f64() * rate) as usize;
        if wanted > sent {
            committer.commit(batch_of(wanted - sent, &format!("half-{sent}"), ids)).await?;
            sent = wanted;
        }
    }
    Ok(sent)
}

fn batch_of(count: usize, name: &str, ids: &IdGenerator) -> Changeset {
    let mut changes = Changeset::new();
    for number in 0..count {
        let key = format!("{name}-{number}");
        NewJob::now(JobKind::SyncAccess, &key, &key, ids.now()).enqueue(&mut changes, ids);
    }
    changes
}

/// Waits until so many jobs were run and nothing runs any more.
async fn settled(engine: &Engine, noop: &Noop, jobs: usize) {
    while noop.done.load(Ordering::Relaxed) < jobs || engine.running() > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
