//! The adapter of the built-in S3 server: its admin API over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use orchestrator_provider::wire;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::core::{
    client::provider::{
        AccessLevel, AllocateRequest, Generation, IssueRequest, Operation, ProviderClient,
        ProviderDescription, ProviderError,
    },
    market::{
        allocation::{Routing, Usage},
        credential::Permissions,
        ids::AllocationId,
        quantity::{Bytes, Timestamp},
    },
};

/// How the admin API is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedSettings {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for a whole answer.
    pub timeout: Duration,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(3), timeout: Duration::from_secs(10) }
    }
}

/// A client of one server's admin API.
pub struct EmbeddedProvider {
    base: String,
    token: Zeroizing<String>,
    http: reqwest::Client,
}

impl EmbeddedProvider {
    /// A client of the admin API at `admin_url`.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] when the address is none, or TLS can't be set up.
    pub fn new(
        admin_url: &str,
        token: Zeroizing<String>,
        settings: EmbeddedSettings,
    ) -> Result<Self, ProviderError> {
        let refused = |error: &dyn std::fmt::Display| ProviderError::Refused(error.to_string());
        let url = url::Url::parse(admin_url).map_err(|error| refused(&error))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(ProviderError::Refused("the admin address must be an http(s) address".into()));
        }
        let http = crate::client::network::s3_probe::plain_client(settings.connect_timeout)
            .timeout(settings.timeout)
            .build()
            .map_err(|error| refused(&error))?;
        Ok(Self { base: admin_url.trim_end_matches('/').to_owned(), token, http })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(self.token.as_str())
    }

    fn of(&self, method: Method, id: AllocationId, path: &str) -> RequestBuilder {
        self.request(method, &format!("/allocations/{id}{path}"))
    }
}

/// What a call is about, to name it in errors.
#[derive(Clone, Copy)]
struct About {
    allocation: Option<AllocationId>,
    generation: Generation,
}

const NOTHING: About = About { allocation: None, generation: Generation(0) };

fn about(allocation: AllocationId, generation: Generation) -> About {
    About { allocation: Some(allocation), generation }
}

/// Sends a call; answers other than 2xx are errors.
async fn send(request: RequestBuilder, about: About) -> Result<Response, ProviderError> {
    let response = request.send().await.map_err(broken)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let problem = response.json::<wire::Problem>().await.unwrap_or_else(|_| wire::Problem {
        code: String::new(),
        detail: format!("an answer with status {status} that is not of the admin API"),
    });
    Err(match (status, problem.code.as_str()) {
        (_, "no_capacity") => ProviderError::NoCapacity,
        (_, "stale_generation") => ProviderError::Stale(about.generation),
        (StatusCode::GONE | StatusCode::NOT_FOUND, "gone" | "unknown") => match about.allocation {
            Some(allocation) => ProviderError::Unknown(allocation),
            None => ProviderError::Refused(problem.detail),
        },
        _ if status.is_client_error() => ProviderError::Refused(problem.detail),
        _ => ProviderError::Unavailable(format!("{status}: {}", problem.detail).into()),
    })
}

async fn body<T: DeserializeOwned>(response: Response) -> Result<T, ProviderError> {
    response.json().await.map_err(broken)
}

/// The address may hold nothing secret, but is of no use in an error either.
fn broken(error: reqwest::Error) -> ProviderError {
    let error = error.without_url();
    if error.is_timeout() {
        ProviderError::Timeout(Box::new(error))
    } else {
        ProviderError::Unavailable(Box::new(error))
    }
}

#[async_trait]
impl ProviderClient for EmbeddedProvider {
    async fn describe(&self) -> Result<ProviderDescription, ProviderError> {
        let response = send(self.request(Method::GET, "/describe"), NOTHING).await?;
        let said: wire::Description = body(response).await?;
        Ok(ProviderDescription {
            software: said.software,
            profiles: said.profiles,
            free: Some(Bytes(said.free)),
        })
    }

