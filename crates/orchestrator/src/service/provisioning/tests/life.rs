//! Allocations and credentials from beginning to end, and what happens when a provider fails.

use proptest::prelude::*;

use super::{
    fake::Fault,
    world::{GRACE, PERIOD, SIZE, World},
};
use crate::{
    core::{
        client::{database::ReaderExt, provider::AccessLevel, schema},
        job::{JobKind, JobState},
        market::{
            account::AccountKey,
            allocation::{AccessState, AllocationState, RestrictReason},
            credential::{Credential, CredentialState, Permissions},
            ids::{AllocationId, ConsumerId, CredentialId, Id, OperatorId},
            party::Principal,
            quantity::{Bytes, Micros},
        },
    },
    error::ErrorCode,
    service::{
        access::{ExpireCredentials, IssueCredential, RotateCredential},
        allocation::{EndPeriods, ExpireReservations, Reconcile, ReconcileSettings, RenewRequest},
        job::Trigger,
        work::Call,
    },
};

const READ_WRITE: IssueCredential = IssueCredential { permissions: Permissions::ReadWrite, expires_at: None };
/// Price of [`SIZE`] for [`PERIOD`] with 1 GiB of egress.
const CEILING: u128 = 10 * 1_000 + 10;

async fn credential(world: &World, id: CredentialId) -> Credential {
    world.db.load::<Credential>(&id.to_string()).await.unwrap().unwrap().value
}

fn keys(world: &World, id: AllocationId) -> usize {
    world.fake.0.lock().held.get(&id).map_or(0, |held| held.keys.len())
}

/// The whole life, whatever the provider does meanwhile.
async fn live(world: &World) -> AllocationId {
    let call = world.call();
    let id = world.active().await;
    let allocation = world.allocation(id).await;
    assert_eq!(allocation.state, AllocationState::Active, "{:?}", allocation.failure);
    assert_eq!(allocation.ends_at, Some(allocation.activated_at.unwrap().plus(PERIOD)));
    assert!(allocation.routing.is_some());
    assert_eq!(world.balance(AccountKey::Escrow(id)).await, CEILING);

    let first = world.credentials.issue(&call, id, READ_WRITE).await.unwrap();
    world.run_jobs().await;
    assert_eq!(credential(world, first.credential.id).await.state, CredentialState::Active);
    let overlap = RotateCredential { overlap: Some(Micros::from_secs(60)) };
    let second = world.credentials.rotate(&call, first.credential.id, overlap).await.unwrap();
    assert_ne!(first.secret, second.secret);
    world.run_jobs().await;
    assert_eq!(credential(world, first.credential.id).await.state, CredentialState::Rotating);
    assert_eq!(keys(world, id), 2);
    world.clock.advance(Micros::from_secs(61));
    world.run_jobs().await;
    assert_eq!(credential(world, first.credential.id).await.state, CredentialState::Revoked);
    assert_eq!(keys(world, id), 1);

    // Five GiB for a month cost half of the storage.
    world.use_storage(id, 5 * u128::from(Bytes::GIB) * u128::from(PERIOD.as_secs()));
    world.allocations.close(&call, id).await.unwrap();
    world.run_jobs().await;
    let allocation = world.allocation(id).await;
    assert_eq!((allocation.state, allocation.access), (AllocationState::Closing, AccessState::Restricted));
    assert_eq!(world.fake.0.lock().held[&id].level, Some(AccessLevel::ReadOnly));
    assert_eq!(world.balance(AccountKey::Escrow(id)).await, 0);
    assert_eq!(world.balance(AccountKey::Provider(world.provider)).await, 5_000);
    world.check().await;
    world.clock.advance(GRACE);
    world.run_jobs().await;
    assert_eq!(world.allocation(id).await.state, AllocationState::Closed);
    assert_eq!(credential(world, second.credential.id).await.state, CredentialState::Revoked);
    assert!(world.jobs().await.iter().all(|job| job.state == JobState::Completed));
    assert_eq!(world.the_unit().await.free, world.the_unit().await.capacity.signed());
    world.check().await;
    id
}

#[tokio::test]
async fn a_whole_life() {
    live(&World::new().await).await;
}

