//! Unit tests and property tests of the judgement.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::core::market::{
    evidence::{EvidenceSubject, FailureClass, OperationStats, ReportBody, ReportStatement},
    ids::{Id, UnitId},
    money::Amount,
};

const BUCKET: Micros = Micros::from_secs(1);

fn id<I: Id>(n: u128) -> I {
    I::from_uuid(uuid::Uuid::from_u128(n))
}

fn rules() -> JudgeRules {
    JudgeRules {
        bucket: BUCKET,
        maintenance_notice: Micros::from_secs(10),
        maintenance_cap: Micros::from_secs(5),
        ..JudgeRules::default()
    }
}

fn window(seconds: i64) -> Window {
    Window { from: Timestamp(0), to: Timestamp(seconds * 1_000_000) }
}

fn qos(attempts: u64, failures: u64, latency: u64) -> Qos {
    let good = attempts - failures;
    let stats = OperationStats {
        attempts,
        failures: BTreeMap::from([(FailureClass::Timeout, failures)]),
        latency_sum_us: good * latency,
        latency: BTreeMap::from([(histogram::index(latency), good)]),
        bulk_bytes: 8 << 20,
        bulk_us: 100_000,
    };
    Qos { operations: BTreeMap::from([(OperationKind::Get, stats.clone()), (OperationKind::Put, stats)]) }
}

fn bucket(oracle: u128, second: i64, qos: Qos) -> Bucket {
    let start = Timestamp(second * 1_000_000);
    let mut bucket = Bucket::empty(EvidenceSubject::Unit(id::<UnitId>(1)), id(oracle), start);
    bucket.periods.push((start, start.plus(BUCKET)));
    bucket.qos = qos;
    bucket
}

fn run(window: Window, buckets: Vec<Bucket>, terms: &SlaTerms, rules: &JudgeRules) -> Judgement {
    let evidence = EvidenceSet { buckets, ..EvidenceSet::default() };
    judge(window, &evidence, terms, rules, id(9)).unwrap()
}

#[test]
fn a_window_that_keeps_its_promise_is_met() {
    let buckets = (0..10).map(|s| bucket(1, s, qos(100, 0, 40_000))).collect();
    let judgement = run(window(10), buckets, &SlaTerms::default(), &rules());
    assert_eq!((judgement.total, judgement.known, judgement.coverage), (10, 10, Ppm::ONE));
    assert_eq!(judgement.status, VerdictStatus::Met);
    assert_eq!(judgement.metrics[&Metric::LatencyAvg].observed, Some(40_000));
    assert_eq!(judgement.metrics[&Metric::Download].observed, Some(83_886_080));
    assert_eq!(judgement.attribution, Attribution::None);
}

#[test]
fn the_evidence_root_is_golden() {
    let judgement = run(window(1), vec![bucket(1, 0, qos(2, 1, 10))], &SlaTerms::default(), &rules());
    // keccak-256 over 0x00 and the canonical JSON behind its domain line: one leaf is its own root.
    assert_eq!(judgement.evidence_root, root::leaf(EVIDENCE_DOMAIN, &bucket(1, 0, qos(2, 1, 10))).unwrap());
    assert_eq!(judgement.evidence_root.to_string(), GOLDEN_ROOT);
}

const GOLDEN_ROOT: &str = "0xbbd348ac1490ddbcafaaabf60218c4039bb6889e0b8a86c5d48736e0aa210599";

#[test]
fn credits_follow_the_tiers_and_the_policies() {
    // Uptime per failing attempts of 1000: 99.9 %, 98 %, 90 %.
    for (failures, credit) in [(1, 100_000), (20, 250_000), (100, 1_000_000)] {
        let buckets = (0..10).map(|s| bucket(1, s, qos(1_000, failures, 40_000))).collect();
        let terms = SlaTerms::default();
        let judgement = run(window(10), buckets, &terms, &rules());
        assert_eq!(judgement.status, VerdictStatus::Breached);
        assert_eq!(credit_of(&judgement, &terms, 50_000), Ppm(credit));
        let reputation = SlaTerms { penalty: PenaltyPolicy::Reputation, ..terms.clone() };
        assert_eq!(credit_of(&judgement, &reputation, 30_000), Ppm(700_000));
        let withhold = SlaTerms { penalty: PenaltyPolicy::Withhold, ..terms };
        assert_eq!(credit_of(&judgement, &withhold, 30_000), Ppm::ONE);
    }
    // Another metric's breach gives the lowest tier.
    let slow = (0..10).map(|s| bucket(1, s, qos(100, 0, 60_000))).collect();
    let judgement = run(window(10), slow, &SlaTerms::default(), &rules());
    assert_eq!(judgement.status, VerdictStatus::Breached);
    assert_eq!(credit_of(&judgement, &SlaTerms::default(), 0), Ppm(100_000));
}

