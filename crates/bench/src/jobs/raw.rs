//! The raw store's limit: bare SQLite that writes the same bytes to the same table with the same indexes, in batches as large
//! as ours: every job inserted, then every job's claim and end, as two updates by row number. No engine, no queue, no
//! guard, no look-up: what is left is what any engine on this store has to pay.

use std::{path::Path, sync::Arc, time::Instant};

use orchestrator::{
    client::{
        clock::{SystemClock, SystemEntropy},
        db::sqlite::{Options, SqliteDatabase},
    },
    core::{
        client::{
            clock::Clock,
            database::{Changeset, DatabaseClient, WriteOp},
            schema,
        },
        job::{Job, JobState},
        market::ids::IdGenerator,
    },
};
use rusqlite::{Connection, params};

use super::ours;
use crate::process::Thread;

/// Jobs of one transaction: as many as our writer has in one when it is busy.
const BATCH: usize = 1_000;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// One job as it is written three times.
struct Written {
    id: String,
    dedup: String,
    subject: String,
    kind: &'static str,
    due: i64,
    until: i64,
    /// Enqueued, claimed, completed.
    bodies: [String; 3],
}

fn body(job: &Job) -> String {
    let mut changes = Changeset::new();
    changes.insert(job);
    match changes.writes.pop().map(|write| write.op) {
        Some(WriteOp::Insert { body }) => body,
        _ => String::new(),
    }
}

fn written(number: usize, ids: &IdGenerator) -> Result<Written, Fault> {
    let mut changes = Changeset::new();
    ours::job(ours::NOOP, number, ids.now()).enqueue(&mut changes, ids);
    let Some(WriteOp::Insert { body: enqueued }) = changes.writes.pop().map(|write| write.op) else {
        return Err("a job is an insertion".into());
    };
    let mut job: Job = serde_json::from_str(&enqueued)?;
    let (due, until) = (job.created_at.as_micros(), job.created_at.as_micros() + 30_000_000);
    job.due = None;
    job.state = JobState::Running;
    job.lease_owner = Some("local-0123456789abcdef".into());
    job.lease_until = Some(until);
    job.lease_token = 1;
    job.attempts = 1;
    let claimed = body(&job);
    job.state = JobState::Completed;
    job.lease_owner = None;
    job.lease_until = None;
    job.lease_token = 2;
    let completed = body(&job);
    let Job { id, dedup, subject, kind, .. } = job;
    // As long in each phase, with what stands beside the text: an instant of six bytes, a version, a state. So the row is
    // written in place, as ours is.
    let beside = [6 + "created".len(), 6 + 1 + "running".len(), 1 + "completed".len()];
    let bodies = [enqueued, claimed, completed];
    let longest =
        bodies.iter().zip(beside).map(|(body, beside)| body.len() + beside).max().unwrap_or_default();
    let mut bodies = bodies;
    for (body, beside) in bodies.iter_mut().zip(beside) {
        body.extend(std::iter::repeat_n(' ', longest - beside - body.len()));
    }
    Ok(Written { id: id.to_string(), dedup, subject, kind: kind.as_str(), due, until, bodies })
}

/// What the store can do.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Jobs a second, by the wall clock.
    pub per_second: f64,
    /// Jobs for a second of the one core that it uses.
    pub per_cpu_second: f64,
}

/// Measures it.
///
/// # Errors
/// When the disk or the database fails.
pub fn limit(directory: &Path, jobs: usize) -> Result<Limit, Fault> {
    let path = directory.join("raw.db");
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        // Our own layout, made by ourselves.
        let database = SqliteDatabase::open(&path, Options::default())?;
        database.connect(schema::ALL).await?;
        database.disconnect().await
    })?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let ids = IdGenerator::new(clock, Arc::new(SystemEntropy));
    let all = (0..jobs).map(|number| written(number, &ids)).collect::<Result<Vec<_>, _>>()?;
    let options = Options::default();
    let connection = Connection::open(&path)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{}; \
         PRAGMA wal_autocheckpoint = {};",
        options.cache_kib, options.checkpoint_pages
    ))?;
    let thread = Thread::current().ok_or("the kernel does not tell of this thread")?;
    let taken = || thread.cpu().ok_or("the kernel does not tell of this thread");
    let (began, before) = (Instant::now(), taken()?);
    for batch in all.chunks(BATCH) {
        insert(&connection, batch)?;
    }
    for (number, batch) in all.chunks(BATCH).enumerate() {
        let first = i64::try_from(number * BATCH + 1)?;
        claim(&connection, batch, first)?;
        complete(&connection, batch, first)?;
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), taken()? - before);
    drop(connection);
    for end in ["", "-wal", "-shm"] {
        // The directory goes anyway.
        let _ = std::fs::remove_file(directory.join(format!("raw.db{end}")));
    }
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let jobs = jobs as f64;
    Ok(Limit { per_second: jobs / seconds, per_cpu_second: jobs / cpu })
}

fn insert(connection: &Connection, batch: &[Written]) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    let mut statement = transaction.prepare_cached(
        "INSERT INTO jobs (id, version, f_due, f_lease_until, f_dedup, f_subject, f_state, f_kind, body) \
         VALUES (?, 1, ?, NULL, ?, ?, 'created', ?, ?)",
    )?;
    for job in batch {
        let [body, ..] = &job.bodies;
        statement.execute(params![job.id, job.due, job.dedup, job.subject, job.kind, body])?;
    }
    drop(statement);
    transaction.commit()
}

fn claim(connection: &Connection, batch: &[Written], first: i64) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    let mut statement = transaction.prepare_cached(
        "UPDATE jobs SET version = 2, body = ?, f_due = NULL, f_lease_until = ?, f_state = 'running' WHERE rowid = ?",
    )?;
    for (row, job) in (first..).zip(batch) {
        let [_, body, _] = &job.bodies;
        statement.execute(params![body, job.until, row])?;
    }
    drop(statement);
    transaction.commit()
}

fn complete(connection: &Connection, batch: &[Written], first: i64) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    let mut statement = transaction.prepare_cached(
        "UPDATE jobs SET version = 3, body = ?, f_lease_until = NULL, f_state = 'completed' WHERE rowid = ?",
    )?;
    for (row, job) in (first..).zip(batch) {
        let [.., body] = &job.bodies;
        statement.execute(params![body, row])?;
    }
    drop(statement);
    transaction.commit()
}