#[tokio::test]
async fn a_whole_life_with_each_call_failing_in_each_way_first() {
    for call in ["allocate", "issue", "revoke", "restrict", "usage", "deallocate"] {
        for fault in [Fault::Before, Fault::After, Fault::Unavailable, Fault::Stale] {
            let world = World::new().await;
            world.fake.fail(call, [fault, fault]);
            live(&world).await;
            assert!(world.fake.calls(call) >= 3, "{call} {fault:?}");
        }
    }
}

#[tokio::test]
async fn an_asynchronous_provider_is_polled() {
    let world = World::new().await;
    world.fake.0.lock().pending = 3;
    let id = world.active().await;
    assert_eq!(world.allocation(id).await.state, AllocationState::Provisioning);
    let error = world.allocations.cancel(&world.call(), id).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidState);
    for _ in 0..3 {
        world.clock.advance(Micros::from_millis(100));
        world.run_jobs().await;
    }
    assert_eq!(world.allocation(id).await.state, AllocationState::Active);
    world.check().await;
}

#[tokio::test]
async fn a_provider_that_is_never_done_is_given_up_and_cleaned() {
    let world = World::new().await;
    world.fake.0.lock().pending = u32::MAX;
    let id = world.active().await;
    world.clock.advance(Micros::from_secs(601));
    world.run_jobs().await;
    assert_eq!(world.allocation(id).await.state, AllocationState::Failed);
    assert_eq!(world.fake.calls("deallocate"), 1);
    assert_eq!(world.balance(AccountKey::Consumer(world.consumer)).await, 1_000_000);
    world.check().await;
}

#[tokio::test]
async fn a_refusal_fails_at_once_and_removes_nothing() {
    let world = World::new().await;
    world.fake.fail("allocate", [Fault::Refused]);
    let id = world.active().await;
    let allocation = world.allocation(id).await;
    assert_eq!(allocation.state, AllocationState::Failed);
    assert!(allocation.failure.is_some());
    assert_eq!((world.fake.calls("allocate"), world.fake.calls("deallocate")), (1, 0));
    assert_eq!(world.balance(AccountKey::Consumer(world.consumer)).await, 1_000_000);
    world.check().await;
}

#[tokio::test]
async fn time_outs_to_the_end_remove_the_orphan() {
    for fault in [Fault::After, Fault::Unavailable] {
        let world = World::new().await;
        world.fake.fail("allocate", [fault; 8]);
        world.fake.fail("deallocate", [Fault::Unavailable]);
        let id = world.active().await;
        assert_eq!(world.allocation(id).await.state, AllocationState::Failed);
        assert_eq!(world.fake.calls("deallocate"), 2);
        world.check().await;
    }
}

#[tokio::test]
async fn cancelling_gives_everything_back_and_the_job_cleans_up() {
    let world = World::new().await;
    let call = world.call();
    let reserved = world.reserve().await.id;
    world.allocations.cancel(&call, reserved).await.unwrap();
    let funded = world.reserve().await.id;
    world.allocations.fund(&call, funded).await.unwrap();
    world.allocations.cancel(&call, funded).await.unwrap();
    world.run_jobs().await;
    assert_eq!(world.allocation(funded).await.state, AllocationState::Cancelled);
    assert_eq!((world.fake.calls("allocate"), world.fake.calls("deallocate")), (0, 1));
    assert_eq!(world.balance(AccountKey::Consumer(world.consumer)).await, 1_000_000);
    world.check().await;
}

#[tokio::test]
async fn a_reservation_expires_once_and_can_not_be_funded_then() {
    let world = World::new().await;
    let id = world.reserve().await.id;
    let trigger = ExpireReservations::new(world.allocations.clone());
    assert_eq!(trigger.fire().await.unwrap().changed, 0);
    world.clock.advance(Micros::from_secs(15 * 60));
    let late = world.allocations.fund(&world.call(), id).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::ReservationExpired);
    assert_eq!(trigger.fire().await.unwrap().changed, 1);
    assert_eq!(trigger.fire().await.unwrap().examined, 0);
    assert_eq!(world.allocation(id).await.state, AllocationState::Expired);
    let late = world.allocations.fund(&world.call(), id).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::ReservationExpired);
    world.check().await;
}

