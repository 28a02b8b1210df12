//! What every settlement layer promises, on the local one over memory and over a file.

use std::sync::Arc;

use orchestrator::{
    client::{
        clock::ManualClock,
        settlement::{LocalRules, LocalSettlement},
    },
    core::{
        madara::settlement::{
            BlockProof, SettlementClient, SettlementError, TransactionStatus, WithdrawalClaim,
        },
        market::{
            account::AccountKey,
            block::{BlockFormat, BlockHeader, Hash32},
            ids::Id,
            money::Amount,
            quantity::{Micros, Timestamp},
            state::{
                LedgerState, Record, Step, account_key_hash, evidence_root, execute,
                header::{genesis_root, header_hash},
                steps_root,
            },
            terms::DomainId,
        },
    },
};

fn consumer() -> AccountKey {
    AccountKey::Consumer(Id::from_uuid(uuid::Uuid::from_u128(7)))
}

fn rules() -> LocalRules {
    LocalRules { confirm_after: Micros::from_secs(1), final_after: Micros::from_secs(10) }
}

fn seal(
    state: &mut LedgerState,
    parent: Option<&BlockHeader>,
    records: &[Record],
) -> (BlockHeader, BlockProof) {
    let pre_state = state.root();
    let steps = execute(state, BlockFormat::Steps, records).unwrap();
    let header = BlockHeader {
        domain: DomainId::local(),
        number: parent.map_or(1, |parent| parent.number + 1),
        parent: parent.map_or(Hash32::default(), header_hash),
        state_root: state.root(),
        total: state.total(),
        events_root: steps_root(&steps),
        evidence_root: evidence_root(records),
        last_deposit: state.last_deposit(),
        records: records.len() as u32,
        next_market: Some(state.next_market_index()),
    };
    let (post_state, events_root) = (header.state_root, header.events_root);
    let attestations = Vec::new();
    (header, BlockProof::Reexecution { pre_state, post_state, events_root, steps, attestations })
}

fn refused<T: std::fmt::Debug>(result: Result<T, SettlementError>) {
    assert!(matches!(result, Err(SettlementError::Refused(_))), "{result:?}");
}

