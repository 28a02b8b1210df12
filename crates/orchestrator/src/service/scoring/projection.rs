//! The projection of units that offerings are served from: columns in the order of rank, and a bitmap for each value that
//! a filter may ask for. A query is the intersection of bitmaps and the first set bits of it; nothing is sorted.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::core::market::{
    ids::{ProviderId, UnitId},
    money::Amount,
    offering::OfferingFilter,
    quantity::{Bytes, Timestamp},
    ranking::{Breakdown, Inputs, Weights, score},
    terms::{DomainId, PriceTerms, SlaTerms},
    unit::{DataUnit, Features, UnitMode},
};

/// What the market shows of a unit that has free capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offering {
    /// 1 for the best of all that match.
    pub rank: u32,
    /// The unit.
    pub unit: UnitId,
    /// Its owner.
    pub provider: ProviderId,
    /// Its name.
    pub name: String,
    /// Where it is settled.
    pub domain: DomainId,
    /// Its kind.
    pub kind: String,
    /// Its compatibility profile.
    pub profile: String,
    /// Its region.
    pub region: String,
    /// Its country.
    pub country: String,
    /// All of it.
    pub capacity: Bytes,
    /// What is free of it.
    pub free: Bytes,
    /// Optional abilities.
    pub features: Features,
    /// Free words.
    pub tags: BTreeMap<String, String>,
    /// The present price.
    pub price: PriceTerms,
    /// The promise.
    pub sla: SlaTerms,
    /// The score and what it is made of.
    pub score: Breakdown,
    /// The same in words.
    pub explanation: String,
}

/// The order of offerings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfferingSort {
    /// Best score first.
    #[default]
    Score,
    /// Lowest price first.
    Price,
    /// Lowest promised latency first.
    Latency,
    /// Highest promised uptime first.
    Uptime,
    /// Most free first.
    Free,
}

/// What a filter did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The filter's field.
    pub filter: String,
    /// How many of all offerings fail it, whatever the other filters say.
    pub removed: u64,
    /// How many more would match without it.
    pub would_add: u64,
}

/// A page of offerings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferingPage {
    /// In the wanted order.
    pub offerings: Vec<Offering>,
    /// How many match in all.
    pub matching: u64,
    /// How many are on offer in all: open units with free capacity.
    pub considered: u64,
    /// What each filter that was given did.
    pub removed: Vec<Removed>,
    /// The one filter whose loosening would add most; `None` when none would add any.
    pub loosest: Option<String>,
    /// Where to go on.
    pub next: Option<String>,
    /// When the projection was made.
    pub as_of: Timestamp,
}

/// A unit as the projection keeps it.
#[derive(Debug, Clone)]
pub struct Row {
    /// The unit.
    pub unit: DataUnit,
    /// Thousandths of a point.
    pub reputation: u32,
    /// Probe operations that succeeded within the promised latency, and those tried.
    pub performance: (u64, u64),
}

type Bits = Box<[u64]>;

/// An unchanging view of all offerings.
pub struct Snapshot {
    rows: Vec<Arc<Row>>,
    breakdowns: Vec<Breakdown>,
    kind: HashMap<String, Bits>,
    profile: HashMap<String, Bits>,
    region: HashMap<String, Bits>,
    country: HashMap<String, Bits>,
    flags: [Bits; 3],
    free: Vec<u64>,
    price: Vec<u128>,
    latency: Vec<u64>,
    uptime: Vec<u64>,
    upload: Vec<u64>,
    download: Vec<u64>,
    orders: [Vec<u32>; 4],
    median_price: u128,
    as_of: Timestamp,
}