#[tokio::test]
async fn too_little_money_changes_nothing() {
    let world = World::new().await;
    let mut request = world.request();
    request.period = Micros(PERIOD.0 * 60);
    request.bytes = Bytes(SIZE.0 * 10);
    let id = world.allocations.reserve(&world.call(), request).await.unwrap().value.id;
    let error = world.allocations.fund(&world.call(), id).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InsufficientFunds);
    assert_eq!(world.allocation(id).await.state, AllocationState::Reserved);
    assert_eq!(world.count_documents(schema::JOBS).await, 0);
    world.check().await;
}

#[tokio::test]
async fn restrictions_add_up_and_renewal_lifts_what_it_mends() {
    let world = World::new().await;
    let system = Call::system("t");
    let id = world.active().await;
    let refused = world.allocations.restrict(&world.call(), id, RestrictReason::Quota).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Forbidden);
    for reason in [RestrictReason::Quota, RestrictReason::EscrowExhausted] {
        world.allocations.restrict(&system, id, reason).await.unwrap();
        world.allocations.restrict(&system, id, reason).await.unwrap();
    }
    world.run_jobs().await;
    assert_eq!(world.allocation(id).await.access, AccessState::Restricted);
    assert_eq!(world.fake.0.lock().held[&id].level, Some(AccessLevel::ReadOnly));
    assert_eq!(world.fake.calls("restrict"), 1);
    let before = world.allocation(id).await;
    let more = RenewRequest { period: PERIOD, egress_allowance: Bytes(Bytes::GIB) };
    let renewed = world.allocations.renew(&world.call(), id, more).await.unwrap().value;
    assert_eq!(renewed.ends_at, Some(before.ends_at.unwrap().plus(PERIOD)));
    assert_eq!(world.balance(AccountKey::Escrow(id)).await, 2 * CEILING);
    assert_eq!(renewed.state, AllocationState::Restricted);
    world.allocations.unrestrict(&system, id, RestrictReason::Quota).await.unwrap();
    world.run_jobs().await;
    assert_eq!(world.allocation(id).await.state, AllocationState::Active);
    assert_eq!(world.fake.0.lock().held[&id].level, Some(AccessLevel::Full));
    world.check().await;
}

#[tokio::test]
async fn the_end_of_the_period_closes() {
    let world = World::new().await;
    let id = world.active().await;
    let trigger = EndPeriods::new(world.allocations.clone());
    assert_eq!(trigger.fire().await.unwrap().changed, 0);
    world.clock.advance(PERIOD);
    assert_eq!(trigger.fire().await.unwrap().changed, 1);
    assert_eq!(trigger.fire().await.unwrap().changed, 0);
    world.run_jobs().await;
    world.clock.advance(GRACE);
    world.run_jobs().await;
    assert_eq!(world.allocation(id).await.state, AllocationState::Closed);
    world.check().await;
}

#[tokio::test]
async fn a_provider_that_never_comes_back_does_not_keep_the_escrow() {
    let world = World::new().await;
    let id = world.active().await;
    world.fake.fail("restrict", [Fault::Unavailable; 20]);
    world.allocations.close(&world.call(), id).await.unwrap();
    world.run_jobs().await;
    assert_eq!(world.balance(AccountKey::Escrow(id)).await, 0);
    assert!(world.allocation(id).await.purge_at.is_some());
    assert!(world.jobs().await.iter().any(|j| j.kind == JobKind::Release && j.state == JobState::Failed));
    world.clock.advance(GRACE);
    world.run_jobs().await;
    assert_eq!(world.allocation(id).await.state, AllocationState::Closed);
    world.check().await;
}

#[tokio::test]
async fn a_secret_is_shown_by_its_own_request_for_ten_minutes() {
    let world = World::new().await;
    let id = world.active().await;
    let call = world.keyed("k", "b");
    let first = world.credentials.issue(&call, id, READ_WRITE).await.unwrap();
    world.run_jobs().await;
    world.clock.advance(Micros::from_secs(600));
    let again = world.credentials.issue(&call, id, READ_WRITE).await.unwrap();
    assert!(again.replayed && !first.replayed);
    assert_eq!((again.secret, again.credential.id), (first.secret.clone(), first.credential.id));
    world.clock.advance(Micros(1));
    let gone = world.credentials.issue(&call, id, READ_WRITE).await.err().unwrap();
    assert_eq!(gone.code, ErrorCode::SecretGone);
    let shown = serde_json::to_string(&world.credentials.get(&call, first.credential.id).await.unwrap());
    assert!(!shown.unwrap().contains(&first.secret));
    assert_eq!(world.count_documents(schema::CREDENTIALS).await, 1);
}

