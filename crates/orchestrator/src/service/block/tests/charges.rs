//! The parts of a period's charge are sealed together, whatever else is sealed and wherever a page of markers ends.

use super::*;
use crate::core::market::ids::ProviderId;

/// Consumer, provider with collateral, and an allocation's escrow with 10,000 in it.
struct Parties {
    consumer: AccountKey,
    provider: AccountKey,
    collateral: AccountKey,
    escrow: AccountKey,
}

impl World {
    async fn parties(&self, n: u128) -> Parties {
        let consumer = AccountKey::Consumer(self.consumer(20_000).await);
        let id: ProviderId = self.work.ids.next();
        let (provider, collateral) = (AccountKey::Provider(id), AccountKey::Collateral(id));
        let escrow = AccountKey::Escrow(Id::from_uuid(uuid::Uuid::from_u128(n)));
        let key = |what: &str| format!("{what} {n}");
        self.post(TransferKind::Refund, consumer, provider, 5_000, &key("in")).await.unwrap();
        self.post(TransferKind::CollateralPost, provider, collateral, 1_000, &key("post")).await.unwrap();
        self.post(TransferKind::Fund, consumer, escrow, 10_000, &key("fund")).await.unwrap();
        Parties { consumer, provider, collateral, escrow }
    }

    /// A charge as `post_charge` posts it: the amounts of payment, fee, credit and slash.
    async fn charge(&self, of: &Parties, period: &str, amounts: [u128; 4]) {
        let mut draft = LedgerDraft::new(self.db.as_ref(), &self.work.ids, DomainId::local());
        let parts = [
            (TransferKind::Payment, of.escrow, of.provider, "payment"),
            (TransferKind::Fee, of.escrow, AccountKey::Fees, "fee"),
            (TransferKind::Credit, of.provider, of.consumer, "credit"),
            (TransferKind::Slash, of.collateral, of.consumer, "slash"),
        ];
        for ((kind, debit, credit, what), amount) in parts.into_iter().zip(amounts) {
            let idempotency_key = format!("{what}:{period}");
            let (amount, subject) = (Amount(amount), "t".to_owned());
            draft.post(Posting { kind, debit, credit, amount, idempotency_key, subject }).await.unwrap();
        }
        let mut changes = Changeset::new();
        draft.finish(&mut changes);
        self.db.commit(changes).await.unwrap();
    }

    async fn waiting(&self) -> (u64, u64) {
        let count = |collection| self.db.count(collection, Filter::All);
        (count(schema::UNSEALED).await.unwrap(), count(schema::QUARANTINED).await.unwrap())
    }
}

#[tokio::test]
async fn they_stand_together_wherever_a_page_ends() {
    for batch in 1..=9 {
        let w = world_of(1, BlockSettings { batch, ..BlockSettings::default() }, |db| db);
        let (a, b) = (w.parties(1).await, w.parties(2).await);
        // All of what was paid goes back, the fee out of the collateral; between the charges, money of the same accounts moves.
        for period in 0..4 {
            w.charge(&a, &format!("a/{period}"), [98, 2, 98, 2]).await;
            w.post(TransferKind::Withdraw, a.consumer, a.consumer, 1, &format!("w{period}")).await.unwrap();
            w.charge(&b, &format!("b/{period}"), [50, 1, 5, 0]).await;
            w.post(TransferKind::Penalty, b.collateral, b.consumer, 7, &format!("p{period}")).await.unwrap();
        }
        for _ in 0..60 {
            w.run(5).await;
        }
        assert_eq!(w.waiting().await, (0, 0), "pages of {batch}");
        assert!(w.accounts.audit(&Call::system("t"), &DomainId::local()).await.unwrap().balanced);
        assert!(verify_ledger(&w.settlement, &w.da).await.unwrap().holds());
    }
}

#[tokio::test]
async fn what_repeated_breaches_cost_was_a_slash_once_and_is_sealed_all_the_same() {
    let w = world(2);
    let a = w.parties(1).await;
    w.post(TransferKind::Slash, a.collateral, a.consumer, 7, "repeated:a/0").await.unwrap();
    w.run(5).await;
    assert_eq!(w.waiting().await, (0, 0));
    assert!(verify_ledger(&w.settlement, &w.da).await.unwrap().holds());
}

#[tokio::test]
async fn one_that_is_wrong_is_set_aside_and_put_back_as_a_whole() {
    let w = world(3);
    let a = w.parties(1).await;
    w.run(5).await;
    // The stored balance is made to lie, so that a payment passes which the committed state refuses.
    let id = crate::core::market::account::Account::id_of(&DomainId::local(), &a.escrow);
    let mut stored = w.db.load::<crate::core::market::account::Account>(&id).await.unwrap().unwrap();
    stored.value.balance = Amount(1_000_000);
    let mut changes = Changeset::new();
    changes.replace(stored.version, &stored.value);
    w.db.commit(changes).await.unwrap();
    w.charge(&a, "a/0", [20_000, 2, 90, 2]).await;
    w.run(5).await;
    assert_eq!(w.waiting().await, (0, 4), "all four parts");
    let desk = BlockService::new(w.work.clone(), w.ports.store.clone());
    let page = crate::service::page::PageRequest::default();
    let held = desk.quarantined(&operator(), &DomainId::local(), page).await.unwrap().items;
    for item in &held {
        // Any part brings the others back with it; unmended, they are set aside again.
        desk.retry(&operator(), &item.marker.id).await.unwrap();
        assert_eq!(w.waiting().await, (4, 0));
        w.run(5).await;
        assert_eq!(w.waiting().await, (0, 4));
    }
    let payment = held.iter().map(|item| item.marker.id.clone());
    for id in payment {
        let mut transfer = w.db.load::<Transfer>(&id).await.unwrap().unwrap();
        if transfer.value.kind == TransferKind::Payment {
            transfer.value.amount = Amount(98);
            let mut changes = Changeset::new();
            changes.replace(transfer.version, &transfer.value);
            w.db.commit(changes).await.unwrap();
        }
    }
    desk.retry(&operator(), &held[3].marker.id).await.unwrap();
    w.run(5).await;
    assert_eq!(w.waiting().await, (0, 0));
    assert!(verify_ledger(&w.settlement, &w.da).await.unwrap().holds());
}
