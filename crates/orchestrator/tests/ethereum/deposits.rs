//! Deposits: each once, in order, after its confirmations, whatever the chain does.

use orchestrator::{
    client::settlement::ethereum::{EthereumSettlement, deposits::LogSettings, oracles::Oracles},
    core::{
        madara::settlement::{SettlementClient as _, SettlementError},
        market::{account::AccountKey, block::Hash32, ids::Id, state::header::genesis_root, terms::DomainId},
    },
};
use serde_json::json;

use super::world::{OWNER, USER, World, domain};

fn account(n: u128) -> AccountKey {
    AccountKey::Consumer(Id::from_uuid(uuid::Uuid::from_u128(n)))
}

async fn connect(
    world: &World,
    domain: DomainId,
    settings: LogSettings,
) -> Result<EthereumSettlement, SettlementError> {
    let parties = (OWNER.parse().unwrap(), Oracles::new(31_337, world.contract, None));
    EthereumSettlement::connect(domain, world.sender().await, settings, parties).await
}

#[tokio::test]
async fn deposits_come_once_and_in_order_through_a_reorganisation() {
    let Some(world) = World::start().await else { return };
    let settings = LogSettings { from_block: 1, log_range: 2, confirmations: 3 };
    let layer = connect(&world, domain(), settings).await.unwrap();
    assert!(layer.deposits(0, 10).await.unwrap().is_empty());
    world.fund(1_000).await;
    for n in 1..=3 {
        world.deposit(&account(n).to_string(), n * 10).await;
    }
    let seen = layer.deposits(0, 10).await.unwrap();
    let shown: Vec<_> = seen.iter().map(|d| (d.index, d.account, d.amount.0, d.confirmed)).collect();
    assert_eq!(shown, [(1, account(1), 10, false), (2, account(2), 20, false), (3, account(3), 30, false)]);
    assert_eq!(layer.deposits(0, 2).await.unwrap().len(), 2);
    world.anvil.mine(2).await;
    let confirmed: Vec<_> = layer.deposits(0, 10).await.unwrap().iter().map(|d| d.confirmed).collect();
    assert_eq!(confirmed, [true, true, false]);
    assert_eq!(layer.deposits(1, 10).await.unwrap().first().unwrap().index, 2);
    // The last one goes, and another comes in its place.
    world.anvil.ask("anvil_reorg", json!([3, []])).await;
    assert_eq!(layer.deposits(2, 10).await.unwrap(), []);
    world.deposit(&account(9).to_string(), 90).await;
    world.anvil.mine(3).await;
    let seen = layer.deposits(2, 10).await.unwrap();
    let shown: Vec<_> = seen.iter().map(|d| (d.index, d.account, d.amount.0, d.confirmed)).collect();
    assert_eq!(shown, [(3, account(9), 90, true)]);
    assert!(seen[0].at.0 > 1_600_000_000_000_000, "{:?}", seen[0].at);
    // What is for no account of the market comes all the same, so that it holds nobody up.
    world.deposit("what is this", 5).await;
    let last = layer.deposits(2, 10).await.unwrap().pop().unwrap();
    assert!(matches!((last.index, last.account), (4, AccountKey::Unclaimed(_))), "{last:?}");
    assert_eq!(last.owner, Some(USER.parse().unwrap()));
}

#[tokio::test]
async fn a_new_contract_has_settled_the_empty_state() {
    let Some(world) = World::start().await else { return };
    let settings = LogSettings { from_block: 1, log_range: 1_000, confirmations: 3 };
    let layer = connect(&world, domain(), settings).await.unwrap();
    let last = layer.last_settled().await.unwrap();
    assert_eq!((last.number, last.hash, last.is_final), (0, Hash32::default(), true));
    assert_eq!(last.state_root, genesis_root(&domain()));
    assert_eq!(layer.nonce().await.unwrap(), 0);
    let other = connect(&world, DomainId::local(), settings).await;
    assert!(matches!(other, Err(SettlementError::Refused(_))));
}
