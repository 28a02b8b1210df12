//! The whole way of blocks, step by step and without the job engine, over memory.

mod catch_up;
mod charges;
mod formats;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    client::{
        clock::{ManualClock, SeededEntropy},
        da::LocalDa,
        db::memory::MemoryDatabase,
        settlement::{LocalRules, LocalSettlement},
        storage::MemoryStorage,
    },
    core::{
        client::{
            database::{
                Changeset, Committer, Document, Filter, Page, Query, Reader, ReaderExt, Result as DbResult,
                Stored,
            },
            provider::Generation,
            schema::Collection,
        },
        job::{Effect, Job, JobState},
        madara::settlement::SettlementClient,
        market::{
            account::{AccountKey, Transfer, TransferKind},
            block::{BlockEvent, BlockFormat, BlockState, transition},
            ids::{ConsumerId, Id},
            money::Amount,
            party::{Consumer, Principal},
            state::{LedgerState, execute, steps_root},
            unit::DataUnit,
        },
    },
    service::{
        job::{JobContext, JobError, Processed, Trigger, Verified},
        ledger::{AccountService, LedgerDraft, Posting},
        proof::{ProofAt, ProofService, verify_account_proof},
        settlement::verify_ledger,
        work::{Call, Work},
    },
};

/// A job in the hands of the test.
struct Hand {
    job: Job,
    effects: Mutex<BTreeMap<String, Effect>>,
    clock: ManualClock,
}

#[async_trait]
impl JobContext for Hand {
    fn job(&self) -> &Job {
        &self.job
    }
    fn generation(&self) -> Generation {
        Generation(1)
    }
    fn now(&self) -> Timestamp {
        crate::core::client::clock::Clock::now(&self.clock)
    }
    async fn intend(&self, key: &str, intent: Value) -> Result<Effect, JobError> {
        let effect = Effect { intent, outcome: None, at: self.now() };
        Ok(self.effects.lock().entry(key.to_owned()).or_insert(effect).clone())
    }
    async fn record(&self, key: &str, outcome: Value) -> Result<(), JobError> {
        if let Some(effect) = self.effects.lock().get_mut(key) {
            effect.outcome = Some(outcome);
        }
        Ok(())
    }
    fn effects(&self) -> BTreeMap<String, Effect> {
        self.effects.lock().clone()
    }
}

struct World {
    db: Arc<MemoryDatabase>,
    clock: ManualClock,
    work: Work,
    ports: BlockPorts,
    settlement: LocalSettlement,
    da: LocalDa,
    storage: Arc<MemoryStorage>,
    accounts: AccountService,
    proofs: ProofService,
    trigger: SealTrigger,
    handlers: Vec<Arc<dyn JobHandler>>,
}

fn world(seed: u64) -> World {
    world_reading(seed, |db| db)
}

/// A world whose blocks are made through another reader.
fn world_reading(seed: u64, reader: impl Fn(Arc<MemoryDatabase>) -> Arc<dyn Reader>) -> World {
    world_of(seed, BlockSettings::default(), reader)
}

fn world_of(
    seed: u64,
    settings: BlockSettings,
    reader: impl Fn(Arc<MemoryDatabase>) -> Arc<dyn Reader>,
) -> World {
    let clock = ManualClock::new(Timestamp(1_000_000));
    let shared: Arc<dyn crate::core::client::clock::Clock> = Arc::new(clock.clone());
    let ids = IdGenerator::new(Arc::clone(&shared), Arc::new(SeededEntropy::new(seed)));
    let db = MemoryDatabase::with_schema();
    let work = Work::new(db.clone(), db.clone(), ids.clone());
    let settlement =
        LocalSettlement::in_memory(DomainId::local(), LocalRules::default(), Arc::clone(&shared));
    let domains = SettlementDomains::new([Arc::new(settlement.clone()) as Arc<dyn SettlementClient>]);
    let da = LocalDa::in_memory();
    let storage = Arc::new(MemoryStorage::new(shared));
    let store = BlockStore::new(reader(db.clone()), storage.clone());
    let ports = BlockPorts {
        store: store.clone(),
        ids,
        domains: domains.clone(),
        da: Arc::new(da.clone()),
        settings,
    };
    let accounts = AccountService::new(work.clone(), domains.clone());
    World {
        proofs: ProofService::new(accounts.clone(), store, domains),
        trigger: SealTrigger::new(work.clone(), ports.clone()),
        handlers: handlers(&ports),
        accounts,
        db,
        clock,
        work,
        ports,
        settlement,
        da,
        storage,
    }
}

