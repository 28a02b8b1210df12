//! Our engine as a process of its own: the real engine and driver on the embedded database, told what to do by lines on
//! standard input like every other contender.

use std::{
    path::PathBuf,
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
        market::{ids::IdGenerator, quantity::Timestamp},
    },
    error::{Error, ErrorCode},
    service::job::{
        Engine, EnginePorts, EngineSettings, JobContext, JobError, JobHandler, Policy, Processed, Wake,
        WakingCommitter,
    },
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::world::World;

/// The kind that stands for a job without effects.
pub const NOOP: JobKind = JobKind::SyncAccess;
/// The kind that stands for a job with two.
pub const EFFECTS: JobKind = JobKind::Purge;
/// Jobs of one enqueuing commit.
const BATCH: usize = 500;
/// Tasks that enqueue at once.
const LANES: usize = 8;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Where it works.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory of the database.
    #[arg(long)]
    directory: PathBuf,
    /// The address of the fake world.
    #[arg(long, default_value = "")]
    world: String,
}

/// A command of the benchmark.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Command {
    Enqueue { kind: String, from: usize, count: usize },
    Open { kind: String, from: usize, rate: f64, seconds: f64 },
    Work,
    Count,
    Left,
    Waits,
    Syncs,
}

/// What a job carries: 256 bytes as JSON.
#[derive(Serialize)]
struct Carried<'a> {
    n: usize,
    at: i64,
    pad: &'a str,
}

/// A job with a payload of 256 bytes as JSON.
#[must_use]
pub fn job(kind: JobKind, number: usize, at: Timestamp) -> NewJob {
    const FRAME: usize = r#"{"n":,"at":,"pad":""}"#.len();
    static PAD: [u8; 256] = [b'x'; 256];
    let (name, at_text) = (number.to_string(), at.as_micros().to_string());
    let room = 256_usize.saturating_sub(FRAME + name.len() + at_text.len());
    let pad = std::str::from_utf8(&PAD[..room]).unwrap_or_default();
    NewJob::now(kind, &name, &name, at).input(Carried { n: number, at: at.as_micros(), pad })
}

/// What the handlers read of a payload.
#[derive(Default, Deserialize)]
struct Due {
    at: i64,
}

/// What was done so far.
#[derive(Default)]
struct Tally {
    finished: AtomicUsize,
    enqueued: AtomicUsize,
    waits: Mutex<Vec<u64>>,
}

impl Tally {
    fn started(&self, context: &dyn JobContext) {
        let Due { at } = context.job().input.read().unwrap_or_default();
        self.waits.lock().push(context.now().since(Timestamp(at)).get());
    }
}

struct Noop(Arc<Tally>);

#[async_trait]
impl JobHandler for Noop {
    fn kind(&self) -> JobKind {
        NOOP
    }

    fn policy(&self) -> Policy {
        Policy { concurrency: 2_048, ..Policy::default() }
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        self.0.started(context);
        self.0.finished.fetch_add(1, Ordering::Relaxed);
        Ok(Processed::Done(Changeset::new()))
    }
}

/// Journals each effect before it is tried; the second intent carries the first outcome with it, the end of the job the
/// second. What an earlier attempt journalled is looked up before it is tried again.
struct Effects(Arc<Tally>, World);

#[async_trait]
impl JobHandler for Effects {
    fn kind(&self) -> JobKind {
        EFFECTS
    }

    fn policy(&self) -> Policy {
        Policy { concurrency: 256, ..Policy::default() }
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        self.0.started(context);
        let number = context.job().subject.clone();
        let known = context.effects();
        let unknown = |fault: Fault| {
            JobError::Transient(Error::new(
                ErrorCode::Unavailable,
                format!("the world does not answer: {fault}"),
            ))
        };
        // A PUT with a key may be repeated: recovery needs no look at it.
        let put = context.intend("put", json!(number)).await?;
        if put.outcome.is_none() {
            self.1.put(&number).await.map_err(unknown)?;
            context.note("put", json!("done")).await?;
        }
        context.intend("transact", json!(number)).await?;
        let there =
            known.contains_key("transact") && self.1.has_transacted(&number).await.map_err(unknown)?;
        if !there {
            self.1.transact(&number).await.map_err(unknown)?;
        }
        context.note("transact", json!("done")).await?;
        self.0.finished.fetch_add(1, Ordering::Relaxed);
        Ok(Processed::Done(Changeset::new()))
    }
}

/// The process.
struct Ours {
    database: Arc<SqliteDatabase>,
    engine: Engine,
    committer: Arc<dyn Committer>,
    ids: IdGenerator,
    tally: Arc<Tally>,
    driver: Option<tokio::task::JoinHandle<()>>,
}

/// Runs until standard input ends.
///
/// # Errors
/// When the disk or the database fails.
pub fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(serve(args)).map_err(|fault| fault.to_string())?)
}