impl Snapshot {
    /// Ranks the rows that are on offer.
    #[must_use]
    pub fn build(all: impl Iterator<Item = Arc<Row>>, weights: &Weights, as_of: Timestamp) -> Self {
        let mut rows: Vec<Arc<Row>> =
            all.filter(|r| r.unit.mode == UnitMode::Open && r.unit.free > 0).collect();
        let median_price = median_price(&rows);
        let mut scored: Vec<(Breakdown, Arc<Row>)> =
            rows.drain(..).map(|row| (score(&inputs(&row, median_price), weights), row)).collect();
        // Ties are broken by id, so that every replica ranks alike.
        scored.sort_unstable_by(|a, b| (b.0.score, a.1.unit.id).cmp(&(a.0.score, b.1.unit.id)));
        let (breakdowns, rows): (Vec<_>, Vec<_>) = scored.into_iter().unzip();
        let column = |of: fn(&DataUnit) -> u64| rows.iter().map(|r| of(&r.unit)).collect::<Vec<u64>>();
        let free = column(|u| u64::try_from(u.free).unwrap_or(0));
        let latency = column(|u| u.sla.latency_avg.get());
        let uptime = column(|u| u64::from(u.sla.uptime.get()));
        let upload = column(|u| u.sla.upload_bytes_per_s);
        let download = column(|u| u.sla.download_bytes_per_s);
        let price: Vec<u128> = rows.iter().map(|r| r.unit.price.per_gib_month.get()).collect();
        let orders = [
            order(rows.len(), |i| price.get(i).copied().unwrap_or(u128::MAX)),
            order(rows.len(), |i| latency.get(i).copied().unwrap_or(u64::MAX)),
            order(rows.len(), |i| u64::MAX - uptime.get(i).copied().unwrap_or(0)),
            order(rows.len(), |i| u64::MAX - free.get(i).copied().unwrap_or(0)),
        ];
        let flags = [
            bits(rows.iter().map(|r| r.unit.features.versioning)),
            bits(rows.iter().map(|r| r.unit.features.encryption_at_rest)),
            bits(rows.iter().map(|r| r.unit.features.object_lock)),
        ];
        Self {
            kind: index(&rows, |u| &u.kind),
            profile: index(&rows, |u| &u.profile),
            region: index(&rows, |u| &u.region),
            country: index(&rows, |u| &u.country),
            flags,
            free,
            price,
            latency,
            uptime,
            upload,
            download,
            orders,
            breakdowns,
            median_price,
            as_of,
            rows,
        }
    }

    /// How many are on offer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing is on offer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// When it was made.
    #[must_use]
    pub const fn as_of(&self) -> Timestamp {
        self.as_of
    }

    /// The median price that costs are measured by.
    #[must_use]
    pub const fn median_price(&self) -> Amount {
        Amount(self.median_price)
    }

    /// One page: up to `limit` offerings after the first `offset` matches.
    #[must_use]
    pub fn query(
        &self,
        filter: &OfferingFilter,
        sort: OfferingSort,
        limit: usize,
        offset: usize,
    ) -> OfferingPage {
        let masks = self.masks(filter);
        let words = self.rows.len().div_ceil(64);
        // Everything up to, and everything from, each filter on: what it alone removes follows from the two.
        let mut after = vec![full(self.rows.len())];
        for (_, mask) in masks.iter().rev() {
            let next = after.last().map(|last| and(last, mask)).unwrap_or_default();
            after.push(next);
        }
        let matching = after.last().map_or(0, popcount);
        let mut before = full(self.rows.len());
        let mut removed = Vec::with_capacity(masks.len());
        for (i, (name, mask)) in masks.iter().enumerate() {
            let rest = after.get(masks.len() - 1 - i).map(|rest| and(&before, rest)).unwrap_or_default();
            removed.push(Removed {
                filter: (*name).to_owned(),
                removed: (self.rows.len() as u64).saturating_sub(popcount(mask)),
                would_add: popcount(&rest).saturating_sub(matching),
            });
            before = and(&before, mask);
        }
        debug_assert_eq!(before.len(), words);
        let loosest =
            removed.iter().filter(|r| r.would_add > 0).max_by_key(|r| r.would_add).map(|r| r.filter.clone());
        let picked = self.pick(&before, sort, limit, offset);
        let shown = offset.saturating_add(picked.len());
        let offerings = picked
            .iter()
            .enumerate()
            .filter_map(|(i, row)| self.offering(*row, u32::try_from(offset + i + 1).unwrap_or(u32::MAX)))
            .collect();
        OfferingPage {
            offerings,
            matching,
            considered: self.rows.len() as u64,
            removed,
            loosest,
            next: ((shown as u64) < matching && !picked.is_empty()).then(|| shown.to_string()),
            as_of: self.as_of,
        }
    }