#[test]
fn too_little_evidence_is_unknown_and_costs_nothing() {
    let buckets = (0..7).map(|s| bucket(1, s, qos(100, 100, 1))).collect();
    let judgement = run(window(10), buckets, &SlaTerms::default(), &rules());
    assert_eq!((judgement.known, judgement.status), (7, VerdictStatus::Unknown));
    assert_eq!(credit_of(&judgement, &SlaTerms::default(), 0), Ppm(0));
}

#[test]
fn a_client_error_is_not_the_providers() {
    let mut seen = qos(100, 0, 40_000);
    for stats in seen.operations.values_mut() {
        stats.failures = BTreeMap::from([(FailureClass::ClientError, 50)]);
    }
    let judgement = run(window(1), vec![bucket(1, 0, seen)], &SlaTerms::default(), &rules());
    assert_eq!(judgement.metrics[&Metric::Uptime].observed, Some(1_000_000));
    assert_eq!(judgement.metrics[&Metric::ErrorRate].observed, Some(0));
}

#[test]
fn the_median_outvotes_a_liar_and_a_quorum_is_needed() {
    let mut buckets = Vec::new();
    for second in 0..10 {
        buckets.push(bucket(1, second, qos(100, 0, 40_000)));
        buckets.push(bucket(2, second, qos(100, 0, 41_000)));
        buckets.push(bucket(3, second, qos(100, 90, 40_000)));
    }
    let rules = JudgeRules { quorum: 2, ..rules() };
    let judgement = run(window(10), buckets.clone(), &SlaTerms::default(), &rules);
    assert_eq!(judgement.status, VerdictStatus::Met);
    assert_eq!(judgement.outvoted.len(), 10);
    assert!(judgement.outvoted.iter().all(|o| o.0 == id(3)));
    // The lower of the two medians.
    assert_eq!(judgement.metrics[&Metric::LatencyAvg].observed, Some(40_000));
    buckets.retain(|b| b.oracle == id(1));
    assert_eq!(run(window(10), buckets, &SlaTerms::default(), &rules).status, VerdictStatus::Unknown);
}

#[test]
fn announced_maintenance_is_left_out_up_to_its_cap() {
    let second = |s: i64| Timestamp(s * 1_000_000);
    let buckets: Vec<_> =
        (0..40).map(|s| bucket(1, s, qos(100, if (20..30).contains(&s) { 100 } else { 0 }, 1_000))).collect();
    let mut evidence = EvidenceSet { buckets, ..EvidenceSet::default() };
    let announce =
        |at| vec![MaintenanceWindow { announced_at: second(at), from: second(20), to: second(30) }];
    for (at, total, uptime) in [(10, 35, 857_142), (11, 40, 750_000)] {
        evidence.maintenance = announce(at);
        let judgement = judge(window(40), &evidence, &SlaTerms::default(), &rules(), id(9)).unwrap();
        assert_eq!(judgement.total, total);
        assert_eq!(judgement.metrics[&Metric::Uptime].observed, Some(uptime));
    }
}

