//! A market whose money is in the contract: what outlives the daemon's processes, and a process over it, with the real job engine,
//! block jobs, deposits and payouts.

use std::sync::Arc;

use alloy::{
    primitives::{Address as ChainAddress, U256},
    signers::local::PrivateKeySigner,
    sol_types::SolCall as _,
};
use orchestrator::{
    client::{
        clock::{ManualClock, SeededEntropy},
        da::ethereum::{Beacon, BlockIds, DaSettings, EthereumDa},
        settlement::ethereum::{
            EthereumSettlement,
            abi::{Settlement, Token},
            deposits::LogSettings,
            oracles::Oracles,
            signer::Policy,
        },
        storage::MemoryStorage,
        vault::AesVault,
    },
    core::{
        client::{
            clock::Clock,
            database::{Filter, Reader as _, ReaderExt as _},
            schema,
        },
        job::Job,
        madara::{
            settlement::SettlementClient,
            transaction::{ChainTransaction, TransactionState},
        },
        market::{
            account::AccountKey,
            block::{Block, BlockState},
            ids::{ConsumerId, IdGenerator},
            money::Amount,
            party::Principal,
            payout::{Payout, PayoutState},
            quantity::Micros,
        },
    },
    error::Result,
    service::{
        block::{AttestationService, BlockPorts, BlockSettings, BlockStore, SealTrigger, handlers},
        job::{Boundaries, Engine, EnginePorts, EngineSettings, Trigger as _, Wake},
        ledger::{AccountService, DepositWatcher},
        market::{MarketService, MarketSettings, NewConsumer},
        proof::{PayoutService, PayoutSettings, ProofService},
        settlement::{SettlementDomains, verify_ledger},
        work::{Call, RequestKey, Work},
    },
};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    anvil::Anvil,
    world::{DEPTH, OPERATOR, ORACLE_KEY, OWNER, USER, World, domain},
};
use crate::promises::world::Mortal;

alloy::sol! {
    function mint(address to, uint256 amount) external;
    function approve(address spender, uint256 amount) external;
}

/// What each consumer pays in.
pub const FUNDS: u128 = 600;

/// What outlives a process.
pub struct Market {
    pub world: World,
    pub consumers: Vec<ConsumerId>,
    entropy: Arc<SeededEntropy>,
    storage: Arc<MemoryStorage>,
    /// Transactions of the operator before.
    before: u64,
    /// Most gas in one transaction.
    pub gas: u64,
    /// What is paid out at least.
    pub least: Amount,
    /// Whether daemons host the oracle's key.
    pub hosts_oracle: bool,
}

/// One process of the daemon.
pub struct Daemon {
    pub writes: Arc<Mortal>,
    pub accounts: AccountService,
    pub payouts: PayoutService,
    pub proofs: ProofService,
    pub settlement: Arc<EthereumSettlement>,
    pub da: Arc<EthereumDa>,
    pub work: Work,
    pub attestations: AttestationService,
    clock: ManualClock,
    engine: Engine,
    seal: SealTrigger,
    watcher: DepositWatcher,
}

/// How it all ended.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    /// Tokens of each owner.
    pub tokens: Vec<u128>,
    /// What the contract still has of the deposits.
    pub held: u128,
    /// What each account was paid, and how that stands.
    pub payouts: Vec<(u128, String)>,
    /// Balance and released money of each account of the rebuilt ledger.
    pub accounts: Vec<(u128, u128)>,
}

impl Market {
    /// A contract with an operator's bond, and a consumer with its deposit for each owner.
    pub async fn start(owners: &[&str]) -> Option<Self> {
        Some(Self::in_world(World::start().await?, owners).await)
    }

    /// The same in a world of its own on a chain that runs: it takes seconds until a chain has seen its first blob.
    pub async fn on(anvil: &Arc<Anvil>, owners: &[&str]) -> Self {
        Self::in_world(World::on(Arc::clone(anvil)).await, owners).await
    }

    async fn in_world(world: World, owners: &[&str]) -> Self {
        let before = world.mined().await;
        let storage = Arc::new(MemoryStorage::new(Arc::new(world.clock.clone())));
        let entropy = Arc::new(SeededEntropy::new(9));
        let mut market = Self {
            world,
            consumers: Vec::new(),
            entropy,
            storage,
            before,
            gas: 5_000_000,
            least: Amount(1),
            hosts_oracle: true,
        };
        market.pay(OPERATOR, 77, &Settlement::postBondCall { amount: 77 }.abi_encode()).await;
        let daemon = market.daemon().await;
        let vault = Arc::new(AesVault::new(&Zeroizing::new([1; 32]), market.entropy.clone()));
        let settings = MarketSettings {
            domains: vec![domain()],
            owned_domains: [domain()].into(),
            ..MarketSettings::default()
        };
        let service = MarketService::new(daemon.work.clone(), vault, settings);
        for (n, owner) in owners.iter().enumerate() {
            let consumer =
                NewConsumer { name: format!("c{n}"), domain: None, owner: Some(owner.parse().unwrap()) };
            let made = service.register_consumer(&Call::system("test"), consumer).await.unwrap();
            market.consumers.push(made.value.id);
            market.deposit(n, owner, FUNDS).await;
        }
        market
    }

