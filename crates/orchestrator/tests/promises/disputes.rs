//! Money that is contested, posted and looked at: disputes to each of their ends, collateral, and the paging of transfers.

use orchestrator::{
    core::{
        client::{database::Cursor, provider::AccessLevel},
        market::{
            account::AccountKey,
            allocation::{AllocationState, RestrictReason},
            dispute::{Dispute, DisputeKind, DisputeState},
            ids::{AllocationId, Id, OperatorId, ProviderId},
            money::Amount,
            party::Principal,
            quantity::Micros,
        },
    },
    error::ErrorCode,
    service::{
        ledger::dispute::{Decision, OpenDispute},
        page::{Listing, PageRequest},
        work::Call,
    },
};

use super::world::{FUNDS, Node, Store, finish};

/// What funding one allocation draws: 720,000 a GiB-month for two days, and a GiB of egress.
const ESCROW: u128 = 48_010;

struct Desk {
    store: Store,
    node: Node,
    allocation: AllocationId,
}

impl Desk {
    async fn new() -> Self {
        let store = Store::new(3, 2).await;
        let node = store.node();
        let call = store.call(0, "reserve");
        let allocation = node.allocations.reserve(&call, store.request(0)).await.unwrap().value.id;
        node.allocations.fund(&store.call(0, "fund"), allocation).await.unwrap();
        node.turn().await;
        let desk = Self { store, node, allocation };
        assert_eq!(desk.held_in_escrow().await, ESCROW);
        desk
    }

    async fn held_in_escrow(&self) -> u128 {
        self.store.balance(AccountKey::Escrow(self.allocation)).await
    }

    fn claim(&self, kind: DisputeKind, amount: u128) -> OpenDispute {
        OpenDispute {
            allocation: self.allocation,
            kind,
            claim: "it is not right".into(),
            evidence: vec!["0x01".into()],
            amount: Amount(amount),
        }
    }

    async fn open(&self, call: &Call, kind: DisputeKind, amount: u128) -> Dispute {
        self.node.disputes.open(call, self.claim(kind, amount)).await.unwrap().value
    }

    fn owner(&self) -> Call {
        as_provider(self.store.owner)
    }

    fn consumer(&self, n: usize) -> Call {
        Call { request: None, ..self.store.call(n, "") }
    }

    async fn balance(&self, key: AccountKey) -> u128 {
        self.store.balance(key).await
    }
}

fn as_provider(id: ProviderId) -> Call {
    Call { principal: Principal::Provider(id), request: None, trace_id: "t".into() }
}

fn operator() -> Call {
    let id: OperatorId = Id::from_uuid(uuid::Uuid::from_u128(1));
    Call { principal: Principal::Operator(id), request: None, trace_id: "t".into() }
}

fn page(limit: usize, after: Option<Cursor>) -> PageRequest {
    PageRequest { limit, after }
}

#[tokio::test]
async fn a_contested_bill_is_held_and_goes_to_whom_the_operator_says_once() {
    for (decision, state) in
        [(Decision::Consumer, DisputeState::ForConsumer), (Decision::Provider, DisputeState::ForProvider)]
    {
        let desk = Desk::new().await;
        let consumer = AccountKey::Consumer(desk.store.consumers[0]);
        let provider = AccountKey::Provider(desk.store.owner);
        let before = (desk.balance(consumer).await, desk.balance(provider).await);
        let dispute = desk.open(&desk.consumer(0), DisputeKind::Billing, 1_000).await;
        assert_eq!(desk.balance(AccountKey::Held(dispute.id)).await, 1_000);
        assert_eq!(desk.held_in_escrow().await, ESCROW - 1_000);
        desk.store.check().await;

        let decided = desk.node.disputes.decide(&operator(), dispute.id, decision, "looked at it").await;
        assert_eq!(decided.unwrap().value.state, state);
        assert_eq!(desk.balance(AccountKey::Held(dispute.id)).await, 0);
        let after = (desk.balance(consumer).await, desk.balance(provider).await);
        // A payment bears the platform's fee of 2 %.
        let (to_consumer, to_provider) = if decision == Decision::Consumer { (1_000, 0) } else { (0, 980) };
        assert_eq!(after, (before.0 + to_consumer, before.1 + to_provider));
        let again = desk.node.disputes.decide(&operator(), dispute.id, Decision::Consumer, "again").await;
        assert_eq!(again.unwrap_err().code, ErrorCode::InvalidState);
        // A bill is no violation: nothing is restricted.
        assert!(desk.store.allocation(desk.allocation).await.restrictions.is_empty());
        desk.store.check().await;
    }
}

