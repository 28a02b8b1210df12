//! The daemon as a process, and a small JSON client of its API.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicU16, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};

/// Longest wait for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(50);
const BINARY: &str = env!("CARGO_BIN_EXE_orchestrator");

/// Seconds where a real market has minutes and months.
const SHORT: [&str; 15] = [
    "sla.bucket=1s",
    "sla.billing_period=8s",
    "sla.rolling_window=60s",
    "sla.settle_delay=1500ms",
    "prober.interval=500ms",
    "prober.bulk_interval=5s",
    "prober.timeout=2s",
    "market.closing_grace=1s",
    "settlement.finality=500ms",
    "triggers.close_sla_windows=500ms",
    "triggers.seal_blocks=500ms",
    "triggers.watch_deposits=500ms",
    "triggers.end_periods=500ms",
    "triggers.expire_credentials=500ms",
    "triggers.reconcile=5s",
];

/// A data directory with addresses that stay over restarts. Removed when it goes out of scope.
pub(super) struct Home {
    directory: tempfile::TempDir,
    ports: [u16; 3],
    more: Vec<String>,
    starts: AtomicUsize,
}

impl Home {
    /// A new one; `more` goes over the settings that all tests share.
    pub(super) fn new(more: &[&str]) -> Self {
        Self {
            directory: tempfile::Builder::new().prefix("orchestrator-daemon-").tempdir().unwrap(),
            ports: [free_port(), free_port(), free_port()],
            more: more.iter().map(|pair| (*pair).to_owned()).collect(),
            starts: AtomicUsize::new(0),
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self, start: usize) -> PathBuf {
        self.directory.path().join(format!("log.{start}"))
    }

    /// The daemon, as soon as it says that it is ready.
    pub(super) async fn start(&self) -> Daemon {
        let daemon = self.spawn();
        daemon.until_ready().await
    }

    /// The daemon, on its way.
    pub(super) fn spawn(&self) -> Starting {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let log = self.log(start);
        let [api, s3, admin] = self.ports;
        let mut command = Command::new(BINARY);
        command
            .arg("run")
            .args(["--set", &format!("data.dir={}", self.data().display())])
            .args(["--set", &format!("api.listen=127.0.0.1:{api}")])
            .args(["--set", &format!("provider.s3_listen=127.0.0.1:{s3}")])
            .args(["--set", &format!("provider.admin_listen=127.0.0.1:{admin}")]);
        for pair in SHORT.into_iter().chain(self.more.iter().map(String::as_str)) {
            command.args(["--set", pair]);
        }
        let child = command
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Starting { process: Process { child, log }, data: self.data(), admin }
    }

    /// The exit status of `orchestrator verify` on this directory, with all that it said.
    pub(super) async fn verify(&self) -> (ExitStatus, String) {
        let data = format!("data.dir={}", self.data().display());
        let mut command = Command::new(BINARY);
        command.args(["verify", "--set", &data]).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&said).into_owned())
    }
}

/// A port below those that the system gives to outgoing connections, so that it is still free at a restart.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 100).unwrap_or_default() * 100;
    for _ in 0..10_000 {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("there is no free port");
}

/// Killed when it goes out of scope; its log is shown when the test has failed.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Drop for Process {
    #[expect(clippy::print_stdout, reason = "the test harness shows it with the failure")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let from = log.lines().count().saturating_sub(60);
            for line in log.lines().skip(from) {
                println!("{line}");
            }
        }
    }
}

/// A daemon that may not be ready yet. To drop it is to kill it.
pub(super) struct Starting {
    process: Process,
    data: PathBuf,
    admin: u16,
}

