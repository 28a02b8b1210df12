//! Start and shutdown of a provider: both listeners, recovery, and the meter's flush.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use s3s::{
    Body, HttpError, HttpRequest, HttpResponse, S3ErrorCode,
    config::{S3Config, StaticConfigProvider},
    service::{S3Service, S3ServiceBuilder},
};
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    admin::{self, Admin},
    blobs::Blobs,
    fault::FaultState,
    live::{Live, LiveKey},
    qos::QosMeter,
    s3::{
        Service, Shared,
        gate::{Gate, OperationSlot},
    },
    store::{Store, StoreError},
};

/// How often sent bytes reach the store.
const FLUSH: Duration = Duration::from_millis(500);
/// Connections that are not done by then are cut.
const DRAIN: Duration = Duration::from_secs(10);

/// What time the meters go by, in microseconds since the Unix epoch. Signatures always go by the system's time.
#[derive(Clone)]
pub struct TimeSource(Arc<dyn Fn() -> i64 + Send + Sync>);

impl TimeSource {
    /// The system's time.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        })
    }

    /// A time of the caller's.
    #[must_use]
    pub fn new(now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The present instant.
    #[must_use]
    pub fn now(&self) -> i64 {
        (self.0)()
    }
}

/// How a provider is to be started.
#[derive(Clone)]
pub struct ProviderOptions {
    /// Its directory; made when it is missing. One server at a time.
    pub data_dir: PathBuf,
    /// Where S3 is served; port 0 takes a free one.
    pub s3_listen: SocketAddr,
    /// Where the admin API is served; port 0 takes a free one.
    pub admin_listen: SocketAddr,
    /// The admin API's bearer token, at least 16 characters.
    pub admin_token: String,
    /// Bytes that may be allocated in all.
    pub capacity: u64,
    /// The region that clients sign for.
    pub region: String,
    /// Base address of the S3 endpoint as clients reach it; `None` is the listening address.
    pub public_endpoint: Option<String>,
    /// Whether `PUT /faults` works.
    pub allow_faults: bool,
    /// How long making an allocation takes; until then `allocate` answers 202.
    pub provision_delay_ms: u64,
    /// What time the meters go by.
    pub clock: TimeSource,
}

impl ProviderOptions {
    /// Free ports of the loopback interface, 1 TiB, region `local`, nothing injected.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, admin_token: impl Into<String>) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            data_dir: data_dir.into(),
            s3_listen: free,
            admin_listen: free,
            admin_token: admin_token.into(),
            capacity: 1 << 40,
            region: "local".to_owned(),
            public_endpoint: None,
            allow_faults: false,
            provision_delay_ms: 0,
            clock: TimeSource::system(),
        }
    }
}

