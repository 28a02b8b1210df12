//! Serving: accepts connections until the shutdown begins, then lets running requests end, for a bounded time. A client
//! that sends its header or its next request too slowly is hung up on, and there are never more connections than allowed.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::Layer;

/// Pause after a connection could not be accepted, for want of file descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How connections are treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeSettings {
    /// How long requests may go on after a shutdown began.
    pub drain: Duration,
    /// Longest time from the start of a connection, or the end of the answer before, to the end of a request's header.
    pub header_timeout: Duration,
    /// Connections at once; more of them wait to be accepted.
    pub connections: usize,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self { drain: Duration::from_secs(10), header_timeout: Duration::from_secs(30), connections: 2_048 }
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// Serves until `shutdown` is cancelled and the running requests have ended, or the drain time is over.
///
/// # Errors
/// When the listener has no address.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    settings: ServeSettings,
) -> io::Result<()> {
    listener.local_addr()?;
    let slots = Arc::new(Semaphore::new(settings.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(settings.header_timeout);
    let graceful = GracefulShutdown::new();
    // Dropped at the end: what still runs then is cut off.
    let mut tasks = JoinSet::new();
    loop {
        let Some((stream, peer, slot)) = next(&listener, &slots, &shutdown, &mut tasks).await else { break };
        let service = TowerToHyperService::new(Extension(Peer(peer.ip())).layer(router.clone()));
        let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
        let watched = graceful.watch(connection);
        tasks.spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%peer, error, "a connection ended badly");
            }
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(settings.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still running at the end of the drain time; they are cut off");
    }
    Ok(())
}

/// The next connection, once there is room for it; `None` when the shutdown began.
async fn next(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    loop {
        while tasks.try_join_next().is_some() {}
        let accepted = async {
            let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, peer)| (stream, peer, slot))
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return None,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok(connection) => {
                // Answers are small and whole; waiting to fill a packet only delays them.
                let _ = connection.0.set_nodelay(true);
                return Some(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