async fn suite(layer: &dyn SettlementClient, clock: &ManualClock) {
    assert_eq!(layer.last_settled().await.unwrap().state_root, genesis_root(&DomainId::local()));
    // Deposits: once per key, in order, confirmed after a while.
    let deposit = layer.deposit("d1", consumer(), Amount(100)).await.unwrap();
    assert_eq!((deposit.index, deposit.confirmed), (1, false));
    assert_eq!(layer.deposit("d1", consumer(), Amount(100)).await.unwrap().index, 1);
    refused(layer.deposit("d1", consumer(), Amount(101)).await);
    refused(layer.deposit("d2", AccountKey::Fees, Amount(1)).await);
    refused(layer.deposit("d3", consumer(), Amount::ZERO).await);
    let overflow = layer.deposit("d4", consumer(), Amount(u128::MAX)).await;
    assert!(matches!(overflow, Err(SettlementError::Overflow)), "{overflow:?}");
    assert_eq!(layer.deposits(0, 10).await.unwrap().len(), 1);
    assert!(layer.deposits(1, 10).await.unwrap().is_empty());

    let mut state = LedgerState::new(DomainId::local());
    let key = account_key_hash(&DomainId::local(), None, &consumer());
    let open = [
        Record::OpenAccount { key },
        Record::Deposit { index: 1, to: 0, amount: 100 },
        Record::Transfer { kind: 12, from: 0, to: 0, amount: 30 },
    ];
    let (first, proof) = seal(&mut state, None, &open);
    // Not before the deposit is confirmed, not without data, not with another proof, number, parent or total.
    refused(layer.register_proof("r0", &first, &proof, "da").await);
    clock.advance(Micros::from_secs(1));
    refused(layer.register_proof("r0", &first, &proof, "").await);
    let changed = |change: fn(&mut Hash32, &mut Vec<Step>)| {
        let BlockProof::Reexecution { mut pre_state, post_state, events_root, mut steps, attestations } =
            proof.clone();
        change(&mut pre_state, &mut steps);
        BlockProof::Reexecution { pre_state, post_state, events_root, steps, attestations }
    };
    for wrong in [
        changed(|pre_state, _| *pre_state = Hash32([1; 32])),
        changed(|_, steps| steps.clear()),
        changed(|_, steps| steps[0].state = Hash32([1; 32])),
        changed(|_, steps| steps[0].count += 1),
    ] {
        refused(layer.register_proof("r0", &first, &wrong, "da").await);
    }
    refused(layer.register_proof("r0", &BlockHeader { number: 2, ..first.clone() }, &proof, "da").await);
    refused(
        layer
            .register_proof("r0", &BlockHeader { parent: Hash32([1; 32]), ..first.clone() }, &proof, "da")
            .await,
    );
    refused(
        layer.register_proof("r0", &BlockHeader { total: Amount(101), ..first.clone() }, &proof, "da").await,
    );
    refused(
        layer.register_proof("r0", &BlockHeader { last_deposit: 2, ..first.clone() }, &proof, "da").await,
    );
    // Only what is registered is settled; the same key has one effect.
    refused(layer.update_state("u1", &first).await);
    let registered = layer.register_proof("r1", &first, &proof, "da").await.unwrap();
    let before = layer.nonce().await.unwrap();
    assert_eq!(layer.register_proof("r1", &first, &proof, "da").await.unwrap(), registered);
    let settled = layer.update_state("u1", &first).await.unwrap();
    assert_eq!(layer.update_state("u1", &first).await.unwrap(), settled);
    assert_eq!(layer.nonce().await.unwrap(), before + 1);
    refused(layer.update_state("u2", &first).await);
    refused(layer.register_proof("r2", &first, &proof, "da").await);
    assert_eq!(layer.block(1).await.unwrap(), Some((first.clone(), "da".to_owned())));
    assert_eq!(layer.block(2).await.unwrap(), None);
    assert_eq!(layer.transaction(&settled).await.unwrap(), TransactionStatus::Included);
    assert!(matches!(layer.transaction("none").await, Err(SettlementError::NoTransaction(_))));

    // A withdrawal needs a final block and a proof that holds, and pays once.
    let proved = state.prove_account(&key).unwrap();
    let claim = WithdrawalClaim {
        account: consumer(),
        owner: None,
        block: 1,
        balance: proved.balance,
        cumulative: proved.withdrawable,
        index: proved.index,
        siblings: proved.siblings,
        market_root: proved.market_root,
        next_index: proved.next_index,
        total: proved.total,
    };
    refused(layer.withdraw(&claim).await);
    clock.advance(Micros::from_secs(10));
    assert_eq!(layer.transaction(&settled).await.unwrap(), TransactionStatus::Final);
    assert!(layer.last_settled().await.unwrap().is_final);
    refused(layer.withdraw(&WithdrawalClaim { cumulative: Amount(31), ..claim.clone() }).await);
    refused(layer.withdraw(&WithdrawalClaim { account: AccountKey::Fees, ..claim.clone() }).await);
    assert_eq!(layer.withdraw(&claim).await.unwrap(), Amount(30));
    assert_eq!(layer.withdraw(&claim).await.unwrap(), Amount::ZERO);

    // A block gives no deposit back, and follows the settled one.
    let (second, proof) =
        seal(&mut state, Some(&first), &[Record::Transfer { kind: 12, from: 0, to: 0, amount: 5 }]);
    refused(
        layer.register_proof("r3", &BlockHeader { last_deposit: 0, ..second.clone() }, &proof, "da2").await,
    );
    layer.register_proof("r4", &second, &proof, "da2").await.unwrap();
    layer.update_state("u4", &second).await.unwrap();
    assert_eq!(layer.last_settled().await.unwrap().hash, header_hash(&second));

    // A chain never goes back to the first format.
    let withdraw = Record::Transfer { kind: 12, from: 0, to: 0, amount: 5 };
    let (third, proof) = seal(&mut state, Some(&second), &[withdraw]);
    refused(layer.register_proof("r5", &BlockHeader { next_market: None, ..third }, &proof, "da3").await);
}

#[tokio::test]
async fn the_local_layer_in_memory() {
    let clock = ManualClock::new(Timestamp(0));
    let layer = LocalSettlement::in_memory(DomainId::local(), rules(), Arc::new(clock.clone()));
    suite(&layer, &clock).await;
}

#[tokio::test]
async fn the_local_layer_over_a_file_remembers_everything() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settlement.db");
    let clock = ManualClock::new(Timestamp(0));
    let open = || LocalSettlement::open(&path, DomainId::local(), rules(), Arc::new(clock.clone())).unwrap();
    let layer = open();
    suite(&layer, &clock).await;
    let before = (
        layer.last_settled().await.unwrap(),
        layer.nonce().await.unwrap(),
        layer.deposits(0, 9).await.unwrap(),
    );
    drop(layer);
    let again = open();
    let after = (
        again.last_settled().await.unwrap(),
        again.nonce().await.unwrap(),
        again.deposits(0, 9).await.unwrap(),
    );
    assert_eq!(before, after);
    assert_eq!(again.deposit("d1", consumer(), Amount(100)).await.unwrap().index, 1);
}
