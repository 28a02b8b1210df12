//! What happens on a good day: each key once, by nonce, and final in the end.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::join_all;
use orchestrator::{
    client::settlement::ethereum::{
        sender::{SenderReport, Status},
        signer::Policy,
    },
    core::{
        madara::{settlement::SettlementError, transaction::TransactionState},
        market::quantity::Micros,
    },
};

use super::world::{DEPTH, World, eventually, included, nothing};

#[tokio::test]
async fn a_key_is_sent_once_and_becomes_final() {
    let Some(world) = World::start().await else { return };
    let sender = world.sender().await;
    assert_eq!(sender.nonce().await.unwrap(), 0);
    sender.send("a", nothing(), None).await.unwrap();
    sender.send("a", nothing(), None).await.unwrap();
    let block = included(&sender, "a").await;
    assert_eq!((world.mined().await, sender.nonce().await.unwrap()), (1, 1));
    let other = sender.send("a", alloy::primitives::Bytes::from_static(b"other"), None).await;
    assert!(matches!(other, Err(SettlementError::Refused(_))), "{other:?}");
    assert_eq!(sender.tend().await.unwrap().open, 1);
    world.anvil.mine(DEPTH).await;
    assert_eq!(sender.status("a").await.unwrap(), Status::Final(block));
    // Once it is final, nobody asks the node any more.
    world.anvil.freeze();
    assert_eq!(sender.status("a").await.unwrap(), Status::Final(block));
    world.anvil.thaw();
    assert_eq!(sender.tend().await.unwrap(), SenderReport::default());
    let entry = world.entry("a").await.value;
    assert_eq!((entry.nonce, entry.method.as_str(), entry.attempts.len()), (0, "finalise", 1));
    let unknown = sender.status("b").await;
    assert!(matches!(unknown, Err(SettlementError::NoTransaction(_))), "{unknown:?}");
}

#[tokio::test]
async fn what_the_contract_refuses_is_not_signed_and_says_why() {
    let Some(world) = World::start().await else { return };
    let sender = world.sender().await;
    use alloy::sol_types::SolCall as _;
    use orchestrator::client::settlement::ethereum::abi::Settlement;
    let publish = Settlement::publishCall { number: 1, part: 0 }.abi_encode();
    match sender.send("p", publish.clone().into(), None).await {
        Err(SettlementError::Refused(reason)) => assert!(reason.contains("NoBlobs"), "{reason}"),
        other => panic!("{other:?}"),
    }
    // What is not there yet may come.
    let early = Settlement::finaliseCall { number: 3 }.abi_encode();
    let early = sender.send("f", early.into(), None).await.unwrap_err();
    assert!(early.retryable(), "{early:?}");
    let deposit = Settlement::depositCall { owner: world.contract, name: "x".into(), amount: 1 };
    assert!(sender.send("d", deposit.abi_encode().into(), None).await.is_err());
    assert_eq!((world.mined().await, sender.nonce().await.unwrap()), (0, 0));
    let bond = Settlement::postBondCall { amount: 5 }.abi_encode();
    assert!(matches!(sender.send("bond", bond.into(), None).await, Err(SettlementError::Refused(_))));
}

#[tokio::test]
async fn another_chain_is_refused() {
    let Some(world) = World::start().await else { return };
    let policy = Policy { chain: 1, ..world.policy() };
    match world.sender_with(policy, Micros::from_secs(5)).await {
        Err(SettlementError::Refused(reason)) => assert!(reason.contains("31337"), "{reason}"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[tokio::test]
async fn two_replicas_with_one_key_never_share_a_nonce() {
    let Some(world) = World::start().await else { return };
    let replicas = [world.sender().await, world.sender().await];
    let keys: Vec<String> = (0..8).map(|n| format!("k{n}")).collect();
    let calls = replicas.iter().enumerate().flat_map(|(who, sender)| {
        // Half of the keys are asked for by both.
        keys.iter().filter(move |key| who == 0 || key.as_str() > "k3").map(move |key| {
            let sender = Arc::clone(sender);
            async move { sender.send(key, nothing(), None).await }
        })
    });
    let more = ["l0", "l1", "l2"].map(|key| {
        let sender = Arc::clone(&replicas[1]);
        async move { sender.send(key, nothing(), None).await }
    });
    for answer in join_all(calls).await.into_iter().chain(join_all(more).await) {
        // Who looks while the other one writes is told to look again.
        assert!(answer.as_ref().map_or_else(SettlementError::retryable, |_| true), "{answer:?}");
    }
    let keys: Vec<_> = keys.iter().map(String::as_str).chain(["l0", "l1", "l2"]).collect();
    eventually("all are mined", async || {
        let _ = replicas[0].tend().await;
        world.mined().await == keys.len() as u64
    })
    .await;
    world.anvil.mine(DEPTH).await;
    let mut nonces = BTreeSet::new();
    for key in &keys {
        assert!(matches!(replicas[1].status(key).await.unwrap(), Status::Final(_)), "{key}");
        let entry = world.entry(key).await.value;
        assert!(matches!(entry.state, TransactionState::Final { .. }));
        nonces.insert(entry.nonce);
    }
    assert_eq!(nonces.into_iter().collect::<Vec<_>>(), (0..keys.len() as u64).collect::<Vec<_>>());
    assert_eq!(world.mined().await, keys.len() as u64);
}
