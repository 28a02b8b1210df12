//! The database alone: what the job engine asks of it, without the engine. Many writers insert batches of jobs; claimers
//! take them and replace each by its completed form, guarded by the fencing token. Beside it stands bare SQLite with rows
//! of the same size.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use orchestrator::{
    client::db::sqlite::{Options, SqliteDatabase},
    core::client::{
        database::{
            Changeset, Claim, Claimer, Committer, DatabaseClient, Document, Expect, Filter, Reader, Scalar,
            Sort, Write, WriteOp,
        },
        schema::{self, JOBS},
    },
};
use serde_json::{Value, json};

use crate::row::Row;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is measured.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many jobs.
    #[arg(long, default_value_t = 100_000)]
    jobs: usize,
    /// Tasks that insert.
    #[arg(long, default_value_t = 8)]
    writers: usize,
    /// Jobs per changeset.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Tasks that claim and complete.
    #[arg(long, default_value_t = 8)]
    claimers: usize,
    /// Jobs per claim.
    #[arg(long, default_value_t = 128)]
    claim: usize,
    /// Jobs completed by one changeset.
    #[arg(long, default_value_t = 32)]
    complete: usize,
    /// Where the database lies; the default is a temporary directory.
    #[arg(long)]
    dir: Option<std::path::PathBuf>,
}

/// Runs it.
///
/// # Panics
/// When the database fails.
#[expect(clippy::expect_used, reason = "a benchmark that can't run has nothing to report")]
pub fn store(args: &Args) -> Vec<Row> {
    let dir = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    }
    .expect("a temporary directory");
    let (bare, bare_single) = bare(&dir.path().join("bare.db"), args).expect("bare sqlite runs");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let run = runtime.block_on(run(&dir.path().join("store.db"), args)).expect("the database runs");
    let rate = |name: &str, value: f64, baseline: Option<f64>, goal: Option<f64>| {
        let row = Row::new(name, value, "jobs/s");
        let row = baseline.map_or(row.clone(), |limit| row.beside(limit));
        goal.map_or(row.clone(), |goal| row.at_least(goal))
    };
    let plain = |name: &str, value: f64, unit: &str, goal: Option<f64>| {
        let row = Row::new(name, value, unit);
        goal.map_or(row.clone(), |goal| row.at_most(goal))
    };
    vec![
        rate("store: inserted, claimed, completed", run.per_second, Some(bare), Some(10_000.0)),
        rate("store: inserted only", run.inserts_per_second, None, None),
        rate("store: claimed and completed only", run.completions_per_second, None, None),
        plain("store: syncs per job", run.syncs_per_job, "syncs", Some(0.05)),
        plain("store: point reads", run.reads_per_second, "reads/s", None),
        plain("bare sqlite: single-row commits", bare_single, "commits/s", None),
    ]
}

struct Run {
    per_second: f64,
    inserts_per_second: f64,
    completions_per_second: f64,
    syncs_per_job: f64,
    reads_per_second: f64,
}

/// A body as the engine writes it.
fn body(n: usize) -> Value {
    json!({
        "id": id(n), "kind": "provision", "subject": format!("alloc_{n:032x}"), "dedup": format!("provision:{n}"),
        "state": "created", "due": 1_700_000_000_000_000_i64 + n as i64, "attempts": 0, "verify_attempts": 0, "rounds": 0,
        "lease_owner": null, "lease_token": 0, "lease_until": null, "generation": 0,
        "input": {"allocation": format!("alloc_{n:032x}"), "bytes": 1_073_741_824}, "output": null,
        "trace_id": format!("trace_{n:032x}"), "created_at": 1_700_000_000_000_000_i64, "updated_at": 1_700_000_000_000_000_i64
    })
}

fn id(n: usize) -> String {
    format!("job_{n:032x}")
}

fn claim(args: &Args) -> Claim {
    Claim {
        collection: JOBS,
        filter: Filter::Le("due".into(), Scalar::Int(i64::MAX)),
        sort: Sort::Field("due".into()),
        limit: args.claim,
        set: vec![
            ("state".into(), "running".into()),
            ("due".into(), Scalar::Null),
            ("lease_owner".into(), "worker-1".into()),
            ("lease_until".into(), Scalar::Int(1_700_000_030_000_000)),
        ],
        increment: vec![("lease_token".into(), 1), ("attempts".into(), 1)],
    }
}

/// The completed form of a claimed job, through the same typed hands as the engine's.
fn completed(document: &Document) -> Result<Write, Failure> {
    let mut body: Value = serde_json::from_str(&document.body)?;
    body["state"] = "completed".into();
    body["lease_owner"] = Value::Null;
    body["lease_until"] = Value::Null;
    body["output"] = json!({"bucket": "b", "done": true});
    let expect = Expect::Field("lease_token".into(), 1.into());
    let op = WriteOp::Replace { expect, body: body.to_string() };
    Ok(Write::new(JOBS, document.id.clone(), op))
}