impl World {
    async fn consumer(&self, deposit: u128) -> ConsumerId {
        let id: ConsumerId = self.work.ids.next();
        let consumer = Consumer {
            id,
            name: "c".into(),
            domain: DomainId::local(),
            owner: None,
            created_at: self.work.now(),
        };
        let mut changes = Changeset::new();
        changes.insert(&consumer);
        self.db.commit(changes).await.unwrap();
        let receipt = self
            .accounts
            .deposit(&Call::system("t"), AccountKey::Consumer(id), Amount(deposit))
            .await
            .unwrap();
        assert_eq!(receipt.transfer.unwrap().amount, Amount(deposit));
        id
    }

    /// A unit whose terms the next block is to commit to.
    async fn unit(&self) {
        let golden = include_str!("../../../tests/golden/data_unit.v1.json");
        let mut unit: DataUnit = serde_json::from_str(golden).unwrap();
        unit.domain = DomainId::local();
        let id = unit.id.to_string();
        let marker = UnsealedMarker {
            id,
            domain: DomainId::local(),
            kind: crate::service::ledger::UnsealedKind::Unit,
        };
        let mut changes = Changeset::new();
        changes.insert(&unit).insert(&marker);
        self.db.commit(changes).await.unwrap();
    }

    async fn post(
        &self,
        kind: TransferKind,
        debit: AccountKey,
        credit: AccountKey,
        amount: u128,
        key: &str,
    ) -> crate::error::Result<()> {
        let mut draft = LedgerDraft::new(self.db.as_ref(), &self.work.ids, DomainId::local());
        draft
            .post(Posting {
                kind,
                debit,
                credit,
                amount: Amount(amount),
                idempotency_key: key.into(),
                subject: "t".into(),
            })
            .await?;
        let mut changes = Changeset::new();
        draft.finish(&mut changes);
        Ok(self.db.commit(changes).await?)
    }

    /// Runs every job until nothing is left to do; `patience` times the clock moves on for those that wait.
    async fn run(&self, mut patience: u32) {
        self.trigger.fire().await.unwrap();
        loop {
            let jobs = self.db.list_all::<Job>(Filter::All).await.unwrap();
            let open: Vec<_> = jobs.into_iter().filter(|job| !job.value.state.is_terminal()).collect();
            let mut moved = false;
            for stored in &open {
                moved |= self.step(stored).await;
            }
            if open.is_empty() || (!moved && patience == 0) {
                return;
            }
            if !moved {
                patience -= 1;
                self.clock.advance(Micros::from_secs(1));
            }
        }
    }

    async fn step(&self, stored: &Stored<Job>) -> bool {
        let mut job = stored.value.clone();
        let handler = self.handlers.iter().find(|handler| handler.kind() == job.kind).unwrap();
        let hand =
            Hand { effects: Mutex::new(job.effects.clone()), job: job.clone(), clock: self.clock.clone() };
        let mut changes = if job.state == JobState::PendingVerification {
            match handler.verify(&hand).await {
                Ok(Verified::Confirmed(changes)) => {
                    job.state = JobState::Completed;
                    changes
                }
                Err(JobError::PollAgain(_)) => return false,
                other => panic!("{:?}: {other:?}", job.kind),
            }
        } else {
            match handler.process(&hand).await {
                Ok(Processed::Done(changes)) => {
                    job.state = JobState::Completed;
                    changes
                }
                Ok(Processed::Verify { changes, output, .. }) => {
                    job.state = JobState::PendingVerification;
                    job.output = output;
                    changes
                }
                Err(JobError::PollAgain(_)) => return false,
                other => panic!("{:?}: {other:?}", job.kind),
            }
        };
        job.effects = hand.effects();
        changes.replace(stored.version, &job);
        self.db.commit(changes).await.unwrap();
        true
    }

