//! Recurring schedules in the database.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::row::{CRON, Row, Rows, Schedule};
use crate::core::{
    client::{
        clock::Clock,
        database::{DatabaseClient, DatabaseError},
    },
    madara::cron::{CronClient, CronError, CronSchedule, CronTarget},
    market::quantity::Micros,
};

/// Shortest rate that is kept: below it the runner would do little else.
const SHORTEST: Micros = Micros::from_millis(1);

/// The cron client of the embedded default. Its schedules fire for the first time one period after they were made.
pub struct LocalCron {
    rows: Rows,
    clock: Arc<dyn Clock>,
    wake: Arc<Notify>,
}

impl LocalCron {
    /// A client that wakes the runner of this process by `wake` when it changes a schedule.
    #[must_use]
    pub fn new(database: Arc<dyn DatabaseClient>, clock: Arc<dyn Clock>, wake: Arc<Notify>) -> Self {
        Self { rows: Rows { database }, clock, wake }
    }

    /// Changes a schedule that must be there.
    async fn change(
        &self,
        name: &str,
        change: impl Fn(&mut CronSchedule, &mut Option<i64>) + Send + Sync,
    ) -> Result<(), CronError> {
        let id = format!("{CRON}{name}");
        let changed = self.rows.change(&id, |found| {
            let mut row = found?.clone();
            let Schedule::Cron(cron) = &mut row.schedule else { return None };
            change(cron, &mut row.next_at);
            Some(row)
        });
        match changed.await.map_err(unavailable)? {
            true => {
                self.wake.notify_one();
                Ok(())
            }
            false => Err(CronError::NoSchedule(name.to_owned())),
        }
    }
}

fn unavailable(error: DatabaseError) -> CronError {
    CronError::Unavailable(Box::new(error))
}

fn check(name: &str, every: Micros) -> Result<(), CronError> {
    let invalid = |reason: &str| {
        Err(CronError::Invalid { name: name.chars().take(80).collect(), reason: reason.to_owned() })
    };
    if name.is_empty() || name.len() > 200 {
        return invalid("the name must have 1 to 200 bytes");
    }
    if every < SHORTEST {
        return invalid("the time between two firings must be at least one millisecond");
    }
    if i64::try_from(every.get()).is_err() {
        return invalid("the time between two firings is too long");
    }
    Ok(())
}

#[async_trait]
impl CronClient for LocalCron {
    async fn create(&self, name: &str, every: Micros) -> Result<(), CronError> {
        check(name, every)?;
        let first = self.clock.now().plus(every).as_micros();
        let make = |found: Option<&Row>| match found {
            // A daemon that starts again and again must not put its schedules off each time.
            Some(Row { schedule: Schedule::Cron(cron), .. }) if cron.every == every => None,
            Some(Row { next_at, schedule: Schedule::Cron(cron) }) => {
                let cron = CronSchedule { every, ..cron.clone() };
                let next_at = next_at.map(|next| next.min(first));
                Some(Row { next_at, schedule: Schedule::Cron(cron) })
            }
            _ => {
                let cron = CronSchedule { name: name.to_owned(), every, enabled: true, targets: Vec::new() };
                Some(Row { next_at: Some(first), schedule: Schedule::Cron(cron) })
            }
        };
        self.rows.change(&format!("{CRON}{name}"), make).await.map_err(unavailable)?;
        self.wake.notify_one();
        Ok(())
    }

    async fn add_target(&self, name: &str, target: CronTarget) -> Result<(), CronError> {
        self.change(name, |cron, _| {
            if !cron.targets.contains(&target) {
                cron.targets.push(target.clone());
            }
        })
        .await
    }

    async fn set_enabled(&self, name: &str, enabled: bool) -> Result<(), CronError> {
        let now = self.clock.now();
        self.change(name, |cron, next_at| {
            cron.enabled = enabled;
            *next_at = match (enabled, *next_at) {
                (true, Some(next)) => Some(next),
                (true, None) => Some(now.plus(cron.every).as_micros()),
                (false, _) => None,
            };
        })
        .await
    }

    async fn list(&self) -> Result<Vec<CronSchedule>, CronError> {
        let rows = self.rows.all(CRON).await.map_err(unavailable)?;
        let cron = |row: Row| match row.schedule {
            Schedule::Cron(cron) => Some(cron),
            Schedule::Once(_) => None,
        };
        Ok(rows.into_iter().filter_map(cron).collect())
    }

    async fn delete(&self, name: &str) -> Result<(), CronError> {
        self.rows.remove(&format!("{CRON}{name}")).await.map_err(unavailable)
    }
}
