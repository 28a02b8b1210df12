//! From a reservation to S3 keys over HTTP: reserve, fund, wait until the allocation is active, issue credentials. One client
//! against a whole daemon with the embedded default. Beside it, the commits that lie one behind the other on that way, on
//! bare SQLite.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use orchestrator::{
    config::Config,
    setup::{Daemon, StartOptions},
};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::{BenchResult, client::percentile, row::Row};

/// Rounds that count, and those before them.
const ROUNDS: usize = 300;
const WARM_UP: usize = 20;
/// Durable commits that wait for one another: reserve, fund, claim, hold, the provider's, activate; then issue, claim, hold, the
/// provider's, done.
const COMMITS: usize = 11;
/// Time between two looks whether the allocation is active.
const LOOK: Duration = Duration::from_millis(1);

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// A daemon's API and a key.
struct Api {
    client: Client,
    base: String,
    key: String,
}

impl Api {
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Fault> {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        if status.is_success() { Ok(body) } else { Err(format!("{path}: {status}: {body}").into()) }
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, Fault> {
        self.call(Method::POST, path, Some(body)).await
    }
}

/// Runs it.
///
/// # Errors
/// What the daemon answers.
pub fn run() -> BenchResult {
    let directory = tempfile::tempdir()?;
    let bare = bare(&directory.path().join("bare.db"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rounds = runtime.block_on(rounds(directory.path())).map_err(|fault| fault.to_string())?;
    let step = |at: usize| {
        let mut times: Vec<Duration> = rounds.iter().filter_map(|round| round.get(at).copied()).collect();
        times.sort_unstable();
        times
    };
    let mut whole: Vec<Duration> = rounds.iter().map(|round| round.iter().sum()).collect();
    whole.sort_unstable();
    let mut rows = vec![
        Row::new("reserve: reservation to credentials, p50", percentile(&whole, 50), "ms")
            .beside(percentile(&bare, 50))
            .at_most(30.0),
        Row::new("reserve: reservation to credentials, p99", percentile(&whole, 99), "ms")
            .beside(percentile(&bare, 99))
            .at_most(100.0),
    ];
    for (at, name) in ["reserve", "fund", "until active", "issue credentials"].into_iter().enumerate() {
        let times = step(at);
        rows.push(Row::new(&format!("reserve: {name}, p50"), percentile(&times, 50), "ms"));
        rows.push(Row::new(&format!("reserve: {name}, p99"), percentile(&times, 99), "ms"));
    }
    Ok(rows)
}

/// As many small commits as a round has, one behind the other; each element is one round.
fn bare(path: &Path) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    let connection = rusqlite::Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)",
    )?;
    let body = "x".repeat(1_500);
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..COMMITS {
            connection.execute("INSERT INTO t (body) VALUES (?1)", [&body])?;
        }
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

async fn rounds(directory: &Path) -> Result<Vec<Vec<Duration>>, Fault> {
    let mut config = Config::default();
    let any_port = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    config.data.dir = directory.join("data");
    config.api.listen = any_port;
    config.provider.s3_listen = any_port;
    config.provider.admin_listen = any_port;
    let daemon = Daemon::start(&config, StartOptions::default()).await?;
    let base = format!("http://{}", daemon.api_addr);
    let client = Client::builder().no_proxy().build()?;
    let operator = Api { client: client.clone(), base: base.clone(), key: daemon.operator_key.clone() };
    let unit = daemon.default_market.ok_or("no default market")?.unit.to_string();

    let made = operator.post("/consumers", json!({ "name": "bench" })).await?;
    let consumer = text(&made, "id")?;
    let key = json!({ "role": "consumer", "tenant": consumer, "label": "bench" });
    let key = text(&operator.post("/keys", key).await?, "text")?;
    let deposit = json!({ "amount": (1_000_000 * 10_u128.pow(18)).to_string() });
    operator.post(&format!("/accounts/consumer:{consumer}/deposits"), deposit).await?;
    let api = Api { client, base, key };

    let mut rounds = Vec::with_capacity(ROUNDS);
    for number in 0..WARM_UP + ROUNDS {
        let round = round(&api, &unit).await?;
        if number >= WARM_UP {
            rounds.push(round);
        }
    }
    daemon.stop().await;
    Ok(rounds)
}

/// One round: how long each of its four steps took.
async fn round(api: &Api, unit: &str) -> Result<Vec<Duration>, Fault> {
    let mut times = Vec::with_capacity(4);
    let mut last = Instant::now();
    let mut step = || {
        times.push(last.elapsed());
        last = Instant::now();
    };
    let ask = json!({ "unit": unit, "bytes": 1 << 20, "period_ms": 86_400_000_u64 });
    let allocation = text(&api.post("/allocations/reserve", ask).await?, "id")?;
    step();
    api.post(&format!("/allocations/{allocation}/fund"), json!({})).await?;
    step();
    let path = format!("/allocations/{allocation}");
    loop {
        let now = api.call(Method::GET, &path, None).await?;
        match text(&now, "state")?.as_str() {
            "active" => break,
            "reserved" | "funded" | "provisioning" => tokio::time::sleep(LOOK).await,
            other => return Err(format!("the allocation became {other}").into()),
        }
    }
    step();
    api.post(&format!("{path}/credentials"), json!({})).await?;
    step();
    Ok(times)
}

fn text(value: &Value, field: &str) -> Result<String, Fault> {
    Ok(value[field].as_str().ok_or_else(|| format!("no `{field}` in {value}"))?.to_owned())
}
