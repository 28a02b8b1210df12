//! Chains made up record by record: right ones pass, and each way of being wrong is found.

mod scene;
mod wrong;

use std::collections::BTreeMap;

use async_trait::async_trait;
use proptest::prelude::*;
use scene::{ALL, Bundle, Bundles, Like, MET, Scene, TENTH, UNKNOWN, check};
use uuid::Uuid;

use super::*;
use crate::{
    core::market::{
        account::{AccountKey, TransferKind},
        address::Address,
        allocation::{AllocationState, Span},
        billing::{PeriodUsage, breaches_in_a_row, period_charge},
        evidence::{FailureClass, OperationKind, OperationStats, Qos},
        ids::Id,
        quantity::{BasisPoints, Bytes, Micros, Ppm, Timestamp},
        sla::{Bucket, EvidenceSet, Window, credit_of, histogram},
        state::{
            LedgerState, ShortHash, account_key_hash,
            commitment::{AllocationTerms, verdict_subject},
            hash::cut,
            market_key_hash,
        },
        terms::{PriceTerms, SlaTerms},
        verdict::VerdictStatus,
    },
    service::sla::{
        bundle::{AllocationBundle, BUNDLE_VERSION, VerdictBundle},
        verdict::EvidenceFile,
    },
};

fn owners() -> impl Strategy<Value = Option<Address>> {
    prop_oneof![Just(None), Just(Some(Address([7; 20])))]
}

fn formats() -> impl Strategy<Value = BlockFormat> {
    prop_oneof![3 => Just(BlockFormat::Steps), 1 => Just(BlockFormat::Records)]
}

/// What happens next: to which allocation, how its period is, what it costs, and whether a block ends, the verdict is late,
/// or the consumer renews before.
type Act = (usize, (u64, u64), u128, (bool, bool, bool));

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let likes = prop_oneof![Just((0, 10)), Just((5, 10)), Just((100, 10)), Just((100, 3))];
    // Small payments are rounded to nothing, and large ones exhaust the escrow.
    let payments = prop_oneof![Just(0), 1_u128..60, Just(1_000), Just(400_000)];
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.3), prop::bool::weighted(0.1));
    prop::collection::vec((0_usize..3, likes, payments, flags), 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_right_chain_passes_whatever_happens(
        acts in acts(), format in formats(), owner in owners(), collateral in prop_oneof![Just(0_u128), Just(3), Just(500)],
    ) {
        let mut scene = Scene::new(format, owner);
        // Two of the three share consumer and provider, and so its collateral.
        let deals = [scene.deal(1, 1, collateral), scene.deal(1, 1, collateral), scene.deal(2, 2, 0)];
        let periods = acts.len() as u64;
        for (at, (failures, reported), payment, (cut, late, renew)) in acts {
            if cut {
                scene.cut();
            }
            if renew {
                scene.renew(deals[at]);
            }
            scene.period(deals[at], Like { failures, reported, payment }, late);
        }
        scene.cut();
        scene.cut();
        let report = futures::executor::block_on(scene.check());
        prop_assert_eq!(&report.problems, &Vec::<String>::new());
        prop_assert_eq!((report.verdicts, report.open), (periods, 0));
        let moved: Vec<u128> = scene.blocks.iter().flatten().filter_map(|record| match record {
            Record::Transfer { kind: 7 | 8 | 14, amount, .. } => Some(*amount),
            _ => None,
        }).collect();
        prop_assert_eq!(report.credits, moved.len() as u64);
        prop_assert_eq!(report.credited.0, moved.iter().sum::<u128>());
    }
}

#[tokio::test]
async fn a_verdict_may_come_a_block_after_its_payment_and_no_later() {
    let mut scene = Scene::new(BlockFormat::Steps, None);
    let deal = scene.deal(1, 1, 500);
    scene.period(deal, MET, false);
    scene.period(deal, TENTH, true);
    let report = scene.check().await;
    assert_eq!((report.open, report.verdicts, report.payments, report.credits), (1, 1, 1, 0));
    assert_eq!(report.problems, Vec::<String>::new());
    // Two blocks later it is missing.
    scene.late.clear();
    scene.cut();
    assert_eq!(scene.check().await.problems, Vec::<String>::new());
    scene.cut();
    let report = scene.check().await;
    assert_eq!((report.open, report.problems.len()), (0, 1));
    assert!(report.problems[0].starts_with("block 1: the payment of 980"), "{:?}", report.problems);
}

#[tokio::test]
async fn rules_and_reputations_that_the_chain_does_not_bind_are_shown() {
    let mut scene = Scene::new(BlockFormat::Steps, None);
    let deal = scene.deal(1, 1, 500);
    scene.period(deal, MET, false);
    scene.period(deal, TENTH, false);
    let report = scene.check().await;
    assert_eq!((report.rules.len(), report.rules[0].verdicts, report.by_reputation), (1, 2, 0));
    let (_, bundle) = scene.bundles.iter_mut().next().unwrap();
    bundle.file.rules.path_min_providers = 9;
    let report = scene.check().await;
    assert_eq!((report.rules.len(), report.problems.len()), (2, 0));
}