#[test]
fn a_fault_of_the_path_or_of_ours_is_not_the_providers() {
    let buckets: Vec<_> = (0..10).map(|s| bucket(1, s, qos(10, 10, 1))).collect();
    let mut sights: Vec<Sight> = Vec::new();
    for second in 0..10 {
        let mut sight = Sight::empty(id(1), Timestamp(second * 1_000_000));
        for provider in 9..13 {
            sight.add(id(provider), 10, 10);
        }
        sights.push(sight);
    }
    let mut evidence = EvidenceSet { buckets, sights, ..EvidenceSet::default() };
    let judge_it = |e: &EvidenceSet| judge(window(10), e, &SlaTerms::default(), &rules(), id(9)).unwrap();
    let judgement = judge_it(&evidence);
    assert_eq!((judgement.status, judgement.attribution), (VerdictStatus::Unknown, Attribution::Path));
    // Only this provider fails: its own fault.
    for sight in &mut evidence.sights {
        sight.providers.iter_mut().filter(|p| p.0 != id(9)).for_each(|p| p.2 = 0);
    }
    let judgement = judge_it(&evidence);
    assert_eq!((judgement.status, judgement.attribution), (VerdictStatus::Breached, Attribution::Provider));
    evidence.sights.iter_mut().for_each(|s| s.canary_failed = true);
    let judgement = judge_it(&evidence);
    assert_eq!(
        (judgement.status, judgement.attribution),
        (VerdictStatus::Unknown, Attribution::Orchestrator)
    );
}

fn statement(from: i64, to: i64, qos: Qos) -> ReportStatement {
    ReportStatement {
        version: 1,
        oracle: id(1),
        key_id: "k".into(),
        subject: EvidenceSubject::Unit(id(1)),
        from: Timestamp(from),
        to: Timestamp(to),
        nonce: 1,
        body: ReportBody::Qos(qos),
    }
}

#[test]
fn overlapping_reports_do_not_enter_a_bucket() {
    let mut bucket = bucket(1, 0, Qos::default());
    bucket.periods.clear();
    bucket.add(&statement(10, 20, Qos::default())).unwrap();
    bucket.add(&statement(20, 30, Qos::default())).unwrap();
    bucket.add(&statement(0, 10, Qos::default())).unwrap();
    for (from, to) in [(5, 15), (10, 20), (29, 31), (0, 40), (12, 13)] {
        assert!(bucket.add(&statement(from, to, Qos::default())).is_err(), "{from} {to}");
    }
    assert_eq!(bucket.periods.len(), 3);
}

fn any_buckets() -> impl Strategy<Value = Vec<Bucket>> {
    proptest::collection::vec((1_u128..4, 0_i64..20, 1_u64..50, 0_u64..50, 1_u64..100_000), 0..40).prop_map(
        |rows| {
            let mut unique = BTreeMap::new();
            for (oracle, second, attempts, failures, latency) in rows {
                let seen = qos(attempts, failures.min(attempts), latency);
                unique.insert((oracle, second), bucket(oracle, second, seen));
            }
            unique.into_values().collect()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_order_of_the_evidence_does_not_matter(buckets in any_buckets(), turn in 0_usize..40) {
        let terms = SlaTerms { min_coverage: Ppm(100_000), ..SlaTerms::default() };
        let mut turned = buckets.clone();
        if !turned.is_empty() {
            let by = turn % turned.len();
            turned.rotate_left(by);
            turned.reverse();
        }
        prop_assert_eq!(run(window(20), buckets, &terms, &rules()), run(window(20), turned, &terms, &rules()));
    }

    #[test]
    fn an_all_success_bucket_never_lowers_uptime(buckets in any_buckets()) {
        let terms = SlaTerms::default();
        let before = run(window(21), buckets.clone(), &terms, &rules());
        let mut more = buckets;
        more.push(bucket(1, 20, qos(10, 0, 10)));
        let after = run(window(21), more, &terms, &rules());
        prop_assert!(after.metrics[&Metric::Uptime].observed >= before.metrics[&Metric::Uptime].observed);
        prop_assert!(after.coverage >= before.coverage);
    }

    #[test]
    fn a_credit_is_never_more_than_the_payment(buckets in any_buckets(), payment: u128, reputation in 0_u32..200_000, policy in 0_u8..3) {
        let penalty = [PenaltyPolicy::Tiered, PenaltyPolicy::Reputation, PenaltyPolicy::Withhold][usize::from(policy)];
        let terms = SlaTerms { min_coverage: Ppm(0), penalty, ..SlaTerms::default() };
        let judgement = run(window(20), buckets, &terms, &rules());
        let credit = Amount(payment).ppm(credit_of(&judgement, &terms, reputation));
        prop_assert!(credit <= Amount(payment));
        prop_assert!(judgement.status == VerdictStatus::Breached || credit == Amount(0));
    }
}
