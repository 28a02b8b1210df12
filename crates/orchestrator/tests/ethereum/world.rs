//! A chain with the contract on it, and daemons' clients over one journal.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use alloy::{
    hex,
    primitives::{Address, Bytes, U256},
    signers::local::PrivateKeySigner,
    sol_types::{SolCall as _, SolConstructor as _},
};
use async_trait::async_trait;
use orchestrator::{
    client::{
        clock::ManualClock,
        db::memory::MemoryDatabase,
        settlement::ethereum::{
            abi::Settlement,
            fees::Caps,
            node::{Finality, Node},
            sender::{Sender, SenderRules, Status},
            signer::{METHODS, Policy, PolicySigner},
        },
    },
    core::{
        client::database::{
            Changeset, Committer, DatabaseClient, DatabaseError, Reader, ReaderExt as _, Stored,
        },
        madara::{settlement::SettlementError, transaction::ChainTransaction},
        market::{
            quantity::{Micros, Timestamp},
            state::hash::domain_hash,
            terms::DomainId,
        },
    },
};
use serde_json::{Value, json};

use super::anvil::Anvil;

/// The contract's owner.
pub const OWNER: &str = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266";
/// The daemon.
pub const OPERATOR: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";
/// Anvil publishes the keys of its accounts.
pub const OPERATOR_KEY: [u8; 32] = hex!("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d");
/// Somebody who pays in.
pub const USER: &str = "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc";
/// Who vouches for evidence.
pub const ORACLE: &str = "0x90f79bf6eb2c4f870365e785982e1f101e93b906";
/// Its key.
pub const ORACLE_KEY: [u8; 32] = hex!("7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6");
/// Blocks on top of what is there for good, unless a test says otherwise.
pub const DEPTH: u64 = 2;
/// How long a transaction waits until more is offered for it.
pub const PATIENCE: Micros = Micros::from_secs(60);

pub fn domain() -> DomainId {
    DomainId("ethereum-test".into())
}

alloy::sol! {
    function mint(address to, uint256 amount) external;
    function approve(address spender, uint256 amount) external;
    function setOperator(address next) external;
}

