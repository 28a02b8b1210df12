//! What happens on a bad day: crashes, lost and stuck transactions, blocks that go, dear times, a node that is away.

use std::sync::{Arc, atomic::AtomicBool};

use orchestrator::{
    client::settlement::ethereum::{fees::Caps, node::Finality, sender::Status, signer::Policy},
    core::{
        madara::{settlement::SettlementError, transaction::TransactionState},
        market::quantity::Micros,
    },
};
use serde_json::json;

use super::world::{DEPTH, KilledBehindCommit, PATIENCE, World, included, nothing};

#[tokio::test]
async fn killed_between_journal_and_node_it_is_sent_once() {
    let Some(world) = World::start().await else { return };
    let committer = KilledBehindCommit { database: world.database.clone(), armed: AtomicBool::new(true) };
    let mortal = world.sender_over(world.policy(), Micros::from_secs(5), Arc::new(committer)).await.unwrap();
    let killed = mortal.send("a", nothing(), None).await.unwrap_err();
    assert!(killed.retryable());
    drop(mortal);
    assert_eq!(world.mined().await, 0);
    let journalled = world.entry("a").await.value;
    assert_eq!(journalled.state, TransactionState::Prepared);
    // The next process sends the very transaction of the journal, even if nobody asks for the key again.
    let sender = world.sender().await;
    assert_eq!(sender.tend().await.unwrap().open, 1);
    included(&sender, "a").await;
    assert_eq!(world.mined().await, 1);
    assert_eq!(sender.hashes("a").await.unwrap(), [journalled.attempts[0].hash]);
}

#[tokio::test]
async fn what_the_node_forgot_is_sent_again() {
    let Some(world) = World::start().await else { return };
    let world = world.by_hand().await;
    let sender = world.sender().await;
    assert_eq!(sender.send("a", nothing(), None).await.unwrap(), Status::Pending);
    world.drop_waiting("a").await;
    world.anvil.mine(1).await;
    assert_eq!(world.mined().await, 0);
    assert_eq!(sender.status("a").await.unwrap(), Status::Pending);
    world.anvil.mine(1).await;
    included(&sender, "a").await;
    assert_eq!((world.mined().await, sender.hashes("a").await.unwrap().len()), (1, 1));
}

#[tokio::test]
async fn what_is_stuck_is_bumped_with_its_nonce() {
    let Some(world) = World::start().await else { return };
    let world = world.by_hand().await;
    let sender = world.sender().await;
    sender.send("a", nothing(), None).await.unwrap();
    sender.send("b", nothing(), None).await.unwrap();
    sender.status("a").await.unwrap();
    assert_eq!(sender.hashes("a").await.unwrap().len(), 1);
    world.clock.advance(PATIENCE);
    sender.tend().await.unwrap();
    // Only the next in line: the other one waits for it.
    assert_eq!(sender.hashes("b").await.unwrap().len(), 1);
    let entry = world.entry("a").await.value;
    let [first, second] = entry.attempts.as_slice() else { panic!("{entry:?}") };
    assert_eq!((first.nonce, second.nonce), (0, 0));
    assert!(second.gas_fee.0 * 10 >= first.gas_fee.0 * 11 && second.tip.0 * 10 >= first.tip.0 * 11);
    world.anvil.mine(1).await;
    included(&sender, "a").await;
    included(&sender, "b").await;
    assert_eq!(world.mined().await, 2);
}

#[tokio::test]
async fn a_gap_before_a_transaction_is_closed() {
    let Some(world) = World::start().await else { return };
    let world = world.by_hand().await;
    let sender = world.sender().await;
    for key in ["a", "b", "c"] {
        sender.send(key, nothing(), None).await.unwrap();
    }
    world.drop_waiting("a").await;
    // Whoever asks for a later one sees to the earlier ones.
    sender.status("c").await.unwrap();
    world.anvil.mine(1).await;
    included(&sender, "c").await;
    assert_eq!(world.mined().await, 3);

    // One that nobody wants any more gives its nonce to nothing.
    sender.send("d", nothing(), None).await.unwrap();
    sender.send("e", nothing(), None).await.unwrap();
    world.drop_waiting("d").await;
    assert_eq!(sender.abandon("d").await.unwrap(), Status::Pending);
    // Anvil forgets what stood behind it, too.
    sender.tend().await.unwrap();
    world.anvil.mine(1).await;
    included(&sender, "e").await;
    assert_eq!(sender.status("d").await.unwrap(), Status::Pending);
    world.anvil.mine(DEPTH).await;
    assert_eq!(sender.status("d").await.unwrap(), Status::Abandoned);
    assert_eq!((world.mined().await, world.entry("d").await.value.state), (5, TransactionState::Abandoned));

    // A nonce that the journal knows nothing of, as after it was restored.
    use orchestrator::core::{
        client::database::{Changeset, Committer as _, ReaderExt as _, Stored},
        madara::transaction::ChainSigner,
    };
    let signer: Stored<ChainSigner> = world
        .database
        .load(&ChainSigner::id_of(&world.entry("a").await.value.signer))
        .await
        .unwrap()
        .unwrap();
    let mut changes = Changeset::new();
    changes.replace(signer.version, &ChainSigner { next: signer.value.next + 2, ..signer.value });
    world.database.commit(changes).await.unwrap();
    sender.send("f", nothing(), None).await.unwrap();
    assert_eq!(world.entry("f").await.value.nonce, 7);
    sender.status("f").await.unwrap();
    world.anvil.mine(1).await;
    included(&sender, "f").await;
}

