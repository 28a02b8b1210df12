//! A proxy in front of the queue service that meddles with what is sent: of each message it loses, doubles, delays or keeps
//! the order of nothing. Whoever sends is told that all went well, as with a network that does the same.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::daemon::load::Dice;

/// What a message is delayed by that is as good as lost: the longest that the service knows.
const LOST: u64 = 900;
/// The header that names the operation.
const TARGET: &str = "x-amz-target";

/// What was done to messages.
#[derive(Debug, Default)]
pub struct Tally {
    /// Set by the test: every message is lost.
    pub lose_all: AtomicBool,
    pub lost: AtomicU64,
    pub doubled: AtomicU64,
    pub delayed: AtomicU64,
}

#[derive(Clone)]
struct Meddler {
    http: reqwest::Client,
    upstream: String,
    dice: Arc<Mutex<Dice>>,
    tally: Arc<Tally>,
}

/// Starts it: its address, and what it does.
pub async fn start(upstream: &str, seed: u64) -> (String, Arc<Tally>) {
    orchestrator::client::network::http::install_crypto_provider();
    let tally = Arc::new(Tally::default());
    let meddler = Meddler {
        http: reqwest::Client::builder().no_proxy().build().unwrap(),
        upstream: upstream.to_owned(),
        dice: Arc::new(Mutex::new(Dice::new(seed))),
        tally: tally.clone(),
    };
    let router = Router::new().fallback(forward).with_state(meddler);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, tally)
}

async fn forward(State(meddler): State<Meddler>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, 64 << 20).await else { return StatusCode::BAD_REQUEST.into_response() };
    let target = parts.headers.get(TARGET).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let body = match target.rsplit('.').next() {
        Some("SendMessageBatch") => meddler.batch(&body),
        Some("SendMessage") => meddler.one(&body),
        _ => body,
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = parts.headers.clone();
    headers.remove("content-length");
    headers.remove("transfer-encoding");
    let sent =
        meddler.http.request(parts.method, format!("{}{path}", meddler.upstream)).headers(headers).body(body);
    match sent.send().await {
        Ok(answer) => {
            let (status, mut headers) = (answer.status(), answer.headers().clone());
            headers.remove("transfer-encoding");
            let mut response = Response::new(Body::from(answer.bytes().await.unwrap_or_default()));
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            response
        }
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

impl Meddler {
    fn below(&self, end: u64) -> u64 {
        self.dice.lock().below(end)
    }

    /// What becomes of a message; the delay that it gets.
    fn fate(&self) -> Option<u64> {
        let lose_all = self.tally.lose_all.load(Ordering::Relaxed);
        match self.below(10) {
            fate if fate == 0 || lose_all => {
                self.tally.lost.fetch_add(1, Ordering::Relaxed);
                Some(LOST)
            }
            1..=3 => {
                self.tally.delayed.fetch_add(1, Ordering::Relaxed);
                Some(1 + self.below(4))
            }
            _ => None,
        }
    }

    fn one(&self, body: &Bytes) -> Bytes {
        let Ok(mut message) = serde_json::from_slice::<Value>(body) else { return body.clone() };
        if let Some(delay) = self.fate() {
            message["DelaySeconds"] = json!(delay);
        }
        serde_json::to_vec(&message).unwrap().into()
    }

    /// Entries change their order; some come twice, as far as a batch has room.
    fn batch(&self, body: &Bytes) -> Bytes {
        let Ok(mut batch) = serde_json::from_slice::<Value>(body) else { return body.clone() };
        let Some(entries) = batch["Entries"].as_array_mut() else { return body.clone() };
        for entry in entries.iter_mut() {
            if let Some(delay) = self.fate() {
                entry["DelaySeconds"] = json!(delay);
            }
        }
        for at in 0..entries.len() {
            if entries.len() < 10 && self.below(3) == 0 {
                let mut twin = entries[at].clone();
                twin["Id"] = json!(format!("{}-twin", twin["Id"].as_str().unwrap_or_default()));
                twin["DelaySeconds"] = json!(self.below(4));
                entries.push(twin);
                self.tally.doubled.fetch_add(1, Ordering::Relaxed);
            }
        }
        entries.reverse();
        serde_json::to_vec(&batch).unwrap().into()
    }
}
