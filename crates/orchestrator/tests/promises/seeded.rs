//! Seeded runs of a whole market under faults, until all is over.

use orchestrator::{
    client::provider::ScriptedFault,
    core::{
        client::clock::Entropy,
        market::{
            allocation::AllocationState,
            block::Hash32,
            credential::Permissions,
            ids::AllocationId,
            quantity::{Bytes, Micros},
        },
    },
    service::{access::IssueCredential, allocation::Target},
};

use super::world::{Node, Store, finish, is_ordinary};

/// A generator of the test's own, so that its choices do not depend on how much chance the market uses.
struct Dice(orchestrator::client::clock::SeededEntropy);

impl Dice {
    fn roll(&self, sides: usize) -> usize {
        let mut bytes = [0_u8; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % sides as u64).unwrap()
    }
}

const FAULTS: [ScriptedFault; 4] =
    [ScriptedFault::Unavailable, ScriptedFault::LostAnswer, ScriptedFault::Timeout, ScriptedFault::Refused];
const CALLS: [&str; 6] =
    ["allocate", "deallocate", "issue_credential", "revoke_credential", "restrict", "usage"];

async fn step(node: &Node, dice: &Dice, n: usize, made: &mut Vec<AllocationId>) {
    let store = &node.store;
    let who = dice.roll(store.consumers.len());
    let call = store.call(who, &format!("step {n}"));
    let one = (!made.is_empty()).then(|| made[dice.roll(made.len())]);
    let refused = |error: orchestrator::error::Error| assert!(is_ordinary(&error), "{error:?}");
    match (dice.roll(12), one) {
        (0..=2, _) | (_, None) => {
            let mut request = store.request(dice.roll(2));
            request.bytes = Bytes(request.bytes.0 * (1 + dice.roll(2) as u64));
            if dice.roll(4) == 0 {
                request.target = Target::Best(Default::default());
            }
            match node.allocations.reserve(&call, request).await {
                Ok(answer) => made.push(answer.value.id),
                Err(error) => refused(error),
            }
        }
        (3..=5, Some(id)) => node.allocations.fund(&call, id).await.map(drop).unwrap_or_else(refused),
        (6, Some(id)) => node.allocations.cancel(&call, id).await.map(drop).unwrap_or_else(refused),
        (7, Some(id)) => node.allocations.close(&call, id).await.map(drop).unwrap_or_else(refused),
        (8, Some(id)) => {
            let wanted = IssueCredential { permissions: Permissions::ReadWrite, expires_at: None };
            node.credentials.issue(&call, id, wanted).await.map(drop).unwrap_or_else(refused);
        }
        (9, Some(id)) => {
            store.used(id, dice.roll(1 << 30) as u64);
            let call = CALLS[dice.roll(CALLS.len())];
            store.provider.script(call, FAULTS[dice.roll(FAULTS.len())]);
        }
        (10, _) => store.clock.advance(Micros::from_secs(60 * (1 + dice.roll(600) as u64))),
        _ => node.turn().await,
    }
}

/// A run of so many steps; answers what became of it.
pub async fn play(seed: u64, steps: usize) -> (Vec<AllocationState>, Vec<Hash32>, Vec<u128>) {
    let store = Store::new(seed, 3).await;
    let node = store.node();
    let dice = Dice(orchestrator::client::clock::SeededEntropy::new(seed ^ 0xD1CE));
    let mut made = Vec::new();
    for n in 0..steps {
        step(&node, &dice, n, &mut made).await;
        store.check().await;
    }
    store.provider.forgive();
    finish(&[&node]).await;
    store.check_the_end().await;
    let mut money = Vec::new();
    for consumer in &store.consumers {
        money.push(store.balance(orchestrator::core::market::account::AccountKey::Consumer(*consumer)).await);
    }
    let states = store.allocations().await.into_iter().map(|a| a.state).collect();
    let roots = store.blocks().await.into_iter().map(|block| block.header.state_root).collect();
    (states, roots, money)
}

/// Promise 1: capacity, money and ends, looked at after every step of many different runs.
#[tokio::test]
async fn whatever_happens_nothing_is_oversold_money_is_conserved_and_everything_ends() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..12 {
        let (states, ..) = play(seed, 60).await;
        seen.extend(states);
    }
    // The runs are worth something only if they reach every end.
    for end in [
        AllocationState::Closed,
        AllocationState::Cancelled,
        AllocationState::Expired,
        AllocationState::Failed,
    ] {
        assert!(seen.contains(&end), "{end:?} was never reached");
    }
}

/// Promise 3.
#[tokio::test]
async fn the_same_seed_gives_the_same_state_roots() {
    let first = play(77, 80).await;
    let again = play(77, 80).await;
    assert!(first.1.len() >= 2, "there are blocks to compare");
    assert_eq!(first, again);
    assert_ne!(first.1, play(78, 80).await.1, "another seed is another run");
}