/// Why a provider did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options are wrong.
    #[error("{0}")]
    Options(&'static str),
    /// The directory can't be used.
    #[error("the provider's directory can't be used")]
    Directory(#[source] std::io::Error),
    /// The store does not open: damaged, or in use by another server.
    #[error("the provider's store does not open; is another server using it?")]
    Store(#[from] StoreError),
    /// An address can't be listened on.
    #[error("{address} can't be listened on")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The server.
pub struct ProviderServer;

/// A running provider. Dropping it stops listening without a drain; [`ProviderHandle::shutdown`] drains.
pub struct ProviderHandle {
    /// Where S3 is served.
    pub s3_addr: SocketAddr,
    /// Where the admin API is served.
    pub admin_addr: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl ProviderHandle {
    /// Base address of the S3 endpoint.
    #[must_use]
    pub fn s3_url(&self) -> String {
        format!("http://{}", self.s3_addr)
    }

    /// Base address of the admin API.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin_addr)
    }

    /// Stops listening, lets requests in flight finish for up to ten seconds, and brings the meters to the store.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            let _ = task.await;
        }
        if let Err(error) = self.shared.store(Shared::flush_egress).await {
            tracing::error!(%error, "the last sent bytes were not metered");
        }
    }
}

impl ProviderServer {
    /// Opens the directory, recovers, and serves.
    ///
    /// # Errors
    /// As the variants of [`StartError`] say; nothing is left running then.
    pub async fn start(options: ProviderOptions) -> Result<ProviderHandle, StartError> {
        if options.admin_token.len() < 16 {
            return Err(StartError::Options("the admin token has at least 16 characters"));
        }
        let shared = {
            let options = options.clone();
            tokio::task::spawn_blocking(move || open(&options))
                .await
                .map_err(|error| StartError::Directory(std::io::Error::other(error)))??
        };
        let (s3, s3_addr) = listen(options.s3_listen).await?;
        let (admin, admin_addr) = listen(options.admin_listen).await?;
        let endpoint = options.public_endpoint.clone().unwrap_or_else(|| format!("http://{s3_addr}"));
        let routes = admin::router(administration(&options, &shared, endpoint));
        let (stop, stopped) = watch::channel(false);
        let tasks = vec![
            tokio::spawn(serve_s3(s3, service(&shared), shared.clone(), stopped.clone())),
            tokio::spawn(serve_admin(admin, routes, stopped.clone())),
            tokio::spawn(flush(shared.clone(), stopped)),
        ];
        tracing::info!(%s3_addr, %admin_addr, data_dir = %options.data_dir.display(), "provider serves");
        Ok(ProviderHandle { s3_addr, admin_addr, stop, tasks, shared })
    }
}

/// What the admin API works with.
pub(crate) fn administration(
    options: &ProviderOptions,
    shared: &Arc<Shared>,
    endpoint: String,
) -> Arc<Admin> {
    Arc::new(Admin {
        shared: shared.clone(),
        token_sha256: Sha256::digest(options.admin_token.as_bytes()).into(),
        endpoint,
        capacity: options.capacity,
        provision_delay_us: i64::try_from(options.provision_delay_ms.saturating_mul(1000))
            .unwrap_or(i64::MAX),
        allow_faults: options.allow_faults,
        order: tokio::sync::Mutex::new(()),
    })
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Opens store and blobs, sweeps what a crash left, and fills the maps in memory. Blocks.
pub(crate) fn open(options: &ProviderOptions) -> Result<Arc<Shared>, StartError> {
    std::fs::create_dir_all(&options.data_dir).map_err(StartError::Directory)?;
    private(&options.data_dir).map_err(StartError::Directory)?;
    // The store first: its lock keeps a second server from sweeping the files of the first.
    let store = Store::open(&options.data_dir.join("provider.db"))?;
    let blobs = Blobs::open(&options.data_dir).map_err(StartError::Directory)?;
    let swept = blobs.sweep(&store.files()?).map_err(StartError::Directory)?;
    if swept > 0 {
        tracing::info!(swept, "removed files of writes that were never acknowledged");
    }
    let live = Live::default();
    let (allocations, keys) = store.everything()?;
    for row in &allocations {
        live.add(admin::live(row));
    }
    for key in keys {
        if let Some(allocation) = live.allocation(&key.allocation) {
            live.put_key(&key.id, LiveKey::new(key.secret, key.permissions, allocation));
        }
    }
    Ok(Arc::new(Shared {
        store,
        blobs,
        live,
        qos: QosMeter::default(),
        faults: FaultState::default(),
        region: options.region.clone(),
        clock: options.clock.clone(),
    }))
}

/// The store holds S3 secrets: nobody else may look into the directory.
fn private(directory: &std::path::Path) -> std::io::Result<()> {
    #[cfg(unix)]
    std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(())
}

pub(crate) fn service(shared: &Arc<Shared>) -> S3Service {
    let mut builder = S3ServiceBuilder::new(Service::new(shared.clone()));
    builder.set_auth(Gate::new(shared.clone()));
    builder.set_access(Gate::new(shared.clone()));
    // Browser forms are not served: no memory for them.
    let mut config = S3Config::default();
    config.xml_max_body_size = 2 << 20;
    config.post_object_max_file_size = 1;
    config.form_max_fields_size = 1 << 16;
    config.form_max_field_size = 1 << 16;
    config.form_max_parts = 1;
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.build()
}

/// Returns when the server is to stop, or its handle is gone.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn serve_admin(listener: TcpListener, routes: axum::Router, mut stopped: watch::Receiver<bool>) {
    let mut deadline = stopped.clone();
    let served = axum::serve(listener, routes).with_graceful_shutdown(async move {
        told(&mut stopped).await;
    });
    tokio::select! {
        _ = served => {}
        () = async { told(&mut deadline).await; tokio::time::sleep(DRAIN).await } => {}
    }
}

async fn serve_s3(
    listener: TcpListener,
    service: S3Service,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
            () = told(&mut stopped) => break,
        };
        let _ = stream.set_nodelay(true);
        let (service, shared) = (service.clone(), shared.clone());
        let handler = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            answer(service.clone(), shared.clone(), request.map(Body::from))
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(75))
            .serve_connection(TokioIo::new(stream), handler);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests in flight were cut off");
    }
}

/// One S3 request, metered, with faults injected.
pub(crate) async fn answer(
    service: S3Service,
    shared: Arc<Shared>,
    mut request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let (started, slot) = (Instant::now(), OperationSlot::from(OnceLock::new()));
    request.extensions_mut().insert(slot.clone());
    let result = if shared.faults.s3_request().await {
        let error = s3s::S3Error::with_message(S3ErrorCode::ServiceUnavailable, "an injected fault");
        error.to_http_response().map_err(|error| HttpError::new(Box::new(error)))
    } else {
        service.call(request).await
    };
    let status = result.as_ref().map_or(500, |response| response.status().as_u16());
    shared.qos.record(slot.get().copied().unwrap_or("Unauthenticated"), status, started.elapsed());
    result
}

async fn flush(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(FLUSH) => {}
            () = told(&mut stopped) => return,
        }
        if let Err(error) = shared.store(Shared::flush_egress).await {
            tracing::warn!(%error, "sent bytes were not metered yet");
        }
    }
}
