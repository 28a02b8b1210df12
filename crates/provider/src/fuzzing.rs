//! The whole provider without listeners: what fuzzing talks to, request by request.

use std::sync::Arc;

use axum::Router;
use s3s::{HttpError, HttpRequest, HttpResponse, service::S3Service};

use crate::{
    admin,
    s3::Shared,
    server::{self, ProviderOptions, StartError},
};

/// A provider that nobody reaches over the network.
pub struct InProcess {
    shared: Arc<Shared>,
    s3: S3Service,
    admin: Router,
}

impl InProcess {
    /// Opens the directory, and recovers. Blocks.
    ///
    /// # Errors
    /// As [`server::ProviderServer::start`], listening apart.
    pub fn open(options: &ProviderOptions) -> Result<Self, StartError> {
        let shared = server::open(options)?;
        let admin = admin::router(server::administration(options, &shared, "http://127.0.0.1:1".into()));
        Ok(Self { s3: server::service(&shared), shared, admin })
    }

    /// The admin API.
    #[must_use]
    pub fn admin(&self) -> Router {
        self.admin.clone()
    }

    /// Answers a request at the S3 endpoint.
    ///
    /// # Errors
    /// Those of the dispatcher, at which a server hangs up.
    pub async fn s3(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        server::answer(self.s3.clone(), self.shared.clone(), request).await
    }
}
