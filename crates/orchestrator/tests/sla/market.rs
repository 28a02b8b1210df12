//! Offerings, reputation and prices.

use std::sync::Arc;

use orchestrator::{
    core::{
        client::database::{Changeset, ReaderExt},
        market::{
            ids::UnitId,
            money::Amount,
            offering::OfferingFilter,
            quantity::{Bytes, Micros, Ppm},
            score::Reputation,
            terms::PriceBounds,
            unit::{DataUnit, UnitMode},
        },
    },
    error::ErrorCode,
    service::{
        allocation::OfferingPicker,
        job::Trigger,
        page::PageRequest,
        pricing::{Controller, PricingService, Reprice},
        scoring::{DailyReputation, OfferingService, OfferingSettings, OfferingSort, ReputationService},
        work::Call,
    },
};

use super::world::{World, id, qos, unit};

fn offerings(world: &World) -> OfferingService {
    let reader = world.db.clone();
    OfferingService::new(reader, world.work.ids.clone(), world.feed.clone(), OfferingSettings::default())
}

async fn add_units(world: &World) {
    let mut changes = Changeset::new();
    for n in 2..=100_u128 {
        let mut unit = unit(n);
        unit.price.per_gib_month = Amount(1_000_000 + n * 10_000);
        unit.region = if n % 2 == 0 { "eu".into() } else { "us".into() };
        unit.sla.uptime = Ppm(990_000 + u32::try_from(n).unwrap());
        changes.insert(&unit);
    }
    world.work.committer.commit(changes).await.unwrap();
}

#[tokio::test]
async fn the_page_is_what_a_plain_scan_gives() {
    let world = World::new().await;
    add_units(&world).await;
    let service = offerings(&world);
    let call = Call::system("t");
    let filter = OfferingFilter {
        region: Some("eu".into()),
        max_price: Some(Amount(1_500_000)),
        ..OfferingFilter::default()
    };
    let first = service.list(&call, &filter, 10, None, OfferingSort::Score).await.unwrap();
    let second = service.list(&call, &filter, 100, first.next.as_deref(), OfferingSort::Score).await.unwrap();
    // 2, 4, … 50.
    assert_eq!((first.matching, first.considered), (25, 100));
    assert_eq!(first.offerings.len() + second.offerings.len(), 25);
    let all: Vec<_> = first.offerings.iter().chain(&second.offerings).collect();
    assert!(all.windows(2).all(|w| w[0].score.score >= w[1].score.score));
    assert!(all.iter().enumerate().all(|(i, o)| o.rank as usize == i + 1));
    assert!(all.iter().all(|o| o.region == "eu" && o.price.per_gib_month <= Amount(1_500_000)));
    let would_add: Vec<_> =
        first.removed.iter().map(|r| (r.filter.as_str(), r.removed, r.would_add)).collect();
    // Without the region: 3, 5, … 49; without the price: 52, … 100.
    assert_eq!(would_add, [("kind", 0, 0), ("region", 50, 24), ("max_price", 51, 25)]);
    assert_eq!(first.loosest.as_deref(), Some("max_price"));
    let cheap = service.list(&call, &OfferingFilter::default(), 1, None, OfferingSort::Price).await.unwrap();
    assert_eq!(cheap.offerings[0].unit, id::<UnitId>(2));
}

#[tokio::test]
async fn a_promise_that_no_unit_makes_says_which_filter_was_in_the_way() {
    let world = World::new().await;
    let filter = OfferingFilter { min_uptime: Some(Ppm(1_000_000)), ..OfferingFilter::default() };
    let error = offerings(&world).pick(&filter, 1).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NoMatchingOffering);
    let extra = error.extra.unwrap();
    assert_eq!(extra["loosest"], "min_uptime");
    assert_eq!(extra["removed"][1]["removed"], 1);
}