impl Starting {
    /// Waits for the line that says so, and reads the addresses.
    pub(super) async fn until_ready(mut self) -> Daemon {
        let out = self.process.child.stdout.take().unwrap();
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    // The rest is read all the same: a closed pipe must not trouble the daemon.
                }
            }
        });
        let api = tokio::task::spawn_blocking(move || {
            let mut api = None;
            loop {
                let line = lines.recv_timeout(PATIENCE).expect("the daemon says that it is ready");
                let address = |name: &str| {
                    let rest = line.strip_prefix(name)?.trim_start();
                    rest.split_whitespace().next().map(str::to_owned)
                };
                api = api.or_else(|| address("api "));
                if line.starts_with("ready;") {
                    return api.unwrap();
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{}", fs::read_to_string(&self.process.log).unwrap_or_default()));
        let key = fs::read_to_string(self.data.join("operator.key")).unwrap();
        let token = fs::read_to_string(self.data.join("provider/admin.token")).unwrap();
        let provider = Api::new(&format!("http://127.0.0.1:{}", self.admin), token.trim());
        let operator = Api::new(&api, key.trim());
        Daemon { process: self.process, api, key: key.trim().to_owned(), operator, provider }
    }
}

/// A daemon that answers.
pub(super) struct Daemon {
    process: Process,
    /// Base address of the API.
    pub(super) api: String,
    /// The operator's key.
    pub(super) key: String,
    /// The API, as the operator.
    pub(super) operator: Api,
    /// The admin API of the co-hosted provider.
    pub(super) provider: Api,
}

impl Daemon {
    /// `kill -9`: nothing is flushed, nothing is said.
    pub(super) fn kill9(self) {
        drop(self);
    }

    /// SIGTERM; waits for the end and gives the exit code.
    pub(super) async fn terminate(mut self) -> Option<i32> {
        let pid = self.process.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(status) = self.process.child.try_wait().unwrap() {
                    return status.code();
                }
                tokio::time::sleep(LOOK).await;
            }
        })
        .await
        .expect("the daemon ends after SIGTERM")
    }

    /// What it has logged.
    pub(super) fn log(&self) -> String {
        read(&self.process.log)
    }

    /// The id of the unit of the first start.
    pub(super) async fn unit(&self) -> String {
        let units = self.operator.get("/units").await;
        text(&units["items"][0], "id")
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// An HTTP API with a key, JSON both ways.
#[derive(Clone)]
pub(super) struct Api {
    http: reqwest::Client,
    base: String,
    key: String,
}

impl Api {
    fn new(base: &str, key: &str) -> Self {
        Self { http: http(), base: base.to_owned(), key: key.to_owned() }
    }

    /// The same API with another key.
    pub(super) fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// One request; an error means that nobody knows whether it took effect.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        idempotency: Option<&str>,
    ) -> reqwest::Result<(u16, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = idempotency {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// The body of a GET that succeeds.
    pub(super) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send(Method::GET, path, None, None).await.unwrap();
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    /// The body of a POST that succeeds.
    pub(super) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.send(Method::POST, path, Some(&body), None).await.unwrap();
        assert!((200..300).contains(&status), "POST {path} {body}: {status} {answer}");
        answer
    }

    /// Everything of a paged list.
    pub(super) async fn all(&self, path: &str) -> Vec<Value> {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{join}limit=500{cursor}")).await;
            found.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return found,
            }
        }
    }

    /// A new consumer with money and a key: its id, and the API as it sees it.
    pub(super) async fn consumer(&self, name: &str, tokens: u64) -> (String, Self) {
        let id = text(&self.post("/consumers", json!({ "name": name })).await, "id");
        let amount = format!("{tokens}000000000000000000");
        self.post(&format!("/accounts/consumer:{id}/deposits"), json!({ "amount": amount })).await;
        let key = json!({ "role": "consumer", "tenant": id, "label": "tests" });
        let key = text(&self.post("/keys", key).await, "text");
        (id, self.with_key(&key))
    }

    /// Waits until the allocation is in this state.
    pub(super) async fn until_state(&self, allocation: &str, state: &str) -> Value {
        let path = format!("/allocations/{allocation}");
        wait_for(&format!("{allocation} in state {state}"), || async {
            let found = self.get(&path).await;
            assert!(state == "failed" || found["state"] != "failed", "{found}");
            (found["state"] == state).then_some(found)
        })
        .await
    }
}

/// A client without proxies that never waits long.
pub(super) fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap()
}

/// A text field that must be there.
pub(super) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is missing in {value}")).to_owned()
}

/// Asks again and again until there is an answer.
pub(super) async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    let asked = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