    async fn allocate(&self, request: &AllocateRequest) -> Result<Operation<Routing>, ProviderError> {
        let wish = wire::Allocate {
            generation: request.generation.0,
            bytes: request.bytes.get(),
            region: request.region.clone(),
        };
        let call = self.of(Method::PUT, request.allocation, "").json(&wish);
        let response = send(call, about(request.allocation, request.generation)).await?;
        if response.status() == StatusCode::ACCEPTED {
            return Ok(Operation::Pending);
        }
        let made: wire::Routing = body(response).await?;
        Ok(Operation::Done(Routing {
            endpoint: made.endpoint,
            region: made.region,
            bucket: made.bucket,
            profile: "s3".to_owned(),
            path_style: true,
        }))
    }

    async fn deallocate(
        &self,
        allocation: AllocationId,
        generation: Generation,
    ) -> Result<Operation<()>, ProviderError> {
        let call =
            self.of(Method::DELETE, allocation, "").query(&wire::AtGeneration { generation: generation.0 });
        let response = send(call, about(allocation, generation)).await?;
        Ok(if response.status() == StatusCode::ACCEPTED { Operation::Pending } else { Operation::Done(()) })
    }

    async fn issue_credential(&self, request: &IssueRequest) -> Result<(), ProviderError> {
        let wish = wire::PutKey {
            generation: request.generation.0,
            secret: request.key.secret.clone(),
            permissions: match request.permissions {
                Permissions::ReadWrite => wire::Permissions::ReadWrite,
                Permissions::ReadOnly => wire::Permissions::ReadOnly,
            },
        };
        let path = key_path(&request.key.access_key_id)?;
        let call = self.of(Method::PUT, request.allocation, &path).json(&wish);
        send(call, about(request.allocation, request.generation)).await.map(|_| ())
    }

    async fn revoke_credential(
        &self,
        allocation: AllocationId,
        generation: Generation,
        access_key_id: &str,
    ) -> Result<(), ProviderError> {
        let path = key_path(access_key_id)?;
        let call = self
            .of(Method::DELETE, allocation, &path)
            .query(&wire::AtGeneration { generation: generation.0 });
        send(call, about(allocation, generation)).await.map(|_| ())
    }

    async fn restrict(
        &self,
        allocation: AllocationId,
        generation: Generation,
        level: AccessLevel,
    ) -> Result<(), ProviderError> {
        let level = match level {
            AccessLevel::Full => wire::Level::Full,
            AccessLevel::ReadOnly => wire::Level::ReadOnly,
            AccessLevel::None => wire::Level::None,
        };
        let wish = wire::Restrict { generation: generation.0, level };
        let call = self.of(Method::PUT, allocation, "/access").json(&wish);
        send(call, about(allocation, generation)).await.map(|_| ())
    }

    async fn usage(&self, allocation: AllocationId) -> Result<Usage, ProviderError> {
        let call = self.of(Method::GET, allocation, "/usage");
        let read: wire::Usage = body(send(call, about(allocation, Generation(0))).await?).await?;
        let byte_seconds = read.byte_seconds.parse();
        Ok(Usage {
            stored: Bytes(read.stored),
            byte_seconds: byte_seconds.map_err(|error| ProviderError::Unavailable(Box::new(error)))?,
            egress: Bytes(read.egress),
            read_at: Timestamp(read.read_at_us),
        })
    }

    async fn allocations(&self) -> Result<Vec<AllocationId>, ProviderError> {
        let listed: wire::Allocations =
            body(send(self.request(Method::GET, "/allocations"), NOTHING).await?).await?;
        // What others made there under ids of their own is none of ours.
        Ok(listed.allocations.iter().filter_map(|id| id.parse().ok()).collect())
    }
}

fn key_path(access_key_id: &str) -> Result<String, ProviderError> {
    if access_key_id.is_empty() || !access_key_id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(ProviderError::Refused("an access key id has letters and digits only".into()));
    }
    Ok(format!("/keys/{access_key_id}"))
}