    fn pick(&self, mask: &Bits, sort: OfferingSort, limit: usize, offset: usize) -> Vec<usize> {
        let ordered = match sort {
            OfferingSort::Score => return set_bits(mask).skip(offset).take(limit).collect(),
            OfferingSort::Price => self.orders.first(),
            OfferingSort::Latency => self.orders.get(1),
            OfferingSort::Uptime => self.orders.get(2),
            OfferingSort::Free => self.orders.get(3),
        };
        let is_set = |i: &usize| mask.get(i / 64).is_some_and(|word| word >> (i % 64) & 1 == 1);
        let all = ordered.map(Vec::as_slice).unwrap_or_default();
        all.iter().map(|i| *i as usize).filter(is_set).skip(offset).take(limit).collect()
    }

    fn masks(&self, filter: &OfferingFilter) -> Vec<(&'static str, Bits)> {
        let mut masks = Vec::new();
        let none = || vec![0; self.rows.len().div_ceil(64)].into_boxed_slice();
        let kind = filter.kind.as_deref().unwrap_or("storage");
        for (name, index, wanted) in [
            ("kind", &self.kind, Some(kind)),
            ("profile", &self.profile, filter.profile.as_deref()),
            ("region", &self.region, filter.region.as_deref()),
            ("country", &self.country, filter.country.as_deref()),
        ] {
            if let Some(wanted) = wanted {
                masks.push((name, index.get(wanted).cloned().unwrap_or_else(none)));
            }
        }
        if let Some(least) = filter.min_free {
            masks.push(("min_free", bits(self.free.iter().map(|v| *v >= least.get()))));
        }
        if let Some(most) = filter.max_price {
            masks.push(("max_price", bits(self.price.iter().map(|v| *v <= most.get()))));
        }
        if let Some(most) = filter.max_latency {
            masks.push(("max_latency", bits(self.latency.iter().map(|v| *v <= most.get()))));
        }
        for (name, column, least) in [
            ("min_uptime", &self.uptime, filter.min_uptime.map(|p| u64::from(p.get()))),
            ("min_upload", &self.upload, filter.min_upload),
            ("min_download", &self.download, filter.min_download),
        ] {
            if let Some(least) = least {
                masks.push((name, bits(column.iter().map(|v| *v >= least))));
            }
        }
        let names = ["versioning", "encryption_at_rest", "object_lock"];
        let wanted = [filter.versioning, filter.encryption_at_rest, filter.object_lock];
        for ((name, has), wanted) in names.into_iter().zip(&self.flags).zip(wanted) {
            // "Must not have" is no wish that anybody has; `false` asks for nothing.
            if wanted == Some(true) {
                masks.push((name, has.clone()));
            }
        }
        masks
    }

    fn offering(&self, row: usize, rank: u32) -> Option<Offering> {
        let (unit, score) = (&self.rows.get(row)?.unit, *self.breakdowns.get(row)?);
        Some(Offering {
            rank,
            unit: unit.id,
            provider: unit.provider,
            name: unit.name.clone(),
            domain: unit.domain.clone(),
            kind: unit.kind.clone(),
            profile: unit.profile.clone(),
            region: unit.region.clone(),
            country: unit.country.clone(),
            capacity: unit.capacity,
            free: Bytes(u64::try_from(unit.free).unwrap_or(0)),
            features: unit.features,
            tags: unit.tags.clone(),
            price: unit.price,
            sla: unit.sla.clone(),
            score,
            explanation: explain(&score, self.rows.get(row)?.performance),
        })
    }