    async fn blocks(&self) -> Vec<Block> {
        let found = self.db.list_all::<Block>(Filter::All).await.unwrap();
        found.into_iter().map(|stored| stored.value).collect()
    }
}

fn as_consumer(id: ConsumerId) -> Call {
    Call { principal: Principal::Consumer(id), request: None, trace_id: "t".into() }
}

/// Reads that wait once before they answer, so that whoever reads can be cut off at each of them.
struct Waiting(Arc<MemoryDatabase>);

#[async_trait]
impl Reader for Waiting {
    async fn get(&self, collection: Collection, id: &str) -> DbResult<Option<Document>> {
        tokio::task::yield_now().await;
        self.0.get(collection, id).await
    }
    async fn find(&self, query: Query) -> DbResult<Page> {
        tokio::task::yield_now().await;
        self.0.find(query).await
    }
    async fn count(&self, collection: Collection, filter: Filter) -> DbResult<u64> {
        tokio::task::yield_now().await;
        self.0.count(collection, filter).await
    }
}

/// A time-out or a lost lease drops a sealing attempt at whatever it waits for. The next one in the same process must not build
/// on what the first one left half done.
#[tokio::test]
async fn sealing_that_is_cut_off_anywhere_leaves_nothing_behind() {
    let mut whole = 0;
    for cut in 1..40 {
        let w = world_reading(3, |db| Arc::new(Waiting(db)));
        let a = w.consumer(1_000).await;
        w.run(5).await;
        let b = w.consumer(500).await;
        let (from, to) = (AccountKey::Consumer(a), AccountKey::Consumer(b));
        w.post(TransferKind::Release, from, to, 100, "moved").await.unwrap();
        w.unit().await;
        w.trigger.fire().await.unwrap();
        let jobs = w.db.list_all::<Job>(Filter::All).await.unwrap();
        let job = jobs.into_iter().find(|job| !job.value.state.is_terminal()).unwrap().value;
        let hand = Hand { effects: Mutex::default(), job, clock: w.clock.clone() };
        let sealer = w.handlers.iter().find(|handler| handler.kind() == hand.job.kind).unwrap();
        let mut attempt = sealer.process(&hand);
        for _ in 0..cut {
            if futures::poll!(attempt.as_mut()).is_ready() {
                whole += 1;
                break;
            }
            // Who waits is woken when the runtime has its turn.
            tokio::task::yield_now().await;
        }
        drop(attempt);
        w.run(5).await;
        let blocks = w.blocks().await;
        assert!(
            blocks.len() >= 2 && blocks.iter().all(|block| block.state == BlockState::Final),
            "cut {cut}"
        );
        assert_eq!(w.db.count(schema::UNSEALED, Filter::All).await.unwrap(), 0, "cut {cut}");
        assert!(verify_ledger(&w.settlement, &w.da).await.unwrap().holds(), "cut {cut}");
    }
    assert!((1..39).contains(&whole), "{whole} of them came through");
}

#[tokio::test]
async fn money_goes_from_deposit_through_final_blocks_to_a_withdrawal_that_is_paid_once() {
    let w = world(1);
    let a = w.consumer(1_000).await;
    let b = w.consumer(500).await;
    w.run(5).await;
    let key = AccountKey::Consumer(a);
    let call = as_consumer(a);
    let proved = w.proofs.account_proof(&call, key, ProofAt::Final).await.unwrap();
    assert_eq!(proved.proof.balance, Amount(1_000));
    assert!(verify_account_proof(&proved));
    assert_eq!(
        w.proofs.account_proof(&as_consumer(b), key, ProofAt::Final).await.unwrap_err().code.as_str(),
        "not_found"
    );

    w.accounts.withdraw(&call, key, Amount(300)).await.unwrap();
    assert_eq!(w.proofs.claim(&call, key).await.unwrap().0.paid, Amount::ZERO);
    w.run(5).await;
    assert_eq!(w.proofs.claim(&call, key).await.unwrap().0.paid, Amount(300));
    assert_eq!(w.proofs.claim(&call, key).await.unwrap().0.paid, Amount::ZERO);

    let blocks = w.blocks().await;
    assert_eq!(blocks.len(), 2);
    assert!(blocks.iter().all(|block| block.state == BlockState::Final));
    let report = verify_ledger(&w.settlement, &w.da).await.unwrap();
    assert!(report.holds(), "{:?}", report.problems);
    assert_eq!((report.blocks, report.total, report.deposits), (2, Amount(1_500), 2));
    let audit = w.accounts.audit(&Call::system("t"), &DomainId::local()).await.unwrap();
    assert!(audit.balanced, "{audit:?}");
    assert_eq!(audit.deposited, Amount(1_500));
    assert_eq!(w.db.count(schema::UNSEALED, Filter::All).await.unwrap(), 0);
}

