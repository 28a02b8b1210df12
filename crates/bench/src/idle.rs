//! An idle daemon: the program itself, started in an empty directory with the embedded default, left alone for a minute.
//! The kernel says what it holds and what it took. Beside it, a process that only has a runtime and a listener.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{BenchResult, process, row::Row};

/// How long the daemon may take until it is at rest: the block with its first unit becomes final.
const SETTLE: Duration = Duration::from_secs(20);

/// How it is measured.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For how many seconds; the prober comes by every minute.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The daemon's program; by default it lies beside this one.
    #[arg(long)]
    program: Option<PathBuf>,
}

impl Default for Args {
    fn default() -> Self {
        Self { seconds: 60, program: None }
    }
}

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process took while nobody asked for anything.
struct Rest {
    resident: f64,
    peak: f64,
    percent: f64,
}

/// Runs it.
///
/// # Errors
/// When the daemon does not start or the kernel tells nothing.
pub fn run(args: &Args) -> BenchResult {
    let directory = tempfile::tempdir()?;
    let own = std::env::current_exe()?;
    let program = args.program.clone().unwrap_or_else(|| own.with_file_name("orchestrator"));
    let config = directory.path().join("config.toml");
    configure(&config, &directory.path().join("data"))?;
    let mut daemon = Command::new(&program);
    daemon.arg("run").arg("--config").arg(&config).current_dir(directory.path());
    let ready = directory.path().join("data/operator.key");
    let mut bare = Command::new(own);
    bare.arg("bare-idle");

    let bare = start(&mut bare)?;
    let mut daemon = start(&mut daemon)?;
    let began = Instant::now();
    while !ready.exists() {
        if let Some(status) = daemon.0.try_wait()? {
            return Err(format!("{} ended with {status}", program.display()).into());
        }
        if began.elapsed() > Duration::from_secs(30) {
            return Err(format!("{} did not start", program.display()).into());
        }
        sleep(Duration::from_millis(20));
    }
    sleep(SETTLE);
    let pids = [daemon.0.id(), bare.0.id()];
    let before = pids.map(process::cpu);
    let began = Instant::now();
    sleep(Duration::from_secs(args.seconds));
    let seconds = began.elapsed().as_secs_f64();
    let rest = |at: usize| {
        let pid = pids.get(at).copied()?;
        let cpu = process::cpu(pid)? - before.get(at).copied()??;
        let pid = pid.to_string();
        Some(Rest {
            resident: process::memory(&pid, "VmRSS")?,
            peak: process::memory(&pid, "VmHWM")?,
            percent: 100.0 * cpu / seconds,
        })
    };
    let (daemon, bare) = rest(0).zip(rest(1)).ok_or("the kernel does not tell of these processes")?;
    Ok(vec![
        Row::new("idle: resident memory", daemon.resident, "MB").beside(bare.resident).at_most(60.0),
        Row::new("idle: share of a core", daemon.percent, "%").beside(bare.percent).at_most(1.0),
        Row::new("idle: peak memory since the start", daemon.peak, "MB").beside(bare.peak),
    ])
}

fn configure(path: &Path, data: &Path) -> std::io::Result<()> {
    let any = "127.0.0.1:0";
    let mut file = std::fs::File::create(path)?;
    writeln!(file, "[data]\ndir = {:?}", data.display().to_string())?;
    writeln!(file, "[api]\nlisten = \"{any}\"")?;
    writeln!(file, "[provider]\ns3_listen = \"{any}\"\nadmin_listen = \"{any}\"")
}

fn start(command: &mut Command) -> std::io::Result<Process> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Process)
}

/// The baseline: a runtime like the daemon's, with a listener that nobody calls. Ends when it is killed.
///
/// # Errors
/// When there is no port.
pub fn bare() -> BenchResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        axum::serve(listener, axum::Router::new().route("/", axum::routing::get(|| async { "" }))).await
    })?;
    Ok(Vec::new())
}
