//! Blocks on the chain: the way of a right one from sealing to the owners' tokens, and wrong ones, which fall and cost the
//! operator its bond.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use alloy::{
    primitives::{Address as ChainAddress, U256},
    signers::local::PrivateKeySigner,
    sol_types::SolCall as _,
};
use orchestrator::{
    client::{
        da::ethereum::{Beacon, BlockIds, DaSettings, EthereumDa},
        settlement::ethereum::{
            EthereumSettlement,
            abi::Settlement,
            blocks::Place,
            deposits::LogSettings,
            oracles::Oracles,
            payout,
            sender::Sender,
            watch::{Look, look},
        },
    },
    core::{
        madara::{
            da::DaClient as _,
            settlement::{BlockProof, SettlementClient as _, SettlementError, TransactionStatus},
        },
        market::{
            account::AccountKey,
            address::Address,
            block::{BlockFormat, BlockHeader, Hash32},
            ids::Id,
            quantity::Micros,
            state::{
                LedgerState, Record, Step, StepState, account_key_hash, encode_records, evidence_root,
                execute, fraud::Fraud, header::header_hash, steps_root,
            },
        },
    },
    service::settlement::verify_ledger,
};
use serde_json::json;
use sha3::Digest as _;

use super::world::{DEPTH, OPERATOR, ORACLE_KEY, OWNER, USER, World, domain, eventually};

alloy::sol! {
    function balanceOf(address who) external view returns (uint256);
    function rewards(address who) external view returns (uint128);
    function postBond(uint128 amount) external;
    function mint(address to, uint256 amount) external;
    function approve(address spender, uint256 amount) external;
}

const BOND: u128 = 77;
const WINDOW: u64 = 60;

fn user() -> Address {
    USER.parse().unwrap()
}

fn consumer() -> AccountKey {
    AccountKey::Consumer(Id::from_uuid(uuid::Uuid::from_u128(1)))
}

fn provider() -> AccountKey {
    AccountKey::Provider(Id::from_uuid(uuid::Uuid::from_u128(2)))
}

/// An operator with its bond, and 600 that a consumer has paid in.
pub(super) struct Rollup {
    pub(super) world: World,
    sender: Arc<Sender>,
    settlement: EthereumSettlement,
    da: EthereumDa,
    state: LedgerState,
    /// Grows with each block that fell: what is registered again is another transaction.
    round: AtomicU32,
}

impl Rollup {
    pub(super) async fn start() -> Option<Self> {
        let world = World::start().await?;
        let sender = world.sender().await;
        let oracle = PrivateKeySigner::from_bytes(&ORACLE_KEY.into()).unwrap();
        let parties = (OWNER.parse().unwrap(), Oracles::new(31_337, world.contract, Some(oracle)));
        let logs = LogSettings { from_block: 1, log_range: 1_000, confirmations: 0 };
        let settlement =
            EthereumSettlement::connect(domain(), Arc::clone(&sender), logs, parties).await.unwrap();
        let beacon = Beacon::new(&world.anvil.url, BlockIds::Numbers, Micros::from_secs(10)).unwrap();
        let settings = DaSettings { from_block: 1, log_range: 1_000, poll: Micros::from_millis(10) };
        let da = EthereumDa::new(domain(), Arc::clone(&sender), beacon, settings);
        world.fund(1_000).await;
        world.deposit(&consumer().to_string(), 600).await;
        let rollup = Self {
            world,
            sender,
            settlement,
            da,
            state: LedgerState::new(domain()),
            round: AtomicU32::new(0),
        };
        rollup.post_bond().await;
        Some(rollup)
    }

    async fn post_bond(&self) {
        let (token, contract) = (self.token(), self.contract());
        let operator: ChainAddress = OPERATOR.parse().unwrap();
        let mint = mintCall { to: operator, amount: U256::from(BOND) };
        self.world.anvil.send(OWNER, Some(&token), &mint.abi_encode()).await;
        let approve = approveCall { spender: self.world.contract, amount: U256::from(BOND) };
        self.world.anvil.send(OPERATOR, Some(&token), &approve.abi_encode()).await;
        self.world.anvil.send(OPERATOR, Some(&contract), &postBondCall { amount: BOND }.abi_encode()).await;
    }

