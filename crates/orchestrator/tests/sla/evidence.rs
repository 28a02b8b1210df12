//! Ingestion: what is taken, and what each wrong report is answered.

use orchestrator::{
    core::{
        client::database::{Filter, Reader, ReaderExt},
        client::schema,
        market::{
            evidence::{EvidenceReport, EvidenceSubject, ReportBody},
            ids::UnitId,
            party::Oracle,
            quantity::{Micros, Timestamp},
        },
    },
    error::ErrorCode,
};

use super::world::{World, id, oracle, qos, signed};

fn unit_report(from: Timestamp, to: Timestamp, nonce: u64) -> EvidenceReport {
    signed(1, EvidenceSubject::Unit(id(1)), from, to, nonce, ReportBody::Qos(qos(10, 1)))
}

#[tokio::test]
async fn a_report_is_summed_once_and_shown() {
    let world = World::new().await;
    world.clock.advance(Micros::from_secs(1));
    let now = world.work.now();
    let from = now.minus(Micros::from_secs(1));
    world.evidence.submit(&oracle(1), unit_report(from, from.plus(Micros(400)), 1)).await.unwrap();
    world.evidence.submit(&oracle(1), unit_report(from.plus(Micros(400)), now, 5)).await.unwrap();
    let history = world.evidence.qos_history(&oracle(2), id(1), from, now, 100).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!((history[0].attempts, history[0].failures, history[0].latency_avg_us), (20, 2, Some(10_000)));
}

#[tokio::test]
async fn each_bad_report_has_its_code_and_leaves_nothing() {
    let world = World::new().await;
    world.clock.advance(Micros::from_secs(10));
    let now = world.work.now();
    let from = now.minus(Micros::from_secs(1));
    world.evidence.submit(&oracle(1), unit_report(from, now, 7)).await.unwrap();

    let mut forged = unit_report(from.minus(Micros::from_secs(1)), from, 8);
    forged.statement.nonce = 9;
    let mut upper = unit_report(from.minus(Micros::from_secs(1)), from, 8);
    upper.signature.truncate(10);
    let unknown_unit = EvidenceSubject::Unit(id::<UnitId>(99));
    let second = Micros::from_secs(1);
    let mut impossible = qos(10, 1);
    impossible.operations.values_mut().for_each(|s| s.latency_sum_us = 1);
    let before = from.minus(second);
    let cases = [
        (forged, ErrorCode::BadSignature),
        (upper, ErrorCode::BadSignature),
        (unit_report(before, from, 7), ErrorCode::StaleNonce),
        (unit_report(before, from, 1), ErrorCode::StaleNonce),
        (unit_report(from.plus(Micros(5)), now, 8), ErrorCode::OverlappingPeriod),
        (unit_report(from, now, 8), ErrorCode::OverlappingPeriod),
        (unit_report(now, now.plus(second), 8), ErrorCode::InvalidPeriod),
        (unit_report(from, from, 8), ErrorCode::InvalidPeriod),
        (unit_report(before.plus(Micros(1)), from.plus(Micros(1)), 8), ErrorCode::InvalidPeriod),
        (
            unit_report(now.minus(Micros::from_secs(5)), now.minus(Micros::from_secs(4)), 8),
            ErrorCode::InvalidPeriod,
        ),
        (signed(1, unknown_unit, before, from, 8, ReportBody::Qos(qos(1, 0))), ErrorCode::NotFound),
        (
            signed(1, EvidenceSubject::Unit(id(1)), before, from, 8, ReportBody::Qos(impossible)),
            ErrorCode::InvalidField,
        ),
        (
            signed(2, EvidenceSubject::Unit(id(1)), before, from, 8, ReportBody::Qos(qos(1, 0))),
            ErrorCode::Forbidden,
        ),
    ];
    let count = |collection| world.db.count(collection, Filter::All);
    let (reports, buckets, audit) = (
        count(schema::REPORTS).await.unwrap(),
        count(schema::BUCKETS).await.unwrap(),
        count(schema::AUDIT).await.unwrap(),
    );
    for (i, (report, code)) in cases.into_iter().enumerate() {
        let error = world.evidence.submit(&oracle(1), report).await.unwrap_err();
        assert_eq!(error.code, code, "case {i}: {error}");
    }
    assert_eq!(count(schema::REPORTS).await.unwrap(), reports);
    assert_eq!(count(schema::BUCKETS).await.unwrap(), buckets);
    assert_eq!(count(schema::AUDIT).await.unwrap(), audit);
    let stored =
        world.db.load::<Oracle>(&id::<orchestrator::core::market::ids::OracleId>(1).to_string()).await;
    assert_eq!(stored.unwrap().unwrap().value.last_nonce, 7);
}
