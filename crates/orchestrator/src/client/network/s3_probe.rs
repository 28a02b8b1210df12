//! The probe client: presigned S3 requests over HTTP, timed, each on its own.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Client, ClientBuilder, Request, Response};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use sha2::{Digest, Sha256};

use crate::core::{
    client::probe::{ProbeClient, ProbeFailure, ProbeReading, ProbeTarget},
    market::{evidence::FailureClass, quantity::Micros},
};

/// How long a signature holds.
const SIGNED_FOR: Duration = Duration::from_secs(300);

/// How probes are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct S3ProbeSettings {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for a whole operation.
    pub timeout: Duration,
}

impl Default for S3ProbeSettings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(3), timeout: Duration::from_secs(30) }
    }
}

/// A client builder for known servers: no proxy, no redirects, TLS by ring.
#[must_use]
pub fn plain_client(connect_timeout: Duration) -> ClientBuilder {
    // Somebody else may have installed one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).connect_timeout(connect_timeout)
}

/// Probes S3 endpoints.
pub struct S3Probe {
    http: Client,
}

impl S3Probe {
    /// A client.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub fn new(settings: S3ProbeSettings) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self { http: plain_client(settings.connect_timeout).timeout(settings.timeout).build()? })
    }

    async fn run(
        &self,
        request: Result<Request, ProbeFailure>,
        moved: u64,
        hashed: bool,
    ) -> Result<ProbeReading, ProbeFailure> {
        let request = request?;
        let started = Instant::now();
        let response = self.http.execute(request).await.map_err(unanswered)?;
        let mut first_byte = started.elapsed();
        let mut response = checked(response).await?;
        let (mut hasher, mut bytes) = (Sha256::new(), 0_u64);
        while let Some(piece) = response.chunk().await.map_err(unanswered)? {
            // The head of an answer may come long before its body.
            if hashed && bytes == 0 {
                first_byte = started.elapsed();
            }
            bytes = bytes.saturating_add(piece.len() as u64);
            if hashed {
                hasher.update(&piece);
            }
        }
        let total = started.elapsed();
        Ok(ProbeReading {
            first_byte: micros(first_byte),
            total: micros(total),
            bytes: if hashed { bytes } else { moved },
            sha256: hashed.then(|| hex::encode(hasher.finalize())),
        })
    }

    fn request<'a, A: S3Action<'a>>(
        &self,
        method: reqwest::Method,
        action: &A,
        body: Option<Bytes>,
    ) -> Result<Request, ProbeFailure> {
        let mut request = self.http.request(method, action.sign(SIGNED_FOR).as_str());
        if let Some(body) = body {
            request = request.body(body);
        }
        request.build().map_err(|error| ours(&error.without_url()))
    }
}

fn bucket(target: &ProbeTarget) -> Result<(Bucket, Credentials), ProbeFailure> {
    let routing = &target.routing;
    let endpoint = routing.endpoint.parse().map_err(|error: url::ParseError| ours(&error))?;
    let style = if routing.path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
    let bucket = Bucket::new(endpoint, style, routing.bucket.clone(), routing.region.clone());
    let credentials = Credentials::new(target.key.access_key_id.clone(), target.key.secret.clone());
    Ok((bucket.map_err(|error| ours(&error))?, credentials))
}

fn ours(error: &dyn std::fmt::Display) -> ProbeFailure {
    ProbeFailure { class: FailureClass::ClientError, detail: error.to_string() }
}

fn micros(duration: Duration) -> Micros {
    Micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// The address holds a signature: it stays out of the text.
fn unanswered(error: reqwest::Error) -> ProbeFailure {
    let error = error.without_url();
    let class = if error.is_timeout() { FailureClass::Timeout } else { FailureClass::Connection };
    ProbeFailure { class, detail: crate::error::chain(&error) }
}

async fn checked(response: Response) -> Result<Response, ProbeFailure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let class = if status.is_server_error() { FailureClass::ServerError } else { FailureClass::ClientError };
    Err(ProbeFailure { class, detail: format!("the answer has status {status}") })
}

#[async_trait]
impl ProbeClient for S3Probe {
    async fn put(
        &self,
        target: &ProbeTarget,
        object: &str,
        body: Bytes,
    ) -> Result<ProbeReading, ProbeFailure> {
        let (bucket, credentials) = bucket(target)?;
        let length = body.len() as u64;
        let action = bucket.put_object(Some(&credentials), object);
        let request = self.request(reqwest::Method::PUT, &action, Some(body));
        self.run(request, length, false).await
    }

    async fn get(&self, target: &ProbeTarget, object: &str) -> Result<ProbeReading, ProbeFailure> {
        let (bucket, credentials) = bucket(target)?;
        let action = bucket.get_object(Some(&credentials), object);
        self.run(self.request(reqwest::Method::GET, &action, None), 0, true).await
    }

    async fn head(&self, target: &ProbeTarget, object: &str) -> Result<ProbeReading, ProbeFailure> {
        let (bucket, credentials) = bucket(target)?;
        let action = bucket.head_object(Some(&credentials), object);
        self.run(self.request(reqwest::Method::HEAD, &action, None), 0, false).await
    }

    async fn delete(&self, target: &ProbeTarget, object: &str) -> Result<ProbeReading, ProbeFailure> {
        let (bucket, credentials) = bucket(target)?;
        let action = bucket.delete_object(Some(&credentials), object);
        self.run(self.request(reqwest::Method::DELETE, &action, None), 0, false).await
    }
}
