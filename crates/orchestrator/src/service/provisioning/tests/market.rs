//! Reserving under contention, units, maintenance, the first start and reconciling.

use std::sync::Arc;

use super::{
    fake::{Fault, Held},
    world::{SIZE, World, new_provider, new_unit},
};
use crate::{
    core::{
        client::{
            database::{Filter, ReaderExt},
            provider::AccessLevel,
            schema,
        },
        market::{
            allocation::AllocationState,
            ids::{AllocationId, Id},
            money::Amount,
            offering::OfferingFilter,
            party::Principal,
            quantity::{Bytes, Micros},
            terms::PriceTerms,
            unit::{UnitMode, UnitState},
        },
    },
    error::ErrorCode,
    service::{
        allocation::{BlastRadius, Reconcile, ReconcileSettings, Target},
        job::Trigger,
        market::{MaintenanceRequest, NewUnit, TermsUpdate, UnitMaintenance, ensure_default_market},
        outbox::{OutboxRow, Outgoing},
        work::Call,
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_never_oversell() {
    let world = World::new().await;
    let tasks: Vec<_> = (0..60)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.allocations.reserve(&world.call(), world.request()).await })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => made += 1,
            Err(error) => assert_eq!(error.code, ErrorCode::InsufficientCapacity),
        }
    }
    assert_eq!(made, 10);
    assert_eq!(world.the_unit().await.free, 0);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_funding_at_once_never_overdraw() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(world.reserve().await.id);
    }
    let tasks: Vec<_> = ids
        .into_iter()
        .flat_map(|id| [id, id])
        .map(|id| {
            let world = world.clone();
            tokio::spawn(async move { world.allocations.fund(&world.call(), id).await })
        })
        .collect();
    let mut funded = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => funded += 1,
            Err(error) => {
                assert!(matches!(error.code, ErrorCode::InvalidState | ErrorCode::Conflict), "{error:?}");
            }
        }
    }
    assert!((1..=10).contains(&funded));
    world.check().await;
}

#[tokio::test]
async fn the_same_key_reserves_once_and_another_body_is_refused() {
    let world = World::new().await;
    let first = world.allocations.reserve(&world.keyed("k", "a"), world.request()).await.unwrap();
    let again = world.allocations.reserve(&world.keyed("k", "a"), world.request()).await.unwrap();
    assert_eq!(first.value, again.value);
    assert!(first.replayed.is_none() && again.replayed.is_some());
    let other = world.allocations.reserve(&world.keyed("k", "b"), world.request()).await.unwrap_err();
    assert_eq!(other.code, ErrorCode::IdempotencyKeyReused);
    assert_eq!(world.count_documents(schema::ALLOCATIONS).await, 1);
}

#[tokio::test]
async fn bad_reservations_name_their_field_and_leave_nothing() {
    let world = World::new().await;
    let call = world.call();
    for (field, bytes, period, egress) in [
        ("bytes", Bytes(0), Micros::from_days(1), Bytes(0)),
        ("bytes", Bytes(u64::MAX), Micros::from_days(1), Bytes(0)),
        ("period", SIZE, Micros::ZERO, Bytes(0)),
        ("period", SIZE, Micros(u64::MAX), Bytes(0)),
        ("egress_allowance", SIZE, Micros::from_days(1), Bytes(u64::MAX)),
    ] {
        let mut request = world.request();
        (request.bytes, request.period, request.egress_allowance) = (bytes, period, egress);
        let error = world.allocations.reserve(&call, request).await.unwrap_err();
        assert_eq!(error.field.as_deref(), Some(field));
    }
    assert_eq!(world.count_documents(schema::ALLOCATIONS).await, 0);
    assert_eq!(world.the_unit().await.live, 0);
}

#[tokio::test]
async fn the_next_best_offering_is_taken_when_the_best_is_full() {
    let world = World::new().await;
    let second = NewUnit { provider: Some(world.provider), ..new_unit(SIZE) };
    let second = world.market.register_unit(&Call::system("t"), second).await.unwrap().value.id;
    for _ in 0..10 {
        world.reserve().await;
    }
    let mut request = world.request();
    request.target = Target::Best(OfferingFilter::default());
    let made = world.allocations.reserve(&world.call(), request.clone()).await.unwrap().value;
    assert_eq!(made.unit, second);
    let error = world.allocations.reserve(&world.call(), request).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InsufficientCapacity);
}