    fn token(&self) -> String {
        format!("{:#x}", self.world.token)
    }

    pub(super) fn contract(&self) -> String {
        format!("{:#x}", self.world.contract)
    }

    async fn read<C: alloy::sol_types::SolCall>(&self, to: ChainAddress, call: C) -> C::Return {
        let head = self.sender.node().head().await.unwrap().number;
        self.sender.node().read(to, &call, head).await.unwrap()
    }

    fn header(
        &self,
        parent: Option<&BlockHeader>,
        records: &[Record],
        steps: &[Step],
        end: &StepState,
    ) -> BlockHeader {
        BlockHeader {
            domain: domain(),
            number: parent.map_or(1, |parent| parent.number + 1),
            parent: parent.map_or(Hash32::default(), header_hash),
            state_root: end.state_root,
            total: self.state.total(),
            events_root: steps_root(steps),
            evidence_root: evidence_root(records),
            last_deposit: end.last_deposit,
            records: records.len() as u32,
            next_market: Some(end.next_market),
        }
    }

    /// Registers a block, with its data in blobs.
    async fn register(
        &self,
        header: &BlockHeader,
        steps: Vec<Step>,
        data: &[u8],
    ) -> Result<String, SettlementError> {
        self.register_under(header.number, header, steps, data).await
    }

    async fn register_under(
        &self,
        number: u64,
        header: &BlockHeader,
        steps: Vec<Step>,
        data: &[u8],
    ) -> Result<String, SettlementError> {
        let reference = self.da.publish_state_diff(&domain(), number, data).await.unwrap();
        while self.da.verify_inclusion(&reference).await.is_err() {
            self.world.anvil.mine(DEPTH).await;
        }
        let attestations = self.settlement.oracles().unwrap().own(header).into_iter().collect();
        let proof = BlockProof::Reexecution {
            pre_state: Hash32::default(),
            post_state: header.state_root,
            events_root: header.events_root,
            steps,
            attestations,
        };
        let key = format!("register/{}.{}", header_hash(header), self.round.load(Ordering::Relaxed));
        let id = self.settlement.register_proof(&key, header, &proof, &reference).await?;
        // Anvil makes the block a little later than it answers.
        eventually("the block is registered", async || self.status(&id).await == TransactionStatus::Included)
            .await;
        Ok(id)
    }

    async fn status(&self, id: &str) -> TransactionStatus {
        self.settlement.transaction(id).await.unwrap()
    }

    async fn look(&self) -> Look {
        let place =
            Place { domain: domain(), contract: self.world.contract, from_block: 1, log_range: 1_000 };
        look(&place, self.sender.node(), &self.da).await.unwrap()
    }

    /// Registers a state root out of thin air.
    pub(super) async fn lie(&self) {
        let (records, mut state) = (opening(), self.state.clone());
        let mut steps = execute(&mut state, BlockFormat::Steps, &records).unwrap();
        let end = StepState { state_root: Hash32([9; 32]), ..state.step_state() };
        steps[0].state = end.hash();
        let header = BlockHeader { total: state.total(), ..self.header(None, &records, &steps, &end) };
        self.register(&header, steps, &encode_records(1, &records)).await.unwrap();
    }

