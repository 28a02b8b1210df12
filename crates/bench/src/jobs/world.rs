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
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

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

/// A client of the world: connections that stay open, and no more of HTTP than this server speaks. The peers' programs
/// call it by the plainest means of their language, too, so that the effects weigh little beside the engines.
#[derive(Debug, Clone)]
pub struct World {
    at: Arc<str>,
    by: u32,
    idle: Arc<Mutex<Vec<TcpStream>>>,
}

impl World {
    /// The world at an address, `http://host:port`; nothing is connected yet.
    #[must_use]
    pub fn new(at: &str) -> Self {
        let at = at.strip_prefix("http://").unwrap_or(at).into();
        Self { at, by: std::process::id(), idle: Arc::default() }
    }

    async fn send(&self, method: &str, path: &str) -> Result<(u16, Vec<u8>), Fault> {
        let idle = self.idle.lock().pop();
        let mut stream = match idle {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&*self.at).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        let at = &self.at;
        let request = format!("{method} {path} HTTP/1.1\r\nhost: {at}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let answer = read_answer(&mut stream).await?;
        self.idle.lock().push(stream);
        Ok(answer)
    }

    async fn effect(&self, method: &str, path: &str) -> Result<(), Fault> {
        match self.send(method, path).await? {
            (200, _) => Ok(()),
            (status, _) => Err(format!("it answered {status}").into()),
        }
    }

    /// The first effect.
    ///
    /// # Errors
    /// When the world does not answer.
    pub async fn put(&self, key: &str) -> Result<(), Fault> {
        self.effect("PUT", &format!("/provider/{key}?by={}", self.by)).await
    }

    /// The second.
    ///
    /// # Errors
    /// When the world does not answer.
    pub async fn transact(&self, key: &str) -> Result<(), Fault> {
        self.effect("POST", &format!("/chain/{key}?by={}", self.by)).await
    }

    /// Whether the chain has a transaction of this job.
    ///
    /// # Errors
    /// When the world does not answer.
    pub async fn has_transacted(&self, key: &str) -> Result<bool, Fault> {
        Ok(self.send("GET", &format!("/chain/{key}?by={}", self.by)).await?.0 == 200)
    }

    /// Forgets everything; from now on transactions take so long.
    ///
    /// # Errors
    /// When the world does not answer.
    pub async fn begin(&self, delay: Duration) -> Result<(), Fault> {
        self.effect("POST", &format!("/begin?delay_ms={}", delay.as_millis())).await
    }

    /// What it counted.
    ///
    /// # Errors
    /// When the world does not answer.
    pub async fn counts(&self) -> Result<Counts, Fault> {
        Ok(serde_json::from_slice(&self.send("GET", "/counts").await?.1)?)
    }

    /// The calls since the beginning, by job, in order.
    ///
    /// # Errors
    /// When the world does not answer.
    pub async fn calls(&self) -> Result<BTreeMap<String, Vec<Call>>, Fault> {
        let calls: Vec<Call> = serde_json::from_slice(&self.send("GET", "/calls").await?.1)?;
        let mut by_job: BTreeMap<String, Vec<Call>> = BTreeMap::new();
        for call in calls {
            by_job.entry(call.key.clone()).or_default().push(call);
        }
        Ok(by_job)
    }
}

/// Status and body of an answer; this server always tells the length.
async fn read_answer(stream: &mut TcpStream) -> Result<(u16, Vec<u8>), Fault> {
    let mut buffer = Vec::with_capacity(512);
    let body = loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err("the connection ended".into());
        }
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = std::str::from_utf8(buffer.get(..body).unwrap_or_default())?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.ok_or("no length")?;
    while buffer.len() < body + length {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err("the connection ended".into());
        }
    }
    Ok((status, buffer.split_off(body)))
}
