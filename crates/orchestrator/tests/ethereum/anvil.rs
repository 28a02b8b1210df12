//! One anvil for one test, on loopback and a port of its own; it ends with the test.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::tools::tool;

/// A running anvil.
pub struct Anvil {
    child: Child,
    client: reqwest::Client,
    pub url: String,
}

impl Anvil {
    /// Starts one; `None` when such programs are left out on purpose.
    pub async fn start(more: &[&str]) -> Option<Self> {
        let program = tool("ORCHESTRATOR_TEST_ANVIL")?;
        orchestrator::client::network::http::install_crypto_provider();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--hardfork", "osaka", "--accounts", "4", "--quiet"]);
        command.args(["--port", &port.to_string()]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        let anvil = Self { child, client, url: format!("http://127.0.0.1:{port}") };
        let until = Instant::now() + Duration::from_secs(20);
        while anvil.try_ask("eth_chainId", json!([])).await.is_err() {
            assert!(Instant::now() < until, "anvil does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(anvil)
    }

    async fn try_ask(&self, method: &str, params: Value) -> Result<Value, String> {
        let question = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.client.post(&self.url).json(&question).send().await.map_err(|e| e.to_string())?;
        let mut answer: Value = answer.json().await.map_err(|e| e.to_string())?;
        match answer.get("error") {
            Some(error) => Err(format!("{method}: {error}")),
            None => Ok(answer["result"].take()),
        }
    }

    /// Asks it.
    pub async fn ask(&self, method: &str, params: Value) -> Value {
        self.try_ask(method, params).await.unwrap()
    }

    /// Makes blocks.
    pub async fn mine(&self, blocks: u64) {
        self.ask("anvil_mine", json!([format!("{blocks:#x}")])).await;
    }

    /// What the next block costs at least, in it and for good.
    pub async fn base_fee(&self, wei: u128) {
        self.ask("anvil_setNextBlockBaseFeePerGas", json!([format!("{wei:#x}")])).await;
    }

    /// A number that it answers with.
    pub async fn number(&self, method: &str, params: Value) -> u64 {
        let answer = self.ask(method, params).await;
        u64::from_str_radix(answer.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }

    /// Sends as one of its own accounts, waits until it is mined, and gives the receipt.
    pub async fn send(&self, from: &str, to: Option<&str>, data: &[u8]) -> Value {
        let mut call = json!({ "from": from, "data": format!("0x{}", hex::encode(data)), "gas": "0xe4e1c0" });
        if let Some(to) = to {
            call["to"] = to.into();
        }
        let hash = self.ask("eth_sendTransaction", json!([call])).await;
        for _ in 0..500 {
            let receipt = self.ask("eth_getTransactionReceipt", json!([hash])).await;
            if !receipt.is_null() {
                assert_eq!(receipt["status"], "0x1", "{receipt}");
                return receipt;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not mined");
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
        assert!(
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success()
        );
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