async fn insert_all(db: &Arc<SqliteDatabase>, args: &Args, from: usize) -> Result<(), Failure> {
    let next = Arc::new(AtomicUsize::new(0));
    let (jobs, batch) = (args.jobs, args.batch);
    let tasks: Vec<_> = (0..args.writers)
        .map(|_| {
            let (db, next) = (Arc::clone(db), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let first = next.fetch_add(batch, Ordering::Relaxed);
                    if first >= jobs {
                        return Ok::<(), Failure>(());
                    }
                    let mut changes = Changeset::new();
                    for n in first..(first + batch).min(jobs) {
                        changes.insert_json(JOBS, id(from + n), &body(from + n));
                    }
                    db.commit(changes).await?;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn complete_all(db: &Arc<SqliteDatabase>, args: &Args, done: &Arc<AtomicUsize>) -> Result<(), Failure> {
    let tasks: Vec<_> = (0..args.claimers)
        .map(|_| {
            let (db, done, claim, jobs, size) =
                (Arc::clone(db), Arc::clone(done), claim(args), args.jobs, args.complete);
            tokio::spawn(async move {
                while done.load(Ordering::Relaxed) < jobs {
                    let taken = db.claim(claim.clone()).await?;
                    if taken.is_empty() {
                        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                    }
                    let commits = taken.chunks(size).map(|chunk| {
                        let db = &db;
                        async move {
                            let writes = chunk.iter().map(completed).collect::<Result<Vec<_>, _>>()?;
                            db.commit(Changeset { writes }).await?;
                            Ok::<(), Failure>(())
                        }
                    });
                    for result in futures::future::join_all(commits).await {
                        result?;
                    }
                    done.fetch_add(taken.len(), Ordering::Relaxed);
                }
                Ok::<(), Failure>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn run(path: &Path, args: &Args) -> Result<Run, Failure> {
    let db = SqliteDatabase::open(path, Options::default())?;
    db.connect(schema::ALL).await?;
    let count = args.jobs as f64;

    // Inserting, claiming and completing at once.
    let before = db.stats();
    let started = Instant::now();
    let done = Arc::new(AtomicUsize::new(0));
    let (inserted, finished) = tokio::join!(insert_all(&db, args, 0), complete_all(&db, args, &done));
    inserted?;
    finished?;
    let per_second = count / started.elapsed().as_secs_f64();
    let syncs_per_job = (db.stats().syncs() - before.syncs()) as f64 / count;

    // Each apart.
    let started = Instant::now();
    insert_all(&db, args, args.jobs).await?;
    let inserts_per_second = count / started.elapsed().as_secs_f64();
    let started = Instant::now();
    complete_all(&db, args, &Arc::default()).await?;
    let completions_per_second = count / started.elapsed().as_secs_f64();

    let completed = db.count(JOBS, Filter::eq("state", "completed")).await?;
    if completed != 2 * args.jobs as u64 {
        return Err(format!("{completed} of {} jobs are completed", 2 * args.jobs).into());
    }
    let started = Instant::now();
    for n in 0..args.jobs {
        db.get(JOBS, &id(n * 7919 % args.jobs)).await?;
    }
    let reads_per_second = count / started.elapsed().as_secs_f64();
    db.disconnect().await?;
    Ok(Run { per_second, inserts_per_second, completions_per_second, syncs_per_job, reads_per_second })
}

/// Bare SQLite: rows of the same size and one key, no indexes; inserted, then updated twice, in transactions of 256; and
/// transactions of a single row.
fn bare(path: &Path, args: &Args) -> rusqlite::Result<(f64, f64)> {
    let db = rusqlite::Connection::open(path)?;
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)",
    )?;
    let text = body(1).to_string();
    let started = Instant::now();
    for first in (0..args.jobs).step_by(256) {
        let last = (first + 256).min(args.jobs);
        for sql in [
            "INSERT INTO t (id, body) VALUES (?1, ?2)",
            "UPDATE t SET body = ?2 WHERE id = ?1",
            "UPDATE t SET body = ?2 WHERE id = ?1",
        ] {
            db.execute_batch("BEGIN IMMEDIATE")?;
            let mut statement = db.prepare_cached(sql)?;
            for n in first..last {
                statement.execute((n as i64, &text))?;
            }
            db.execute_batch("COMMIT")?;
        }
    }
    let batched = args.jobs as f64 / started.elapsed().as_secs_f64();
    let started = Instant::now();
    let singles = 500;
    for n in 0..singles {
        db.execute("INSERT INTO t (id, body) VALUES (?1, ?2)", (args.jobs as i64 + n, &text))?;
    }
    Ok((batched, singles as f64 / started.elapsed().as_secs_f64()))
}