#[tokio::test]
async fn a_refused_block_takes_its_descendants_along_and_all_is_sealed_again() {
    let w = world(2);
    w.consumer(1_000).await;
    w.run(0).await;
    w.consumer(500).await;
    w.run(0).await;
    assert_eq!(w.blocks().await.len(), 2);
    w.settlement.challenge(1, "a test").await.unwrap();
    w.run(5).await;
    assert_eq!(w.db.count(schema::REJECTED_BLOCKS, Filter::All).await.unwrap(), 2);
    w.run(5).await;
    let blocks = w.blocks().await;
    assert_eq!(blocks.len(), 1, "both deposits in one block now");
    assert_eq!(blocks[0].state, BlockState::Final);
    let report = verify_ledger(&w.settlement, &w.da).await.unwrap();
    assert!(report.holds(), "{:?}", report.problems);
    assert_eq!(report.total, Amount(1_500));
    assert!(w.accounts.audit(&Call::system("t"), &DomainId::local()).await.unwrap().balanced);
}

#[tokio::test]
async fn a_poisoned_item_is_quarantined_and_the_rest_is_sealed() {
    let w = world(3);
    let a = w.consumer(1_000).await;
    let b = w.consumer(1_000).await;
    w.run(5).await;
    let escrow = |n: u128| AccountKey::Escrow(Id::from_uuid(uuid::Uuid::from_u128(n)));
    w.post(TransferKind::Fund, AccountKey::Consumer(a), escrow(1), 10, "a1").await.unwrap();
    // The stored account is made to lie, so that a transfer passes which the committed state refuses.
    let id = crate::core::market::account::Account::id_of(&DomainId::local(), &AccountKey::Consumer(a));
    let mut account = w.db.load::<crate::core::market::account::Account>(&id).await.unwrap().unwrap();
    account.value.balance = Amount(1_000_000);
    let mut changes = Changeset::new();
    changes.replace(account.version, &account.value);
    w.db.commit(changes).await.unwrap();
    w.post(TransferKind::Fund, AccountKey::Consumer(a), escrow(1), 5_000, "a2").await.unwrap();
    w.post(TransferKind::Fund, AccountKey::Consumer(a), escrow(2), 1, "a3").await.unwrap();
    w.post(TransferKind::Fund, AccountKey::Consumer(b), escrow(3), 7, "b1").await.unwrap();
    w.run(5).await;
    assert_eq!(w.db.count(schema::QUARANTINED, Filter::All).await.unwrap(), 1);
    assert_eq!(w.db.count(schema::UNSEALED, Filter::All).await.unwrap(), 1, "its follower waits");
    let b = w.proofs.account_proof(&as_consumer(b), AccountKey::Consumer(b), ProofAt::Final).await.unwrap();
    assert_eq!(b.proof.balance, Amount(993));
    assert!(verify_ledger(&w.settlement, &w.da).await.unwrap().holds());

    // The operator looks, mends what was wrong (here the money is deposited after all), and puts the item back.
    let desk = BlockService::new(w.work.clone(), w.ports.store.clone());
    let page = crate::service::page::PageRequest::default();
    let held = desk.quarantined(&operator(), &DomainId::local(), page).await.unwrap().items;
    assert_eq!(held.len(), 1);
    let poisoned = held[0].marker.id.clone();
    let refused = desk.retry(&as_consumer(a), &poisoned).await.unwrap_err();
    assert_eq!(refused.code.as_str(), "forbidden");
    // Unmended, it comes back.
    desk.retry(&operator(), &poisoned).await.unwrap();
    assert_eq!(w.db.count(schema::QUARANTINED, Filter::All).await.unwrap(), 0);
    w.run(5).await;
    assert_eq!(w.db.count(schema::QUARANTINED, Filter::All).await.unwrap(), 1);
    let mut transfer = w.db.load::<Transfer>(&poisoned).await.unwrap().unwrap();
    transfer.value.amount = Amount(50);
    let mut changes = Changeset::new();
    changes.replace(transfer.version, &transfer.value);
    w.db.commit(changes).await.unwrap();
    desk.retry(&operator(), &poisoned).await.unwrap();
    w.run(5).await;
    assert_eq!(w.db.count(schema::QUARANTINED, Filter::All).await.unwrap(), 0);
    assert_eq!(w.db.count(schema::UNSEALED, Filter::All).await.unwrap(), 0, "its follower is sealed, too");
    assert_eq!(desk.retry(&operator(), &poisoned).await.unwrap_err().code.as_str(), "not_found");
    assert!(verify_ledger(&w.settlement, &w.da).await.unwrap().holds());
}

