//! Starts the real binary in a directory of its own, reads the addresses that it prints, and stops or kills it by pid.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    time::Duration,
};

use parking_lot::Mutex;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for anything: generous, for a machine that runs other tests beside.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// A month of 30 days.
pub const MONTH_MS: u64 = 2_592_000_000;
/// 1 MiB.
pub const MIB: u64 = 1 << 20;

/// A free port below the range that outgoing connections use, so that it is still free when a daemon starts anew.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 12_000 + u16::try_from(std::process::id() % 4_000).unwrap() * 4;
    loop {
        let port = base.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        if port > 10_000 && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Asks until there is an answer.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let asked = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// The binary: the one that was built with the tests, unless `ORCHESTRATOR_TEST_BINARY` names another build of it.
fn binary() -> &'static str {
    static NAMED: OnceLock<Option<String>> = OnceLock::new();
    let named = NAMED.get_or_init(|| std::env::var("ORCHESTRATOR_TEST_BINARY").ok());
    named.as_deref().unwrap_or(env!("CARGO_BIN_EXE_orchestrator"))
}

/// The binary with arguments, behind a wrapper if there is one, in an environment without configuration.
pub fn without_configuration(wrapper: &[&str], args: &[&str]) -> Command {
    let words: Vec<&str> = wrapper.iter().copied().chain([binary()]).chain(args.iter().copied()).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ORCHESTRATOR_") {
            command.env_remove(name);
        }
    }
    command
}

/// A directory with the settings of one daemon, which may be started in it many times.
pub struct Place {
    pub dir: TempDir,
    settings: Vec<(String, String)>,
}

impl Place {
    /// The embedded default on free ports, without the prober.
    pub fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap(), settings: Vec::new() };
        let ports = ["api.listen", "provider.s3_listen", "provider.admin_listen"];
        let place =
            ports.iter().fold(place, |place, key| place.with(key, &format!("127.0.0.1:{}", free_port())));
        place.with("prober.enabled", "false").with("log.filter", "warn")
    }

    /// Short windows: what takes days takes a second or less.
    pub fn hurried() -> Self {
        let settings = [
            ("market.closing_grace", "500ms"),
            ("settlement.finality", "200ms"),
            ("triggers.seal_blocks", "300ms"),
            ("triggers.end_periods", "300ms"),
            ("triggers.close_sla_windows", "300ms"),
            ("triggers.watch_deposits", "300ms"),
            ("triggers.reconcile", "1s"),
        ];
        settings.iter().fold(Self::new(), |place, (key, value)| place.with(key, value))
    }

    /// Months and minutes in seconds, with the prober: what a market does in a long time, all at once.
    pub fn busy() -> Self {
        let settings = [
            ("sla.bucket", "1s"),
            ("sla.billing_period", "8s"),
            ("sla.rolling_window", "60s"),
            ("sla.settle_delay", "1500ms"),
            ("prober.enabled", "true"),
            ("prober.interval", "500ms"),
            ("prober.bulk_interval", "5s"),
            ("prober.timeout", "2s"),
            ("triggers.expire_credentials", "500ms"),
            ("triggers.reconcile", "5s"),
        ];
        settings.iter().fold(Self::hurried(), |place, (key, value)| place.with(key, value))
    }

    /// With one more setting, through the environment as all of them.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        let name = format!("ORCHESTRATOR_{}", key.to_uppercase().replace('.', "__"));
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, value.to_owned()));
        self
    }

    pub fn setting(&self, key: &str) -> &str {
        let name = format!("ORCHESTRATOR_{}", key.to_uppercase().replace('.', "__"));
        &self.settings.iter().find(|(known, _)| *known == name).unwrap().1
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The binary with arguments, in the directory and with the settings.
    pub fn command(&self, args: &[&str]) -> Command {
        self.wrapped(&[], args)
    }

    /// The same as arguments of another program, which sets something up first.
    pub fn wrapped(&self, wrapper: &[&str], args: &[&str]) -> Command {
        let mut command = without_configuration(wrapper, args);
        command.current_dir(self.dir.path()).envs(self.settings.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub async fn cli(&self, args: &[&str]) -> Finished {
        output(self.command(args)).await
    }

    pub async fn start(&self) -> Running {
        self.spawn().until_ready().await
    }

    /// Starts the daemon with this command and waits until it is ready.
    pub async fn start_with(&self, command: Command) -> Running {
        self.spawn_at(command, self.data()).until_ready().await
    }

    /// The daemon, on its way.
    pub fn spawn(&self) -> Starting {
        self.spawn_at(self.command(&["run"]), self.data())
    }

    /// The daemon, on its way, with another data directory than the usual one.
    pub fn spawn_at(&self, mut command: Command, data: PathBuf) -> Starting {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let sink = log.clone();
        std::thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                let mut sink = sink.lock();
                sink.push_str(&line);
                sink.push('\n');
            }
        });
        let admin = format!("http://{}", self.setting("provider.admin_listen"));
        Starting { process: Process { child: Some(child), log }, out, data, admin }
    }
}