fn bytecode(name: &str) -> Vec<u8> {
    let path = format!("{}/../../contracts/ethereum/artifacts/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let artifact: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    hex::decode(artifact["bytecode"].as_str().unwrap()).unwrap()
}

fn address_of(receipt: &Value) -> Address {
    receipt["contractAddress"].as_str().unwrap().parse().unwrap()
}

/// The chain, the contract, and the database of the daemons.
pub struct World {
    pub anvil: Arc<Anvil>,
    pub contract: Address,
    pub token: Address,
    pub database: Arc<MemoryDatabase>,
    pub clock: ManualClock,
    /// Blocks on top of what is there for good.
    pub depth: u64,
    /// What says so instead, if a test wants that.
    pub finality: Option<Finality>,
}

impl World {
    /// Everything deployed; `None` when anvil is left out on purpose.
    pub async fn start() -> Option<Self> {
        Some(Self::on(Arc::new(Anvil::start(&[]).await?)).await)
    }

    /// Another contract, with a token and a database of its own, on a chain that runs.
    pub async fn on(anvil: Arc<Anvil>) -> Self {
        let token = address_of(&anvil.send(OWNER, None, &bytecode("Token")).await);
        let rules = Settlement::Rules {
            domain: domain_hash(&domain()).0.into(),
            token,
            minBond: 1,
            challengeWindow: 60,
            exitDelay: 1_000,
            bondDelay: 60,
            depositDelay: 86_400,
            blobAge: 86_400,
        };
        let [owner, operator, oracle]: [Address; 3] =
            [OWNER, OPERATOR, ORACLE].map(|who| who.parse().unwrap());
        let oracles = vec![oracle];
        let arguments = Settlement::constructorCall { rules, owner, operator, oracles, threshold: U256::ONE };
        let code = [bytecode("Settlement"), arguments.abi_encode()].concat();
        let contract = address_of(&anvil.send(OWNER, None, &code).await);
        let database = MemoryDatabase::with_schema();
        let clock = ManualClock::new(Timestamp(1_700_000_000_000_000));
        Self { anvil, contract, token, database, clock, depth: DEPTH, finality: None }
    }

    /// From now on blocks come only when a test makes them.
    pub async fn by_hand(self) -> Self {
        self.anvil.ask("evm_setAutomine", json!([false])).await;
        self
    }

    pub fn policy(&self) -> Policy {
        Policy {
            chain: 31_337,
            contract: self.contract,
            methods: METHODS,
            gas: 5_000_000,
            caps: Caps { gas: 1_000_000_000_000, blob: 1_000_000_000 },
        }
    }

    /// A daemon's sender.
    pub async fn sender(&self) -> Arc<Sender> {
        Arc::new(self.sender_with(self.policy(), Micros::from_secs(30)).await.unwrap())
    }

    pub async fn sender_with(&self, policy: Policy, timeout: Micros) -> Result<Sender, SettlementError> {
        self.sender_over(policy, timeout, self.database.clone()).await
    }

    pub async fn sender_over(
        &self,
        policy: Policy,
        timeout: Micros,
        committer: Arc<dyn Committer>,
    ) -> Result<Sender, SettlementError> {
        let signer = PolicySigner::new(PrivateKeySigner::from_bytes(&OPERATOR_KEY.into()).unwrap(), policy);
        self.sender_by(signer, timeout, committer).await
    }

    /// A sender with another key.
    pub async fn sender_by(
        &self,
        signer: PolicySigner,
        timeout: Micros,
        committer: Arc<dyn Committer>,
    ) -> Result<Sender, SettlementError> {
        let node = Node::new(&self.anvil.url, timeout).unwrap();
        let finality = self.finality.unwrap_or(Finality::Depth(self.depth));
        let rules = SenderRules { finality, bump_after: PATIENCE };
        let ports: (Arc<dyn Reader>, Arc<dyn Committer>) = (self.database.clone(), committer);
        Sender::connect(node, signer, ports, Arc::new(self.clock.clone()), rules).await
    }

    /// The operator's transactions so far.
    pub async fn mined(&self) -> u64 {
        self.anvil.number("eth_getTransactionCount", json!([OPERATOR, "latest"])).await
    }

    /// The journal's entry of a key.
    pub async fn entry(&self, key: &str) -> Stored<ChainTransaction> {
        self.database.load(key).await.unwrap().unwrap()
    }

    /// Makes the node forget what waits.
    pub async fn drop_waiting(&self, key: &str) {
        for attempt in self.entry(key).await.value.attempts {
            self.anvil.ask("anvil_dropTransaction", json!([attempt.hash.to_string()])).await;
        }
    }

    /// Money for the user, who pays it in.
    pub async fn fund(&self, amount: u64) {
        let (user, token) = (USER.parse().unwrap(), format!("{:#x}", self.token));
        let mint = mintCall { to: user, amount: U256::from(amount) };
        self.anvil.send(USER, Some(&token), &mint.abi_encode()).await;
        let approve = approveCall { spender: self.contract, amount: U256::from(amount) };
        self.anvil.send(USER, Some(&token), &approve.abi_encode()).await;
    }

    pub async fn deposit(&self, name: &str, amount: u128) {
        let deposit = Settlement::depositCall { owner: USER.parse().unwrap(), name: name.to_owned(), amount };
        self.anvil.send(USER, Some(&format!("{:#x}", self.contract)), &deposit.abi_encode()).await;
    }

    /// The contract gets another operator.
    pub async fn depose(&self) {
        let next = setOperatorCall { next: USER.parse().unwrap() };
        let from = json!({ "from": OWNER, "to": format!("{:#x}", self.contract), "gas": "0x100000",
            "data": format!("0x{}", hex::encode(next.abi_encode())) });
        self.anvil.ask("eth_sendTransaction", json!([from])).await;
        self.anvil.mine(1).await;
    }
}

/// Tries until something holds; fails after some ten seconds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("not in time: {what}");
}

/// Waits until a transaction is in a block, which anvil makes a little later than it answers; and says in which.
pub async fn included(sender: &Sender, key: &str) -> u64 {
    for _ in 0..1_000 {
        match sender.status(key).await {
            Ok(Status::Included(block)) => return block,
            Ok(Status::Pending) | Err(SettlementError::Unavailable(_)) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            other => panic!("{key}: {other:?}"),
        }
    }
    panic!("{key} is not included")
}

/// A call that always succeeds and changes nothing.
pub fn nothing() -> Bytes {
    Settlement::finaliseCall { number: 0 }.abi_encode().into()
}

/// A database whose next commit happens, and whose answer never comes: the process was killed behind it.
pub struct KilledBehindCommit {
    pub database: Arc<dyn DatabaseClient>,
    pub armed: AtomicBool,
}

#[async_trait]
impl Committer for KilledBehindCommit {
    async fn commit(&self, changes: Changeset) -> Result<(), DatabaseError> {
        self.database.commit(changes).await?;
        if self.armed.swap(false, Ordering::Relaxed) {
            return Err(DatabaseError::Unavailable("killed".into()));
        }
        Ok(())
    }
}
