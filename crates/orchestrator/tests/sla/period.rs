//! Billing periods: judged and paid once each, to the last base unit.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use orchestrator::{
    core::{
        client::{
            database::{Changeset, Committer, Filter, Reader, ReaderExt},
            provider::Generation,
            schema,
        },
        job::{Effect, Job},
        market::{
            account::AccountKey,
            allocation::{Allocation, RestrictReason, Usage},
            evidence::{EvidenceSubject, ReportBody},
            ids::AllocationId,
            quantity::{Bytes, Micros, Ppm, Timestamp},
            verdict::{SlaVerdict, VerdictStatus},
        },
    },
    error::ErrorCode,
    service::{
        allocation::FinalSettlement,
        job::{
            JobContext, JobError, JobHandler, Processed, Trigger,
            step::{At, ReleaseStep},
        },
        ledger::LedgerDraft,
        sla::{CloseSlaWindows, SlaCheck},
        work::Call,
    },
};

use super::world::{MeterOnly, START, World, id, oracle, qos, signed};

struct Context {
    job: Job,
    now: Timestamp,
}

#[async_trait]
impl JobContext for Context {
    fn job(&self) -> &Job {
        &self.job
    }
    fn generation(&self) -> Generation {
        Generation(1)
    }
    fn now(&self) -> Timestamp {
        self.now
    }
    async fn intend(&self, _: &str, _: serde_json::Value) -> Result<Effect, JobError> {
        panic!("no effects")
    }
    async fn record(&self, _: &str, _: serde_json::Value) -> Result<(), JobError> {
        Ok(())
    }
    fn effects(&self) -> BTreeMap<String, Effect> {
        BTreeMap::new()
    }
}

impl World {
    /// Ten seconds with so many of 1,000 operations failing in each, reported for so many of them; then the window closes,
    /// and every job that it enqueued is run, twice.
    async fn period(&self, failures: u64, reported: u64) -> usize {
        for second in 0..10 {
            self.clock.advance(Micros::from_secs(1));
            if second < reported {
                self.report_last_second(1, qos(1_000, failures)).await;
            }
        }
        self.clock.advance(Micros::from_secs(2));
        self.close().await
    }

    async fn close(&self) -> usize {
        let now = self.work.now();
        // One GiB, held all the time.
        let byte_seconds = u128::from(Bytes::GIB) * u128::from(now.since(START).as_secs());
        *self.meter.usage.lock() =
            Usage { stored: Bytes(Bytes::GIB), byte_seconds, egress: Bytes(0), read_at: now };
        let trigger = CloseSlaWindows::new(self.work.clone(), self.settings.clone());
        trigger.fire().await.unwrap();
        assert_eq!(trigger.fire().await.unwrap().changed, 0, "a period is enqueued once");
        let handler = SlaCheck::new(self.settlement.clone(), Arc::new(MeterOnly(self.meter.clone())));
        let mut done = 0;
        for job in self.db.list_all::<Job>(Filter::eq("kind", "sla_check")).await.unwrap() {
            let context = Context { job: job.value, now };
            for _ in 0..2 {
                let Processed::Done(changes) = handler.process(&context).await.unwrap() else { panic!() };
                done += usize::from(!changes.is_empty());
                self.db.commit(changes).await.unwrap();
            }
        }
        done
    }

    async fn verdicts(&self) -> Vec<SlaVerdict> {
        let all = self.db.list_all::<SlaVerdict>(Filter::All).await.unwrap();
        all.into_iter().map(|v| v.value).collect()
    }
}

#[tokio::test]
async fn met_breached_and_unknown_periods_pay_exactly() {
    let world = World::new().await;
    let allocation = world.allocation(7, 1_000).await;
    // Metered up to the reading: 12 s, then 12 s, then 12 s, each 1 base unit a second.
    assert_eq!(world.period(0, 10).await, 1);
    assert_eq!(world.period(100, 10).await, 1);
    assert_eq!(world.period(1_000, 3).await, 1);
    let verdicts = world.verdicts().await;
    let seen: Vec<_> =
        verdicts.iter().map(|v| (v.period, v.status, v.payment.get(), v.credited.get())).collect();
    assert_eq!(
        seen,
        [
            (0, VerdictStatus::Met, 12, 0),
            (1, VerdictStatus::Breached, 12, 12),
            (2, VerdictStatus::Unknown, 12, 0),
        ]
    );
    assert_eq!(world.balance(AccountKey::Escrow(allocation)).await, 1_000 - 36);
    assert_eq!(world.balance(AccountKey::Consumer(id(1))).await, 12);
    assert_eq!(world.balance(AccountKey::Provider(id(1))).await, 24);
    let stored = world.db.load::<Allocation>(&allocation.to_string()).await.unwrap().unwrap().value;
    assert_eq!((stored.periods_settled, stored.paid.get(), stored.credited.get()), (3, 36, 12));
    let marked = world.db.count(schema::UNSEALED, Filter::eq("kind", "verdict")).await.unwrap();
    assert_eq!(marked, 3);

    // A verdict of before has no name for its record; it gets one.
    let subject = verdicts[1].record_subject.clone().unwrap();
    let mut stored = world.db.load::<SlaVerdict>(&verdicts[1].id.to_string()).await.unwrap().unwrap();
    stored.value.record_subject = None;
    let mut changes = Changeset::new();
    changes.replace(stored.version, &stored.value);
    world.db.commit(changes).await.unwrap();
    let bytes = <[u8; 16]>::try_from(hex::decode(&subject).unwrap()).unwrap();
    assert_eq!(world.sla.bundle(&bytes).await.unwrap_err().code, ErrorCode::NotFound);
    for named in [1, 0] {
        assert_eq!(world.sla.name_records().await.unwrap(), named);
        assert_eq!(world.sla.bundle(&bytes).await.unwrap().period_key, verdicts[1].period_key);
    }

    // Anyone can judge again from the evidence alone.
    let call = Call::system("t");
    for verdict in verdicts {
        let proof = world.sla.proof(&call, verdict.id).await.unwrap();
        assert_eq!(proof.recomputed.evidence_root, verdict.evidence_root);
        assert_eq!(proof.recomputed.status, verdict.status);
        assert_eq!(proof.recomputed.metrics, verdict.metrics);
    }
}

