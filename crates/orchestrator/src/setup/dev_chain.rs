//! A chain of one's own, for the demo and for measurements: anvil on loopback, with a token and the settlement contract, accounts for
//! everybody, and keys for the operator and an oracle. It ends with its owner.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use alloy::{
    primitives::{Address, Bytes, U256},
    signers::local::PrivateKeySigner,
    sol_types::{SolCall as _, SolConstructor as _, SolEvent as _},
};
use serde_json::{Value, json};

use crate::{
    client::{clock::SystemClock, db::memory::MemoryDatabase, settlement::ethereum::abi::Settlement},
    config::{
        Config, HumanDuration,
        section::{ChainFinality, SettlementBackend},
    },
    core::{
        client::{clock::Clock, database::DatabaseClient},
        market::{state::hash::domain_hash, terms::DomainId},
    },
    error::{Error, ErrorCode},
};

const SETTLEMENT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../contracts/ethereum/artifacts/Settlement.json"));
const TOKEN: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../contracts/ethereum/artifacts/Token.json"));
/// The settlement domain.
pub const DOMAIN: &str = "anvil";
/// Anvil's own.
const CHAIN: u64 = 31_337;
/// Seconds in which a block can be challenged.
const WINDOW: u32 = 3;
/// Owners that anvil has accounts for.
const OWNERS: usize = 12;

mod bindings {
    #![allow(missing_docs, reason = "the macro writes it")]
    alloy::sol! {
        function mint(address to, uint256 amount) external;
        function approve(address spender, uint256 amount) external;
        function balanceOf(address who) external view returns (uint256);
    }
}
use bindings::{approveCall, balanceOfCall, mintCall};

/// What the operator's transactions took.
#[derive(Debug, Clone, Copy, Default)]
pub struct OperatorGas {
    /// Gas of those for blocks.
    pub blocks: u64,
    /// Those that paid owners.
    pub payouts: u64,
    /// Gas of these.
    pub paying: u64,
}

/// The running chain.
pub struct DevChain {
    anvil: Child,
    client: reqwest::Client,
    url: String,
    contract: Address,
    token: Address,
    /// Accounts that anvil signs for: the first one deploys, the others are owners.
    accounts: Vec<Address>,
    operator: Address,
    directory: PathBuf,
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::Unavailable, error.to_string())
}

fn bytecode(artifact: &str) -> Result<Vec<u8>, Error> {
    let artifact: Value = serde_json::from_str(artifact).map_err(failed)?;
    let text = artifact["bytecode"].as_str().unwrap_or_default();
    hex::decode(text.trim_start_matches("0x")).map_err(failed)
}

/// A key file with its password beside it.
fn keystore(directory: &Path, name: &str, key: &PrivateKeySigner) -> Result<(), Error> {
    let password = crate::utils::random::hex(16);
    std::fs::write(directory.join(format!("{name}.password")), &password).map_err(failed)?;
    PrivateKeySigner::encrypt_keystore(
        directory,
        &mut rand::rngs::OsRng,
        key.to_bytes(),
        password,
        Some(name),
    )
    .map_err(failed)?;
    Ok(())
}

