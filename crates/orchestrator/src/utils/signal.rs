//! Waiting for the signals that end a process.

use tokio::signal::unix::{SignalKind, signal};

/// Returns when Ctrl-C or SIGTERM arrives; when neither can be listened to, only at once with the reason logged.
pub async fn terminated() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut stream) => {
                stream.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot listen for SIGTERM");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = terminate => {}
        outcome = tokio::signal::ctrl_c() => {
            if let Err(error) = outcome {
                tracing::warn!(%error, "cannot listen for Ctrl-C");
            }
        }
    }
}
