//! The projection of units that offerings are served from: rows in the order of rank, a bitmap for each word that a filter
//! may name, and an order for each number that it may bound. A query is the intersection of bitmaps and the first set bits of
//! it; nothing is sorted. A snapshot is made out of the one before and of what has changed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::bitmap::{self, Bits, Order};

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

/// What filters and orders ask of a row, side by side, so that making a snapshot does not wander through memory.
#[derive(Clone)]
struct Entry {
    id: UnitId,
    row: Arc<Row>,
    breakdown: Breakdown,
    free: u64,
    price: u128,
    latency: u64,
    uptime: u32,
    upload: u64,
    download: u64,
    /// Codes of kind, profile, region and country.
    codes: [u32; WORDS],
    flags: [bool; 3],
    /// Its number in the snapshot before; `u32::MAX` for one that is new or has changed.
    before: u32,
}

/// Kind, profile, region, country.
const WORDS: usize = 4;
/// Price, latency, uptime, free; upload, download.
const ORDERS: usize = 6;

/// An unchanging view of all offerings, in the order of rank.
pub struct Snapshot {
    entries: Vec<Entry>,
    /// The codes of words that filters may name.
    codes: [HashMap<String, u32>; WORDS],
    /// The rows that have the word, by its code.
    words: [Vec<Bits>; WORDS],
    flags: [Bits; 3],
    orders: [Order; ORDERS],
    median_price: u128,
    as_of: Timestamp,
}

impl Snapshot {
    /// Ranks the rows that are on offer.
    #[must_use]
    pub fn build(all: impl Iterator<Item = Arc<Row>>, weights: &Weights, as_of: Timestamp) -> Self {
        let nothing = Self {
            entries: Vec::new(),
            codes: Default::default(),
            words: Default::default(),
            flags: Default::default(),
            orders: Default::default(),
            median_price: 0,
            as_of,
        };
        nothing.with(all.collect(), weights, as_of)
    }

    /// The same with some rows changed or new; what is not on offer any more is left out. The result is what
    /// [`Snapshot::build`] gives for all rows, at the cost of a few passes over them.
    #[must_use]
    pub fn with(&self, changed: Vec<Arc<Row>>, weights: &Weights, as_of: Timestamp) -> Self {
        let mut codes = self.codes.clone();
        let gone: HashSet<UnitId> = changed.iter().map(|row| row.unit.id).collect();
        let mut entries: Vec<Entry> = Vec::with_capacity(self.entries.len() + changed.len());
        for (before, entry) in (0_u32..).zip(&self.entries) {
            if !gone.contains(&entry.id) {
                entries.push(Entry { before, ..entry.clone() });
            }
        }
        let on_offer = changed.into_iter().filter(|row| row.unit.mode == UnitMode::Open && row.unit.free > 0);
        entries.extend(on_offer.map(|row| entry(row, &mut codes)));
        let median_price = median_price(&entries);
        for entry in &mut entries {
            if entry.before == u32::MAX || median_price != self.median_price {
                entry.breakdown = score(&inputs(&entry.row, median_price), weights);
            }
        }
        // Ties are broken by id, so that every replica ranks alike. What did not change is in order already, which the sort
        // makes use of; so do those below.
        entries.sort_by_key(|entry| (Reverse(entry.breakdown.score), entry.id));
        let len = entries.len();
        let mut moved = vec![u32::MAX; self.entries.len()];
        for (now, entry) in (0_u32..).zip(&entries) {
            if let Some(place) = moved.get_mut(entry.before as usize) {
                *place = now;
            }
        }
        let fresh: Vec<u32> =
            (0_u32..).zip(&entries).filter(|(_, e)| e.before == u32::MAX).map(|(now, _)| now).collect();
        let mut words: [Vec<Bits>; WORDS] = std::array::from_fn(|word| {
            let count = codes.get(word).map_or(0, HashMap::len);
            vec![bitmap::none(len); count]
        });
        let mut flags: [Bits; 3] = std::array::from_fn(|_| bitmap::none(len));
        for (now, entry) in entries.iter().enumerate() {
            for (masks, code) in words.iter_mut().zip(entry.codes) {
                if let Some(mask) = masks.get_mut(code as usize) {
                    bitmap::set(mask, now);
                }
            }
            for (mask, _) in flags.iter_mut().zip(entry.flags).filter(|(_, has)| *has) {
                bitmap::set(mask, now);
            }
        }
        let order = |which: usize, key: fn(&Entry) -> u128| {
            let known = self.orders.get(which).map(Order::rows).unwrap_or_default();
            let known = known.iter().filter_map(|before| moved.get(*before as usize)).copied();
            let rows = known.filter(|now| *now != u32::MAX).chain(fresh.iter().copied()).collect();
            Order::new(rows, |row| entries.get(row).map_or(u128::MAX, key))
        };
        let orders = [
            order(0, |e| e.price),
            order(1, |e| u128::from(e.latency)),
            order(2, |e| u128::from(u32::MAX - e.uptime)),
            order(3, |e| u128::from(u64::MAX - e.free)),
            order(4, |e| u128::from(u64::MAX - e.upload)),
            order(5, |e| u128::from(u64::MAX - e.download)),
        ];
        Self { entries, codes, words, flags, orders, median_price, as_of }
    }