    /// Somebody shows the contract what is wrong with the block.
    async fn falls(&self) -> Fraud {
        let found = self.look().await.finding.expect("a wrong block");
        let before = self.read(self.world.contract, rewardsCall { who: USER.parse().unwrap() }).await;
        self.world.anvil.send(USER, Some(&self.contract()), &found.call).await;
        assert_eq!(
            self.read(self.world.contract, Settlement::lastRegisteredCall {}).await,
            found.block.header.number - 1
        );
        assert_eq!(
            self.read(self.world.contract, Settlement::bondsCall { operator: OPERATOR.parse().unwrap() })
                .await,
            0
        );
        let reward = self.read(self.world.contract, rewardsCall { who: USER.parse().unwrap() }).await;
        assert_eq!(reward - before, BOND);
        let id = format!("final/{}/{}", found.block.header.number, found.block.hash);
        // Only when the fall is there for good.
        assert_eq!(self.status(&id).await, TransactionStatus::Pending);
        self.world.anvil.mine(DEPTH).await;
        assert!(matches!(self.status(&id).await, TransactionStatus::Rejected(_)));
        self.round.fetch_add(1, Ordering::Relaxed);
        self.post_bond().await;
        found.fraud
    }
}

fn opening() -> Vec<Record> {
    let key = |account: &AccountKey| account_key_hash(&domain(), Some(&user()), account);
    vec![
        Record::OpenAccount { key: key(&consumer()) },
        Record::OpenAccount { key: key(&provider()) },
        Record::Deposit { index: 1, to: 0, amount: 600 },
        Record::Transfer { kind: 5, from: 0, to: 1, amount: 100 },
        Record::Transfer { kind: 7, from: 1, to: 0, amount: 30 },
        Record::Transfer { kind: 12, from: 0, to: 0, amount: 250 },
    ]
}

#[tokio::test]
async fn a_block_goes_the_whole_way_and_anybody_may_pay_its_owners() {
    let Some(mut rollup) = Rollup::start().await else { return };
    let records = opening();
    let steps = execute(&mut rollup.state, BlockFormat::Steps, &records).unwrap();
    let end = rollup.state.step_state();
    let header = rollup.header(None, &records, &steps, &end);
    let data = encode_records(1, &records);
    let id = rollup.register(&header, steps.clone(), &data).await.unwrap();
    let sent = rollup.world.mined().await;
    assert_eq!(rollup.register(&header, steps.clone(), &data).await.unwrap(), id, "once");
    assert_eq!(rollup.world.mined().await, sent);
    assert_eq!(rollup.status(&id).await, TransactionStatus::Included);
    rollup.world.anvil.mine(DEPTH).await;
    assert_eq!(rollup.status(&id).await, TransactionStatus::Final);
    let settled = rollup.settlement.last_settled().await.unwrap();
    assert_eq!((settled.number, settled.hash, settled.is_final), (1, header_hash(&header), false));
    assert_eq!(rollup.settlement.block(1).await.unwrap().unwrap().0, header);
    assert_eq!(rollup.settlement.block(2).await.unwrap(), None);
    let watched = rollup.look().await;
    assert_eq!((watched.right, watched.finding.is_none()), (1, true));

    // Final only behind the challenge window.
    let id = rollup.settlement.update_state("u", &header).await.unwrap();
    assert_eq!(rollup.status(&id).await, TransactionStatus::Included);
    rollup.world.anvil.ask("evm_increaseTime", json!([WINDOW])).await;
    rollup.world.anvil.mine(1).await;
    assert_eq!(rollup.status(&id).await, TransactionStatus::Included);
    rollup.world.anvil.mine(DEPTH + 1).await;
    eventually("the block is final", async || rollup.status(&id).await == TransactionStatus::Final).await;
    assert!(rollup.settlement.last_settled().await.unwrap().is_final);

    // One proof of both accounts, by somebody who has nothing to do with it; twice, and it pays once.
    let keys = [consumer(), provider()].map(|it| account_key_hash(&domain(), Some(&user()), &it));
    let proof = rollup.state.prove_accounts(&keys).unwrap();
    let accounts = [(consumer(), Some(user())), (provider(), Some(user()))];
    let call = payout::call(1, &accounts, &proof).unwrap();
    for _ in 0..2 {
        rollup.world.anvil.send(OWNER, Some(&rollup.contract()), &call).await;
        let tokens = rollup.read(rollup.world.token, balanceOfCall { who: USER.parse().unwrap() }).await;
        assert_eq!(tokens, U256::from(400 + 250));
    }
    assert_eq!(payout::call(1, &accounts[..1], &proof), None);

    // Whoever trusts nobody comes to the same.
    let report = verify_ledger(&rollup.settlement, &rollup.da).await.unwrap();
    assert!(report.holds(), "{:?}", report.problems);
    assert_eq!((report.blocks, report.deposits, report.is_final), (1, 1, true));
    let balances: Vec<_> = report.accounts.iter().map(|it| (it.balance.0, it.withdrawable.0)).collect();
    assert_eq!(balances, [(600 - 100 + 30 - 250, 250), (70, 0)]);

    // What does not follow is refused, and nothing is sent for it.
    let sent = rollup.world.mined().await;
    let again = rollup.header(Some(&header), &records, &steps, &end);
    let orphan = BlockHeader { parent: Hash32([1; 32]), ..again.clone() };
    let refused =
        rollup.settlement.register_proof("o", &orphan, &no_proof(&orphan, &steps), &no_blobs(&rollup)).await;
    assert!(
        matches!(&refused, Err(SettlementError::Refused(why)) if why.contains("WrongParent")),
        "{refused:?}"
    );
    assert_eq!(rollup.world.mined().await, sent);
    // Without the oracles' word it may come later.
    let unsigned =
        rollup.settlement.register_proof("u", &again, &no_proof(&again, &steps), &no_blobs(&rollup)).await;
    assert!(matches!(unsigned, Err(SettlementError::Unavailable(_))), "{unsigned:?}");
}

