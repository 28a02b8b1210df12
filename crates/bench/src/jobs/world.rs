//! The world outside: a fake provider that takes PUTs with keys, and a fake chain that takes transactions. One small HTTP
//! server in a process of its own, so that its work is nobody's; it counts what took hold for each key.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, post, put},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// A call that came.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// The job.
    pub key: String,
    /// `PUT`, `POST` for a transaction, `GET` for a look at one.
    pub method: String,
    /// The process that called.
    pub by: u32,
    /// In microseconds since the epoch.
    pub at: u64,
}

/// What the world was asked to do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Keys that were put.
    pub put: usize,
    /// PUTs beyond the first of a key; harmless, as they have a key.
    pub put_again: usize,
    /// Jobs with a transaction.
    pub transacted: usize,
    /// Transactions beyond the first of a job: doubled effects.
    pub doubled: usize,
}

#[derive(Default)]
struct Books {
    put: HashMap<String, u32>,
    chain: HashMap<String, u32>,
    delay: Duration,
    /// Kept only while there is a delay.
    calls: Vec<Call>,
}

type Shared = Arc<Mutex<Books>>;

#[derive(Deserialize)]
struct By {
    #[serde(default)]
    by: u32,
}

#[derive(Deserialize)]
struct Begin {
    #[serde(default)]
    delay_ms: u64,
}

/// Serves until standard input ends; says its address first.
///
/// # Errors
/// When there is no port.
pub fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let books = Shared::default();
        let router = Router::new()
            .route("/provider/{key}", put(take_put))
            .route("/chain/{key}", post(take_transaction).get(show))
            .route("/begin", post(begin))
            .route("/counts", get(counts))
            .route("/calls", get(calls))
            .with_state(books);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        {
            use std::io::Write as _;
            writeln!(std::io::stdout(), "http://{}", listener.local_addr()?)?;
        }
        let ended = async {
            let mut input = super::ours::lines();
            while input.recv().await.is_some() {}
        };
        tokio::select! {
            biased;
            () = ended => Ok(()),
            served = axum::serve(listener, router).into_future() => served,
        }
    })?;
    Ok(())
}

fn note(books: &mut Books, key: &str, method: &str, by: u32) {
    if books.delay > Duration::ZERO {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        books.calls.push(Call { key: key.to_owned(), method: method.to_owned(), by, at });
    }
}

async fn take_put(State(books): State<Shared>, Path(key): Path<String>, Query(By { by }): Query<By>) {
    let mut books = books.lock();
    note(&mut books, &key, "PUT", by);
    *books.put.entry(key).or_default() += 1;
}

/// Takes hold at once; the answer takes its time.
async fn take_transaction(State(books): State<Shared>, Path(key): Path<String>, Query(By { by }): Query<By>) {
    let delay = {
        let mut books = books.lock();
        note(&mut books, &key, "POST", by);
        *books.chain.entry(key).or_default() += 1;
        books.delay
    };
    if delay > Duration::ZERO {
        tokio::time::sleep(delay).await;
    }
}

async fn show(
    State(books): State<Shared>,
    Path(key): Path<String>,
    Query(By { by }): Query<By>,
) -> StatusCode {
    let mut books = books.lock();
    note(&mut books, &key, "GET", by);
    if books.chain.contains_key(&key) { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

async fn begin(State(books): State<Shared>, Query(Begin { delay_ms }): Query<Begin>) {
    *books.lock() = Books { delay: Duration::from_millis(delay_ms), ..Books::default() };
}

async fn counts(State(books): State<Shared>) -> Json<Counts> {
    let books = books.lock();
    let again = |all: &HashMap<String, u32>| all.values().map(|n| n.saturating_sub(1) as usize).sum();
    Json(Counts {
        put: books.put.len(),
        put_again: again(&books.put),
        transacted: books.chain.len(),
        doubled: again(&books.chain),
    })
}

async fn calls(State(books): State<Shared>) -> Json<Vec<Call>> {
    Json(books.lock().calls.clone())
}

/// A client of the world.
#[derive(Debug, Clone)]
pub struct World {
    client: reqwest::Client,
    at: String,
    by: u32,
}

impl World {
    /// The world at an address.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(at: &str) -> Result<Self, Fault> {
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(256).build()?;
        Ok(Self { client, at: at.to_owned(), by: std::process::id() })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<StatusCode, Fault> {
        let answer = request.send().await?;
        let status = answer.status();
        // Read to its end, or the connection is not used again.
        answer.bytes().await?;
        Ok(status)
    }

    async fn effect(&self, request: reqwest::RequestBuilder) -> Result<(), Fault> {
        match self.send(request).await? {
            StatusCode::OK => Ok(()),
            status => Err(format!("it answered {status}").into()),
        }
    }

    /// The first effect.
    ///
    /// # Errors
    /// When the world does not answer.
    pub async fn put(&self, key: &str) -> Result<(), Fault> {
        self.effect(self.client.put(format!("{}/provider/{key}?by={}", self.at, self.by))).await
    }

    /// The second.
    ///
    /// # Errors
    /// When the world does not answer.
    pub async fn transact(&self, key: &str) -> Result<(), Fault> {
        self.effect(self.client.post(format!("{}/chain/{key}?by={}", self.at, self.by))).await
    }

    /// Whether the chain has a transaction of this job.
    ///
    /// # Errors
    /// When the world does not answer.
    pub async fn has_transacted(&self, key: &str) -> Result<bool, Fault> {
        Ok(self.send(self.client.get(format!("{}/chain/{key}?by={}", self.at, self.by))).await?
            == StatusCode::OK)
    }

    /// Forgets everything; from now on transactions take so long.
    ///
    /// # Errors
    /// When the world does not answer.
    pub async fn begin(&self, delay: Duration) -> Result<(), Fault> {
        self.effect(self.client.post(format!("{}/begin?delay_ms={}", self.at, delay.as_millis()))).await
    }

    /// What it counted.
    ///
    /// # Errors
    /// When the world does not answer.
    pub async fn counts(&self) -> Result<Counts, Fault> {
        Ok(self.client.get(format!("{}/counts", self.at)).send().await?.json().await?)
    }

    /// The calls since the beginning, by job, in order.
    ///
    /// # Errors
    /// When the world does not answer.
    pub async fn calls(&self) -> Result<BTreeMap<String, Vec<Call>>, Fault> {
        let calls: Vec<Call> = self.client.get(format!("{}/calls", self.at)).send().await?.json().await?;
        let mut by_job: BTreeMap<String, Vec<Call>> = BTreeMap::new();
        for call in calls {
            by_job.entry(call.key.clone()).or_default().push(call);
        }
        Ok(by_job)
    }
}