#[tokio::test]
async fn an_upheld_violation_forfeits_a_capped_part_and_makes_the_allocation_read_only() {
    let desk = Desk::new().await;
    let before = desk.balance(AccountKey::Provider(desk.store.owner)).await;
    let dispute = desk.open(&desk.owner(), DisputeKind::Violation, u128::MAX).await;
    let cap = ESCROW / 10;
    assert_eq!(dispute.held, Amount(cap), "a tenth of the escrow, whatever is claimed");
    assert_eq!(
        desk.store.allocation(desk.allocation).await.state,
        AllocationState::Active,
        "only once upheld"
    );
    desk.node.disputes.decide(&operator(), dispute.id, Decision::Provider, "upheld").await.unwrap();
    let allocation = desk.store.allocation(desk.allocation).await;
    assert_eq!(allocation.state, AllocationState::Restricted);
    assert_eq!(allocation.restrictions.into_iter().collect::<Vec<_>>(), [RestrictReason::Violation]);
    // A forfeit bears no fee.
    assert_eq!(desk.balance(AccountKey::Provider(desk.store.owner)).await, before + cap);
    desk.node.turn().await;
    assert_eq!(desk.store.provider.level(desk.allocation), Some(AccessLevel::ReadOnly));
    desk.store.check().await;
}

#[tokio::test]
async fn a_violation_that_is_not_upheld_costs_nothing() {
    let desk = Desk::new().await;
    let before = desk.balance(AccountKey::Consumer(desk.store.consumers[0])).await;
    let dispute = desk.open(&desk.owner(), DisputeKind::Violation, 500).await;
    desk.node.disputes.decide(&operator(), dispute.id, Decision::Consumer, "no proof").await.unwrap();
    let allocation = desk.store.allocation(desk.allocation).await;
    assert_eq!(allocation.state, AllocationState::Active);
    assert_eq!(desk.balance(AccountKey::Consumer(desk.store.consumers[0])).await, before + 500);
    desk.store.check().await;
}

#[tokio::test]
async fn an_upheld_violation_of_an_allocation_that_is_over_moves_money_only() {
    let desk = Desk::new().await;
    let dispute = desk.open(&desk.owner(), DisputeKind::Violation, 500).await;
    desk.node.allocations.close(&desk.consumer(0), desk.allocation).await.unwrap();
    desk.node.turn().await;
    desk.node.disputes.decide(&operator(), dispute.id, Decision::Provider, "upheld").await.unwrap();
    finish(&[&desk.node]).await;
    assert_eq!(desk.store.allocation(desk.allocation).await.state, AllocationState::Closed);
    desk.store.check_the_end().await;
}

#[tokio::test]
async fn without_a_decision_the_lower_figure_stands_after_72_hours() {
    let desk = Desk::new().await;
    let dispute = desk.open(&desk.consumer(0), DisputeKind::Metering, 300).await;
    desk.store.clock.advance(Micros(72 * 3_600_000_000 - 1));
    desk.node.turn().await;
    let open = desk.node.disputes.get(&operator(), dispute.id).await.unwrap();
    assert_eq!(open.state, DisputeState::Open);
    desk.store.clock.advance(Micros::from_secs(60));
    desk.node.turn().await;
    let lapsed = desk.node.disputes.get(&operator(), dispute.id).await.unwrap();
    assert_eq!(lapsed.state, DisputeState::Lapsed);
    assert_eq!(desk.balance(AccountKey::Held(dispute.id)).await, 0);
    let released = desk.store.transfers().await.into_iter().find(|t| t.debit == AccountKey::Held(dispute.id));
    assert_eq!(released.unwrap().credit, AccountKey::Consumer(desk.store.consumers[0]));
    desk.store.check().await;
}

