//! What is measured of one contender: the burn-down of a backlog, an open loop, the loss of a worker, syncs per job, memory.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    contender::{Contender, Kit, Session},
    program,
    world::{Counts, World},
};
use crate::process;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// How long an effect of the chain takes while workers are killed.
const CHAIN_DELAY: Duration = Duration::from_millis(50);

/// What all measurements need.
pub struct Bench {
    /// Where the peers are.
    pub kit: Kit,
    /// The fake world.
    pub world: World,
    /// Its address.
    pub address: String,
    runtime: tokio::runtime::Runtime,
}

/// One burn-down: a backlog enqueued, then worked off.
#[derive(Debug, Clone, Serialize)]
pub struct BurnDown {
    /// Jobs.
    pub jobs: usize,
    /// How long enqueuing took.
    pub enqueue_seconds: f64,
    /// How long working off took.
    pub drain_seconds: f64,
    /// Whether jobs ran while they were enqueued, because nothing holds them back: then there is no backlog to work off.
    pub pushed: bool,
    /// Processor seconds of all processes of the contender, from the first enqueue to the last completion.
    pub cpu_seconds: f64,
    /// What the world counted; nothing for jobs without effects.
    pub world: Option<Counts>,
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
impl BurnDown {
    /// Jobs for a second of one core, everything counted.
    #[must_use]
    pub fn per_cpu_second(&self) -> f64 {
        self.jobs as f64 / self.cpu_seconds.max(0.01)
    }

    /// Jobs a second while the backlog is worked off; while they are enqueued, too, if there is none.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.jobs as f64 / if self.pushed { self.seconds() } else { self.drain_seconds }
    }

    /// Jobs a second, enqueuing counted.
    #[must_use]
    pub fn whole_per_second(&self) -> f64 {
        self.jobs as f64 / self.seconds()
    }

    /// How long all of it took.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.enqueue_seconds + self.drain_seconds
    }
}

/// What became of the jobs when a worker was killed in the middle.
#[derive(Debug, Clone, Serialize)]
pub struct Killed {
    /// Jobs.
    pub jobs: usize,
    /// Jobs that the killed worker had begun and not ended.
    pub in_flight: usize,
    /// Seconds from the kill until each of them was taken up again, in order; those that were not are not in it.
    pub resumed: Vec<f64>,
    /// Jobs whose effects were not all there when the time was up.
    pub unfinished: usize,
    /// Transactions beyond the first of a job.
    pub doubled: usize,
    /// For how long that was looked at.
    pub watched_seconds: f64,
}

fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Bench {
    /// With the world at this address.
    ///
    /// # Errors
    /// When there is no runtime.
    pub fn new(kit: Kit, address: String) -> Result<Self, Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { kit, world: World::new(&address), address, runtime })
    }

    fn session(&self, contender: Contender, workers: usize, delay: Duration) -> Result<Session, Fault> {
        self.runtime.block_on(self.world.begin(delay))?;
        Session::start(contender, &self.kit, &self.address, workers)
    }

    fn counts(&self) -> Result<Counts, Fault> {
        self.runtime.block_on(self.world.counts())
    }

    /// Waits until so many jobs are through and the queue is empty.
    #[expect(clippy::cast_precision_loss, reason = "a share of the work")]
    fn drained(session: &mut Session, jobs: u64, patience: Duration) -> Result<(), Fault> {
        let began = Instant::now();
        loop {
            let finished = session.finished()?;
            if finished >= jobs && session.left()? == 0 {
                return Ok(());
            }
            if began.elapsed() > patience {
                return Err(format!("{finished} of {jobs} jobs were done in {} s", patience.as_secs()).into());
            }
            // Often only towards the end: a question takes processor time, and a look too late counts as the contender's.
            let share = jobs.saturating_sub(finished) as f64 / finished.max(1) as f64;
            let ahead = began.elapsed().mul_f64((share / 4.0).min(1.0));
            sleep(ahead.clamp(Duration::from_millis(1), Duration::from_millis(10)));
        }
    }

    /// A backlog of `jobs`, enqueued and worked off.
    ///
    /// # Errors
    /// When something does not start, is lost or takes minutes.
    pub fn burn_down(&self, contender: Contender, kind: &str, jobs: usize) -> Result<BurnDown, Fault> {
        let mut session = self.session(contender, 1, Duration::ZERO)?;
        // Restate has to know its service before anybody can call it.
        let push = contender == Contender::Restate;
        if push {
            session.work()?;
        }
        let roots = session.roots();
        let before = program::cpu(&roots);
        let began = Instant::now();
        session.producer()?.ask(&json!({ "do": "enqueue", "kind": kind, "from": 0, "count": jobs }))?;
        let enqueue_seconds = began.elapsed().as_secs_f64();
        if !push {
            session.work()?;
        }
        Self::drained(&mut session, jobs as u64, Duration::from_secs(200))?;
        let drain_seconds = began.elapsed().as_secs_f64() - enqueue_seconds;
        let cpu_seconds = program::cpu(&roots) - before;
        let world = if kind == "effects" { Some(self.counts()?) } else { None };
        Ok(BurnDown { jobs, enqueue_seconds, drain_seconds, pushed: push, cpu_seconds, world })
    }

    /// An open loop of jobs without effects at `rate`; how long each waited from when it was to be enqueued until it
    /// started, in milliseconds, in order.
    ///
    /// # Errors
    /// When something does not start or is lost.
    pub fn open_loop(&self, contender: Contender, rate: f64, seconds: f64) -> Result<Vec<f64>, Fault> {
        let mut session = self.session(contender, 1, Duration::ZERO)?;
        session.work()?;
        let command = |from: usize, seconds: f64| json!({ "do": "open", "kind": "noop", "from": from, "rate": rate, "seconds": seconds });
        let sent = |answer: &Value| answer.get("sent").and_then(Value::as_u64).unwrap_or_default();
        // What is compiled, connected and cached at first use is not measured.
        let warm = sent(&session.producer()?.ask(&command(0, 1.0))?);
        Self::drained(&mut session, warm, Duration::from_secs(30))?;
        Self::waits(&mut session)?;
        let all = warm + sent(&session.producer()?.ask(&command(10_000_000, seconds))?);
        Self::drained(&mut session, all, Duration::from_secs(60))?;
        Self::waits(&mut session)
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn waits(session: &mut Session) -> Result<Vec<f64>, Fault> {
        let mut all = Vec::new();
        for worker in session.workers() {
            let answer = worker.ask(&json!({ "do": "waits" }))?;
            let waits = answer.get("waits").and_then(Value::as_array).cloned().unwrap_or_default();
            all.extend(waits.iter().filter_map(Value::as_i64).map(|micros| micros as f64 / 1_000.0));
        }
        all.sort_by(f64::total_cmp);
        Ok(all)
    }

    /// Kills one of two workers by SIGKILL in the middle of a backlog of jobs with effects; ours, which is one process, is
    /// killed and started again.
    ///
    /// # Errors
    /// When something does not start.
    pub fn kill(&self, contender: Contender, jobs: usize, window: Duration) -> Result<Killed, Fault> {
        let mut session = self.session(contender, 2, CHAIN_DELAY)?;
        let push = contender == Contender::Restate;
        let mut pids = if push { session.work()? } else { Vec::new() };
        session.producer()?.ask(&json!({ "do": "enqueue", "kind": "effects", "from": 0, "count": jobs }))?;
        if !push {
            pids = session.work()?;
        }
        let victim = *pids.first().ok_or("nobody works")?;
        let until = Instant::now() + Duration::from_secs(60);
        while self.counts()?.transacted < jobs / 4 {
            if Instant::now() > until {
                return Err("the workers did not begin".into());
            }
            sleep(Duration::from_millis(5));
        }
        let at = now_micros();
        let began = Instant::now();
        if contender == Contender::Ours {
            session.kill_and_restart()?;
        } else {
            program::kill(victim);
        }
        // Everybody else's jobs end soon; what the victim held is what is waited for.
        while began.elapsed() < window {
            if self.counts()?.transacted >= jobs && session.left().is_ok_and(|left| left == 0) {
                break;
            }
            sleep(Duration::from_millis(20));
        }
        let watched_seconds = began.elapsed().as_secs_f64();
        self.account(jobs, victim, at, watched_seconds)
    }

    /// Who held what when the victim died, and when it was taken up again, by the world's own record.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn account(&self, jobs: usize, victim: u32, at: u64, watched_seconds: f64) -> Result<Killed, Fault> {
        let counts = self.counts()?;
        let calls = self.runtime.block_on(self.world.calls())?;
        let answered = u64::try_from(CHAIN_DELAY.as_micros()).unwrap_or_default();
        let mut resumed = Vec::new();
        let mut in_flight = BTreeSet::new();
        for (key, calls) in &calls {
            let by_victim = calls.iter().filter(|call| call.by == victim && call.at <= at);
            let Some(last) = by_victim.max_by_key(|call| call.at) else { continue };
            // A transaction that was answered well before the kill may have been the job's end; if it was not, somebody
            // came back for the job.
            let again =
                calls.iter().filter(|call| call.by != victim && call.at > at).map(|call| call.at).min();
            let open = last.method != "POST" || last.at + answered > at;
            if let Some(again) = again {
                resumed.push((again - at) as f64 / 1e6);
                in_flight.insert(key);
            } else if open {
                in_flight.insert(key);
            }
        }
        resumed.sort_by(f64::total_cmp);
        Ok(Killed {
            jobs,
            in_flight: in_flight.len(),
            resumed,
            unfinished: jobs.saturating_sub(counts.transacted.min(counts.put)),
            doubled: counts.doubled,
            watched_seconds,
        })
    }

    /// Syncs of the disk for each job without effects, as the kernel saw them.
    ///
    /// # Errors
    /// When nothing may be traced here.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn syncs(&self, contender: Contender, jobs: usize) -> Result<f64, Fault> {
        let mut session = self.session(contender, 1, Duration::ZERO)?;
        let push = contender == Contender::Restate;
        if push {
            session.work()?;
        }
        let report = session.directory().join("strace");
        let mut command = Command::new(self.kit.tracer());
        command.args([
            "-f",
            "-c",
            "-U",
            "name,calls",
            "-e",
            "trace=fsync,fdatasync,sync_file_range,msync",
            "-o",
        ]);
        command.arg(&report);
        for pid in session.stores() {
            command.arg("-p").arg(pid.to_string());
        }
        let mut tracer = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        sleep(Duration::from_secs(1));
        if let Some(status) = tracer.try_wait()? {
            return Err(format!("strace ended with {status}: may processes be traced here?").into());
        }
        let worked = (|| {
            session.producer()?.ask(&json!({ "do": "enqueue", "kind": "noop", "from": 0, "count": jobs }))?;
            if !push {
                session.work()?;
            }
            Self::drained(&mut session, jobs as u64, Duration::from_secs(120))
        })();
        program::interrupt(&mut tracer)?;
        worked?;
        let text = fs::read_to_string(&report)?;
        let calls = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            ["fsync", "fdatasync", "sync_file_range", "msync"]
                .contains(&name)
                .then(|| words.next()?.parse::<u64>().ok())?
        });
        Ok(calls.sum::<u64>() as f64 / jobs as f64)
    }

    /// Peak resident memory of our process in MB, with so many jobs queued and while they run.
    ///
    /// # Errors
    /// When it does not start.
    pub fn memory(&self, jobs: usize) -> Result<f64, Fault> {
        let mut session = self.session(Contender::Ours, 1, Duration::ZERO)?;
        for from in (0..jobs).step_by(100_000) {
            let count = 100_000.min(jobs - from);
            session
                .producer()?
                .ask(&json!({ "do": "enqueue", "kind": "noop", "from": from, "count": count }))?;
        }
        session.work()?;
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until && session.left()? > 0 {
            sleep(Duration::from_millis(100));
            // What the benchmark itself notes is not the engine's.
            Self::waits(&mut session)?;
        }
        let pid = session.producer()?.pid().to_string();
        process::memory(&pid, "VmHWM").ok_or_else(|| "the kernel does not tell".into())
    }
}