#[tokio::test]
async fn a_change_of_a_counter_is_seen_within_a_second() {
    let world = World::new().await;
    let service = offerings(&world);
    let call = Call::system("t");
    let filter = OfferingFilter { min_free: Some(Bytes(50 << 30)), ..OfferingFilter::default() };
    let matching =
        async || service.list(&call, &filter, 1, None, OfferingSort::Score).await.unwrap().matching;
    assert_eq!(matching().await, 1);
    let mut changes = Changeset::new();
    changes.add(orchestrator::core::client::schema::UNITS, id::<UnitId>(1), "free", -(60 << 30), 0);
    world.work.committer.commit(changes).await.unwrap();
    world.clock.advance(Micros::from_secs(1));
    assert_eq!(matching().await, 0);
    let mut changes = Changeset::new();
    changes.insert(&unit(2));
    world.work.committer.commit(changes).await.unwrap();
    world.clock.advance(Micros::from_secs(1));
    assert_eq!(matching().await, 1);
}

#[tokio::test]
async fn reputation_moves_once_a_day_with_its_reason() {
    let world = World::new().await;
    for _ in 0..10 {
        world.clock.advance(Micros::from_secs(1));
        world.report_last_second(1, qos(100, 0)).await;
    }
    let trigger = DailyReputation::new(world.work.clone(), world.settlement.clone(), world.settings.clone());
    assert_eq!(trigger.fire().await.unwrap().changed, 0, "the day's last reports may still come");
    world.clock.advance(Micros::from_secs(2));
    assert_eq!(trigger.fire().await.unwrap().changed, 1);
    assert_eq!(trigger.fire().await.unwrap().changed, 0);
    let service = ReputationService::new(world.work.clone());
    let reputation = service.of_unit(&Call::system("t"), id(1)).await.unwrap();
    assert_eq!(reputation.millipoints, 54_000);
    assert_eq!(reputation.history.len(), 1);
    // A day without evidence drifts back.
    world.clock.advance(Micros::from_secs(10));
    trigger.fire().await.unwrap();
    let stored = world.db.load::<Reputation>(&id::<UnitId>(1).to_string()).await.unwrap().unwrap().value;
    assert_eq!(stored.millipoints, 53_667);

    // The provider's is the mean over its units; one that was not judged yet has 50, one that is gone does not count.
    let mut changes = Changeset::new();
    changes.insert(&DataUnit { provider: id(1), ..unit(2) });
    changes.insert(&DataUnit { provider: id(1), mode: UnitMode::Decommissioned, ..unit(3) });
    changes.insert(&unit(4));
    world.work.committer.commit(changes).await.unwrap();
    let mean = service.of_provider(&Call::system("t"), id(1)).await.unwrap();
    assert_eq!((mean.millipoints, mean.units), ((53_667 + 50_000) / 2, 2));
    let unknown = service.of_provider(&Call::system("t"), id(9)).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_price_moves_once_a_day_inside_its_bounds_and_is_logged() {
    let world = World::new().await;
    let mut full = unit(2);
    full.free = 0;
    full.price_bounds = Some(PriceBounds { min: Amount(1), max: Amount(2_700_000) });
    let mut changes = Changeset::new();
    changes.insert(&full);
    world.work.committer.commit(changes).await.unwrap();
    let trigger = Reprice::new(world.work.clone(), Arc::new(Controller), Micros::from_days(1));
    assert_eq!(trigger.fire().await.unwrap().changed, 1);
    world.clock.advance(Micros::from_secs(3_600));
    assert_eq!(trigger.fire().await.unwrap().changed, 0);
    let stored = world.db.load::<DataUnit>(&full.id.to_string()).await.unwrap().unwrap().value;
    assert_eq!(stored.price.per_gib_month, Amount(2_700_000), "6 % up, but for the bound");
    let service = PricingService::new(world.work.clone());
    let history = service.history(&Call::system("t"), full.id, PageRequest::default()).await.unwrap().items;
    assert_eq!((history.len(), history[0].before), (1, Amount(2_592_000)));
}