async fn serve(args: &Args) -> Result<(), Fault> {
    let mut ours = Ours::open(args).await?;
    answer(&json!({ "done": "start", "pid": std::process::id() }));
    let mut lines = lines();
    while let Some(line) = lines.recv().await {
        let began = Instant::now();
        let mut said = match serde_json::from_str(&line).map_err(Fault::from) {
            Ok(command) => {
                ours.obey(command).await.unwrap_or_else(|fault| json!({ "error": fault.to_string() }))
            }
            Err(fault) => json!({ "error": fault.to_string() }),
        };
        if let Some(said) = said.as_object_mut() {
            said.insert("done".into(), json!(true));
            said.insert("micros".into(), json!(began.elapsed().as_micros()));
        }
        answer(&said);
    }
    Ok(())
}

/// The lines of standard input, until it ends.
pub fn lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

fn answer(said: &Value) {
    use std::io::Write as _;
    // Whoever does not listen any more has gone.
    let _ = writeln!(std::io::stdout(), "{said}");
}

impl Ours {
    async fn open(args: &Args) -> Result<Self, Fault> {
        let database = SqliteDatabase::open(&args.directory.join("jobs.db"), Options::default())?;
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
        let tally = Arc::new(Tally::default());
        let world = World::new(&args.world);
        let handlers: Vec<Arc<dyn JobHandler>> =
            vec![Arc::new(Noop(Arc::clone(&tally))), Arc::new(Effects(Arc::clone(&tally), world))];
        let engine = Engine::new(ports, EngineSettings::default(), handlers);
        // As the daemon does on the embedded database: whoever holds a lease is gone.
        engine.release_leases_of_previous_process().await?;
        let committer: Arc<dyn Committer> = Arc::new(WakingCommitter::new(database.clone(), wake));
        Ok(Self { database, engine, committer, ids, tally, driver: None })
    }

    async fn obey(&mut self, command: Command) -> Result<Value, Fault> {
        Ok(match command {
            Command::Enqueue { kind, from, count } => {
                self.enqueue(kind_of(&kind), from, count).await?;
                json!({})
            }
            Command::Open { kind, from, rate, seconds } => {
                json!({ "sent": self.open_loop(kind_of(&kind), from, rate, seconds).await? })
            }
            Command::Work => {
                let driver = Driver::new(self.engine.clone(), DriverSettings::default());
                self.driver.get_or_insert_with(|| tokio::spawn(driver.run(CancellationToken::new())));
                json!({})
            }
            Command::Count => json!({ "finished": self.tally.finished.load(Ordering::Relaxed) }),
            Command::Left => {
                let finished = self.tally.finished.load(Ordering::Relaxed);
                let enqueued = self.tally.enqueued.load(Ordering::Relaxed);
                // A job that the handler is through with is in the engine's hands until its end is on the disk.
                json!({ "left": enqueued.saturating_sub(finished).max(self.engine.running()) })
            }
            Command::Waits => json!({ "waits": std::mem::take(&mut *self.tally.waits.lock()) }),
            Command::Syncs => json!({ "syncs": self.database.stats().syncs() }),
        })
    }

    async fn enqueue(&self, kind: JobKind, from: usize, count: usize) -> Result<(), Fault> {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let (committer, ids) = (Arc::clone(&self.committer), self.ids.clone());
                tokio::spawn(async move {
                    for begin in (from..from + count).step_by(BATCH).skip(lane).step_by(LANES) {
                        let mut changes = Changeset::new();
                        for number in begin..(begin + BATCH).min(from + count) {
                            job(kind, number, ids.now()).enqueue(&mut changes, &ids);
                        }
                        committer.commit(changes).await?;
                    }
                    Ok::<_, Fault>(())
                })
            })
            .collect();
        for lane in lanes {
            lane.await??;
        }
        self.tally.enqueued.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    /// Every millisecond what is due by then, whether or not the last batch is through.
    #[expect(clippy::cast_precision_loss, reason = "a number of jobs")]
    async fn open_loop(&self, kind: JobKind, from: usize, rate: f64, seconds: f64) -> Result<usize, Fault> {
        let (began, first) = (Instant::now(), self.ids.now());
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let mut sent = 0_usize;
        let mut commits = tokio::task::JoinSet::new();
        while began.elapsed().as_secs_f64() < seconds {
            ticks.tick().await;
            let mut changes = Changeset::new();
            while sent as f64 / rate <= began.elapsed().as_secs_f64() {
                let late = Duration::from_secs_f64(sent as f64 / rate);
                let at = first.plus(orchestrator::core::market::quantity::Micros(
                    u64::try_from(late.as_micros()).unwrap_or(u64::MAX),
                ));
                job(kind, from + sent, at).enqueue(&mut changes, &self.ids);
                sent += 1;
            }
            if !changes.is_empty() {
                let committer = Arc::clone(&self.committer);
                commits.spawn(async move { committer.commit(changes).await });
            }
        }
        while let Some(commit) = commits.join_next().await {
            commit??;
        }
        self.tally.enqueued.fetch_add(sent, Ordering::Relaxed);
        Ok(sent)
    }
}

fn kind_of(name: &str) -> JobKind {
    if name == "effects" { EFFECTS } else { NOOP }
}
