//! `cargo xtask backends`: the servers of a cluster without containers, on loopback and free ports. They lie in a cache outside
//! the checkout, whose lock is held while servers are started or ended; what runs is in a state file beside them. Checkouts with the same
//! pins share them: tests give everything that they make a name of its own.

mod install;
mod probe;
mod process;
mod report;
mod server;
mod state;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use clap::Subcommand;

use self::{
    install::{Installed, Installer},
    process::{Process, is_loopback},
    report::{Report, Row},
    server::Server,
    state::{Running, State},
};
use crate::cache;

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(60);
/// How often one that ended at its start is started again: somebody may have taken its port.
const ATTEMPTS: usize = 3;

/// What to do with the servers.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Action {
    /// Start those that don't run, fetching what is missing; prints the environment for tests as shell code.
    Up {
        /// Print an object {backends, environment} instead.
        #[arg(long)]
        json: bool,
    },
    /// End them and remove their data.
    Down,
    /// Show what runs, and the environment for tests.
    Status {
        /// Print an object {backends, environment} instead.
        #[arg(long)]
        json: bool,
    },
}

/// Does it.
///
/// # Errors
/// What could not be done.
pub fn act(action: Action) -> Result<(), String> {
    let backends = Backends::open()?;
    match action {
        Action::Up { json } => backends.up(true)?.print(json),
        Action::Status { json } => backends.status()?.print(json),
        Action::Down => backends.down(|_| true),
    }
}

/// The servers of one cache.
pub struct Backends {
    cache: PathBuf,
}

/// A test run's hold on the servers: those that were started for tests only end with the last run.
pub struct Hold {
    backends: Backends,
    users: fs::File,
    /// What the tests read.
    pub environment: Vec<(String, String)>,
}

impl Hold {
    /// Starts what doesn't run.
    ///
    /// # Errors
    /// What could not be installed or started.
    pub fn new() -> Result<Self, String> {
        let backends = Backends::open()?;
        let users = cache::lock_file(&backends.cache.join("users.lock"))?;
        users.lock_shared().map_err(|error| format!("users.lock: {error}"))?;
        let mut hold = Self { backends, users, environment: Vec::new() };
        match hold.backends.up(false) {
            Ok(report) => hold.environment = report.environment(),
            Err(problem) => {
                hold.release()?;
                return Err(problem);
            }
        }
        Ok(hold)
    }

    /// Ends the servers that were started for tests only, unless another run uses them.
    ///
    /// # Errors
    /// When one survives.
    pub fn release(self) -> Result<(), String> {
        self.users.unlock().map_err(|error| format!("users.lock: {error}"))?;
        if self.users.try_lock().is_err() {
            return Ok(());
        }
        self.backends.down(|running| !running.keep)
    }
}