#[tokio::test]
async fn disputes_are_seen_opened_and_decided_by_those_who_may_only() {
    let desk = Desk::new().await;
    let disputes = &desk.node.disputes;
    let stranger = desk.consumer(1);
    let other = as_provider(Id::from_uuid(uuid::Uuid::from_u128(99)));
    for call in [&stranger, &other] {
        let refused = disputes.open(call, desk.claim(DisputeKind::Billing, 1)).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotFound);
    }
    for (call, kind) in [(desk.consumer(0), DisputeKind::Violation), (desk.owner(), DisputeKind::Billing)] {
        let refused = disputes.open(&call, desk.claim(kind, 1)).await.unwrap_err();
        assert_eq!(refused.field.as_deref(), Some("kind"));
    }
    let refused = disputes.open(&desk.consumer(0), desk.claim(DisputeKind::Billing, 0)).await.unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("amount"));
    let wordless = OpenDispute { claim: " ".into(), ..desk.claim(DisputeKind::Billing, 1) };
    let refused = disputes.open(&desk.consumer(0), wordless).await.unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("claim"));

    let mut ids = Vec::new();
    for n in 1..=3 {
        ids.push(desk.open(&desk.consumer(0), DisputeKind::Billing, n).await.id);
        desk.store.clock.advance(Micros::from_millis(1));
    }
    for call in [&stranger, &other] {
        assert_eq!(disputes.get(call, ids[0]).await.unwrap_err().code, ErrorCode::NotFound);
        assert!(disputes.list(call, None, page(10, None)).await.unwrap().items.is_empty());
    }
    for call in [desk.consumer(0), desk.owner(), operator()] {
        // Newest first, page by page, each once.
        let Listing { items: first, next } =
            disputes.list(&call, Some(desk.allocation), page(2, None)).await.unwrap();
        let Listing { items: rest, next: end } =
            disputes.list(&call, Some(desk.allocation), page(2, next)).await.unwrap();
        let seen: Vec<_> = first.iter().chain(&rest).map(|dispute| dispute.id).collect();
        assert_eq!(seen, ids.iter().rev().copied().collect::<Vec<_>>());
        assert!(end.is_none());
    }
    for call in [desk.consumer(0), desk.owner()] {
        let refused = disputes.decide(&call, ids[0], Decision::Consumer, "mine").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Forbidden);
    }
    let refused = disputes.decide(&operator(), ids[0], Decision::Consumer, " ").await.unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("reason"));
    desk.store.check().await;
}

#[tokio::test]
async fn collateral_is_the_owners_and_stays_while_an_allocation_needs_it() {
    let desk = Desk::new().await;
    let accounts = &desk.node.accounts;
    let owner = desk.store.owner;
    let collateral = AccountKey::Collateral(owner);
    let posted = accounts.post_collateral(&desk.owner(), owner, Amount(700)).await.unwrap().value;
    assert_eq!((posted.debit, posted.credit), (AccountKey::Provider(owner), collateral));
    assert_eq!(desk.balance(collateral).await, 700);
    let other = as_provider(Id::from_uuid(uuid::Uuid::from_u128(99)));
    for (call, code) in [
        (other, ErrorCode::NotFound),
        (desk.consumer(0), ErrorCode::NotFound),
        (operator(), ErrorCode::Forbidden),
    ] {
        assert_eq!(accounts.post_collateral(&call, owner, Amount(1)).await.unwrap_err().code, code);
        assert_eq!(accounts.release_collateral(&call, owner, Amount(1)).await.unwrap_err().code, code);
    }
    let much = accounts.post_collateral(&desk.owner(), owner, Amount(FUNDS * 2)).await.unwrap_err();
    assert_eq!(much.code, ErrorCode::InsufficientFunds);
    let none = accounts.post_collateral(&desk.owner(), owner, Amount::ZERO).await.unwrap_err();
    assert_eq!(none.field.as_deref(), Some("amount"));
    let needed = accounts.release_collateral(&desk.owner(), owner, Amount(700)).await.unwrap_err();
    assert_eq!(needed.code, ErrorCode::InvalidState);
    assert_eq!(desk.balance(collateral).await, 700);

    finish(&[&desk.node]).await;
    let much = accounts.release_collateral(&desk.owner(), owner, Amount(701)).await.unwrap_err();
    assert_eq!(much.code, ErrorCode::InsufficientFunds);
    accounts.release_collateral(&desk.owner(), owner, Amount(700)).await.unwrap();
    assert_eq!(desk.balance(collateral).await, 0);
    desk.store.check().await;
}

#[tokio::test]
async fn transfers_come_page_by_page_each_once_and_to_their_owner_only() {
    let desk = Desk::new().await;
    let key = AccountKey::Consumer(desk.store.consumers[0]);
    for n in 0..5 {
        let call = desk.store.call(0, &format!("withdraw {n}"));
        desk.node.accounts.withdraw(&call, key, Amount(10 + n)).await.unwrap();
        // The same request again is the same movement.
        desk.node.accounts.withdraw(&call, key, Amount(10 + n)).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let found = desk.node.accounts.transfers(&desk.consumer(0), key, page(2, after)).await.unwrap();
        assert!(found.items.len() <= 2);
        seen.extend(found.items);
        match found.next {
            Some(cursor) => after = Some(cursor),
            None => break,
        }
    }
    let mut mine: Vec<_> = desk.store.transfers().await;
    mine.retain(|transfer| transfer.debit == key || transfer.credit == key);
    mine.sort_by_key(|transfer| std::cmp::Reverse(transfer.id));
    assert_eq!(seen.len(), 7, "a deposit, the escrow and five withdrawals");
    assert_eq!(seen, mine);
    let refused = desk.node.accounts.transfers(&desk.consumer(1), key, page(2, None)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);
    desk.store.check().await;
}