    /// Somebody pays in for a consumer.
    pub async fn deposit(&self, n: usize, owner: &str, amount: u128) {
        let name = AccountKey::Consumer(self.consumers[n]).to_string();
        self.deposit_named(&name, owner.parse().unwrap(), amount).await;
    }

    /// Somebody pays in under a name.
    pub async fn deposit_named(&self, name: &str, owner: ChainAddress, amount: u128) {
        let call = Settlement::depositCall { owner, name: name.to_owned(), amount };
        self.pay(USER, amount, &call.abi_encode()).await;
    }

    /// Somebody gets tokens, and calls the contract, which takes them.
    async fn pay(&self, from: &str, amount: u128, call: &[u8]) {
        let (token, contract) = (format!("{:#x}", self.world.token), format!("{:#x}", self.world.contract));
        let amount = U256::from(amount);
        let mint = mintCall { to: from.parse().unwrap(), amount };
        self.world.anvil.send(OWNER, Some(&token), &mint.abi_encode()).await;
        let approve = approveCall { spender: self.world.contract, amount };
        self.world.anvil.send(from, Some(&token), &approve.abi_encode()).await;
        self.world.anvil.send(from, Some(&contract), call).await;
    }

    /// A process that lives on.
    pub async fn daemon(&self) -> Daemon {
        self.daemon_with(Mortal::new(self.world.database.clone(), i64::MAX, false), None).await
    }

    /// A process that writes through `writes`, and tells `boundaries` of the steps of its jobs.
    pub async fn daemon_with(&self, writes: Arc<Mortal>, boundaries: Option<Arc<dyn Boundaries>>) -> Daemon {
        let world = &self.world;
        let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
        let policy = Policy { gas: self.gas, ..world.policy() };
        let sender = world.sender_over(policy, Micros::from_secs(30), writes.clone()).await;
        let sender = Arc::new(sender.unwrap());
        let oracle = PrivateKeySigner::from_bytes(&ORACLE_KEY.into()).unwrap();
        let oracle = self.hosts_oracle.then_some(oracle);
        let parties = (OWNER.parse().unwrap(), Oracles::new(31_337, world.contract, oracle));
        let logs = LogSettings { from_block: 1, log_range: 1_000, confirmations: 0 };
        let settlement = EthereumSettlement::connect(domain(), Arc::clone(&sender), logs, parties);
        let settlement = Arc::new(settlement.await.unwrap());
        let beacon = Beacon::new(&world.anvil.url, BlockIds::Numbers, Micros::from_secs(10)).unwrap();
        let settings = DaSettings { from_block: 1, log_range: 1_000, poll: Micros::from_millis(10) };
        let da = Arc::new(EthereumDa::new(domain(), sender, beacon, settings));
        let domains = SettlementDomains::new([Arc::clone(&settlement) as Arc<dyn SettlementClient>]);
        let ids = IdGenerator::new(clock.clone(), self.entropy.clone());
        let work = Work::new(world.database.clone(), writes.clone(), ids.clone());
        let blocks = BlockPorts {
            store: BlockStore::new(world.database.clone(), self.storage.clone()).storing_states_every(2),
            ids: ids.clone(),
            domains: domains.clone(),
            da: da.clone(),
            settings: BlockSettings { poll: Micros::from_secs(1), ..BlockSettings::default() },
        };
        let ports = EnginePorts {
            reader: world.database.clone(),
            claimer: writes.clone(),
            committer: writes.clone(),
            ids,
            clock,
            entropy: self.entropy.clone(),
            wake: Arc::new(Wake::default()),
        };
        let engine = Engine::watched(ports, EngineSettings::default(), handlers(&blocks), boundaries);
        let accounts = AccountService::new(work.clone(), domains.clone());
        let proofs = ProofService::new(accounts.clone(), blocks.store.clone(), domains.clone());
        Daemon {
            writes,
            accounts,
            payouts: PayoutService::new(
                work.clone(),
                proofs.clone(),
                domains.clone(),
                PayoutSettings { least: self.least, ..PayoutSettings::default() },
            ),
            attestations: AttestationService::new(work.clone(), blocks.store.clone(), domains.clone()),
            proofs,
            settlement,
            da,
            clock: world.clock.clone(),
            engine,
            seal: SealTrigger::new(work.clone(), blocks),
            watcher: DepositWatcher::new(work.clone(), domains),
            work,
        }
    }

    /// A call of a consumer with an idempotency key.
    pub fn call(&self, n: usize, key: &str) -> Call {
        let request = Some(RequestKey { id: format!("{n}/{key}"), fingerprint: key.into() });
        Call { principal: Principal::Consumer(self.consumers[n]), request, trace_id: "t".into() }
    }

