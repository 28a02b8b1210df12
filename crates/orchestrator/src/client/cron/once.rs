//! One-time schedules in the database.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::row::{ONCE, Row, Rows, Schedule};
use crate::core::client::{
    database::{DatabaseClient, DatabaseError},
    scheduler::{OneTimeSchedule, SchedulerClient, SchedulerError},
};

/// The scheduler client of the embedded default.
pub struct LocalOneTime {
    rows: Rows,
    wake: Arc<Notify>,
}

impl LocalOneTime {
    /// A client that wakes the runner of this process by `wake` when it changes a schedule.
    #[must_use]
    pub fn new(database: Arc<dyn DatabaseClient>, wake: Arc<Notify>) -> Self {
        Self { rows: Rows { database }, wake }
    }
}

fn unavailable(error: DatabaseError) -> SchedulerError {
    SchedulerError::Unavailable(Box::new(error))
}

fn row(schedule: OneTimeSchedule) -> Row {
    let next_at = schedule.enabled.then_some(schedule.at.as_micros());
    Row { next_at, schedule: Schedule::Once(schedule) }
}

#[async_trait]
impl SchedulerClient for LocalOneTime {
    async fn create(&self, schedule: OneTimeSchedule) -> Result<(), SchedulerError> {
        let name = schedule.name.clone();
        if name.is_empty() || name.len() > 200 {
            let reason = "the name must have 1 to 200 bytes".to_owned();
            return Err(SchedulerError::Invalid { name: name.chars().take(80).collect(), reason });
        }
        let make = |_: Option<&Row>| Some(row(schedule.clone()));
        self.rows.change(&format!("{ONCE}{name}"), make).await.map_err(unavailable)?;
        self.wake.notify_one();
        Ok(())
    }

    async fn set_enabled(&self, name: &str, enabled: bool) -> Result<(), SchedulerError> {
        let change = |found: Option<&Row>| match &found?.schedule {
            Schedule::Once(once) => Some(row(OneTimeSchedule { enabled, ..once.clone() })),
            Schedule::Cron(_) => None,
        };
        match self.rows.change(&format!("{ONCE}{name}"), change).await.map_err(unavailable)? {
            true => {
                self.wake.notify_one();
                Ok(())
            }
            false => Err(SchedulerError::NoSchedule(name.to_owned())),
        }
    }

    async fn list(&self) -> Result<Vec<OneTimeSchedule>, SchedulerError> {
        let rows = self.rows.all(ONCE).await.map_err(unavailable)?;
        let once = |row: Row| match row.schedule {
            Schedule::Once(once) => Some(once),
            Schedule::Cron(_) => None,
        };
        Ok(rows.into_iter().filter_map(once).collect())
    }

    async fn delete(&self, name: &str) -> Result<(), SchedulerError> {
        self.rows.remove(&format!("{ONCE}{name}")).await.map_err(unavailable)
    }
}