fn operator() -> Call {
    let id = Id::from_uuid(uuid::Uuid::from_u128(1));
    Call { principal: Principal::Operator(id), request: None, trace_id: "t".into() }
}

#[tokio::test]
async fn after_three_refusals_sealing_stops_until_an_operator_resumes_it() {
    let w = world(6);
    w.consumer(1_000).await;
    let desk = BlockService::new(w.work.clone(), w.ports.store.clone());
    let domain = DomainId::local();
    let early = desk.resume(&operator(), &domain).await.unwrap_err();
    assert_eq!(early.code.as_str(), "invalid_state");
    for n in 1..=3 {
        w.run(0).await;
        w.settlement.challenge(1, "a test").await.unwrap();
        w.run(5).await;
        assert_eq!(desk.tip(&operator(), &domain).await.unwrap().rejections, n);
    }
    assert!(desk.tip(&operator(), &domain).await.unwrap().halted.is_some());
    w.run(5).await;
    assert!(w.blocks().await.is_empty(), "nothing is sealed while it stands");
    let refused = desk.resume(&as_consumer(Id::from_uuid(uuid::Uuid::nil())), &domain).await.unwrap_err();
    assert_eq!(refused.code.as_str(), "forbidden");
    assert_eq!(desk.resume(&operator(), &domain).await.unwrap().value.reason, "a test");
    w.run(5).await;
    let blocks = w.blocks().await;
    assert_eq!(blocks.len(), 1);
    assert_eq!(blocks[0].state, BlockState::Final);
    assert!(w.accounts.audit(&Call::system("t"), &domain).await.unwrap().balanced);

    // What the block says is there for everybody, page by page.
    let first = desk.records(&operator(), &domain, 1, 0, 1).await.unwrap();
    assert_eq!((first.records.len(), first.next), (1, Some(1)));
    let rest = desk.records(&operator(), &domain, 1, 1, 1_000).await.unwrap();
    assert_eq!(rest.next, None);
    let all: Vec<_> = first.records.into_iter().chain(rest.records).collect();
    let steps = execute(&mut LedgerState::new(domain.clone()), BlockFormat::Steps, &all).unwrap();
    assert_eq!(steps_root(&steps), blocks[0].header.events_root);
    assert_eq!(desk.records(&operator(), &domain, 2, 0, 1).await.unwrap_err().code.as_str(), "not_found");
}

