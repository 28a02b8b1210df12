//! How units performed, as far as their rank depends on it: how many of the latest operations that oracles timed were as fast as
//! promised. Read from hundreds of buckets for each unit, so replicas share what one of them has counted: one that starts reads
//! units and reputations from the database, and takes this from the cache.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use crate::{
    core::{
        client::{
            database::{Filter, Query, Reader, ReaderExt, Sort},
            schema,
        },
        market::{
            ids::{IdGenerator, UnitId},
            quantity::{Micros, Timestamp},
            sla::{Bucket, histogram},
            unit::DataUnit,
        },
    },
    error::Result,
    service::answers::SharedAnswers,
};

/// Units whose performances are shared as one value, about.
const SHARE: usize = 512;

/// Operations that succeeded within the promised latency, and those tried.
pub(super) type Performance = (u64, u64);

/// Reads performances.
#[derive(Clone)]
pub(super) struct Performances {
    pub reader: Arc<dyn Reader>,
    pub ids: IdGenerator,
    /// How far back they look.
    pub window: Micros,
    /// Of how many of the latest buckets of a unit they are made.
    pub buckets: usize,
    /// What replicas share.
    pub answers: SharedAnswers,
    /// How old a shared one may be.
    pub kept: Micros,
}

/// The performances of many units.
pub(super) struct Seen {
    pub of: HashMap<UnitId, Performance>,
    /// Since when the oldest of them has been true.
    pub as_of: Timestamp,
}

impl Performances {
    /// Those of all these units, shared ones where there are any. What had to be counted is shared then.
    pub async fn all(&self, units: &[&DataUnit]) -> Result<Seen> {
        let began = self.ids.now();
        let mut seen = Seen { of: HashMap::with_capacity(units.len()), as_of: began };
        let shares = self.shares(units);
        let count = shares.len();
        // Replicas that miss the same shares at the same time begin in different places, and meet each other's work half way.
        let first = usize::try_from(began.as_micros().unsigned_abs() % count.max(1) as u64).unwrap_or(0);
        let mut any = None;
        for (number, share) in shares.iter().enumerate().cycle().skip(first).take(count) {
            let key = format!("performance/{}/{}/{count}/{number}", self.window.get(), self.buckets);
            if let Some(told) = self.answers.get::<BTreeMap<String, Performance>>(&key, self.kept).await {
                seen.as_of = seen.as_of.min(told.as_of);
                for unit in share {
                    let known = told.value.get(&unit.id.to_string()).copied();
                    // New since then.
                    let performance = match known {
                        Some(performance) => performance,
                        None => self.of(unit).await?,
                    };
                    seen.of.insert(unit.id, performance);
                }
                continue;
            }
            let any = match &any {
                Some(any) => any,
                None => any.insert(self.any().await?),
            };
            let mut counted = BTreeMap::new();
            for unit in share {
                let id = unit.id.to_string();
                let performance = if any.contains(&id) { self.of(unit).await? } else { (0, 0) };
                seen.of.insert(unit.id, performance);
                counted.insert(id, performance);
            }
            self.answers.put(&key, &counted, began, self.kept).await;
        }
        Ok(seen)
    }

    /// That of one unit.
    pub async fn of(&self, unit: &DataUnit) -> Result<Performance> {
        let since = self.ids.now().minus(self.window);
        let query = Query::new(schema::BUCKETS)
            .filter(
                Filter::eq("subject", unit.id.to_string())
                    .and(Filter::Ge("start".into(), since.as_micros().into())),
            )
            .sort(Sort::FieldDescending("start".into()))
            .limit(self.buckets.clamp(1, 10_000));
        let (buckets, _) = self.reader.list::<Bucket>(query).await?;
        let limit = unit.sla.latency_avg.get();
        Ok(buckets.iter().fold((0, 0), |(good, tried), bucket| {
            let operations = || bucket.value.qos.operations.values();
            let fast =
                operations().fold(0_u64, |sum, s| sum.saturating_add(histogram::at_most(&s.latency, limit)));
            // Bulk transfers have no latency: what counts as tried is what was timed, and what failed.
            let timed = operations().fold(0_u64, |sum, s| sum.saturating_add(histogram::count(&s.latency)));
            let failed = bucket.value.attempts_and_failures().1;
            (good.saturating_add(fast), tried.saturating_add(timed).saturating_add(failed))
        }))
    }

    /// Units that have any evidence; asked once, so that a market without evidence costs one read.
    async fn any(&self) -> Result<HashSet<String>> {
        let since = self.ids.now().minus(self.window);
        let mut found = HashSet::new();
        let mut after = None;
        loop {
            let query = Query::new(schema::BUCKETS)
                .filter(
                    Filter::Ge("start".into(), since.as_micros().into())
                        .and(Filter::IdPrefix("unit_".into())),
                )
                .limit(10_000)
                .after(after);
            let page = self.reader.find(query).await?;
            found.extend(page.documents.iter().filter_map(|d| d.id.split('/').next().map(str::to_owned)));
            match page.next {
                Some(cursor) => after = Some(cursor),
                None => return Ok(found),
            }
        }
    }

    /// The units in as many shares as make each one value of a moderate size; which share a unit is in changes only when their
    /// number doubles.
    fn shares<'a>(&self, units: &[&'a DataUnit]) -> Vec<Vec<&'a DataUnit>> {
        let count = match self.answers.is_shared() {
            true => units.len().div_ceil(SHARE).next_power_of_two(),
            false => 1,
        };
        let mut shares = vec![Vec::new(); count];
        for unit in units {
            let number = usize::try_from(hash(&unit.id.to_string()) % count as u64).unwrap_or(0);
            if let Some(share) = shares.get_mut(number) {
                share.push(*unit);
            }
        }
        shares
    }
}

/// The same for every replica of every version (FNV-1a).
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
