//! Servers that a test has to itself, so that it may stop, kill and cut them off, and proxies to cut with.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::daemon::harness::{free_port, wait_for};

/// A variable that `cargo xtask test` sets.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: run these tests by `cargo xtask test`, which starts the servers and sets it"
        )
    })
}

/// A server of this test alone, which keeps its port and its files over restarts.
pub struct OwnServer {
    command: Vec<String>,
    directory: tempfile::TempDir,
    pub port: u16,
    child: Option<Child>,
}

impl OwnServer {
    /// Starts the server whose command line a variable holds, as a JSON list with `{port}` and `{dir}`.
    pub async fn start(variable_name: &str) -> Self {
        Self::start_with(variable_name, &[]).await
    }

    /// The same with more arguments.
    pub async fn start_with(variable_name: &str, more: &[&str]) -> Self {
        let mut command: Vec<String> = serde_json::from_str(&variable(variable_name)).unwrap();
        command.extend(more.iter().map(|&word| word.to_owned()));
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self { command, directory, port: free_port(), child: None };
        server.resume().await;
        server
    }

    /// Its process id.
    #[cfg(all(feature = "kafka", feature = "redis"))]
    pub fn id(&self) -> String {
        self.child.as_ref().unwrap().id().to_string()
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Starts it again, and waits until it takes connections.
    pub async fn resume(&mut self) {
        assert!(self.child.is_none());
        let data = self.directory.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        let fill = |word: &String| {
            word.replace("{port}", &self.port.to_string()).replace("{dir}", &data.display().to_string())
        };
        let words: Vec<String> = self.command.iter().map(fill).collect();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{words:?}: {error}"));
        self.child = Some(child);
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        wait_for("a server of the test", || async { TcpStream::connect(address).await.ok() }).await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let from = log.lines().count().saturating_sub(20);
            eprintln!("log of {}:", self.command[0]);
            log.lines().skip(from).for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A TCP proxy. In front of one server it can be cut; in front of several it is a load balancer that takes the next one
/// when one does not answer.
pub struct Proxy {
    pub address: SocketAddr,
    cut: watch::Sender<bool>,
    severed: watch::Sender<()>,
    carried: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn to(targets: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, is_cut) = watch::channel(false);
        let (severed, is_severed) = watch::channel(());
        let next = Arc::new(AtomicUsize::new(0));
        let targets = Arc::new(Mutex::new(targets));
        let carried = Arc::new(AtomicUsize::new(0));
        let count = carried.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *is_cut.borrow() {
                    continue;
                }
                let (targets, next, is_cut) = (targets.lock().clone(), next.clone(), is_cut.clone());
                count.fetch_add(1, Ordering::Relaxed);
                let mut severed = is_severed.clone();
                severed.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        () = carry(client, targets, next, is_cut) => {}
                        _ = severed.changed() => {}
                    }
                });
            }
        });
        Self { address, cut, severed, carried, task }
    }

    /// Ends every connection, and lets none through until [`Proxy::heal`].
    pub fn cut(&self) {
        let _ = self.cut.send(true);
    }

    /// Ends every connection; new ones are let through.
    pub fn sever(&self) {
        let _ = self.severed.send(());
    }

    /// How many connections were let through so far.
    pub fn connections(&self) -> usize {
        self.carried.load(Ordering::Relaxed)
    }

    pub fn heal(&self) {
        let _ = self.cut.send(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    mut client: TcpStream,
    targets: Vec<SocketAddr>,
    next: Arc<AtomicUsize>,
    mut is_cut: watch::Receiver<bool>,
) {
    for _ in 0..targets.len() {
        let target = targets[next.fetch_add(1, Ordering::Relaxed) % targets.len()];
        let connected = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(target)).await;
        if let Ok(Ok(mut server)) = connected {
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                _ = is_cut.wait_for(|cut| *cut) => {}
            }
            return;
        }
    }
}