impl DevChain {
    /// Starts anvil, and deploys the token and the contract.
    ///
    /// # Errors
    /// When there is no such program, or something does not work.
    pub async fn start(program: &Path, directory: &Path) -> Result<Self, Error> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|it| it.local_addr())
            .map_err(failed)?
            .port();
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--hardfork", "osaka", "--quiet"]);
        command.args(["--block-time", "1", "--mixed-mining", "--accounts", &(OWNERS + 1).to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let anvil = command.spawn().map_err(|error| {
            Error::field(
                "anvil",
                format!(
                    "{}: {error}; install it with `npm install @foundry-rs/anvil` and name it with --anvil",
                    program.display()
                ),
            )
        })?;
        crate::client::network::http::install_crypto_provider();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().map_err(failed)?;
        let mut chain = Self {
            anvil,
            client,
            url: format!("http://127.0.0.1:{port}"),
            contract: Address::ZERO,
            token: Address::ZERO,
            accounts: Vec::new(),
            operator: Address::ZERO,
            directory: directory.to_owned(),
        };
        let until = Instant::now() + Duration::from_secs(20);
        while chain.ask("eth_chainId", json!([])).await.is_err() {
            if Instant::now() > until {
                return Err(failed("anvil does not answer"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        chain.deploy().await?;
        Ok(chain)
    }

    async fn deploy(&mut self) -> Result<(), Error> {
        let accounts = self.ask("eth_accounts", json!([])).await?;
        self.accounts = serde_json::from_value(accounts).map_err(failed)?;
        let deployer = self.account(0)?;
        let (operator, oracle) = (PrivateKeySigner::random(), PrivateKeySigner::random());
        let directory = self.directory.clone();
        let (first, second) = (operator.clone(), oracle.clone());
        tokio::task::spawn_blocking(move || {
            keystore(&directory, "operator", &first)?;
            keystore(&directory, "oracle", &second)
        })
        .await
        .map_err(failed)??;
        self.operator = operator.address();
        let ether = json!([self.operator, "0x21e19e0c9bab2400000"]);
        self.ask("anvil_setBalance", ether).await?;
        self.token = self.create(deployer, bytecode(TOKEN)?).await?;
        let rules = Settlement::Rules {
            domain: domain_hash(&DomainId(DOMAIN.to_owned())).0.into(),
            token: self.token,
            minBond: 1,
            challengeWindow: WINDOW,
            exitDelay: 3_600,
            bondDelay: 60,
            depositDelay: 3_600,
            blobAge: 3_600,
        };
        let arguments = Settlement::constructorCall {
            rules,
            owner: deployer,
            operator: self.operator,
            oracles: vec![oracle.address()],
            threshold: U256::ONE,
        };
        let code = [bytecode(SETTLEMENT)?, arguments.abi_encode()].concat();
        self.contract = self.create(deployer, code).await?;
        // The operator's bond. Anvil lets anybody act for the operator, whose key is in a file, for as long as it is asked to.
        let bond: u128 = 1_000;
        self.send(
            deployer,
            self.token,
            mintCall { to: self.operator, amount: U256::from(bond) }.abi_encode(),
        )
        .await?;
        self.ask("anvil_impersonateAccount", json!([self.operator])).await?;
        let approve = approveCall { spender: self.contract, amount: U256::from(bond) };
        self.send(self.operator, self.token, approve.abi_encode()).await?;
        self.send(self.operator, self.contract, Settlement::postBondCall { amount: bond }.abi_encode())
            .await?;
        self.ask("anvil_stopImpersonatingAccount", json!([self.operator])).await?;
        Ok(())
    }

    /// Puts the chain into a daemon's configuration.
    pub fn configure(&self, config: &mut Config) -> Result<(), Error> {
        config.settlement.backend = SettlementBackend::Ethereum;
        config.triggers.pay_out = HumanDuration::millis(500);
        let chain = &mut config.ethereum;
        chain.domain = DOMAIN.to_owned();
        chain.chain_id = CHAIN;
        chain.rpc_url.clone_from(&self.url);
        chain.beacon_url.clone_from(&self.url);
        chain.genesis_time = 0;
        chain.contract = self.contract.to_string();
        chain.treasury = self.account(OWNERS)?.to_string();
        chain.keystore = self.directory.join("operator");
        chain.password_file = self.directory.join("operator.password");
        chain.oracle_keystore = self.directory.join("oracle");
        chain.oracle_password_file = self.directory.join("oracle.password");
        chain.confirmations = 0;
        chain.finality = ChainFinality::Depth;
        chain.final_depth = 0;
        chain.poll = HumanDuration::millis(300);
        chain.bump_after = HumanDuration::secs(30);
        Ok(())
    }

    /// Settlement layer and data availability, as a daemon opens them, with a journal in memory.
    ///
    /// # Errors
    /// When they can't be opened.
    pub async fn layers(&self) -> Result<super::chain::Layers, Error> {
        let mut config = Config::default();
        self.configure(&mut config)?;
        let database: Arc<dyn DatabaseClient> = MemoryDatabase::with_schema();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        super::chain::layers(&config, &database, &clock).await
    }

    fn account(&self, at: usize) -> Result<Address, Error> {
        self.accounts.get(at).copied().ok_or_else(|| failed("anvil has too few accounts"))
    }

    /// The address of an owner: from 1 up.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn owner(&self, at: usize) -> Result<String, Error> {
        Ok(self.account(at)?.to_string())
    }

    /// An owner gets tokens, and makes the calls that the API says.
    ///
    /// # Errors
    /// When the chain does not take them.
    pub async fn pay_in(&self, owner: &str, amount: u128, calls: &Value) -> Result<(), Error> {
        let owner: Address = owner.parse().map_err(failed)?;
        let mint = mintCall { to: owner, amount: U256::from(amount) };
        self.send(owner, self.token, mint.abi_encode()).await?;
        for call in calls.as_array().into_iter().flatten() {
            let to: Address = serde_json::from_value(call["to"].clone()).map_err(failed)?;
            let data: Bytes = serde_json::from_value(call["data"].clone()).map_err(failed)?;
            self.send(owner, to, data.to_vec()).await?;
        }
        Ok(())
    }

    /// The tokens that an address has.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn tokens(&self, who: &str) -> Result<u128, Error> {
        let who: Address = who.parse().map_err(failed)?;
        let data = Bytes::from(balanceOfCall { who }.abi_encode());
        let answer = self.ask("eth_call", json!([{ "to": self.token, "data": data }, "latest"])).await?;
        let answer: U256 = serde_json::from_value(answer).map_err(failed)?;
        u128::try_from(answer).map_err(failed)
    }

    /// What the operator's transactions took.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn operators_gas(&self) -> Result<OperatorGas, Error> {
        let head = self.number(self.ask("eth_blockNumber", json!([])).await?)?;
        let withdrawn = Settlement::Withdrawn::SIGNATURE_HASH.to_string();
        let mut sum = OperatorGas::default();
        for number in 0..=head {
            let block = self.ask("eth_getBlockReceipts", json!([format!("{number:#x}")])).await?;
            for receipt in block.as_array().into_iter().flatten() {
                let from: Address = serde_json::from_value(receipt["from"].clone()).map_err(failed)?;
                if from != self.operator {
                    continue;
                }
                let mut logs = receipt["logs"].as_array().into_iter().flatten();
                if logs.any(|log| log["topics"][0] == withdrawn) {
                    sum.payouts += 1;
                    sum.paying += gas_of(receipt)?;
                } else {
                    sum.blocks += gas_of(receipt)?;
                }
            }
        }
        Ok(sum)
    }

    fn number(&self, value: Value) -> Result<u64, Error> {
        let value: U256 = serde_json::from_value(value).map_err(failed)?;
        u64::try_from(value).map_err(failed)
    }

    async fn ask(&self, method: &str, params: Value) -> Result<Value, Error> {
        let question = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.client.post(&self.url).json(&question).send().await.map_err(failed)?;
        let mut answer: Value = answer.json().await.map_err(failed)?;
        match answer.get("error") {
            Some(error) => Err(failed(format!("{method}: {error}"))),
            None => Ok(answer["result"].take()),
        }
    }

    async fn create(&self, from: Address, code: Vec<u8>) -> Result<Address, Error> {
        let receipt =
            self.transact(json!({ "from": from, "data": Bytes::from(code), "gas": "0xe4e1c0" })).await?;
        serde_json::from_value(receipt["contractAddress"].clone()).map_err(failed)
    }

    async fn send(&self, from: Address, to: Address, data: Vec<u8>) -> Result<Value, Error> {
        self.transact(json!({ "from": from, "to": to, "data": Bytes::from(data) })).await
    }

    /// Sends as one of anvil's accounts, and waits for the receipt.
    async fn transact(&self, transaction: Value) -> Result<Value, Error> {
        let hash = self.ask("eth_sendTransaction", json!([transaction])).await?;
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let receipt = self.ask("eth_getTransactionReceipt", json!([hash])).await?;
            if !receipt.is_null() {
                return match receipt["status"].as_str() {
                    Some("0x1") => Ok(receipt),
                    _ => Err(failed(format!("the transaction {hash} had no effect"))),
                };
            }
            if Instant::now() > until {
                return Err(failed(format!("the transaction {hash} is not mined")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn gas_of(receipt: &Value) -> Result<u64, Error> {
    let gas: U256 = serde_json::from_value(receipt["gasUsed"].clone()).map_err(failed)?;
    u64::try_from(gas).map_err(failed)
}

impl Drop for DevChain {
    fn drop(&mut self) {
        // npm's anvil is a script around the program, which hands a polite request on, and a kill not.
        let pid = self.anvil.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            if !matches!(self.anvil.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.anvil.kill();
        let _ = self.anvil.wait();
    }
}
