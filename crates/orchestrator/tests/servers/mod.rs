//! Real servers for tests: where those that `cargo xtask test` starts are, and servers of a test's own, which it may stop, start again,
//! freeze and kill.

use std::{
    env,
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
};

/// The value of a variable that `cargo xtask test` sets; fails the test that needs it when it is missing.
pub fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: `cargo xtask test` sets it, and so does `eval \"$(cargo xtask backends up)\"`"
        )
    })
}

/// A name that no other test has.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::from_bytes(random()).simple())
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// A server of a test's own, on a port of its own. Ends with the test.
pub struct OwnServer {
    command: Vec<String>,
    /// On 127.0.0.1.
    pub port: u16,
    directory: tempfile::TempDir,
    child: Option<Child>,
}

impl OwnServer {
    /// Starts the server whose command line is in a variable, such as `ORCHESTRATOR_TEST_REDIS_COMMAND`. It may not answer yet.
    pub fn start(name: &str) -> Self {
        let command: Vec<String> = serde_json::from_str(&variable(name)).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut server = Self { command, port, directory: tempfile::tempdir().unwrap(), child: None };
        server.start_again();
        server
    }

    /// Starts it on the same port and data as before, after it was killed.
    pub fn start_again(&mut self) {
        let directory = self.directory.path().display().to_string();
        let port = self.port.to_string();
        let mut words =
            self.command.iter().map(|word| word.replace("{port}", &port).replace("{dir}", &directory));
        let mut command = Command::new(words.next().unwrap());
        command.args(words).current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(self.child.is_none(), "it runs");
        self.child = Some(command.spawn().unwrap());
    }

    /// Ends it with SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it without ending it: connections stay, nothing is answered.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Tries until something holds; fails after some ten seconds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("not in time: {what}");
}