impl Backends {
    fn open() -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            return Err("the servers run on Linux only; localstack/ has a compose file for Docker".to_owned());
        }
        Ok(Self { cache: install::directory()? })
    }

    fn lock(&self) -> Result<fs::File, String> {
        cache::lock(&self.cache.join("servers.lock"))
    }

    fn state_path(&self) -> PathBuf {
        self.cache.join("state.json")
    }

    /// Starts what doesn't run, all at once.
    fn up(&self, keep: bool) -> Result<Report, String> {
        let _lock = self.lock()?;
        let installer = Installer::new(self.cache.clone());
        let state = std::sync::Mutex::new(State::load(&self.state_path())?);
        let record = |server: Server, running: Option<Running>| {
            let mut state = state.lock().map_err(|error| error.to_string())?;
            match running {
                Some(running) => state.servers.insert(server.name().to_owned(), running),
                None => state.servers.remove(server.name()),
            };
            state.save(&self.state_path())
        };
        let before = |server: Server| {
            let state = state.lock().map_err(|error| error.to_string())?;
            Ok::<_, String>(state.servers.get(server.name()).cloned())
        };
        let one = |server: Server| {
            let begun = Instant::now();
            let installed = installer.ensure(server)?;
            let found = before(server)?;
            let (running, reused) = match found.filter(|running| running.process.alive()) {
                Some(running) if server.probe(running.port).is_ok() => {
                    (Running { keep: keep || running.keep, ..running }, true)
                }
                other => {
                    if let Some(stuck) = other {
                        eprintln!("{} doesn't answer: it is started anew", server.name());
                        end(&stuck)?;
                    }
                    (self.start(server, &installed, keep, &|running| record(server, running))?, false)
                }
            };
            record(server, Some(running.clone()))?;
            Ok(Row { server, installed, running: Some(running), reused, took: begun.elapsed() })
        };
        let rows: Vec<Result<Row, String>> = thread::scope(|scope| {
            let threads: Vec<_> =
                Server::ALL.into_iter().map(|server| scope.spawn(move || one(server))).collect();
            let died = |_| Err("a thread died".to_owned());
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(died)).collect()
        });
        let problems: Vec<String> = rows.iter().filter_map(|row| row.as_ref().err().cloned()).collect();
        if problems.is_empty() {
            Ok(Report { rows: rows.into_iter().flatten().collect() })
        } else {
            Err(problems.join("\n"))
        }
    }

    /// Starts a server and waits until it answers.
    fn start(
        &self,
        server: Server,
        installed: &Installed,
        keep: bool,
        record: &dyn Fn(Option<Running>) -> Result<(), String>,
    ) -> Result<Running, String> {
        let (log, data) =
            (self.cache.join(format!("{}.log", server.name())), self.cache.join("data").join(server.name()));
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            cache::remove(&data)?;
            cache::make_directory(&data)?;
            let port = free_port()?;
            let words = server::fill(&server.template(installed), port, &data);
            let (mut child, process) = process::spawn(&words, &data, &log)?;
            let running = Running { process, port, log: log.clone(), data: data.clone(), keep };
            record(Some(running.clone()))?;
            match ready(server, &mut child, &running) {
                Ok(()) => return Ok(running),
                Err(problem) => last = format!("{}: {problem}; see {}", server.name(), log.display()),
            }
            end(&running)?;
            record(None)?;
            // Its exit status is of no interest, but a zombie would stay.
            let _ = child.wait();
        }
        Err(last)
    }

    fn status(&self) -> Result<Report, String> {
        let _lock = self.lock()?;
        let state = State::load(&self.state_path())?;
        let row = |server: Server| {
            let begun = Instant::now();
            let running = state.servers.get(server.name()).cloned();
            let answers = |running: &Running| running.process.alive() && server.probe(running.port).is_ok();
            let running = running.filter(answers);
            let installed = Installer::present(&self.cache, server);
            Row { server, installed, reused: running.is_some(), running, took: begun.elapsed() }
        };
        Ok(Report { rows: Server::ALL.into_iter().map(row).collect() })
    }

    /// Ends those that a condition holds for, all at once.
    fn down(&self, which: impl Fn(&Running) -> bool) -> Result<(), String> {
        let _lock = self.lock()?;
        let mut state = State::load(&self.state_path())?;
        let (ending, staying) = std::mem::take(&mut state.servers).into_iter().partition(|(_, it)| which(it));
        state.servers = staying;
        let ending: std::collections::BTreeMap<String, Running> = ending;
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = ending.values().map(|running| scope.spawn(|| end(running))).collect();
            let died = |_| Err("a thread died".to_owned());
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(died)).collect()
        });
        let mut problems = Vec::new();
        for ((name, running), result) in ending.into_iter().zip(results) {
            match result {
                Ok(()) => eprintln!("{name} has ended"),
                Err(problem) => {
                    problems.push(format!("{name}: {problem}"));
                    state.servers.insert(name, running);
                }
            }
        }
        state.save(&self.state_path())?;
        if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
    }
}

/// Ends a server and removes its data.
fn end(running: &Running) -> Result<(), String> {
    running.process.end()?;
    cache::remove(&running.data)
}

/// A port that nobody uses now.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

/// Waits until a server answers, then looks that only this machine can reach it.
fn ready(server: Server, child: &mut Child, running: &Running) -> Result<(), String> {
    let until = Instant::now() + START;
    while let Err(problem) = server.probe(running.port) {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("ended at its start ({status})"));
        }
        if Instant::now() > until {
            return Err(format!("doesn't answer: {problem}"));
        }
        thread::sleep(Duration::from_millis(50));
    }
    loopback_only(&running.process)
}

fn loopback_only(process: &Process) -> Result<(), String> {
    let listens = process.listens();
    if listens.is_empty() {
        return Err("answers, but another process listens on its port".to_owned());
    }
    match listens.iter().find(|address| !is_loopback(address)) {
        None => Ok(()),
        Some(open) => Err(format!("listens on {open}, which other machines can reach")),
    }
}
