//! The contenders: ours and the peers, each with its servers, started fresh for every run on loopback and free ports.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::program::{self, Program};

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// The orchestrator on its embedded store.
    Ours,
    /// graphile-worker, one statement a job.
    Graphile,
    /// graphile-worker with a local queue and completions in batches.
    GraphileBatched,
    /// BullMQ on Redis.
    BullMq,
    /// Restate.
    Restate,
    /// Temporal's development server; not scored.
    Temporal,
}

impl Contender {
    /// All, ours first.
    pub const ALL: [Self; 6] =
        [Self::Ours, Self::Graphile, Self::GraphileBatched, Self::BullMq, Self::Restate, Self::Temporal];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Graphile => "graphile-worker",
            Self::GraphileBatched => "graphile-worker batched",
            Self::BullMq => "bullmq",
            Self::Restate => "restate",
            Self::Temporal => "temporal (dev server)",
        }
    }

    /// Whether it counts as a peer: Temporal's development server is not made for load, so its figures are shown, no more.
    #[must_use]
    pub const fn is_scored(self) -> bool {
        !matches!(self, Self::Temporal)
    }
}

/// Where the peers' programs and servers lie; `xtask` writes it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kit {
    /// Node.
    pub node: PathBuf,
    /// The peers' programs, with their packages beside them.
    pub programs: PathBuf,
    /// Debian's PostgreSQL, unpacked.
    pub postgres: PathBuf,
    /// Debian's Redis, unpacked.
    pub redis: PathBuf,
    /// The tool that counts syncs.
    pub strace: PathBuf,
    /// Python with Temporal's packages.
    pub temporal: PathBuf,
    /// What could not be installed, and why.
    pub missing: BTreeMap<String, String>,
}

impl Kit {
    /// Why a contender can't take part.
    #[must_use]
    pub fn lacks(&self, contender: Contender) -> Option<&str> {
        let needed: &[&str] = match contender {
            Contender::Ours => &[],
            Contender::Graphile | Contender::GraphileBatched => &["node", "postgres"],
            Contender::BullMq => &["node", "redis"],
            Contender::Restate => &["node"],
            Contender::Temporal => &["temporal"],
        };
        needed.iter().find_map(|part| self.missing.get(*part)).map(String::as_str)
    }

    /// The tool that counts syncs, or the system's.
    #[must_use]
    pub fn tracer(&self) -> PathBuf {
        if self.strace.exists() { self.strace.clone() } else { "strace".into() }
    }
}

/// Where programs of unpacked packages find their libraries.
fn libraries(root: &Path) -> OsString {
    let architecture = std::env::consts::ARCH;
    let mut all = OsString::from("LD_LIBRARY_PATH=");
    for directory in [format!("usr/lib/{architecture}-linux-gnu"), format!("lib/{architecture}-linux-gnu")] {
        all.push(root.join(directory));
        all.push(":");
    }
    all
}

/// A contender at work: its servers, who enqueues and who works.
pub struct Session {
    contender: Contender,
    kit: Kit,
    world: String,
    /// What programs need to know.
    environment: BTreeMap<&'static str, String>,
    servers: Vec<Program>,
    programs: Vec<Program>,
    // Removed last.
    directory: tempfile::TempDir,
}

fn free_port() -> std::io::Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr().map(|address| address.port())
}

