//! A client of the daemon's own API, for the commands that talk to a running daemon.

use std::time::Duration;

use clap::Args;
use reqwest::{Client, Method};
use serde_json::Value;

use super::{ConfigArgs, Failure};
use crate::setup::OPERATOR_KEY_FILE;

/// Which daemon, and as whom.
#[derive(Debug, Clone, Args)]
pub struct ApiArgs {
    /// The daemon's address; by default that of the configuration.
    #[arg(long, env = "ORCHESTRATOR_URL", value_name = "URL")]
    pub url: Option<String>,
    /// An API key; by default that in `operator.key` of the data directory.
    #[arg(long, env = "ORCHESTRATOR_KEY", hide_env_values = true, value_name = "KEY")]
    pub key: Option<String>,
    /// Print JSON for programs.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// A connection to a daemon.
pub struct Api {
    client: Client,
    base: String,
    key: String,
}

impl Api {
    /// Finds address and key.
    ///
    /// # Errors
    /// A wrong configuration; no key.
    pub fn new(args: &ApiArgs) -> Result<Self, Failure> {
        let config = args.config.load()?;
        let base = args.url.clone().unwrap_or_else(|| format!("http://{}", config.api.listen));
        let key = match &args.key {
            Some(key) => key.clone(),
            None => {
                let path = config.data.dir.join(OPERATOR_KEY_FILE);
                std::fs::read_to_string(&path).map_err(|error| {
                    let path = path.display();
                    Failure::Usage(format!("no API key: {path}: {error}; give --key, or set ORCHESTRATOR_KEY, or start the daemon once"))
                })?
            }
        };
        Self::with(&base, key.trim())
    }

    /// A connection to a known daemon.
    ///
    /// # Errors
    /// When the HTTP client can't be made.
    pub fn with(base: &str, key: &str) -> Result<Self, Failure> {
        let client = Client::builder()
            .timeout(Duration::from_secs(30))
            .build()
            .map_err(|e| Failure::Failed(e.to_string()))?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), key: key.to_owned() })
    }

    /// The same daemon with another key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { client: self.client.clone(), base: self.base.clone(), key: key.to_owned() }
    }

    /// GET.
    ///
    /// # Errors
    /// The daemon's own words; not reachable.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None).await
    }

    /// POST.
    ///
    /// # Errors
    /// The daemon's own words; not reachable.
    pub async fn post(&self, path: &str, body: Value) -> Result<Value, Failure> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|error| {
            Failure::Unreachable(format!(
                "no daemon answers at {} ({}); is it running?",
                self.base,
                crate::error::chain(&error)
            ))
        })?;
        let status = response.status();
        let text = response.text().await.map_err(|error| Failure::Unreachable(error.to_string()))?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(value);
        }
        let detail = value.get("detail").and_then(Value::as_str).unwrap_or(&text);
        let code = value.get("code").and_then(Value::as_str).unwrap_or("unknown");
        Err(Failure::Failed(format!("{detail} ({code}, {status}, {path})")))
    }
}

/// A field of a JSON object as text for a table.
#[must_use]
pub fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => "–".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
