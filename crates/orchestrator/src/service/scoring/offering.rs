//! Offerings: filtered and ranked from a snapshot in memory that is at most a second behind.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};

use super::{
    feed::ChangeFeed,
    projection::{Offering, OfferingPage, OfferingSort, Row, Snapshot},
};
use crate::{
    core::{
        client::database::{Filter, Query, Reader, ReaderExt, Sort},
        market::{
            ids::{IdGenerator, UnitId},
            offering::OfferingFilter,
            quantity::{Micros, Timestamp},
            ranking::Weights,
            reputation,
            score::Reputation,
            sla::{Bucket, histogram},
            unit::DataUnit,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{allocation::OfferingPicker, work::Call},
};

/// How the projection is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferingSettings {
    /// When something changed, a request that finds the snapshot older than this has it made anew in the background.
    pub max_age: Micros,
    /// When something changed, a request waits for a snapshot that is younger than this; below a second.
    pub limit_age: Micros,
    /// Everything is read again after this, for changes by other replicas.
    pub full_refresh: Micros,
    /// How far back the performance looks.
    pub performance_window: Micros,
    /// How many of the latest buckets of a unit its performance is made of.
    pub performance_buckets: usize,
    /// The weights of the score.
    pub weights: Weights,
    /// How many answers are kept per snapshot.
    pub cached_answers: usize,
}

impl Default for OfferingSettings {
    fn default() -> Self {
        Self {
            max_age: Micros::from_millis(250),
            limit_age: Micros::from_millis(750),
            full_refresh: Micros::from_secs(300),
            performance_window: Micros::from_days(30),
            performance_buckets: 288,
            weights: Weights::default(),
            cached_answers: 1_024,
        }
    }
}

/// A snapshot of so few units is made where it is asked for: another thread would cost more than it frees, and a run that is
/// to be repeated stays on its own thread.
const INLINE: usize = 64;

type Rows = BTreeMap<String, Arc<Row>>;

/// What snapshots are made of.
#[derive(Default)]
struct Held {
    rows: Rows,
    /// When everything was read.
    full_at: Timestamp,
}

struct State {
    snapshot: Arc<Snapshot>,
    answers: Mutex<HashMap<String, Arc<OfferingPage>>>,
}

/// Serves offerings.
#[derive(Clone)]
pub struct OfferingService {
    shared: Arc<Shared>,
}

struct Shared {
    reader: Arc<dyn Reader>,
    ids: IdGenerator,
    feed: ChangeFeed,
    settings: OfferingSettings,
    state: RwLock<Option<Arc<State>>>,
    // Held by the one who makes the next snapshot; the rest go on with the last one.
    rows: Arc<tokio::sync::Mutex<Held>>,
}

impl OfferingService {
    /// A service over a reader; `feed` is the one that the committer of all services notes changes in. The units are
    /// read at the first request, or by [`OfferingService::refresh`].
    #[must_use]
    pub fn new(
        reader: Arc<dyn Reader>,
        ids: IdGenerator,
        feed: ChangeFeed,
        settings: OfferingSettings,
    ) -> Self {
        let rows = Arc::default();
        Self { shared: Arc::new(Shared { reader, ids, feed, settings, state: RwLock::new(None), rows }) }
    }

    /// Offerings that pass the filter, in order. `cursor` is the `next` of the page before; a page after it may repeat or
    /// miss what moved in between.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParameter`]; database errors at the first request.
    pub async fn list(
        &self,
        _call: &Call,
        filter: &OfferingFilter,
        limit: usize,
        cursor: Option<&str>,
        sort: OfferingSort,
    ) -> Result<Arc<OfferingPage>> {
        if !(1..=100).contains(&limit) {
            return Err(Error::new(ErrorCode::InvalidParameter, "`limit` is 1 to 100"));
        }
        let offset = cursor.map_or(Ok(0), str::parse::<usize>).map_err(|_| {
            Error::new(ErrorCode::InvalidParameter, "`cursor` is the `next` of an earlier page")
        })?;
        let state = self.state().await?;
        let key = format!("{sort:?}/{limit}/{offset}/{filter:?}");
        if let Some(known) = state.answers.lock().get(&key) {
            return Ok(known.clone());
        }
        let page = Arc::new(state.snapshot.query(filter, sort, limit, offset));
        let mut answers = state.answers.lock();
        if answers.len() < self.shared.settings.cached_answers {
            answers.insert(key, page.clone());
        }
        Ok(page)
    }

    /// The offering of one unit with its score in words and its rank among all.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] when it does not exist or is not on offer.
    pub async fn explain(&self, _call: &Call, unit: UnitId) -> Result<Offering> {
        let state = self.state().await?;
        state.snapshot.of_unit(unit).ok_or_else(|| Error::not_found("offering", unit))
    }

    /// The present snapshot.
    ///
    /// # Errors
    /// Database errors at the first request.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>> {
        Ok(self.state().await?.snapshot.clone())
    }

    /// Reads what changed and makes a new snapshot now.
    ///
    /// # Errors
    /// Database errors.
    pub async fn refresh(&self) -> Result<()> {
        self.shared.anew(Micros::ZERO).await.map(|_| ())
    }

    async fn state(&self) -> Result<Arc<State>> {
        let shared = &self.shared;
        let settings = &shared.settings;
        let known = shared.state.read().clone();
        let Some(known) = known else { return shared.anew(settings.full_refresh).await };
        let age = shared.ids.now().since(known.snapshot.as_of());
        let dirty = shared.feed.is_dirty();
        if dirty && age >= settings.limit_age {
            // The last snapshot is better than no answer while the database is away.
            if let Ok(state) = shared.anew(settings.limit_age).await {
                return Ok(state);
            }
        } else if ((dirty && age >= settings.max_age) || age >= settings.full_refresh)
            && let Ok(held) = Arc::clone(&shared.rows).try_lock_owned()
        {
            // Not awaited: this request goes on with what there is.
            drop(shared.rebuild(held));
        }
        Ok(known)
    }
}