#[tokio::test]
async fn revoking_and_running_out_take_the_key_away() {
    let world = World::new().await;
    let call = world.call();
    let id = world.active().await;
    let expires_at = Some(world.work.now().plus(Micros::from_secs(60)));
    let short = IssueCredential { expires_at, ..READ_WRITE };
    let short = world.credentials.issue(&call, id, short).await.unwrap().credential.id;
    let long = world.credentials.issue(&call, id, READ_WRITE).await.unwrap().credential.id;
    world.run_jobs().await;
    assert_eq!(keys(&world, id), 2);
    world.credentials.revoke(&call, long).await.unwrap();
    world.run_jobs().await;
    assert_eq!(credential(&world, long).await.state, CredentialState::Revoked);
    world.clock.advance(Micros::from_secs(60));
    let trigger = ExpireCredentials::new(world.work.clone());
    assert_eq!(trigger.fire().await.unwrap().changed, 1);
    assert_eq!(trigger.fire().await.unwrap().changed, 0);
    world.run_jobs().await;
    assert_eq!(credential(&world, short).await.state, CredentialState::Expired);
    assert_eq!(keys(&world, id), 0);
    // Revoking what is gone is no error and does nothing.
    let jobs = world.count_documents(schema::JOBS).await;
    world.credentials.revoke(&call, long).await.unwrap();
    assert_eq!(world.count_documents(schema::JOBS).await, jobs);
}

#[tokio::test]
async fn a_key_that_could_not_be_installed_is_taken_away_and_rotation_can_be_tried_again() {
    let world = World::new().await;
    let call = world.call();
    let id = world.active().await;
    let old = world.credentials.issue(&call, id, READ_WRITE).await.unwrap().credential.id;
    world.run_jobs().await;
    world.fake.fail("issue", [Fault::After; 8]);
    let lost = world.credentials.rotate(&call, old, RotateCredential::default()).await.unwrap();
    let twice = world.credentials.rotate(&call, old, RotateCredential::default()).await.err().unwrap();
    assert_eq!(twice.code, ErrorCode::InvalidState);
    world.run_jobs().await;
    assert_eq!(credential(&world, lost.credential.id).await.state, CredentialState::Revoked);
    assert_eq!(credential(&world, old).await.state, CredentialState::Active);
    assert_eq!(keys(&world, id), 1);
    world.credentials.rotate(&call, old, RotateCredential::default()).await.unwrap();
    world.run_jobs().await;
    assert_eq!(credential(&world, old).await.state, CredentialState::Rotating);
}

#[tokio::test]
async fn others_see_nothing_and_may_do_nothing() {
    let world = World::new().await;
    let id = world.active().await;
    let key = world.credentials.issue(&world.call(), id, READ_WRITE).await.unwrap().credential.id;
    let other = Principal::Consumer(ConsumerId::from_uuid(uuid::Uuid::from_u128(1)));
    let other = Call { principal: other, ..world.call() };
    let codes = [
        world.allocations.get(&other, id).await.err(),
        world.allocations.fund(&other, id).await.err(),
        world.allocations.close(&other, id).await.err(),
        world.credentials.get(&other, key).await.err(),
        world.credentials.revoke(&other, key).await.err(),
        world.credentials.issue(&other, id, READ_WRITE).await.err(),
    ];
    assert!(codes.iter().flatten().filter(|error| error.code == ErrorCode::NotFound).count() == 6);
    let provider = Call { principal: Principal::Provider(world.provider), ..world.call() };
    assert!(world.allocations.get(&provider, id).await.is_ok());
    let codes = [
        world.allocations.close(&provider, id).await.err(),
        world.credentials.get(&provider, key).await.err(),
        world.allocations.reserve(&provider, world.request()).await.err(),
    ];
    assert!(codes.iter().flatten().filter(|error| error.code == ErrorCode::Forbidden).count() == 3);
    let operator = Principal::Operator(OperatorId::from_uuid(uuid::Uuid::from_u128(2)));
    let operator = Call { principal: operator, ..world.call() };
    let refused = world.credentials.issue(&operator, id, READ_WRITE).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::Forbidden);
}

