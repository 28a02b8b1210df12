//! A chain that began in the first format goes on in the present one.

use super::{
    super::store::{BUCKET, enqueue},
    *,
};
use crate::core::{
    client::{database::Expect, storage::StorageClient as _},
    job::JobKind,
    market::{
        block::BlockFormat,
        state::{header::header_hash, record::events_root},
    },
};

impl World {
    /// The next block, sealed and nothing more, as a program of the first format would have left it.
    async fn seal_as_before(&self) -> Block {
        self.trigger.fire().await.unwrap();
        let jobs = self.db.list_all::<Job>(Filter::eq("kind", "seal_block")).await.unwrap();
        for job in jobs.iter().filter(|job| !job.value.state.is_terminal()) {
            assert!(self.step(job).await);
        }
        let found = self.db.list_all::<Block>(Filter::eq("state", "sealed")).await.unwrap();
        let Stored { version, value: mut block } = found.into_iter().next().unwrap();
        let records = self.ports.store.records(&block).await.unwrap();
        let own = block.header.next_market.take();
        assert!(own.is_some());
        block.header.events_root = events_root(&records);
        block.hash = header_hash(&block.header);
        let mut changes = Changeset::new();
        changes.replace(version, &block);
        let mut tip = self.ports.store.tip(&DomainId::local()).await.unwrap();
        tip.value.hash = block.hash;
        changes.replace(tip.version, &tip.value);
        for job in self.db.list_all::<Job>(Filter::eq("kind", "generate_proof")).await.unwrap() {
            changes.delete(schema::JOBS, job.value.id.to_string(), Expect::Version(job.version));
        }
        enqueue(&mut changes, &self.work.ids, JobKind::GenerateProof, &block, "t");
        self.db.commit(changes).await.unwrap();
        // It stored no steps.
        for object in self.storage.list(BUCKET, "steps/", None, 100).await.unwrap().objects {
            self.storage.delete(BUCKET, &object.key).await.unwrap();
        }
        block
    }
}

#[tokio::test]
async fn a_chain_of_the_first_format_goes_on_in_the_present_one() {
    let w = world(1);
    let a = w.consumer(1_000).await;
    let old = w.seal_as_before().await;
    assert_eq!(old.header.format(), BlockFormat::Records);
    w.run(5).await;
    let escrow = AccountKey::Escrow(Id::from_uuid(uuid::Uuid::from_u128(1)));
    w.post(TransferKind::Fund, AccountKey::Consumer(a), escrow, 10, "a1").await.unwrap();
    w.run(5).await;
    let formats: Vec<_> = w.blocks().await.iter().map(|block| (block.header.format(), block.state)).collect();
    assert_eq!(formats, [(BlockFormat::Records, BlockState::Final), (BlockFormat::Steps, BlockState::Final)]);
    assert!(verify_ledger(&w.settlement, &w.da).await.unwrap().holds());
    let proved =
        w.proofs.account_proof(&as_consumer(a), AccountKey::Consumer(a), ProofAt::Final).await.unwrap();
    assert!(verify_account_proof(&proved));
    assert_eq!(proved.proof.balance, Amount(990));
    let desk = BlockService::new(w.work.clone(), w.ports.store.clone());
    for number in [1, 2] {
        desk.proof(&operator(), &DomainId::local(), number, ProofKind::Reexecution).await.unwrap();
    }
}
