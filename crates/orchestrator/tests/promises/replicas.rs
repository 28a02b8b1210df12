//! Promise 5: two processes over one database, at work at the same time, with a provider that loses answers. No effect takes
//! hold twice.

use orchestrator::{
    client::provider::ScriptedFault,
    core::market::{account::AccountKey, credential::Permissions},
    service::access::IssueCredential,
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
