//! Blocks as blobs: published once, fetched back equal, and not lost with the process that published them.

use std::sync::Arc;

use orchestrator::{
    client::{
        da::ethereum::{Beacon, BlockIds, DaSettings, EthereumDa, Reference},
        settlement::ethereum::sender::Sender,
    },
    core::{
        madara::da::{DaClient as _, DaError},
        market::{
            quantity::Micros,
            state::{Record, encode_records},
        },
    },
};

use super::world::{DEPTH, PATIENCE, World, domain, eventually};

const POLL: Micros = Micros::from_millis(10);

fn layer(world: &World, sender: Arc<Sender>) -> EthereumDa {
    let beacon = Beacon::new(&world.anvil.url, BlockIds::Numbers, Micros::from_secs(10)).unwrap();
    let settings = DaSettings { from_block: 1, log_range: 1_000, poll: POLL };
    EthereumDa::new(domain(), sender, beacon, settings)
}

fn data(number: u64, count: u32) -> Vec<u8> {
    let record = |i| Record::Transfer { kind: 5, from: i, to: i + 1, amount: u128::from(i) << 60 };
    encode_records(number, &(0..count).map(record).collect::<Vec<_>>())
}

fn waits(answer: Result<bool, DaError>) {
    assert!(matches!(answer, Err(DaError::Deferred(POLL))), "{answer:?}");
}

#[tokio::test]
async fn a_block_of_several_parts_is_published_once_and_comes_back_equal() {
    let Some(world) = World::start().await else { return };
    let da = layer(&world, world.sender().await);
    // Seven blobs: two transactions.
    let large = data(1, 6 * 4096 + 5);
    let reference = da.publish_state_diff(&domain(), 1, &large).await.unwrap();
    assert_eq!(da.publish_state_diff(&domain(), 1, &large).await.unwrap(), reference);
    eventually("both parts are mined", async || world.mined().await == 2).await;
    waits(da.verify_inclusion(&reference).await);
    world.anvil.mine(DEPTH).await;
    assert!(da.verify_inclusion(&reference).await.unwrap());
    assert_eq!(da.fetch(&reference).await.unwrap(), large);
    da.validate(&reference, &large).await.unwrap();
    assert!(matches!(da.validate(&reference, &data(1, 3)).await, Err(DaError::Mismatch(_))));
    let parsed: Reference = reference.parse().unwrap();
    assert_eq!((parsed.hashes.len(), da.commitment(&reference).unwrap()), (7, parsed.commitment()));
    // Somebody without the journal, and with a signer of no matter, sees the same.
    let other = World { database: orchestrator::client::db::memory::MemoryDatabase::with_schema(), ..world };
    let stranger = layer(&other, other.sender().await);
    assert!(stranger.verify_inclusion(&reference).await.unwrap());
    assert_eq!(stranger.fetch(&reference).await.unwrap(), large);

    // A block without records needs no blobs.
    let empty = da.publish_state_diff(&domain(), 2, &data(2, 0)).await.unwrap();
    assert!(da.verify_inclusion(&empty).await.unwrap());
    assert_eq!(da.fetch(&empty).await.unwrap(), data(2, 0));
    assert_eq!(other.mined().await, 2);

    // What is not there, and what is none.
    let missing = Reference { hashes: vec![parsed.commitment()], ..parsed }.to_string();
    assert!(!da.verify_inclusion(&missing).await.unwrap());
    assert!(matches!(da.fetch(&missing).await, Err(DaError::NotPublished(_))));
    assert!(matches!(da.fetch("../../etc/passwd").await, Err(DaError::NotPublished(_))));
    assert!(matches!(da.publish_state_diff(&domain(), 3, b"records").await, Err(DaError::Mismatch(_))));
    let too_large = vec![0; da.limits().max_bytes + 1];
    let refused = da.publish_state_diff(&domain(), 3, &too_large).await;
    assert!(matches!(refused, Err(DaError::TooLarge { .. })));
}

#[tokio::test]
async fn blobs_are_bumped_and_brought_again_after_a_restart() {
    let Some(world) = World::start().await else { return };
    let world = world.by_hand().await;
    let da = layer(&world, world.sender().await);
    let bytes = data(1, 40);
    let reference = da.publish_state_diff(&domain(), 1, &bytes).await.unwrap();
    waits(da.verify_inclusion(&reference).await);
    world.clock.advance(PATIENCE);
    waits(da.verify_inclusion(&reference).await);
    let hashes = reference.parse::<Reference>().unwrap().commitment();
    let key = format!("publish/{}/1/0/{hashes}", domain());
    let entry = world.entry(&key).await.value;
    let [first, second] = entry.attempts.as_slice() else { panic!("{}", entry.attempts.len()) };
    assert!(second.gas_fee.0 >= 2 * first.gas_fee.0 && second.tip.0 >= 2 * first.tip.0);
    assert!(second.blob_fee.unwrap().0 >= 2 * first.blob_fee.unwrap().0);

    // The process ends, and then the node forgets the transaction: it takes somebody who has the records.
    drop(da);
    world.drop_waiting(&key).await;
    let da = layer(&world, world.sender().await);
    assert!(!da.verify_inclusion(&reference).await.unwrap());
    assert_eq!(da.publish_state_diff(&domain(), 1, &bytes).await.unwrap(), reference);
    waits(da.verify_inclusion(&reference).await);
    world.anvil.mine(1 + DEPTH).await;
    assert!(da.verify_inclusion(&reference).await.unwrap());
    assert_eq!(da.fetch(&reference).await.unwrap(), bytes);
    assert_eq!((world.mined().await, world.entry(&key).await.value.attempts.len()), (1, 2));
    deposed(&world).await;
}

/// A publication that has no effect says why, and is made again.
async fn deposed(world: &World) {
    let sender = world.sender().await;
    let da = layer(world, Arc::clone(&sender));
    let bytes = data(2, 4);
    let reference = da.publish_state_diff(&domain(), 2, &bytes).await.unwrap();
    let key = format!("publish/{}/2/0/{}", domain(), da.commitment(&reference).unwrap());
    // Right when it was signed, wrong when it is mined.
    world.drop_waiting(&key).await;
    world.depose().await;
    waits(da.verify_inclusion(&reference).await);
    world.anvil.mine(1).await;
    waits(da.verify_inclusion(&reference).await);
    world.anvil.mine(DEPTH).await;
    assert!(!da.verify_inclusion(&reference).await.unwrap());
    match sender.status(&key).await.unwrap() {
        orchestrator::client::settlement::ethereum::sender::Status::Rejected(reason) => {
            assert!(reason.contains("NotOperator"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let refused = da.publish_state_diff(&domain(), 2, &bytes).await.unwrap_err();
    assert!(matches!(refused, DaError::Unavailable(_)), "{refused:?}");
}
