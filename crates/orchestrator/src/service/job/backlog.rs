//! How many jobs wait, and whether more may come. Counted when somebody asks and the last count is older than a second, by
//! one asker at a time: a market at rest counts nothing.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::{
    client::{
        clock::Clock,
        database::{self, Filter, Reader},
        schema,
    },
    market::quantity::{Micros, Timestamp},
};

/// How old a count may be.
const FRESH: Micros = Micros::from_secs(1);
/// When to come again while it is not known how fast the backlog shrinks, and at most.
const LONGEST: Micros = Micros::from_secs(60);

/// Counts the jobs that are due and wait for a worker, and sets the gauge `orchestrator_jobs_due`, by which replicas are
/// added and removed.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn count(reader: &dyn Reader, now: Timestamp) -> database::Result<u64> {
    let waiting = reader.count(schema::JOBS, Filter::Le("due".into(), now.as_micros().into())).await?;
    #[expect(clippy::cast_precision_loss, reason = "a gauge of jobs needs no more than 53 bits")]
    metrics::gauge!("orchestrator_jobs_due").set(waiting as f64);
    Ok(waiting)
}

/// Too many jobs wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// Jobs that are due and wait.
    pub waiting: u64,
    /// How many may.
    pub limit: u64,
    /// When there will be room, at the present pace.
    pub retry_after: Micros,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    at: Timestamp,
    waiting: u64,
}

#[derive(Debug, Default)]
struct Counts {
    last: Option<Count>,
    before: Option<Count>,
    counting: bool,
}

/// The backlog of jobs.
#[derive(Clone)]
pub struct Backlog {
    reader: Arc<dyn Reader>,
    clock: Arc<dyn Clock>,
    limit: u64,
    counts: Arc<Mutex<Counts>>,
}

impl Backlog {
    /// With room for `limit` jobs that are due and wait; 0 means without limit.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>, clock: Arc<dyn Clock>, limit: u64) -> Self {
        Self { reader, clock, limit, counts: Arc::default() }
    }

    /// Whether too many jobs wait. While the database can't be asked, the last count stands: a request that needs the database
    /// will be told by it.
    pub async fn is_full(&self) -> Option<Full> {
        if self.limit == 0 {
            return None;
        }
        let now = self.clock.now();
        if self.begin(now) {
            let counted = count(self.reader.as_ref(), now).await;
            let mut counts = self.counts.lock();
            counts.counting = false;
            match counted {
                Ok(waiting) => counts.before = counts.last.replace(Count { at: now, waiting }),
                Err(error) => {
                    tracing::warn!(error = crate::error::chain(&error), "waiting jobs can't be counted");
                }
            }
        }
        self.judge()
    }

    /// Whether the caller is the one to count.
    fn begin(&self, now: Timestamp) -> bool {
        let mut counts = self.counts.lock();
        let stale = counts.last.is_none_or(|last| now.since(last.at) >= FRESH);
        let mine = stale && !counts.counting;
        counts.counting |= mine;
        mine
    }

    fn judge(&self) -> Option<Full> {
        let counts = self.counts.lock();
        let last = counts.last.filter(|last| last.waiting > self.limit)?;
        let excess = last.waiting - self.limit;
        let retry_after = match counts.before {
            Some(before) if before.waiting > last.waiting => {
                let time = u128::from(last.at.since(before.at).get());
                let needed = time * u128::from(excess) / u128::from(before.waiting - last.waiting);
                Micros(u64::try_from(needed).unwrap_or(u64::MAX)).clamp(FRESH, LONGEST)
            }
            _ => LONGEST,
        };
        Some(Full { waiting: last.waiting, limit: self.limit, retry_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::{clock::ManualClock, db::memory::MemoryDatabase},
        core::client::database::{Changeset, Committer as _, Expect},
    };

    async fn jobs(database: &MemoryDatabase, numbers: std::ops::Range<u32>, due: i64) {
        let mut changes = Changeset::new();
        for number in numbers {
            let body = serde_json::json!({"dedup": number.to_string(), "due": due});
            changes.insert_json(schema::JOBS, number.to_string(), &body);
        }
        database.commit(changes).await.unwrap();
    }

    #[tokio::test]
    async fn it_is_full_above_the_limit_and_says_when_there_will_be_room() {
        let database = MemoryDatabase::with_schema();
        let clock = ManualClock::new(Timestamp(1_000_000_000));
        let backlog = Backlog::new(database.clone(), Arc::new(clock.clone()), 100);
        jobs(&database, 0..100, 1).await;
        jobs(&database, 1_000..1_100, i64::MAX).await;
        assert_eq!(backlog.is_full().await, None, "as many as may, and others that are not due");
        jobs(&database, 100..200, 1).await;
        assert_eq!(backlog.is_full().await, None, "the count is fresh");
        clock.advance(FRESH);
        let full = Full { waiting: 200, limit: 100, retry_after: LONGEST };
        assert_eq!(backlog.is_full().await, Some(full));
        // 40 in two seconds: the other 60 take three.
        let mut done = Changeset::new();
        for number in 0..40 {
            done.delete(schema::JOBS, number.to_string(), Expect::Version(1));
        }
        database.commit(done).await.unwrap();
        clock.advance(Micros::from_secs(2));
        let full = Full { waiting: 160, limit: 100, retry_after: Micros::from_secs(3) };
        assert_eq!(backlog.is_full().await, Some(full));
        let unlimited = Backlog::new(database.clone(), Arc::new(clock), 0);
        assert_eq!(unlimited.is_full().await, None);
    }
}