#[tokio::test]
async fn new_terms_never_touch_what_was_reserved() {
    let world = World::new().await;
    let before = world.reserve().await;
    let dear = PriceTerms { per_gib_month: Amount(9_000), per_gib_egress: Amount(0) };
    let owner = Call { principal: Principal::Provider(world.provider), ..world.call() };
    let update = TermsUpdate { price: Some(dear), ..TermsUpdate::default() };
    world.market.update_terms(&owner, world.unit, update).await.unwrap();
    assert_eq!(world.allocation(before.id).await.price, before.price);
    assert_eq!(world.reserve().await.price, dear);
    let refused = world.market.update_terms(&world.call(), world.unit, TermsUpdate::default()).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Forbidden);
    let bad = TermsUpdate {
        price: Some(PriceTerms { per_gib_month: Amount(u128::MAX), ..dear }),
        ..TermsUpdate::default()
    };
    let error = world.market.update_terms(&owner, world.unit, bad).await.unwrap_err();
    assert_eq!(error.field.as_deref(), Some("price.per_gib_month"));
}

#[tokio::test]
async fn maintenance_begins_and_ends_by_its_window() {
    let world = World::new().await;
    let owner = Call { principal: Principal::Provider(world.provider), ..world.call() };
    let trigger = UnitMaintenance::new(world.market.clone());
    let now = world.work.now();
    let hour = Micros::from_secs(3_600);
    let from = now.plus(Micros::from_days(1));
    let window = MaintenanceRequest { from, to: from.plus(hour) };
    let unit = world.market.announce_maintenance(&owner, world.unit, window).await.unwrap().value;
    assert!(unit.maintenance[0].is_excluded());
    let twice = world.market.announce_maintenance(&owner, world.unit, window).await.unwrap_err();
    assert_eq!(twice.field.as_deref(), Some("from"));
    let past = MaintenanceRequest { from: now.minus(hour), to: now };
    assert!(world.market.announce_maintenance(&owner, world.unit, past).await.is_err());
    world.reserve().await;
    assert_eq!(trigger.fire().await.unwrap().changed, 0);
    world.clock.advance(Micros::from_days(1));
    assert_eq!(trigger.fire().await.unwrap().changed, 1);
    assert_eq!(world.the_unit().await.state(), UnitState::Maintenance);
    let refused = world.allocations.reserve(&world.call(), world.request()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidState);
    world.clock.advance(hour);
    assert_eq!(trigger.fire().await.unwrap().changed, 1);
    assert_eq!(world.the_unit().await.state(), UnitState::Reserved);
    assert_eq!(world.count_documents(schema::UNIT_DUES).await, 0);
    let unit = world.market.begin_maintenance(&owner, world.unit, world.work.now().plus(hour)).await;
    assert!(!unit.unwrap().value.maintenance[1].is_excluded());
    world.market.end_maintenance(&owner, world.unit).await.unwrap();
    assert_eq!(world.the_unit().await.mode, UnitMode::Open);
}

#[tokio::test]
async fn a_unit_goes_when_its_last_allocation_is_gone() {
    let world = World::new().await;
    let owner = Call { principal: Principal::Provider(world.provider), ..world.call() };
    let id = world.reserve().await.id;
    world.market.decommission(&owner, world.unit).await.unwrap();
    let refused = world.allocations.reserve(&world.call(), world.request()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidState);
    let trigger = UnitMaintenance::new(world.market.clone());
    assert_eq!(trigger.fire().await.unwrap().changed, 0);
    world.allocations.cancel(&world.call(), id).await.unwrap();
    world.clock.advance(Micros::from_secs(60));
    assert_eq!(trigger.fire().await.unwrap().changed, 1);
    assert_eq!(world.the_unit().await.mode, UnitMode::Decommissioned);
    assert_eq!(world.count_documents(schema::UNIT_DUES).await, 0);
    assert!(world.market.decommission(&owner, world.unit).await.is_err());
}

#[tokio::test]
async fn the_first_start_happens_once() {
    let world = World::new().await;
    let unit = || NewUnit { provider: None, ..new_unit(SIZE) };
    let first = ensure_default_market(&world.market, new_provider(), unit()).await.unwrap();
    let again = ensure_default_market(&world.market, new_provider(), unit()).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(world.count_documents(schema::UNITS).await, 2);
}

fn reconcile(world: &World, teardowns_per_hour: u32) -> Reconcile {
    let settings = ReconcileSettings { teardowns_per_hour, ..ReconcileSettings::default() };
    Reconcile::new(world.work.clone(), Arc::new(world.fake.clone()), settings)
}

fn stranger(world: &World, number: u128) -> AllocationId {
    let id = AllocationId::from_uuid(uuid::Uuid::from_u128(number));
    world.fake.0.lock().held.insert(id, Held::default());
    id
}