    /// How many are on offer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is on offer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
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
        let len = self.entries.len();
        // Everything up to, and everything from, each filter on: what it alone removes follows from the two.
        let mut after = vec![bitmap::full(len)];
        for (_, mask) in masks.iter().skip(1).rev() {
            let next = after.last().map(|last| bitmap::and(last, mask)).unwrap_or_default();
            after.push(next);
        }
        let mut before = bitmap::full(len);
        let mut removed = Vec::with_capacity(masks.len());
        for ((name, mask), rest) in masks.iter().zip(after.iter().rev()) {
            removed.push(Removed {
                filter: (*name).to_owned(),
                removed: (len as u64).saturating_sub(bitmap::count(mask)),
                would_add: bitmap::count_both(&before, rest),
            });
            before = bitmap::and(&before, mask);
        }
        let matching = bitmap::count(&before);
        for filter in &mut removed {
            filter.would_add = filter.would_add.saturating_sub(matching);
        }
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
            considered: self.entries.len() as u64,
            removed,
            loosest,
            next: ((shown as u64) < matching && !picked.is_empty()).then(|| shown.to_string()),
            as_of: self.as_of,
        }
    }

    fn pick(&self, mask: &Bits, sort: OfferingSort, limit: usize, offset: usize) -> Vec<usize> {
        let ordered = match sort {
            OfferingSort::Score => return bitmap::rows(mask).skip(offset).take(limit).collect(),
            OfferingSort::Price => self.orders.first(),
            OfferingSort::Latency => self.orders.get(1),
            OfferingSort::Uptime => self.orders.get(2),
            OfferingSort::Free => self.orders.get(3),
        };
        let all = ordered.map(Order::rows).unwrap_or_default();
        let rows = all.iter().map(|row| *row as usize).filter(|row| bitmap::has(mask, *row));
        rows.skip(offset).take(limit).collect()
    }

    fn masks(&self, filter: &OfferingFilter) -> Vec<(&'static str, Bits)> {
        let mut masks = Vec::new();
        let kind = filter.kind.as_deref().unwrap_or("storage");
        let wanted =
            [Some(kind), filter.profile.as_deref(), filter.region.as_deref(), filter.country.as_deref()];
        for ((name, wanted), (codes, words)) in ["kind", "profile", "region", "country"]
            .into_iter()
            .zip(wanted)
            .zip(self.codes.iter().zip(&self.words))
        {
            if let Some(wanted) = wanted {
                let mask = codes.get(wanted).and_then(|code| words.get(*code as usize)).cloned();
                masks.push((name, mask.unwrap_or_else(|| bitmap::none(self.entries.len()))));
            }
        }
        let mut limit = |name, which: usize, holds: &dyn Fn(&Entry) -> bool| {
            let holds = |row: usize| self.entries.get(row).is_some_and(holds);
            let mask = self.orders.get(which).map(|order| order.while_holds(holds));
            masks.push((name, mask.unwrap_or_default()));
        };
        if let Some(least) = filter.min_free {
            limit("min_free", 3, &|e| e.free >= least.get());
        }
        if let Some(most) = filter.max_price {
            limit("max_price", 0, &|e| e.price <= most.get());
        }
        if let Some(most) = filter.max_latency {
            limit("max_latency", 1, &|e| e.latency <= most.get());
        }
        if let Some(least) = filter.min_uptime {
            limit("min_uptime", 2, &|e| e.uptime >= least.get());
        }
        if let Some(least) = filter.min_upload {
            limit("min_upload", 4, &|e| e.upload >= least);
        }
        if let Some(least) = filter.min_download {
            limit("min_download", 5, &|e| e.download >= least);
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
        let entry = self.entries.get(row)?;
        let (unit, score) = (&entry.row.unit, entry.breakdown);
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
            explanation: explain(&score, entry.row.performance),
        })
    }

    /// The offering of one unit, with its rank among all.
    #[must_use]
    pub fn of_unit(&self, id: UnitId) -> Option<Offering> {
        let row = self.entries.iter().position(|entry| entry.id == id)?;
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

fn median_price(entries: &[Entry]) -> u128 {
    let mut prices: Vec<u128> = entries.iter().map(|entry| entry.price).collect();
    if prices.is_empty() {
        return 0;
    }
    let middle = (prices.len() - 1) / 2;
    *prices.select_nth_unstable(middle).1
}

/// A row as a snapshot holds it, not scored so far.
fn entry(row: Arc<Row>, codes: &mut [HashMap<String, u32>; WORDS]) -> Entry {
    let unit = &row.unit;
    let mut words = [0; WORDS];
    let names = [&unit.kind, &unit.profile, &unit.region, &unit.country];
    for ((word, codes), name) in words.iter_mut().zip(codes).zip(names) {
        *word = match codes.get(name) {
            Some(code) => *code,
            None => {
                let next = u32::try_from(codes.len()).unwrap_or(u32::MAX);
                codes.insert(name.clone(), next);
                next
            }
        };
    }
    let features = &unit.features;
    Entry {
        id: unit.id,
        breakdown: Breakdown::default(),
        free: u64::try_from(unit.free).unwrap_or(0),
        price: unit.price.per_gib_month.get(),
        latency: unit.sla.latency_avg.get(),
        uptime: unit.sla.uptime.get(),
        upload: unit.sla.upload_bytes_per_s,
        download: unit.sla.download_bytes_per_s,
        codes: words,
        flags: [features.versioning, features.encryption_at_rest, features.object_lock],
        before: u32::MAX,
        row,
    }
}

#[cfg(test)]
#[path = "projection_tests.rs"]
mod tests;
