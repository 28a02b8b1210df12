//! Programs that nobody here wrote, which some tests use. `cargo xtask test` fetches them and says where they are.

use std::path::PathBuf;

/// The program that a variable names. Without it the test fails, unless `ORCHESTRATOR_TEST_EMBEDDED_ONLY=1` says that such
/// programs are left out on purpose: then `None`.
pub fn tool(variable: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    if std::env::var("ORCHESTRATOR_TEST_EMBEDDED_ONLY").is_ok_and(|value| value == "1") {
        eprintln!(
            "not run: {variable} names no program, and ORCHESTRATOR_TEST_EMBEDDED_ONLY=1 leaves it out"
        );
        return None;
    }
    panic!(
        "{variable} is not set: `cargo xtask test` fetches the programs that tests use and says where they are; \
         ORCHESTRATOR_TEST_EMBEDDED_ONLY=1 goes without them"
    );
}

/// A Python with the packages of the tests.
pub fn python() -> Option<PathBuf> {
    tool("ORCHESTRATOR_TEST_PYTHON")
}

/// A web server that has what is in a directory and nothing else, as any mirror may be; its address.
pub async fn files_of(directory: PathBuf) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 8_192];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&request[..read]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
            let (status, body) = match std::fs::read(directory.join(path)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body).await;
        }
    });
    address
}
