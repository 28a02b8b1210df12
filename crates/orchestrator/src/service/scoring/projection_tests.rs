//! A snapshot that was made of the one before is the one that is made of everything.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::core::market::{ids::Id, quantity::Micros, quantity::Ppm};

/// What a unit is like: number, region, free, price, latency, open, reputation.
type Sketch = (u8, u8, i64, u8, u8, bool, u32);

fn row((number, region, free, price, latency, open, reputation): Sketch) -> Arc<Row> {
    let unit = DataUnit {
        id: UnitId::from_uuid(uuid::Uuid::from_u128(u128::from(number))),
        provider: ProviderId::from_uuid(uuid::Uuid::from_u128(1)),
        name: format!("unit {number}"),
        domain: DomainId::local(),
        kind: "storage".into(),
        profile: "s3".into(),
        region: format!("region-{region}"),
        country: "CH".into(),
        capacity: Bytes(100),
        free,
        live: 0,
        active: 0,
        features: Features { versioning: price % 2 == 0, ..Features::default() },
        tags: BTreeMap::new(),
        price: PriceTerms { per_gib_month: Amount(u128::from(price)), per_gib_egress: Amount(0) },
        price_bounds: None,
        sla: SlaTerms {
            uptime: Ppm(990_000 + u32::from(latency) * 10),
            latency_avg: Micros(u64::from(latency)),
            upload_bytes_per_s: u64::from(price) * 3,
            ..SlaTerms::default()
        },
        mode: if open { UnitMode::Open } else { UnitMode::Decommissioned },
        maintenance: Vec::new(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
    };
    Arc::new(Row { unit, reputation, performance: (0, 0) })
}

fn sketch() -> impl Strategy<Value = Sketch> {
    (0_u8..40, 0_u8..3, 0_i64..100, 0_u8..20, 0_u8..20, any::<bool>(), 0_u32..100_000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn step_by_step_is_all_at_once(
        steps in prop::collection::vec(prop::collection::vec(sketch(), 0..12), 1..6),
        region in prop::option::of(0_u8..4), price in prop::option::of(0_u8..20), latency in prop::option::of(0_u64..20),
        free in prop::option::of(0_u64..100), upload in prop::option::of(0_u64..60), versioning in prop::option::of(any::<bool>()),
    ) {
        let weights = Weights::default();
        let mut all: BTreeMap<UnitId, Arc<Row>> = BTreeMap::new();
        let mut snapshot = Snapshot::build(std::iter::empty(), &weights, Timestamp(0));
        let filter = OfferingFilter {
            region: region.map(|region| format!("region-{region}")),
            max_price: price.map(|price| Amount(price.into())),
            max_latency: latency.map(Micros),
            min_free: free.map(Bytes),
            min_upload: upload,
            versioning,
            ..OfferingFilter::default()
        };
        for changed in steps {
            let changed: BTreeMap<UnitId, Arc<Row>> =
                changed.into_iter().map(row).map(|row| (row.unit.id, row)).collect();
            all.extend(changed.iter().map(|(id, row)| (*id, Arc::clone(row))));
            snapshot = snapshot.with(changed.into_values().collect(), &weights, Timestamp(1));
            let whole = Snapshot::build(all.values().cloned(), &weights, Timestamp(1));
            for sort in [
                OfferingSort::Score, OfferingSort::Price, OfferingSort::Latency, OfferingSort::Uptime, OfferingSort::Free,
            ] {
                let page = snapshot.query(&filter, sort, 10, 2);
                prop_assert_eq!(&page, &whole.query(&filter, sort, 10, 2));
                let fits = all.values().filter(|row| fits(&row.unit, &filter)).count() as u64;
                prop_assert_eq!(page.matching, fits);
            }
        }
    }
}

/// The filter, written down plainly.
fn fits(unit: &DataUnit, filter: &OfferingFilter) -> bool {
    unit.mode == UnitMode::Open
        && unit.free > 0
        && filter.region.as_ref().is_none_or(|region| *region == unit.region)
        && filter.max_price.is_none_or(|most| unit.price.per_gib_month <= most)
        && filter.max_latency.is_none_or(|most| unit.sla.latency_avg <= most)
        && filter.min_free.is_none_or(|least| unit.free.unsigned_abs() >= least.get())
        && filter.min_upload.is_none_or(|least| unit.sla.upload_bytes_per_s >= least)
        && (filter.versioning != Some(true) || unit.features.versioning)
}