#[tokio::test]
async fn an_exhausted_escrow_restricts_and_never_goes_below_zero() {
    let world = World::new().await;
    let allocation = world.allocation(7, 5).await;
    world.period(0, 10).await;
    assert_eq!(world.balance(AccountKey::Escrow(allocation)).await, 0);
    let stored = world.db.load::<Allocation>(&allocation.to_string()).await.unwrap().unwrap().value;
    assert!(stored.restrictions.contains(&RestrictReason::EscrowExhausted));
    assert_eq!(world.db.count(schema::JOBS, Filter::eq("kind", "sync_access")).await.unwrap(), 1);
}

#[tokio::test]
async fn a_meter_that_runs_ahead_of_the_oracles_is_disputed() {
    let world = World::new().await;
    let allocation: AllocationId = world.allocation(7, 1_000).await;
    world.clock.advance(Micros::from_secs(12));
    let now = world.work.now();
    let body = ReportBody::Usage {
        stored: Bytes(Bytes::GIB / 2),
        byte_seconds: (u128::from(Bytes::GIB) * 6).to_string(),
        egress: Bytes(0),
    };
    let from = now.minus(Micros::from_secs(1));
    let report = signed(1, EvidenceSubject::Allocation(allocation), from, now, 1, body);
    world.evidence.submit(&oracle(1), report).await.unwrap();
    assert_eq!(world.close().await, 1);
    assert_eq!(world.verdicts().await[0].payment.get(), 6, "the lower is billed");
    assert_eq!(world.balance(AccountKey::Escrow(allocation)).await, 1_000 - 12, "the difference is held");
    assert_eq!(world.db.count(schema::DISPUTES, Filter::All).await.unwrap(), 1);
}

#[tokio::test]
async fn the_last_partial_period_is_paid_once() {
    let world = World::new().await;
    let id = world.allocation(7, 1_000).await;
    world.period(0, 10).await;
    world.clock.advance(Micros::from_secs(3));
    let now = world.work.now();
    let job = world.db.list_all::<Job>(Filter::All).await.unwrap().swap_remove(0).value;
    let context = Context { job, now };
    let usage =
        Usage { stored: Bytes(0), byte_seconds: u128::from(Bytes::GIB) * 15, egress: Bytes(0), read_at: now };
    for _ in 0..2 {
        let stored = world.db.load::<Allocation>(&id.to_string()).await.unwrap().unwrap();
        let mut allocation = stored.value;
        let reader: &dyn Reader = world.db.as_ref();
        let mut ledger = LedgerDraft::new(reader, &world.work.ids, allocation.domain.clone());
        let mut changes = orchestrator::core::client::database::Changeset::new();
        let at = At::new(&context, ReleaseStep::StoreEvidence);
        world.settlement.settle_final(at, &mut allocation, usage, &mut ledger, &mut changes).await.unwrap();
        ledger.finish(&mut changes);
        changes.replace(stored.version, &allocation);
        world.db.commit(changes).await.unwrap();
    }
    assert_eq!(world.balance(AccountKey::Escrow(id)).await, 1_000 - 15);
    assert_eq!(world.verdicts().await.len(), 2);
}

#[tokio::test]
async fn every_third_breach_in_a_row_slashes_the_collateral_if_the_contract_says_so() {
    for (share, expected) in [(0, 1_000), (250_000, 750)] {
        let world = World::new().await;
        let allocation = world.allocation(7, 1_000).await;
        let mut stored = world.db.load::<Allocation>(&allocation.to_string()).await.unwrap().unwrap();
        stored.value.sla.collateral_slash = Ppm(share);
        let mut changes = Changeset::new();
        changes.replace(stored.version, &stored.value);
        world.db.commit(changes).await.unwrap();
        let collateral = AccountKey::Collateral(id(1));
        // Two breaches, a period that is met, and two more: never three in a row. An unknown one between does not count.
        for (failures, reported) in [(5, 10), (5, 10), (0, 10), (5, 10), (1_000, 3), (5, 10), (5, 10)] {
            for second in 0..10 {
                world.clock.advance(Micros::from_secs(1));
                if second < reported {
                    world.report_last_second(1, qos(1_000, failures)).await;
                }
            }
        }
        world.clock.advance(Micros::from_secs(2));
        for _ in 0..6 {
            assert_eq!(world.close().await, 1);
            assert_eq!(world.balance(collateral).await, 1_000, "not yet");
        }
        assert_eq!(world.close().await, 1);
        assert_eq!(world.balance(collateral).await, expected);
        let stored = world.db.load::<Allocation>(&allocation.to_string()).await.unwrap().unwrap().value;
        assert_eq!(stored.breached_in_a_row, 0, "the count begins anew");
        let credited = world.verdicts().await.iter().map(|v| v.credited.get()).sum::<u128>();
        assert_eq!(stored.credited.get(), credited + (1_000 - expected));
        assert_eq!(world.balance(AccountKey::Consumer(id(1))).await, stored.credited.get());
    }
}