#[tokio::test]
async fn a_purge_that_was_refused_for_good_is_taken_up_again() {
    let world = World::new().await;
    let id = world.active().await;
    world.fake.fail("deallocate", [Fault::Refused]);
    world.allocations.close(&world.call(), id).await.unwrap();
    world.run_jobs().await;
    world.clock.advance(GRACE);
    world.run_jobs().await;
    assert_eq!(world.allocation(id).await.state, AllocationState::Closing);
    let directory = std::sync::Arc::new(world.fake.clone());
    let reconcile = Reconcile::new(world.work.clone(), directory, ReconcileSettings::default());
    assert_eq!(reconcile.fire().await.unwrap().changed, 0);
    world.clock.advance(Micros::from_days(1));
    assert_eq!(reconcile.fire().await.unwrap().changed, 1);
    world.run_jobs().await;
    assert_eq!(world.allocation(id).await.state, AllocationState::Closed);
    world.check().await;
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Reserve,
    Fund(usize),
    Cancel(usize),
    Close(usize),
    Issue(usize),
    Jobs,
    Fail(usize, Fault),
    Time(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop::sample::select(vec![Fault::Before, Fault::After, Fault::Unavailable, Fault::Refused]);
    prop_oneof![
        3 => Just(Step::Reserve),
        4 => (0..6_usize).prop_map(Step::Fund),
        1 => (0..6_usize).prop_map(Step::Cancel),
        2 => (0..6_usize).prop_map(Step::Close),
        1 => (0..6_usize).prop_map(Step::Issue),
        3 => Just(Step::Jobs),
        2 => (0..4_usize, fault).prop_map(|(call, fault)| Step::Fail(call, fault)),
        1 => (1..2_000_u64).prop_map(Step::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_happens_everything_ends_and_money_is_conserved(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            let call = world.call();
            let mut made = Vec::new();
            for step in steps {
                match step {
                    Step::Reserve => made.extend(
                        world.allocations.reserve(&call, world.request()).await.map(|a| a.value.id)),
                    Step::Fund(n) => if let Some(id) = made.get(n) { let _ = world.allocations.fund(&call, *id).await; },
                    Step::Cancel(n) => if let Some(id) = made.get(n) { let _ = world.allocations.cancel(&call, *id).await; },
                    Step::Close(n) => if let Some(id) = made.get(n) { let _ = world.allocations.close(&call, *id).await; },
                    Step::Issue(n) => if let Some(id) = made.get(n) {
                        let _ = world.credentials.issue(&call, *id, READ_WRITE).await;
                    },
                    Step::Jobs => world.run_jobs().await,
                    Step::Fail(call, fault) =>
                        world.fake.fail(["allocate", "issue", "restrict", "deallocate"][call], [fault]),
                    Step::Time(seconds) => world.clock.advance(Micros::from_secs(seconds)),
                }
            }
            // The faults are over, time passes, the triggers run: everything ends.
            world.fake.0.lock().faults.clear();
            world.clock.advance(Micros(PERIOD.0 + 1_000_000_000));
            ExpireReservations::new(world.allocations.clone()).fire().await.unwrap();
            world.run_jobs().await;
            world.clock.advance(PERIOD);
            EndPeriods::new(world.allocations.clone()).fire().await.unwrap();
            world.run_jobs().await;
            world.clock.advance(GRACE);
            world.run_jobs().await;
            // What a provider refused for good is found by its level, a while later.
            world.clock.advance(Micros::from_days(2));
            let directory = std::sync::Arc::new(world.fake.clone());
            let reconcile = Reconcile::new(world.work.clone(), directory, ReconcileSettings::default());
            reconcile.fire().await.unwrap();
            world.run_jobs().await;
            for id in made {
                assert!(world.allocation(id).await.state.is_terminal(), "{:?}", world.allocation(id).await.state);
            }
            world.check().await;
        });
    }
}
