//! Promise 5: two processes over one database, at work at the same time, with a provider that loses answers. No effect takes
//! hold twice.

use std::sync::atomic::{AtomicBool, Ordering};

use orchestrator::{
    client::provider::ScriptedFault,
    core::{
        client::database::Changeset,
        market::{
            account::{AccountKey, TransferKind},
            credential::Permissions,
            money::Amount,
            terms::DomainId,
        },
    },
    service::{
        access::IssueCredential,
        ledger::{LedgerDraft, Posting},
        work::Draft,
    },
};

use super::world::{FUNDS, Store, finish};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_effect_takes_hold_twice_however_many_replicas_try() {
    let store = Store::new(9, 2).await;
    let (one, two) = (store.node(), store.node());
    for call in ["allocate", "issue_credential", "restrict", "deallocate"] {
        for fault in [ScriptedFault::LostAnswer, ScriptedFault::Timeout, ScriptedFault::Unavailable] {
            store.provider.script(call, fault);
        }
    }
    let mut made = Vec::new();
    for n in 0..6 {
        let call = store.call(n % 2, &format!("reserve {n}"));
        // The same request reaches both replicas at once.
        let (a, b) = tokio::join!(
            one.allocations.reserve(&call, store.request(n % 2)),
            two.allocations.reserve(&call, store.request(n % 2)),
        );
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!(a.value.id, b.value.id);
        assert!(a.replayed.is_some() != b.replayed.is_some(), "one of them made it");
        let call = store.call(n % 2, &format!("fund {n}"));
        let (a, b) =
            tokio::join!(one.allocations.fund(&call, a.value.id), two.allocations.fund(&call, b.value.id),);
        made.push(a.unwrap().value.id);
        b.unwrap();
    }
    for _ in 0..20 {
        tokio::join!(one.turn(), two.turn());
        store.clock.advance(orchestrator::core::market::quantity::Micros::from_secs(20));
    }
    let wanted = IssueCredential { permissions: Permissions::ReadWrite, expires_at: None };
    for (n, id) in made.iter().enumerate() {
        let call = store.call(n % 2, &format!("issue {n}"));
        let (a, b) = tokio::join!(
            one.credentials.issue(&call, *id, wanted),
            two.credentials.issue(&call, *id, wanted),
        );
        assert_eq!(a.unwrap().credential.id, b.unwrap().credential.id);
    }
    for _ in 0..20 {
        tokio::join!(one.turn(), two.turn());
        store.clock.advance(orchestrator::core::market::quantity::Micros::from_secs(20));
    }
    for (n, id) in made.iter().enumerate() {
        store.used(*id, 1 << 28);
        let call = store.call(n % 2, &format!("close {n}"));
        let (a, b) = tokio::join!(one.allocations.close(&call, *id), two.allocations.close(&call, *id));
        a.unwrap();
        b.unwrap();
    }
    finish(&[&one, &two]).await;
    store.check_the_end().await;
    for id in &made {
        for effect in ["allocate", "put_key", "deallocate"] {
            assert_eq!(store.provider.effects(*id, effect), 1, "{effect}");
        }
    }
    let mut keys: Vec<String> =
        store.transfers().await.into_iter().map(|transfer| transfer.idempotency_key).collect();
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count, "a movement of money happened twice");
    assert!(store.balance(AccountKey::Provider(store.owner)).await > FUNDS);
}

/// Between its look for the marker and its commit, a request may be carried out by another replica: then it is answered from
/// what the other one left.
#[tokio::test]
async fn a_request_that_another_replica_was_faster_with_is_answered_from_its_marker() {
    let store = Store::new(10, 1).await;
    let (one, two) = (store.node(), store.node());
    let (call, key) = (store.call(0, "withdraw"), AccountKey::Consumer(store.consumers[0]));
    let raced = AtomicBool::new(false);
    let compute = || async {
        if !raced.swap(true, Ordering::SeqCst) {
            two.accounts.withdraw(&call, key, Amount(5)).await?;
        }
        let mut draft = LedgerDraft::new(one.work.reader.as_ref(), &one.work.ids, DomainId::local());
        draft
            .post(Posting {
                kind: TransferKind::Withdraw,
                debit: key,
                credit: key,
                amount: Amount(5),
                idempotency_key: format!("withdraw:{}", call.request.as_ref().unwrap().id),
                subject: key.to_string(),
            })
            .await?;
        let transfer = draft.transfers()[0].clone();
        let mut changes = Changeset::new();
        draft.finish(&mut changes);
        Ok(Draft::new(changes, transfer))
    };
    let answer = one.work.run(&call, "account.withdraw", compute).await.unwrap();
    assert!(answer.replayed.is_some());
    assert_eq!(store.balance(key).await, FUNDS - 5);
}
