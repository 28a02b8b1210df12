//! Serving: accepts connections until the shutdown begins, then lets running requests end, for a bounded time.

use std::{io, time::Duration};

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves until `shutdown` is cancelled and the running requests have ended, or `drain` is over.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    drain: Duration,
) -> io::Result<()> {
    let stopped = shutdown.clone();
    let server = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stopped.cancelled().await })
        .into_future();
    let deadline = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        done = server => done,
        () = deadline => {
            tracing::warn!("requests were still running at the end of the drain time; they are cut off");
            Ok(())
        }
    }
}