#[tokio::test]
async fn the_same_money_in_another_order_of_ids_seals_to_the_same_root() {
    let mut roots = Vec::new();
    for seed in [10, 11] {
        let w = world(seed);
        let ids: Vec<ConsumerId> = (1..=3).map(|n| Id::from_uuid(uuid::Uuid::from_u128(n))).collect();
        for (n, id) in ids.iter().enumerate() {
            let deposit =
                w.settlement.deposit(&n.to_string(), AccountKey::Consumer(*id), Amount(100)).await.unwrap();
            assert_eq!(deposit.index, n as u64 + 1);
        }
        crate::service::ledger::DepositWatcher::new(w.work.clone(), w.ports.domains.clone())
            .fire()
            .await
            .unwrap();
        for (n, pair) in [(0, 1), (1, 2), (2, 0), (0, 2)].into_iter().enumerate() {
            let escrow = AccountKey::Escrow(Id::from_uuid(uuid::Uuid::from_u128(9)));
            w.post(TransferKind::Fund, AccountKey::Consumer(ids[pair.0]), escrow, 10, &format!("f{n}"))
                .await
                .unwrap();
            w.post(TransferKind::Refund, escrow, AccountKey::Consumer(ids[pair.1]), 4, &format!("r{n}"))
                .await
                .unwrap();
        }
        w.run(5).await;
        roots.push(w.blocks().await[0].header.state_root);
    }
    assert_eq!(roots[0], roots[1]);
}

#[tokio::test]
async fn a_deposit_is_booked_once_and_tampered_data_is_found() {
    let w = world(4);
    let a = w.consumer(10).await;
    let watcher = crate::service::ledger::DepositWatcher::new(w.work.clone(), w.ports.domains.clone());
    assert_eq!(watcher.book(&DomainId::local()).await.unwrap(), 0);
    assert_eq!(watcher.fire().await.unwrap().changed, 0);
    let view = w.accounts.account(&as_consumer(a), AccountKey::Consumer(a)).await.unwrap();
    assert_eq!(view.balance, Amount(10));
    let refused = w.accounts.deposit(&as_consumer(a), AccountKey::Consumer(a), Amount(1)).await.unwrap_err();
    assert_eq!(refused.code.as_str(), "forbidden");
    w.run(5).await;
    let empty = verify_ledger(&w.settlement, &LocalDa::in_memory()).await.unwrap();
    assert!(!empty.holds());
}

#[test]
fn a_registered_block_can_be_refused_and_a_final_one_cannot() {
    assert!(transition(BlockState::Registered, BlockEvent::Reject).is_ok());
    assert!(transition(BlockState::Final, BlockEvent::Reject).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Any movements: the books balance, nothing but `external` is negative, and a key works once.
    #[test]
    fn any_sequence_of_movements_keeps_the_books(
        moves in prop::collection::vec((0_u8..6, 0_u8..6, 0_u128..400, 0_u8..30), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let w = world(5);
            let a = w.consumer(1_000).await;
            let b = w.consumer(1_000).await;
            let account = |n: u8| match n {
                0 => AccountKey::Consumer(a),
                1 => AccountKey::Consumer(b),
                2 => AccountKey::Escrow(Id::from_uuid(uuid::Uuid::from_u128(1))),
                3 => AccountKey::Provider(Id::from_uuid(uuid::Uuid::from_u128(2))),
                4 => AccountKey::Collateral(Id::from_uuid(uuid::Uuid::from_u128(2))),
                _ => AccountKey::Fees,
            };
            let mut used = std::collections::BTreeSet::new();
            for (from, to, amount, key) in moves {
                let kind = if from == to { TransferKind::Withdraw } else { TransferKind::Payment };
                let key = format!("k{key}");
                let done = w.post(kind, account(from), account(to), amount, &key).await;
                if amount > 0 && done.is_ok() {
                    assert!(used.insert(key), "an idempotency key worked twice");
                }
                let audit = w.accounts.audit(&Call::system("t"), &DomainId::local()).await.unwrap();
                assert!(audit.balanced, "{audit:?}");
                assert_eq!(audit.deposited, Amount(2_000));
            }
            w.run(5).await;
            let audit = w.accounts.audit(&Call::system("t"), &DomainId::local()).await.unwrap();
            assert!(audit.balanced, "after sealing: {audit:?}");
            let report = verify_ledger(&w.settlement, &w.da).await.unwrap();
            assert!(report.holds(), "{:?}", report.problems);
            assert_eq!(report.total, Amount(2_000));
        });
    }
}