    /// A consumer releases money.
    pub async fn withdraw(&self, daemon: &Daemon, n: usize, amount: u128) -> Result<()> {
        let account = AccountKey::Consumer(self.consumers[n]);
        let call = self.call(n, &format!("withdraw {amount}"));
        daemon.accounts.withdraw(&call, account, Amount(amount)).await.map(drop)
    }

    /// Time passes, on the chain and for the daemons: blocks are made, and challenge windows end.
    pub async fn pass(&self) {
        self.world.anvil.ask("evm_increaseTime", json!([20])).await;
        self.world.anvil.mine(self.world.depth.div_ceil(4).max(DEPTH)).await;
        self.world.clock.advance(Micros::from_secs(2));
    }

    /// Whether nothing is left to do.
    pub async fn is_over(&self) -> bool {
        let database = &self.world.database;
        let jobs = database.list_all::<Job>(Filter::All).await.unwrap();
        let payouts = database.list_all::<Payout>(Filter::All).await.unwrap();
        let blocks = database.list_all::<Block>(Filter::All).await.unwrap();
        let transactions = self.transactions().await;
        let ended =
            |payout: &Payout| matches!(payout.state, PayoutState::Paid | PayoutState::SetAside { .. });
        database.count(schema::UNSEALED, Filter::All).await.unwrap() == 0
            && jobs.iter().all(|job| job.value.state.is_terminal())
            && blocks.iter().all(|block| block.value.state == BlockState::Final)
            && payouts.iter().all(|payout| ended(&payout.value))
            && transactions.iter().all(|transaction| transaction.state.is_terminal())
    }

    /// What the operator's journal has.
    pub async fn transactions(&self) -> Vec<ChainTransaction> {
        let found = self.world.database.list_all::<ChainTransaction>(Filter::All).await.unwrap();
        found.into_iter().map(|stored| stored.value).collect()
    }

    /// How many calls of a function took effect.
    pub async fn called(&self, method: &str) -> usize {
        let all = self.transactions().await;
        let took = |it: &&ChainTransaction| {
            it.method == method && matches!(it.state, TransactionState::Final { .. })
        };
        all.iter().filter(took).count()
    }

    pub async fn payouts(&self) -> Vec<Payout> {
        let mut found = self.world.database.list_all::<Payout>(Filter::All).await.unwrap();
        found.sort_by_key(|stored| {
            self.consumers.iter().position(|it| AccountKey::Consumer(*it) == stored.value.account)
        });
        found.into_iter().map(|stored| stored.value).collect()
    }

    /// The tokens of an address.
    pub async fn tokens(&self, daemon: &Daemon, who: ChainAddress) -> u128 {
        let node = daemon.settlement.node();
        let head = node.head().await.unwrap().number;
        let call = Token::balanceOfCall { who };
        u128::try_from(node.read(self.world.token, &call, head).await.unwrap()).unwrap()
    }

    /// How it ended; what must hold of every end is checked.
    pub async fn end(&self, daemon: &Daemon, owners: &[&str]) -> End {
        let report = verify_ledger(daemon.settlement.as_ref(), daemon.da.as_ref()).await.unwrap();
        assert!(report.holds() && report.is_final, "{:?}", report.problems);
        // Each block was registered once, and nothing was sent that the journal does not know.
        assert_eq!(self.called("register").await as u64, report.blocks);
        let open = self.transactions().await.into_iter().filter(|it| !it.state.is_terminal()).count();
        assert_eq!(open, 0);
        // Its bond, and the approval before.
        let by_hand = 2;
        let sent = self.world.mined().await - self.before;
        assert_eq!(sent, self.transactions().await.len() as u64 + by_hand);
        let holdings = daemon.settlement.holdings().await.unwrap();
        let mut tokens = Vec::new();
        for owner in owners {
            tokens.push(self.tokens(daemon, owner.parse().unwrap()).await);
        }
        let payouts = self.payouts().await.into_iter().map(|it| (it.paid.0, it.state.name().to_owned()));
        End {
            tokens,
            held: holdings.held.0,
            payouts: payouts.collect(),
            accounts: report.accounts.iter().map(|it| (it.balance.0, it.withdrawable.0)).collect(),
        }
    }
}

impl Daemon {
    pub fn is_dead(&self) -> bool {
        self.writes.is_dead()
    }

    /// Fires every trigger and lets the jobs run until they wait.
    pub async fn turn(&self) {
        let _ = self.watcher.fire().await;
        let _ = self.seal.fire().await;
        let _ = self.payouts.fire().await;
        let _ = self.engine.reap().await;
        // Some jobs look again and again at what only the chain can bring about.
        for _ in 0..8 {
            let Ok(tick) = self.engine.tick().await else { continue };
            while self.engine.running() > 0 && !self.is_dead() {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                // It may wait between two tries of its own.
                self.clock.advance(Micros::from_millis(20));
                let _ = self.engine.renew().await;
            }
            if tick.claimed == 0 || self.is_dead() {
                return;
            }
        }
    }
}

/// Owners that anvil signs for.
pub const OWNERS: [&str; 2] = [USER, OWNER];
