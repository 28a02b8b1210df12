//! A sealer that starts anew executes the chain again before it seals.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt as _;

use super::*;
use crate::{core::client::storage::StorageClient as _, service::block::seal::SealBlock};

/// Blocks of the chain that a new sealer meets.
const BLOCKS: usize = 80;
/// How often an attempt goes on before it is cut off: not often enough for the whole chain.
const POLLS: usize = 6;

/// An attempt that is cut off leaves what it executed to the next one, or a chain that takes longer than an attempt may would
/// never be sealed again.
#[tokio::test]
async fn a_chain_that_takes_longer_than_an_attempt_is_caught_up_with_in_several() {
    let w = world_reading(9, |db| Arc::new(Waiting(db)));
    for _ in 0..BLOCKS {
        w.consumer(1_000).await;
        w.run(3).await;
    }
    assert_eq!(w.blocks().await.len(), BLOCKS);
    w.consumer(1_000).await;
    w.trigger.fire().await.unwrap();
    let jobs = w.db.list_all::<Job>(Filter::All).await.unwrap();
    let job = jobs.into_iter().find(|job| !job.value.state.is_terminal()).unwrap().value;
    let hand = Hand { effects: Mutex::default(), job, clock: w.clock.clone() };
    let sealer = SealBlock::new(w.ports.clone());
    let mut cut_off = 0;
    'attempts: loop {
        let mut attempt = sealer.process(&hand);
        for _ in 0..POLLS {
            if let std::task::Poll::Ready(sealed) = futures::poll!(attempt.as_mut()) {
                assert!(matches!(sealed, Ok(Processed::Done(_))), "{sealed:?}");
                break 'attempts;
            }
            // Who waits is woken when the runtime has its turn.
            tokio::task::yield_now().await;
        }
        cut_off += 1;
        assert!(cut_off < BLOCKS, "each attempt begins at the first block");
    }
    assert!(cut_off > 0, "the first attempt came through: it was given too much time for this test");
}

/// Counts reads of single documents.
struct Counting {
    inner: Arc<MemoryDatabase>,
    reads: Arc<AtomicUsize>,
}

#[async_trait]
impl Reader for Counting {
    async fn get(&self, collection: Collection, id: &str) -> DbResult<Option<Document>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.get(collection, id).await
    }
    async fn find(&self, query: Query) -> DbResult<Page> {
        self.inner.find(query).await
    }
    async fn count(&self, collection: Collection, filter: Filter) -> DbResult<u64> {
        self.inner.count(collection, filter).await
    }
}

/// Stored states are a short cut and nothing else: the last one that is whole is gone on from, and without one the chain is
/// executed from its first block. Old ones are removed.
#[tokio::test]
async fn who_starts_goes_on_from_a_stored_state_and_not_from_a_damaged_one() {
    let reads = Arc::new(AtomicUsize::new(0));
    let counting = reads.clone();
    let mut w = world_reading(10, |inner| Arc::new(Counting { inner, reads: counting.clone() }));
    w.ports.store = w.ports.store.clone().storing_states_every(4);
    w.handlers = handlers(&w.ports);
    for _ in 0..20 {
        w.consumer(1_000).await;
        w.run(3).await;
    }
    let blocks = w.blocks().await;
    let states = || async {
        let page = w.storage.list(super::super::store::BUCKET, "states/", None, 100).await.unwrap();
        page.objects.into_iter().map(|object| object.key).collect::<Vec<_>>()
    };
    let key = |number: u64| {
        let block = blocks.iter().find(|block| block.header.number == number).unwrap();
        format!("states/local/{}", hex::encode(block.hash.0))
    };
    let mut kept = vec![key(8), key(12), key(16)];
    kept.sort();
    assert_eq!(states().await, kept);
    let last = blocks.iter().max_by_key(|block| block.header.number).unwrap();
    // A look for the state after the last block, which is not stored yet; then at each damaged one and at the one that is
    // whole; then the blocks after it.
    let whole = [(None, 2 + 4), (Some(16), 3 + 8), (Some(12), 4 + 12), (Some(8), 4 + 20)];
    for (damaged, expected) in whole {
        if let Some(number) = damaged {
            let mut bytes = Vec::new();
            let mut stream = w.storage.get("blocks", &key(number)).await.unwrap();
            while let Some(chunk) = stream.next().await {
                bytes.extend(chunk.unwrap());
            }
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            let body = futures::stream::once(async move { Ok(bytes::Bytes::from(bytes)) }).boxed();
            w.storage.put("blocks", &key(number), body).await.unwrap();
        }
        reads.store(0, Ordering::Relaxed);
        let mut cached = None;
        w.ports.store.bring(&mut cached, &DomainId::local(), 20).await.unwrap();
        let mut cached = cached.unwrap();
        assert_eq!((cached.number, cached.state.root()), (20, last.header.state_root));
        assert_eq!(reads.load(Ordering::Relaxed), expected, "{damaged:?}");
    }
    // And such a sealer goes on.
    w.handlers = handlers(&w.ports);
    w.consumer(1_000).await;
    w.run(5).await;
    let blocks = w.blocks().await;
    assert!(blocks.len() == 21 && blocks.iter().all(|block| block.state == BlockState::Final));
}