/// A command that ended.
pub struct Finished {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Finished {
    /// Its standard output as JSON, after it succeeded.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// Checks how it ended, and that it said so.
    pub fn ends(&self, code: i32, words: &[&str]) {
        let all = format!("{}{}", self.out, self.err);
        assert_eq!(self.code, Some(code), "{all}");
        for word in words {
            assert!(all.contains(word), "{word:?} is not in: {all}");
        }
    }
}

/// Runs any command to its end, without holding the runtime up.
pub async fn output(mut command: Command) -> Finished {
    let Output { status, stdout, stderr } =
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Finished { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// A process that is killed when it goes out of scope; its log is shown when the test has failed.
struct Process {
    child: Option<Child>,
    log: Arc<Mutex<String>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
            if std::thread::panicking() {
                eprintln!("log of the daemon:\n{}", self.log.lock());
            }
        }
    }
}

/// A daemon that may not be ready yet. To drop it is to kill it.
pub struct Starting {
    process: Process,
    out: BufReader<ChildStdout>,
    data: PathBuf,
    admin: String,
}

impl Starting {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.child.as_ref().unwrap().id()
    }

    /// Looks for its files here; where the daemon has another view of the file system.
    pub fn seen_at(self, data: PathBuf) -> Self {
        Self { data, ..self }
    }

    /// Waits for the line that says so, and reads the addresses.
    pub async fn until_ready(self) -> Running {
        let Self { process, out, data, admin } = self;
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            // The pipe is read to its end, or the daemon would meet a closed one.
            for line in out.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let printed = tokio::task::spawn_blocking(move || {
            let mut printed = String::new();
            while let Ok(line) = told.recv_timeout(PATIENCE) {
                printed.push_str(&line);
                printed.push('\n');
                if line.starts_with("ready") {
                    return Ok(printed);
                }
            }
            Err(printed)
        });
        let printed = printed.await.unwrap().unwrap_or_else(|printed| {
            panic!("the daemon did not become ready:\n{printed}\n{}", process.log.lock())
        });
        let read =
            |file: &str| std::fs::read_to_string(data.join(file)).unwrap_or_default().trim().to_owned();
        let api = Api::new(&address_in(&printed, "api"), &read("operator.key"));
        let provider = Api { base: admin, ..api.with_key(&read("provider/admin.token")) };
        Running { process, printed, api, provider }
    }
}

fn address_in(printed: &str, name: &str) -> String {
    let line = printed.lines().find(|line| line.starts_with(name));
    let words = line.and_then(|line| line.split_whitespace().find(|word| word.starts_with("http://")));
    words.unwrap_or_else(|| panic!("no address of {name} in {printed}")).to_owned()
}

/// A daemon that answers; killed when it goes out of scope.
pub struct Running {
    process: Process,
    /// What it printed until it was ready.
    pub printed: String,
    /// Its API, as the operator.
    pub api: Api,
    /// The admin API of the co-hosted provider.
    pub provider: Api,
}

impl Running {
    /// An address that it printed: `api` or `s3 endpoint`.
    pub fn address(&self, name: &str) -> String {
        address_in(&self.printed, name)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.child.as_ref().unwrap().id()
    }

    /// Its log until now.
    pub fn log(&self) -> String {
        self.process.log.lock().clone()
    }

