//! Promise 2: the process dies with its n-th write, applied or not, and another one takes over. Whatever n is, the market
//! ends as it does in a run without a crash.

use std::sync::Arc;

use orchestrator::{
    core::market::{
        account::AccountKey,
        allocation::AllocationState,
        credential::Permissions,
        dispute::DisputeKind,
        ids::{AllocationId, Id, OperatorId},
        money::Amount,
        party::Principal,
        quantity::Micros,
    },
    error::{ErrorCode, Result},
    service::{
        access::IssueCredential,
        ledger::dispute::{Decision, OpenDispute},
        work::Call,
    },
};

use super::world::{HOUR, Mortal, Node, Store, finish};

/// A market whose processes are replaced when they die.
struct Life {
    store: Store,
    node: Node,
    died: bool,
}

impl Life {
    /// After a death, a new process takes over: leases of the old one run out.
    fn go_on(&mut self) -> bool {
        if !self.node.is_dead() {
            return false;
        }
        self.died = true;
        self.node = self.store.node();
        self.store.clock.advance(Micros::from_secs(120));
        true
    }

    /// A client that repeats its request, with the same key, until somebody answers.
    async fn ask<T>(&mut self, ask: impl AsyncFn(&Node) -> Result<T>) -> T {
        for _ in 0..3 {
            let answer = ask(&self.node).await;
            let replaced = self.go_on();
            match answer {
                Ok(value) => return value,
                Err(error) if replaced => assert_eq!(error.code, ErrorCode::Unavailable, "{error:?}"),
                Err(error) => panic!("{error:?}"),
            }
        }
        panic!("nobody answers");
    }

    async fn turn(&mut self) {
        self.node.turn().await;
        if self.go_on() {
            // What the dead process was at is picked up again.
            for _ in 0..3 {
                self.node.turn().await;
                self.store.clock.advance(Micros::from_secs(30));
            }
            self.node.turn().await;
        }
    }
}

/// How a run ended: the states of its allocations, and who has how much.
#[derive(Debug, PartialEq, Eq)]
struct End {
    states: Vec<AllocationState>,
    money: Vec<u128>,
    effects: Vec<[u64; 2]>,
}

fn operator(key: &str) -> Call {
    let request = orchestrator::service::work::RequestKey { id: key.into(), fingerprint: key.into() };
    let id: OperatorId = Id::from_uuid(uuid::Uuid::from_u128(1));
    Call { principal: Principal::Operator(id), request: Some(request), trace_id: "t".into() }
}

/// One fixed story: two allocations live, one of them with a key and a dispute, one expires, one is cancelled.
async fn story(writes: Option<(i64, bool)>) -> (End, bool, i64) {
    let store = Store::new(5, 2).await;
    let (lives, applied) = writes.unwrap_or((i64::MAX, false));
    let node = store.node_over(Mortal::new(store.db.clone(), lives, applied));
    let first = Arc::clone(&node.writes);
    let mut life = Life { store: store.clone(), node, died: false };

    let mut made: Vec<AllocationId> = Vec::new();
    for (n, who) in [0, 1, 0, 1].into_iter().enumerate() {
        let call = store.call(who, &format!("reserve {n}"));
        let request = store.request(n % 2);
        made.push(
            life.ask(async |node| node.allocations.reserve(&call, request.clone()).await).await.value.id,
        );
    }
    for (n, who) in [(0, 0), (1, 1), (3, 1)] {
        let call = store.call(who, &format!("fund {n}"));
        life.ask(async |node| node.allocations.fund(&call, made[n]).await).await;
    }
    let call = store.call(1, "cancel");
    life.ask(async |node| node.allocations.cancel(&call, made[3]).await).await;
    life.turn().await;

    let call = store.call(0, "issue");
    let wanted = IssueCredential { permissions: Permissions::ReadWrite, expires_at: None };
    life.ask(async |node| node.credentials.issue(&call, made[0], wanted).await).await;
    life.turn().await;
    let contest = OpenDispute {
        allocation: made[0],
        kind: DisputeKind::Billing,
        claim: "too much".into(),
        evidence: Vec::new(),
        amount: Amount(1_000),
    };
    let call = store.call(0, "dispute");
    let dispute = life.ask(async |node| node.disputes.open(&call, contest.clone()).await).await.value.id;
    let call = operator("decide");
    life.ask(async |node| node.disputes.decide(&call, dispute, Decision::Provider, "no").await).await;

    // A billing period ends, and is paid.
    for round in 0..5 {
        store.clock.advance(Micros(HOUR.0 * 5));
        if round == 0 {
            // Far less than what was reserved for that time, so that no cap depends on when the period began.
            store.used(made[0], 1 << 28);
            store.used(made[1], 1 << 29);
        }
        life.turn().await;
    }
    let call = store.call(0, "close");
    life.ask(async |node| node.allocations.close(&call, made[0]).await).await;
    for _ in 0..6 {
        store.clock.advance(Micros(HOUR.0 * 5));
        life.turn().await;
    }
    finish(&[&life.node]).await;
    while life.go_on() {
        finish(&[&life.node]).await;
    }
    store.check_the_end().await;

    let mut money = vec![store.balance(AccountKey::Provider(store.owner)).await];
    for consumer in &store.consumers {
        money.push(store.balance(AccountKey::Consumer(*consumer)).await);
    }
    let mut states = Vec::new();
    let mut effects = Vec::new();
    for id in made {
        states.push(store.allocation(id).await.state);
        effects.push([store.provider.effects(id, "allocate"), store.provider.effects(id, "put_key")]);
    }
    (End { states, money, effects }, life.died, first.writes())
}

#[tokio::test]
async fn a_crash_at_any_write_changes_nothing_of_the_end() {
    let (plain, _, writes) = story(None).await;
    assert_eq!(
        plain.states,
        [
            AllocationState::Closed,
            AllocationState::Closed,
            AllocationState::Expired,
            AllocationState::Cancelled
        ]
    );
    assert_eq!(plain.effects[0], [1, 1]);
    // A contested 1,000, and 250 and 500 for what was stored, each less the fee of 2 %.
    assert_eq!(plain.money[0], super::world::FUNDS + 980 + 245 + 490);
    assert!(writes > 100, "the story has only {writes} writes");
    let mut deaths = 0;
    // Every third write, with both ways of dying in turns: the neighbours of a write are much like it.
    let mut tried = 0;
    for at in (0..writes).step_by(3) {
        let applied = at % 2 == 0;
        let (end, died, _) = story(Some((at, applied))).await;
        tried += 1;
        deaths += u32::from(died);
        assert_eq!(end, plain, "died at write {at}, applied: {applied}");
    }
    assert!(deaths > tried * 9 / 10, "{deaths} of {tried}");
}