impl Shared {
    /// A snapshot that is younger than `limit`: the one that there is when it is this one's turn, or a new one.
    async fn anew(self: &Arc<Self>, limit: Micros) -> Result<Arc<State>> {
        let held = Arc::clone(&self.rows).lock_owned().await;
        let known = self.state.read().clone();
        if let Some(state) = known
            && self.ids.now().since(state.snapshot.as_of()) < limit
        {
            return Ok(state);
        }
        self.rebuild(held).await.map_err(Error::internal)?
    }

    /// Makes a snapshot in a task of its own: it ends even when the request that wanted it goes away, and what it computes
    /// does not keep requests waiting.
    fn rebuild(
        self: &Arc<Self>,
        held: tokio::sync::OwnedMutexGuard<Held>,
    ) -> tokio::task::JoinHandle<Result<Arc<State>>> {
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let made = shared.make(held).await;
            made.inspect_err(|error| {
                tracing::warn!(error = %crate::error::chain(error), "offerings could not be refreshed");
            })
        })
    }

    async fn make(&self, mut held: tokio::sync::OwnedMutexGuard<Held>) -> Result<Arc<State>> {
        let now = self.ids.now();
        let changed = self.feed.take();
        let missed = self.feed.take_all();
        let all = missed || held.rows.is_empty() || now.since(held.full_at) >= self.settings.full_refresh;
        let loaded = if all { self.load_all().await } else { self.load(&held.rows, &changed).await };
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                // Nothing that was noted may be lost.
                changed.into_iter().for_each(|unit| self.feed.note(unit));
                if missed {
                    self.feed.note_all();
                }
                return Err(error);
            }
        };
        let fresh: Vec<Arc<Row>> = loaded.values().cloned().collect();
        let before = if all {
            *held = Held { rows: loaded, full_at: now };
            None
        } else {
            held.rows.extend(loaded);
            self.state.read().clone()
        };
        let weights = self.settings.weights;
        let compute = move || match before {
            Some(before) => before.snapshot.with(fresh, &weights, now),
            None => Snapshot::build(fresh.into_iter(), &weights, now),
        };
        let snapshot = Arc::new(match held.rows.len() <= INLINE {
            true => compute(),
            false => tokio::task::spawn_blocking(compute).await.map_err(Error::internal)?,
        });
        let state = Arc::new(State { snapshot, answers: Mutex::new(HashMap::new()) });
        *self.state.write() = Some(state.clone());
        Ok(state)
    }

    async fn load_all(&self) -> Result<Rows> {
        let reputations: HashMap<UnitId, u32> = self
            .reader
            .list_all::<Reputation>(Filter::All)
            .await?
            .into_iter()
            .map(|r| (r.value.unit, r.value.millipoints))
            .collect();
        let performances = self.performances().await?;
        let mut rows = Rows::new();
        for stored in self.reader.list_all::<DataUnit>(Filter::All).await? {
            let id = stored.value.id.to_string();
            let reputation = reputations.get(&stored.value.id).copied().unwrap_or(reputation::START);
            let performance =
                if performances.contains(&id) { self.performance(&stored.value).await? } else { (0, 0) };
            rows.insert(id, Arc::new(Row { unit: stored.value, reputation, performance }));
        }
        Ok(rows)
    }

    async fn load(&self, known: &Rows, changed: &[String]) -> Result<Rows> {
        let mut rows = Rows::new();
        for ids in changed.chunks(1_000) {
            let reputations: HashMap<UnitId, u32> = self
                .reader
                .list_all::<Reputation>(Filter::Ids(ids.to_vec()))
                .await?
                .into_iter()
                .map(|r| (r.value.unit, r.value.millipoints))
                .collect();
            for stored in self.reader.list_all::<DataUnit>(Filter::Ids(ids.to_vec())).await? {
                let id = stored.value.id.to_string();
                let reputation = reputations.get(&stored.value.id).copied().unwrap_or(reputation::START);
                // Evidence moves slowly: it is read again with each full refresh, and for units that are new.
                let performance = match known.get(&id) {
                    Some(row) if row.performance.1 > 0 => row.performance,
                    _ => self.performance(&stored.value).await?,
                };
                rows.insert(id, Arc::new(Row { unit: stored.value, reputation, performance }));
            }
        }
        Ok(rows)
    }

    /// Units that have any evidence; asked once, so that a market without evidence costs one read.
    async fn performances(&self) -> Result<std::collections::HashSet<String>> {
        let since = self.ids.now().minus(self.settings.performance_window);
        let mut found = std::collections::HashSet::new();
        let mut after = None;
        loop {
            let query = Query::new(crate::core::client::schema::BUCKETS)
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

    async fn performance(&self, unit: &DataUnit) -> Result<(u64, u64)> {
        let since = self.ids.now().minus(self.settings.performance_window);
        let query = Query::new(crate::core::client::schema::BUCKETS)
            .filter(
                Filter::eq("subject", unit.id.to_string())
                    .and(Filter::Ge("start".into(), since.as_micros().into())),
            )
            .sort(Sort::FieldDescending("start".into()))
            .limit(self.settings.performance_buckets.clamp(1, 10_000));
        let (buckets, _) = self.reader.list::<Bucket>(query).await?;
        let limit = unit.sla.latency_avg.get();
        Ok(buckets.iter().fold((0, 0), |(good, tried), bucket| {
            let fast = bucket
                .value
                .qos
                .operations
                .values()
                .fold(0_u64, |sum, s| sum.saturating_add(histogram::at_most(&s.latency, limit)));
            // Bulk transfers have no latency: what counts as tried is what was timed, and what failed.
            let timed = bucket
                .value
                .qos
                .operations
                .values()
                .fold(0_u64, |sum, s| sum.saturating_add(histogram::count(&s.latency)));
            let failed = bucket.value.attempts_and_failures().1;
            (good.saturating_add(fast), tried.saturating_add(timed).saturating_add(failed))
        }))
    }
}

#[async_trait]
impl OfferingPicker for OfferingService {
    async fn pick(&self, filter: &OfferingFilter, limit: usize) -> Result<Vec<UnitId>> {
        let page =
            self.list(&Call::system("pick"), filter, limit.clamp(1, 100), None, OfferingSort::Score).await?;
        if page.offerings.is_empty() {
            let extra = serde_json::json!({
                "considered": page.considered, "removed": page.removed, "loosest": page.loosest,
            });
            let detail = match &page.loosest {
                Some(filter) => format!("no offering matches; loosening `{filter}` would add most"),
                None => "no offering matches".to_owned(),
            };
            return Err(Error::new(ErrorCode::NoMatchingOffering, detail).extra(extra));
        }
        Ok(page.offerings.iter().map(|o| o.unit).collect())
    }
}