    /// The offering of one unit, with its rank among all.
    #[must_use]
    pub fn of_unit(&self, id: UnitId) -> Option<Offering> {
        let row = self.rows.iter().position(|r| r.unit.id == id)?;
        self.offering(row, u32::try_from(row + 1).unwrap_or(u32::MAX))
    }
}

fn inputs(row: &Row, median_price: u128) -> Inputs {
    Inputs {
        reputation: row.reputation,
        good: row.performance.0,
        tried: row.performance.1,
        price: row.unit.price.per_gib_month.get(),
        median_price,
        free: u64::try_from(row.unit.free).unwrap_or(0),
        capacity: row.unit.capacity.get(),
    }
}

fn explain(score: &Breakdown, performance: (u64, u64)) -> String {
    let percent = |ppm: u32| format!("{}.{}", ppm / 10_000, ppm / 1_000 % 10);
    format!(
        "score {}: reputation {}, performance {} (surely at least this share of operations in time; {} of {} seen), \
         cost {} (50 at the market's median price), headroom {}",
        percent(score.score.get()),
        percent(score.reputation.get()),
        percent(score.performance.get()),
        performance.0,
        performance.1,
        percent(score.cost.get()),
        percent(score.headroom.get()),
    )
}

fn median_price(rows: &[Arc<Row>]) -> u128 {
    let mut prices: Vec<u128> = rows.iter().map(|r| r.unit.price.per_gib_month.get()).collect();
    if prices.is_empty() {
        return 0;
    }
    let middle = (prices.len() - 1) / 2;
    *prices.select_nth_unstable(middle).1
}

/// Row numbers in ascending order of a key; ties in the order of rank.
fn order<K: Ord>(len: usize, key: impl Fn(usize) -> K) -> Vec<u32> {
    let mut order: Vec<u32> = (0..u32::try_from(len).unwrap_or(u32::MAX)).collect();
    order.sort_by_key(|i| key(*i as usize));
    order
}

fn index(rows: &[Arc<Row>], of: fn(&DataUnit) -> &String) -> HashMap<String, Bits> {
    let words = rows.len().div_ceil(64);
    let mut index: HashMap<String, Bits> = HashMap::new();
    for (i, row) in rows.iter().enumerate() {
        let value = of(&row.unit);
        if !index.contains_key(value) {
            index.insert(value.clone(), vec![0; words].into_boxed_slice());
        }
        if let Some(word) = index.get_mut(value).and_then(|mask| mask.get_mut(i / 64)) {
            *word |= 1 << (i % 64);
        }
    }
    index
}

fn bits(values: impl ExactSizeIterator<Item = bool>) -> Bits {
    let mut out = Vec::with_capacity(values.len().div_ceil(64));
    let (mut word, mut at) = (0_u64, 0_u32);
    for value in values {
        word |= u64::from(value) << at;
        at += 1;
        if at == 64 {
            out.push(word);
            (word, at) = (0, 0);
        }
    }
    if at > 0 {
        out.push(word);
    }
    out.into_boxed_slice()
}

fn full(len: usize) -> Bits {
    bits((0..len).map(|_| true))
}

fn and(a: &Bits, b: &Bits) -> Bits {
    a.iter().zip(b).map(|(a, b)| a & b).collect()
}

fn popcount(mask: &Bits) -> u64 {
    mask.iter().map(|word| u64::from(word.count_ones())).sum()
}

fn set_bits(mask: &Bits) -> impl Iterator<Item = usize> {
    mask.iter().enumerate().flat_map(|(i, word)| {
        let mut left = *word;
        std::iter::from_fn(move || {
            let bit = left.trailing_zeros();
            left &= left.checked_sub(1)?;
            Some(i * 64 + bit as usize)
        })
    })
}