fn no_proof(header: &BlockHeader, steps: &[Step]) -> BlockProof {
    BlockProof::Reexecution {
        pre_state: Hash32::default(),
        post_state: header.state_root,
        events_root: header.events_root,
        steps: steps.to_vec(),
        attestations: Vec::new(),
    }
}

fn no_blobs(rollup: &Rollup) -> String {
    format!("eip4844/31337/{}/{}/2/none", rollup.contract(), domain())
}

/// Executes without the rules that stand in the way, and says the steps as a dishonest operator would.
fn dishonest(state: &mut LedgerState, records: &[Record]) -> Vec<Step> {
    records.iter().for_each(|record| state.apply_as(BlockFormat::Records, record).unwrap());
    state.end_block();
    let cells: Vec<u8> = records.iter().flat_map(Record::encode).collect();
    let cells = Hash32(sha3::Keccak256::digest(cells).into());
    vec![Step { cells, count: records.len() as u32, state: state.step_state().hash() }]
}

#[tokio::test]
async fn an_operator_that_lies_loses_its_bond_each_time() {
    let Some(rollup) = Rollup::start().await else { return };
    let records = opening();
    let right = |rollup: &Rollup| {
        let mut state = rollup.state.clone();
        let steps = execute(&mut state, BlockFormat::Steps, &records).unwrap();
        (steps, state.step_state())
    };

    rollup.lie().await;
    let total = orchestrator::core::market::money::Amount(600);
    assert!(matches!(rollup.falls().await, Fraud::Step(step) if step.wrong.is_none()));

    // A credit above what was paid, given twice.
    let mut doubled = records.clone();
    doubled.insert(5, Record::Transfer { kind: 7, from: 1, to: 0, amount: 30 });
    doubled.insert(6, Record::Transfer { kind: 8, from: 1, to: 0, amount: 40 });
    doubled.insert(7, Record::Transfer { kind: 4, from: 0, to: 1, amount: 100 });
    doubled.insert(8, Record::Transfer { kind: 7, from: 1, to: 0, amount: 50 });
    let mut state = rollup.state.clone();
    let steps = dishonest(&mut state, &doubled);
    let header = BlockHeader { total, ..rollup.header(None, &doubled, &steps, &state.step_state()) };
    rollup.register(&header, steps, &encode_records(1, &doubled)).await.unwrap();
    assert!(matches!(rollup.falls().await, Fraud::Step(step) if step.wrong.is_some()));

    // Other data in the blobs than the steps say.
    let (steps, end) = right(&rollup);
    let mut other = records.clone();
    other[3] = Record::Transfer { kind: 5, from: 0, to: 1, amount: 99 };
    let header = BlockHeader { total, ..rollup.header(None, &records, &steps, &end) };
    rollup.register(&header, steps, &encode_records(1, &other)).await.unwrap();
    assert!(matches!(rollup.falls().await, Fraud::Data(_)));

    // Data that nobody can have: what is in no blob can't be registered.
    let (steps, end) = right(&rollup);
    let header = BlockHeader { total, ..rollup.header(None, &records, &steps, &end) };
    let withheld = format!("eip4844/31337/{}/{}/1/0x01{}", rollup.contract(), domain(), "77".repeat(31));
    let attestations = rollup.settlement.oracles().unwrap().own(&header).into_iter().collect();
    let BlockProof::Reexecution { pre_state, post_state, events_root, steps, .. } = no_proof(&header, &steps);
    let proof = BlockProof::Reexecution { pre_state, post_state, events_root, steps, attestations };
    let refused = rollup.settlement.register_proof("withheld", &header, &proof, &withheld).await;
    let Err(SettlementError::Unavailable(why)) = refused else { panic!("{refused:?}") };
    assert!(why.to_string().contains("WrongBlobs"), "{why}");

    // The data of another block; that it was announced under another number hides nothing.
    let (steps, end) = right(&rollup);
    let header =
        BlockHeader { evidence_root: Hash32([2; 32]), total, ..rollup.header(None, &records, &steps, &end) };
    rollup.register_under(2, &header, steps, &encode_records(2, &records)).await.unwrap();
    assert_eq!(rollup.falls().await, Fraud::Head);

    // After all that, the truth still gets through.
    let (steps, end) = right(&rollup);
    let header = BlockHeader { total, ..rollup.header(None, &records, &steps, &end) };
    let id = rollup.register(&header, steps, &encode_records(1, &records)).await.unwrap();
    assert_eq!(rollup.status(&id).await, TransactionStatus::Included);
    assert_eq!(rollup.look().await.right, 1);
}

