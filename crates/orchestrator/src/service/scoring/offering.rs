//! Offerings: filtered and ranked from a snapshot in memory that is at most a second behind.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};

use super::{
    feed::ChangeFeed,
    pages::SharedPages,
    performance::Performances,
    projection::{Offering, OfferingPage, OfferingSort, Row, Snapshot},
};
use crate::{
    core::{
        client::database::{Filter, Reader, ReaderExt},
        market::{
            ids::{IdGenerator, UnitId},
            offering::OfferingFilter,
            quantity::{Micros, Timestamp},
            ranking::Weights,
            reputation,
            score::Reputation,
            unit::DataUnit,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{allocation::OfferingPicker, answers::SharedAnswers, work::Call},
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

type Rows = BTreeMap<String, Arc<Row>>;

/// What snapshots are made of.
#[derive(Default)]
struct Held {
    rows: Rows,
    /// Since when the oldest part of it has been true; for the most part, when everything was read.
    full_at: Timestamp,
}

struct State {
    snapshot: Arc<Snapshot>,
    full_at: Timestamp,
    answers: Mutex<HashMap<String, Answer>>,
}

/// An answer out of a snapshot.
struct Answer {
    page: Arc<OfferingPage>,
    /// When other replicas were told.
    told_at: Option<Timestamp>,
}

/// What a request goes on with.
struct Present {
    state: Arc<State>,
    /// Whether it is at most [`OfferingSettings::limit_age`] behind; not so while the database is away.
    fresh: bool,
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
    /// Whether changes were taken that are in no snapshot yet.
    behind: AtomicBool,
    performances: Performances,
    pages: SharedPages,
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
        Self::sharing(reader, ids, feed, settings, SharedAnswers::none())
    }

    /// The same with answers that replicas share. What oracles saw of units is counted by one replica for all of them; pages
    /// that are asked for again and again are told, for replicas that have no snapshot yet.
    #[must_use]
    pub fn sharing(
        reader: Arc<dyn Reader>,
        ids: IdGenerator,
        feed: ChangeFeed,
        settings: OfferingSettings,
        answers: SharedAnswers,
    ) -> Self {
        let performances = Performances {
            reader: reader.clone(),
            ids: ids.clone(),
            window: settings.performance_window,
            buckets: settings.performance_buckets,
            answers: answers.clone(),
            // What is taken over is read again when it is as old as what was read here may become.
            kept: Micros(settings.full_refresh.get() / 2),
        };
        let pages = SharedPages::new(answers);
        let (state, rows, behind) = (RwLock::new(None), Arc::default(), AtomicBool::new(false));
        let shared = Shared { reader, ids, feed, settings, state, rows, behind, performances, pages };
        Self { shared: Arc::new(shared) }
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
        let key = format!("{sort:?}/{limit}/{offset}/{filter:?}");
        if self.shared.must_load_all()
            && let Some(page) = self.shared.pages.told(&key).await
        {
            self.shared.refresh_aside();
            return Ok(Arc::new(page));
        }
        let Present { state, fresh } = self.present().await?;
        let tells = fresh && self.shared.pages.is_shared();
        if let Some(answer) = state.answers.lock().get_mut(&key) {
            if tells {
                self.shared.pages.tell(&key, &answer.page, &mut answer.told_at, self.shared.ids.now());
            }
            return Ok(answer.page.clone());
        }
        let page = Arc::new(state.snapshot.query(filter, sort, limit, offset));
        let mut answers = state.answers.lock();
        if answers.len() < self.shared.settings.cached_answers {
            answers.insert(key, Answer { page: page.clone(), told_at: None });
        }
        Ok(page)
    }

    /// The offering of one unit with its score in words and its rank among all.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] when it does not exist or is not on offer.
    pub async fn explain(&self, _call: &Call, unit: UnitId) -> Result<Offering> {
        let state = self.present().await?.state;
        state.snapshot.of_unit(unit).ok_or_else(|| Error::not_found("offering", unit))
    }

    /// The present snapshot.
    ///
    /// # Errors
    /// Database errors at the first request.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>> {
        Ok(self.present().await?.state.snapshot.clone())
    }

    /// Reads what changed and makes a new snapshot now.
    ///
    /// # Errors
    /// Database errors.
    pub async fn refresh(&self) -> Result<()> {
        self.shared.anew(Micros::ZERO).await.map(|_| ())
    }

    async fn present(&self) -> Result<Present> {
        let shared = &self.shared;
        let settings = &shared.settings;
        let known = shared.state.read().clone();
        let Some(known) = known else {
            return Ok(Present { state: shared.anew(settings.full_refresh).await?, fresh: true });
        };
        let now = shared.ids.now();
        let age = now.since(known.snapshot.as_of());
        let dirty = shared.feed.is_dirty() || shared.behind.load(Ordering::Acquire);
        let late = dirty && age >= settings.limit_age;
        if late {
            // The last snapshot is better than no answer while the database is away.
            if let Ok(state) = shared.anew(settings.limit_age).await {
                return Ok(Present { state, fresh: true });
            }
        } else if (dirty && age >= settings.max_age) || now.since(known.full_at) >= settings.full_refresh {
            shared.refresh_aside();
        }
        Ok(Present { state: known, fresh: !late })
    }
}

impl Shared {
    /// Whether the next answer waits until everything was read.
    fn must_load_all(&self) -> bool {
        self.pages.is_shared()
            && match self.state.read().as_ref() {
                None => true,
                Some(known) => {
                    self.feed.has_missed()
                        && self.ids.now().since(known.snapshot.as_of()) >= self.settings.limit_age
                }
            }
    }

    /// Has a snapshot made, unless that is being done. Not awaited: the request goes on with what there is.
    fn refresh_aside(self: &Arc<Self>) {
        if let Ok(held) = Arc::clone(&self.rows).try_lock_owned() {
            drop(self.rebuild(held));
        }
    }

    /// A snapshot that is younger than `limit`, or that lacks no change: the one that there is when it is this one's turn, or a
    /// new one, in any case when the limit is zero.
    async fn anew(self: &Arc<Self>, limit: Micros) -> Result<Arc<State>> {
        let held = Arc::clone(&self.rows).lock_owned().await;
        let known = self.state.read().clone();
        if let Some(state) = known
            && (self.ids.now().since(state.snapshot.as_of()) < limit
                || (limit > Micros::ZERO && !self.feed.is_dirty()))
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
        // Until it is there what was taken is still missing in what there is.
        self.behind.store(missed || !changed.is_empty(), Ordering::Release);
        let all = missed || held.rows.is_empty() || now.since(held.full_at) >= self.settings.full_refresh;
        let loaded = match all {
            true => self.load_all().await,
            false => self.load(&held.rows, &changed).await.map(|rows| (rows, held.full_at)),
        };
        let (loaded, full_at) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                // Nothing that was noted may be lost.
                changed.into_iter().for_each(|unit| self.feed.note(unit));
                if missed {
                    self.feed.note_all();
                }
                self.behind.store(false, Ordering::Release);
                return Err(error);
            }
        };
        let fresh: Vec<Arc<Row>> = loaded.values().cloned().collect();
        let before = if all {
            *held = Held { rows: loaded, full_at: full_at.min(now) };
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
        let snapshot = Arc::new(tokio::task::spawn_blocking(compute).await.map_err(Error::internal)?);
        let answers = Mutex::new(HashMap::new());
        let state = Arc::new(State { snapshot, full_at: held.full_at, answers });
        *self.state.write() = Some(state.clone());
        self.behind.store(false, Ordering::Release);
        Ok(state)
    }

    /// All rows, and since when the oldest part of them has been true.
    async fn load_all(&self) -> Result<(Rows, Timestamp)> {
        let reputations: HashMap<UnitId, u32> = self
            .reader
            .list_all::<Reputation>(Filter::All)
            .await?
            .into_iter()
            .map(|r| (r.value.unit, r.value.millipoints))
            .collect();
        let units = self.reader.list_all::<DataUnit>(Filter::All).await?;
        let seen =
            self.performances.all(&units.iter().map(|stored| &stored.value).collect::<Vec<_>>()).await?;
        let rows = units.into_iter().map(|stored| {
            let unit = stored.value;
            let reputation = reputations.get(&unit.id).copied().unwrap_or(reputation::START);
            let performance = seen.of.get(&unit.id).copied().unwrap_or_default();
            (unit.id.to_string(), Arc::new(Row { unit, reputation, performance }))
        });
        Ok((rows.collect(), seen.as_of))
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
                    _ => self.performances.of(&stored.value).await?,
                };
                rows.insert(id, Arc::new(Row { unit: stored.value, reputation, performance }));
            }
        }
        Ok(rows)
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