#[tokio::test]
async fn what_is_there_for_good_is_what_the_chains_own_tags_say() {
    let Some(mut world) = World::start().await else { return };
    for (tag, finality) in [("safe", Finality::Safe), ("finalized", Finality::Finalized)] {
        world.finality = Some(finality);
        let sender = world.sender().await;
        sender.send(tag, nothing(), None).await.unwrap();
        let block = included(&sender, tag).await;
        let mut looks = [0, 0];
        while looks[1] == 0 {
            assert!(looks[0] < 40, "`{tag}` never comes to block {block}");
            let reached = world.anvil.ask("eth_getBlockByNumber", json!([tag, false])).await;
            let number = reached["number"].as_str().unwrap().trim_start_matches("0x");
            let there = u64::from_str_radix(number, 16).unwrap() >= block;
            let said = sender.status(tag).await.unwrap();
            assert_eq!(said, if there { Status::Final(block) } else { Status::Included(block) }, "{tag}");
            looks[usize::from(there)] += 1;
            world.anvil.mine(8).await;
        }
        assert!(looks[0] > 0, "`{tag}` waits for nothing");
    }
}

#[tokio::test]
async fn a_reorganisation_without_the_transaction_sends_it_again() {
    let Some(world) = World::start().await else { return };
    let sender = world.sender().await;
    sender.send("a", nothing(), None).await.unwrap();
    included(&sender, "a").await;
    let before = world.entry("a").await.value;
    let world = world.by_hand().await;
    world.anvil.ask("anvil_reorg", json!([1, []])).await;
    assert_eq!(world.mined().await, 0);
    assert_eq!(sender.status("a").await.unwrap(), Status::Pending);
    assert_eq!(world.entry("a").await.value.state, TransactionState::Sent);
    world.anvil.mine(1).await;
    included(&sender, "a").await;
    world.anvil.mine(DEPTH).await;
    assert!(matches!(sender.status("a").await.unwrap(), Status::Final(_)));
    assert_eq!(world.mined().await, 1);
    assert_eq!(world.entry("a").await.value.attempts, before.attempts);
}

#[tokio::test]
async fn a_reorganisation_with_the_transaction_moves_it() {
    let Some(world) = World::start().await else { return };
    let sender = world.sender().await;
    sender.send("a", nothing(), None).await.unwrap();
    included(&sender, "a").await;
    let before = world.entry("a").await.value;
    let raw = format!("0x{}", before.attempts[0].raw);
    world.anvil.mine(1).await;
    world.anvil.ask("anvil_reorg", json!([2, [[raw, 1]]])).await;
    let block = included(&sender, "a").await;
    let TransactionState::Included { block: was, hash, .. } = before.state else { panic!() };
    assert_eq!(block, was + 1);
    let moved = TransactionState::Included { block, hash, reverted: None };
    assert_ne!(world.entry("a").await.value.state, moved, "the same hash");
    world.anvil.mine(DEPTH).await;
    assert_eq!(sender.status("a").await.unwrap(), Status::Final(block));
    assert_eq!((world.mined().await, sender.hashes("a").await.unwrap().len()), (1, 1));
}

#[tokio::test]
async fn in_dear_times_it_offers_what_the_caps_allow_then_pauses_and_goes_on() {
    let Some(world) = World::start().await else { return };
    let world = world.by_hand().await;
    world.anvil.base_fee(1_000_000_000).await;
    world.anvil.mine(1).await;
    let caps = Caps { gas: 20_000_000_000, blob: 1 };
    let policy = Policy { caps, ..world.policy() };
    let sender = world.sender_with(policy, Micros::from_secs(5)).await.unwrap();
    sender.send("a", nothing(), None).await.unwrap();
    world.anvil.base_fee(100_000_000_000).await;
    world.anvil.mine(1).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        world.clock.advance(PATIENCE);
        statuses.push(sender.status("a").await.unwrap());
    }
    assert!(matches!(statuses.last(), Some(Status::Paused(_))), "{statuses:?}");
    let report = sender.tend().await.unwrap();
    assert_eq!((report.open, report.paused.len()), (1, 1));
    assert_eq!(world.entry("a").await.value.attempts.last().unwrap().gas_fee.0, caps.gas);
    // Times get better: it goes on by itself.
    world.anvil.base_fee(1_000_000_000).await;
    world.anvil.mine(1).await;
    sender.tend().await.unwrap();
    world.anvil.mine(1).await;
    included(&sender, "a").await;
    assert_eq!(world.mined().await, 1);
}

#[tokio::test]
async fn while_the_node_is_away_nothing_is_lost() {
    let Some(world) = World::start().await else { return };
    let sender = world.sender().await;
    let hasty = world.sender_with(world.policy(), Micros::from_secs(1)).await.unwrap();
    sender.send("a", nothing(), None).await.unwrap();
    world.anvil.freeze();
    let away = hasty.send("b", nothing(), None).await.unwrap_err();
    assert!(matches!(away, SettlementError::Unavailable(_)), "{away:?}");
    assert!(hasty.status("a").await.unwrap_err().retryable());
    world.anvil.thaw();
    sender.send("b", nothing(), None).await.unwrap();
    for key in ["a", "b"] {
        included(&sender, key).await;
    }
    assert_eq!(world.mined().await, 2);
}