#[tokio::test]
async fn orphans_are_removed_and_losses_mended() {
    let world = World::new().await;
    let kept = world.active().await;
    let lost = world.active().await;
    let over = world.reserve().await.id;
    world.allocations.cancel(&world.call(), over).await.unwrap();
    let probe = AllocationId::from_uuid(world.unit.uuid());
    world.clock.advance(Micros::from_secs(600));
    {
        let mut state = world.fake.0.lock();
        state.held.insert(over, Held::default());
        state.held.insert(probe, Held::default());
        state.held.remove(&lost);
    }
    let unknown = stranger(&world, 1);
    let report = reconcile(&world, 20).fire().await.unwrap();
    assert_eq!((report.changed, report.failed), (3, 0), "{report:?}");
    world.run_jobs().await;
    {
        let state = world.fake.0.lock();
        assert!(!state.held.contains_key(&over) && !state.held.contains_key(&unknown));
        assert!(state.held.contains_key(&kept) && state.held.contains_key(&probe));
        assert_eq!(state.held[&lost].level, Some(AccessLevel::Full));
    }
    assert_eq!(world.allocation(lost).await.state, AllocationState::Active);
    assert_eq!(reconcile(&world, 20).fire().await.unwrap().changed, 0);
    world.check().await;
}

#[tokio::test]
async fn teardowns_are_bounded_by_the_hour_and_none_happen_half_blind() {
    let world = World::new().await;
    for _ in 0..8 {
        world.active().await;
    }
    world.clock.advance(Micros::from_secs(600));
    for number in 1..=5 {
        stranger(&world, number);
    }
    assert_eq!(reconcile(&world, 2).fire().await.unwrap().changed, 2);
    world.run_jobs().await;
    assert_eq!(reconcile(&world, 2).fire().await.unwrap().changed, 0);
    world.clock.advance(Micros::from_secs(3_600));
    assert_eq!(reconcile(&world, 2).fire().await.unwrap().changed, 2);
    world.run_jobs().await;
    let held = world.fake.0.lock().held.len();
    assert_eq!(held, 9);

    // A provider that does not answer, one that forgot almost everything, one of whose allocations we know almost none.
    world.fake.fail("allocations", [Fault::Unavailable]);
    let report = reconcile(&world, 99).fire().await.unwrap();
    assert_eq!((report.changed, report.failed), (0, 1));
    for number in 100..120 {
        stranger(&world, number);
    }
    let report = reconcile(&world, 99).fire().await.unwrap();
    assert_eq!((report.changed, report.failed), (0, 1), "{report:?}");
    world.fake.0.lock().held.clear();
    let report = reconcile(&world, 99).fire().await.unwrap();
    assert_eq!((report.changed, report.failed), (0, 1), "{report:?}");
}

#[tokio::test]
async fn too_many_teardowns_at_one_provider_stop_all_until_an_operator_has_looked() {
    let world = World::new().await;
    for _ in 0..8 {
        world.active().await;
    }
    world.clock.advance(Micros::from_secs(600));
    for number in 1..=8 {
        stranger(&world, number);
    }
    // Half of 8, whatever the hour's budget of all providers says.
    let settings = ReconcileSettings {
        teardowns_per_hour: 100,
        blast_radius: BlastRadius { percent: 50, floor: 1 },
        ..ReconcileSettings::default()
    };
    let reconcile = Reconcile::new(world.work.clone(), Arc::new(world.fake.clone()), settings);
    let report = reconcile.fire().await.unwrap();
    assert_eq!(report.changed, 4, "{report:?}");
    assert!(report.note.unwrap().contains("operator"));
    world.run_jobs().await;
    // Not by itself, and not with the next hour.
    world.clock.advance(Micros::from_secs(7_200));
    for _ in 0..3 {
        assert_eq!(reconcile.fire().await.unwrap().changed, 0);
    }
    let alerts = world.work.reader.list_all::<OutboxRow>(Filter::All).await.unwrap();
    let told = alerts.iter().filter(|row| match &row.value.outgoing {
        Outgoing::Alert { notification, .. } => notification.subject.contains("nothing more is torn down"),
        _ => false,
    });
    assert_eq!(told.count(), 1, "people are told once");
    let resumed = world.allocations.resume_teardowns(&Call::system("operator"), world.provider).await;
    assert_eq!(resumed.unwrap().value.stopped_at, None);
    assert_eq!(reconcile.fire().await.unwrap().changed, 4);
    let again = world.allocations.resume_teardowns(&Call::system("operator"), world.provider).await;
    assert_eq!(again.unwrap_err().code, ErrorCode::InvalidState);
}