#[tokio::test]
async fn a_registration_that_goes_with_a_block_of_the_chain_comes_again() {
    let Some(rollup) = Rollup::start().await else { return };
    let records = opening();
    let mut state = rollup.state.clone();
    let steps = execute(&mut state, BlockFormat::Steps, &records).unwrap();
    let total = orchestrator::core::market::money::Amount(600);
    let header = BlockHeader { total, ..rollup.header(None, &records, &steps, &state.step_state()) };
    rollup.register(&header, steps, &encode_records(1, &records)).await.unwrap();
    let id = rollup.settlement.update_state("u", &header).await.unwrap();
    assert_eq!(rollup.status(&id).await, TransactionStatus::Included);

    // The last block of the chain goes, and the registration with it: nobody calls that a refusal.
    rollup.world.anvil.ask("anvil_reorg", json!([1, []])).await;
    assert_eq!(rollup.settlement.last_settled().await.unwrap().number, 0);
    assert_eq!(rollup.status(&id).await, TransactionStatus::Pending);
    let again = rollup.settlement.update_state("u", &header).await;
    assert!(matches!(again, Err(SettlementError::Unavailable(_))), "{again:?}");
    // What looks after open transactions sends it again, the same bytes under the same nonce.
    let mined = rollup.world.mined().await;
    assert_eq!(rollup.settlement.tend().await.unwrap(), Vec::<String>::new());
    eventually("it is registered again", async || rollup.status(&id).await == TransactionStatus::Included)
        .await;
    assert_eq!(rollup.world.mined().await, mined + 1);
    assert_eq!(rollup.look().await.right, 1);
}