fn wait_for(port: u16) -> Result<(), Fault> {
    let until = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if Instant::now() > until {
            return Err(format!("nothing listens on port {port}").into());
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn words<const N: usize>(list: [&str; N]) -> Vec<OsString> {
    list.into_iter().map(OsString::from).collect()
}

impl Session {
    /// Starts its servers with an empty store, and the programs.
    ///
    /// # Errors
    /// What did not start.
    pub fn start(contender: Contender, kit: &Kit, world: &str, workers: usize) -> Result<Self, Fault> {
        let mut session = Self {
            contender,
            kit: kit.clone(),
            world: world.to_owned(),
            environment: BTreeMap::new(),
            servers: Vec::new(),
            programs: Vec::new(),
            directory: tempfile::tempdir()?,
        };
        match contender {
            Contender::Ours => {}
            Contender::Graphile | Contender::GraphileBatched => session.postgres()?,
            Contender::BullMq => session.redis()?,
            Contender::Restate => session.restate(workers > 1)?,
            Contender::Temporal => session.temporal()?,
        }
        // Ours is one process. A pair of Restate's workers is one program, too: they share a port.
        let count = match contender {
            Contender::Ours => 1,
            Contender::Restate => 2,
            _ => 1 + workers,
        };
        for _ in 0..count {
            let program = session.program()?;
            session.programs.push(program);
        }
        if matches!(contender, Contender::Graphile | Contender::GraphileBatched) {
            session.producer()?.ask(&json!({ "do": "migrate" }))?;
        }
        Ok(session)
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn program(&self) -> Result<Program, Fault> {
        let mut command = match self.contender {
            Contender::Ours => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("jobs-ours").arg("--directory").arg(self.directory.path());
                command.arg("--world").arg(&self.world);
                command
            }
            Contender::Temporal => {
                let mut command = Command::new(self.kit.temporal.join("bin/python"));
                command.arg(self.kit.programs.join("temporal_peer.py"));
                command
            }
            peer => {
                let mut command = Command::new(&self.kit.node);
                command.arg(self.kit.programs.join(match peer {
                    Contender::BullMq => "bullmq.mjs",
                    Contender::Restate => "restate.mjs",
                    _ => "graphile.mjs",
                }));
                command.env("NODE_ENV", "production").env("RESTATE_LOGGING", "ERROR");
                command
            }
        };
        command.env("WORLD", &self.world).envs(&self.environment).current_dir(self.directory.path());
        Ok(Program::start(&mut command, &self.log())?.0)
    }

    fn serve(&mut self, command: &[OsString], port: u16) -> Result<(), Fault> {
        let log = self.log();
        let mut kept = program::kept(command)?;
        // Some leave things where they stand.
        let (server, _) = Program::start(kept.current_dir(self.directory.path()), &log)?;
        self.servers.push(server);
        wait_for(port).map_err(|fault| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            format!("{}: {fault}; {said}", self.contender.name()).into()
        })
    }

    /// PostgreSQL refuses to be root: in a namespace of its own it is somebody else, who still owns the files.
    fn postgres(&mut self) -> Result<(), Fault> {
        let bin = "usr/lib/postgresql/15/bin";
        let prefix = |program: &str| {
            let mut all = words(["unshare", "--user", "--map-user=1000", "--map-group=1000", "env"]);
            all.push(libraries(&self.kit.postgres));
            all.push(self.kit.postgres.join(bin).join(program).into());
            all.push("-D".into());
            all.push(self.data().into());
            all
        };
        let mut make = prefix("initdb");
        make.extend(words(["-U", "bench", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8"]));
        let (program, arguments) = make.split_first().ok_or("an empty command")?;
        let made = Command::new(program).args(arguments).output()?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        let port = free_port()?;
        let mut server = prefix("postgres");
        // Durable as it comes: fsync, full_page_writes and synchronous_commit are on.
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "unix_socket_directories=".to_owned(),
            "jit=off".to_owned(),
            "max_connections=120".to_owned(),
            "log_min_messages=error".to_owned(),
        ] {
            server.push("-c".into());
            server.push(setting.into());
        }
        self.environment.insert("DATABASE_URL", format!("postgres://bench@127.0.0.1:{port}/postgres"));
        let batched = self.contender == Contender::GraphileBatched;
        self.environment.insert("BATCHED", u8::from(batched).to_string());
        self.serve(&server, port)?;
        // It listens before it lets anybody in.
        sleep(Duration::from_millis(300));
        Ok(())
    }

    fn redis(&mut self) -> Result<(), Fault> {
        let port = free_port()?;
        fs::create_dir_all(self.data())?;
        let mut server = words(["env"]);
        server.push(libraries(&self.kit.redis));
        server.push(self.kit.redis.join("usr/bin/redis-server").into());
        server.extend(words([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ]));
        server.extend(words(["--port", &port.to_string(), "--dir"]));
        server.push(self.data().into());
        self.environment.insert("REDIS_PORT", port.to_string());
        self.serve(&server, port)
    }

    fn restate(&mut self, pair: bool) -> Result<(), Fault> {
        let [node, admin, ingress, service] = [free_port()?, free_port()?, free_port()?, free_port()?];
        let config = self.directory.path().join("restate.toml");
        let local = "bind-ip = \"127.0.0.1\"";
        let text = format!(
            "base-dir = {:?}\n{local}\nbind-port = {node}\nadvertised-host = \"127.0.0.1\"\nlisten-mode = \"tcp\"\n\
             disable-telemetry = true\nlog-filter = \"error\"\nnode-name = \"bench\"\n\
             [admin]\n{local}\nbind-port = {admin}\n[ingress]\n{local}\nbind-port = {ingress}\n",
            self.data().display().to_string()
        );
        fs::write(&config, text)?;
        let server = self.kit.programs.join(format!(
            "node_modules/@restatedev/restate-server-linux-{}/bin/restate-server",
            if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" }
        ));
        let server: Vec<OsString> = vec![server.into(), "--config-file".into(), config.into()];
        self.environment.insert("INGRESS", format!("http://127.0.0.1:{ingress}"));
        self.environment.insert("ADMIN", format!("http://127.0.0.1:{admin}"));
        self.environment.insert("SERVICE_PORT", service.to_string());
        self.environment.insert("PAIR", u8::from(pair).to_string());
        self.serve(&server, admin)?;
        wait_for(ingress)?;
        // Its partitions elect leaders.
        sleep(Duration::from_millis(1_500));
        Ok(())
    }

    fn temporal(&mut self) -> Result<(), Fault> {
        let port = free_port()?;
        fs::create_dir_all(self.data())?;
        let mut server: Vec<OsString> = vec![self.kit.temporal.join("bin/temporal").into()];
        server.extend(words([
            "server",
            "start-dev",
            "--headless",
            "--ip",
            "127.0.0.1",
            "--log-level",
            "error",
        ]));
        server.extend(words(["--port", &port.to_string(), "--db-filename"]));
        server.push(self.data().join("temporal.db").into());
        self.environment.insert("TEMPORAL", format!("127.0.0.1:{port}"));
        self.serve(&server, port)?;
        sleep(Duration::from_secs(2));
        Ok(())
    }

    /// Who enqueues.
    ///
    /// # Errors
    /// When there is nobody.
    pub fn producer(&mut self) -> Result<&mut Program, Fault> {
        self.programs.first_mut().ok_or_else(|| "nobody enqueues".into())
    }

    /// Who works; with us the same process that enqueues.
    pub fn workers(&mut self) -> &mut [Program] {
        let from = usize::from(self.contender != Contender::Ours);
        self.programs.get_mut(from..).unwrap_or_default()
    }

    /// Starts the work; the processes of a pair.
    ///
    /// # Errors
    /// What a program says.
    pub fn work(&mut self) -> Result<Vec<u32>, Fault> {
        let mut pids = Vec::new();
        for worker in self.workers() {
            let answer = worker.ask(&json!({ "do": "work" }))?;
            let children = answer.get("pids").and_then(Value::as_array).cloned().unwrap_or_default();
            let children: Vec<u32> = children
                .iter()
                .filter_map(|pid| pid.as_u64().and_then(|pid| u32::try_from(pid).ok()))
                .collect();
            if children.is_empty() { pids.push(worker.pid()) } else { pids.extend(children) }
        }
        Ok(pids)
    }

    /// How many jobs the workers' handlers are through with.
    ///
    /// # Errors
    /// What a program says.
    pub fn finished(&mut self) -> Result<u64, Fault> {
        let mut finished = 0;
        for worker in self.workers() {
            let answer = worker.ask(&json!({ "do": "count" }))?;
            finished += answer.get("finished").and_then(Value::as_u64).unwrap_or_default();
        }
        Ok(finished)
    }

    /// How many jobs the queue still holds.
    ///
    /// # Errors
    /// What a program says.
    pub fn left(&mut self) -> Result<u64, Fault> {
        let answer = self.producer()?.ask(&json!({ "do": "left" }))?;
        answer.get("left").and_then(Value::as_u64).ok_or_else(|| "no number of jobs".into())
    }

    /// Ends our one process as `kill -9` does, and starts it again on the same directory.
    ///
    /// # Errors
    /// When it does not start.
    pub fn kill_and_restart(&mut self) -> Result<(), Fault> {
        for mut program in self.programs.drain(..) {
            program.kill();
        }
        let program = self.program()?;
        self.programs.push(program);
        self.work().map(drop)
    }

    /// The processes of the servers and programs.
    #[must_use]
    pub fn roots(&self) -> Vec<u32> {
        self.servers.iter().chain(&self.programs).map(Program::pid).collect()
    }

    /// The processes that keep the jobs: the servers', or ours.
    #[must_use]
    pub fn stores(&self) -> Vec<u32> {
        let stores = if self.servers.is_empty() { &self.programs } else { &self.servers };
        program::tree(&stores.iter().map(Program::pid).collect::<Vec<_>>())
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Clients first.
        self.programs.clear();
        self.servers.clear();
    }
}