    /// Sends a signal by name and waits for the end.
    pub async fn stop(mut self, signal: &str) -> ExitStatus {
        let mut child = self.process.child.take().unwrap();
        let sent =
            Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let mut rest = PATIENCE;
        let step = Duration::from_millis(20);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if rest.is_zero() {
                let _ = child.kill();
                panic!("the daemon did not stop:\n{}", self.log());
            }
            rest = rest.saturating_sub(step);
            tokio::time::sleep(step).await;
        }
    }

    /// Stops in order, and expects exit code 0.
    pub async fn stop_well(self) {
        let log = self.process.log.clone();
        let status = self.stop("TERM").await;
        assert_eq!(status.code(), Some(0), "{status:?}\n{}", log.lock());
    }

    /// `kill -9`: nothing is flushed, nothing is said.
    pub fn kill(mut self) {
        let mut child = self.process.child.take().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "it had ended before:\n{}", self.log());
    }
}

/// An HTTP client of the daemon.
#[derive(Clone)]
pub struct Api {
    pub http: Client,
    pub base: String,
    pub key: String,
}

impl Api {
    pub fn new(base: &str, key: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().timeout(Duration::from_secs(15)).no_proxy().build().unwrap();
        Self { http, base: base.to_owned(), key: key.to_owned() }
    }

    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// One request; `None` when no whole answer came.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        idempotency: Option<&str>,
    ) -> Option<(StatusCode, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = idempotency {
            request = request.header("Idempotency-Key", key);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status();
        let text = answer.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// The id of the first unit.
    pub async fn unit(&self) -> String {
        id(&self.all("/units").await[0])
    }

    /// GET that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        let (status, value) = self.send(Method::GET, path, None, None).await.unwrap();
        assert!(status.is_success(), "GET {path}: {status} {value}");
        value
    }

    /// POST that must succeed.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, value) = self.send(Method::POST, path, Some(&body), None).await.unwrap();
        assert!(status.is_success(), "POST {path}: {status} {value}");
        value
    }

    /// All items of a list.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let next = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = self.get(&format!("{path}{sign}limit=1000{next}")).await;
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return items,
            }
        }
    }

    /// A consumer with money and a key of its own: its id and its API.
    pub async fn consumer(&self, name: &str) -> (String, Self) {
        let id = id(&self.post("/consumers", json!({ "name": name })).await);
        let deposit = json!({ "amount": "1000000000000000000000000" });
        self.post(&format!("/accounts/consumer:{id}/deposits"), deposit).await;
        let key = self.post("/keys", json!({ "role": "consumer", "tenant": id, "label": name })).await;
        let own = self.with_key(key["text"].as_str().unwrap());
        (id, own)
    }

    /// Reserves on any unit and funds, as the consumer; the allocation's id.
    pub async fn buy(&self) -> String {
        let ask = json!({ "filter": {}, "bytes": 64 * MIB, "period_ms": MONTH_MS });
        let allocation = wait_for("an offering", || async {
            // The projection of offerings may be a second old.
            let (status, value) = self.send(Method::POST, "/allocations/reserve", Some(&ask), None).await?;
            (status == 202).then_some(value)
        })
        .await;
        let allocation = id(&allocation);
        self.post(&format!("/allocations/{allocation}/fund"), json!({})).await;
        allocation
    }

    /// Waits for an allocation's state.
    pub async fn until(&self, allocation: &str, state: &str) -> Value {
        wait_for(&format!("{allocation} to be {state}"), || async {
            let (_, found) =
                self.send(Method::GET, &format!("/allocations/{allocation}"), None, None).await?;
            assert!(found["state"] != "failed" || state == "failed", "{found}");
            (found["state"] == state).then_some(found)
        })
        .await
    }

    /// Waits until nothing waits for a block, every block is final, and the books balance. While money moves the audit is no
    /// snapshot, so only a difference that stays is one.
    pub async fn until_settled(&self) {
        wait_for("final blocks and books that balance", || async {
            let ledger = self.get("/ledger").await;
            let balanced = ledger["sum"] == "0" && ledger["balanced"] == true;
            let blocks = self.all("/blocks").await;
            let all_final = !blocks.is_empty() && blocks.iter().all(|block| block["state"] == "final");
            (balanced && ledger["unsealed"] == 0 && all_final).then_some(())
        })
        .await;
    }
}

/// The id in an answer.
pub fn id(value: &Value) -> String {
    text(value, "id")
}

/// A text field that must be there.
pub fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is missing in {value}")).to_owned()
}

/// The octal permission bits of a file.
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().mode() & 0o777
}
