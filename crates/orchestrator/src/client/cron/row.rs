//! A schedule as it is stored, and what its two clients and the runner do to it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::core::{
    client::{
        damaged::Damaged,
        database::{
            Changeset, DatabaseClient, DatabaseError, Document, Entity, Filter, Query, ReaderExt, Result,
            Stored,
        },
        scheduler::OneTimeSchedule,
        schema::{self, Collection},
    },
    madara::cron::{CronSchedule, CronTarget},
    market::quantity::Timestamp,
};

/// What the ids of recurring schedules start with.
pub(super) const CRON: &str = "cron/";
/// What the ids of one-time schedules start with.
pub(super) const ONCE: &str = "once/";

/// Tries of a change that others may overtake.
const TRIES: usize = 16;

/// A stored schedule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// When it fires next, in microseconds; `None` while it is disabled.
    pub(super) next_at: Option<i64>,
    pub(super) schedule: Schedule,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Schedule {
    Cron(CronSchedule),
    Once(OneTimeSchedule),
}

impl Entity for Row {
    const NAME: &'static str = "schedule";
    const COLLECTION: Collection = schema::SCHEDULES;
    fn document_id(&self) -> String {
        match &self.schedule {
            Schedule::Cron(cron) => format!("{CRON}{}", cron.name),
            Schedule::Once(once) => format!("{ONCE}{}", once.name),
        }
    }
}

impl Row {
    /// Where its messages go.
    pub(super) fn targets(&self) -> Vec<CronTarget> {
        match &self.schedule {
            Schedule::Cron(cron) => cron.targets.clone(),
            Schedule::Once(once) => {
                vec![CronTarget { queue: once.queue.clone(), body: once.body.clone() }]
            }
        }
    }

    /// The row after a firing at `now`: on the same grid, the first instant that is still to come, so that one that is
    /// late by many periods fires once; `None` for one that is spent.
    pub(super) fn fired(&self, now: Timestamp) -> Option<Self> {
        let Schedule::Cron(cron) = &self.schedule else { return None };
        let next_at = self.next_at.map(|due| {
            let every = i64::try_from(cron.every.get()).unwrap_or(i64::MAX).max(1);
            let late = now.as_micros().saturating_sub(due).max(0);
            let periods = (late / every).saturating_add(1);
            due.saturating_add(every.saturating_mul(periods))
        });
        Some(Self { next_at, schedule: self.schedule.clone() })
    }
}

/// The stored schedules.
pub(super) struct Rows {
    pub(super) database: Arc<dyn DatabaseClient>,
}

impl Rows {
    /// All rows whose ids start with `prefix`, by id.
    pub(super) async fn all(&self, prefix: &str) -> Result<Vec<Row>> {
        let rows = self.database.list_all::<Row>(Filter::IdPrefix(prefix.to_owned())).await?;
        Ok(rows.into_iter().map(|row| row.value).collect())
    }

    /// Puts what `change` makes of the row with this id, if there is one, in its place; `None` leaves it as it is. Tells
    /// whether there is a row now.
    pub(super) async fn change(
        &self,
        id: &str,
        change: impl Fn(Option<&Row>) -> Option<Row> + Send + Sync,
    ) -> Result<bool> {
        let mut tries = 0;
        loop {
            let found: Option<Stored<Row>> = self.database.load(id).await?;
            let Some(row) = change(found.as_ref().map(|found| &found.value)) else {
                return Ok(found.is_some());
            };
            let mut changes = Changeset::new();
            match found {
                Some(found) => changes.replace(found.version, &row),
                None => changes.insert(&row),
            };
            tries += 1;
            match self.database.commit(changes).await {
                Ok(()) => return Ok(true),
                Err(
                    DatabaseError::Conflict { .. }
                    | DatabaseError::Missing { .. }
                    | DatabaseError::AlreadyExists { .. },
                ) if tries < TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes a row, whatever its version; a missing one is no error.
    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        let mut tries = 0;
        loop {
            let Some(found) = self.database.get(schema::SCHEDULES, id).await? else { return Ok(()) };
            tries += 1;
            match self.database.delete(schema::SCHEDULES, id, found.version).await {
                Ok(()) | Err(DatabaseError::Missing { .. }) => return Ok(()),
                Err(DatabaseError::Conflict { .. }) if tries < TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Those that are due, the longest first.
    pub(super) async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Stored<Row>>> {
        let query = Query::new(schema::SCHEDULES)
            .filter(Filter::Le("next_at".to_owned(), now.as_micros().into()))
            .sort(crate::core::client::database::Sort::Field("next_at".to_owned()))
            .limit(limit);
        let documents = self.database.find(query).await?.documents;
        let mut rows = Vec::with_capacity(documents.len());
        for document in documents {
            match document.decode() {
                Ok(row) => rows.push(row),
                Err(error) => self.set_aside(&document, &error, now).await?,
            }
        }
        Ok(rows)
    }

    /// Moves a schedule that can't be read out of the way of those behind it, with its bytes. A cron schedule is made
    /// anew by whoever declares it at the next start.
    async fn set_aside(&self, document: &Document, error: &DatabaseError, now: Timestamp) -> Result<()> {
        let reason = crate::error::chain(error);
        if !matches!(error, DatabaseError::Damaged { .. }) {
            tracing::error!(id = document.id, error = reason, "a schedule can't be read; it is left alone");
            return Ok(());
        }
        match self.database.commit(Damaged::set_aside(schema::SCHEDULES, document, &reason, now)).await {
            Ok(()) => {
                tracing::error!(
                    alert = true,
                    id = document.id,
                    error = reason,
                    "a damaged schedule was set aside"
                );
                Ok(())
            }
            Err(DatabaseError::Conflict { .. } | DatabaseError::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// When the first one after `now` is due.
    pub(super) async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        let query = Query::new(schema::SCHEDULES)
            .filter(Filter::Gt("next_at".to_owned(), now.as_micros().into()))
            .sort(crate::core::client::database::Sort::Field("next_at".to_owned()))
            .limit(1);
        let documents = self.database.find(query).await?.documents;
        // One that can't be read is set aside once it is due; nothing behind it is that near, or the look finds it.
        let row = documents.first().and_then(|document| document.decode::<Row>().ok());
        Ok(row.and_then(|row| row.value.next_at).map(Timestamp))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::market::quantity::Micros;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn the_next_firing_is_the_first_of_the_grid_that_is_to_come(
            due in 0_i64..1 << 50, late in 0_i64..1 << 50, every in 1_u64..1 << 50,
        ) {
            let schedule =
                CronSchedule { name: "a".into(), every: Micros(every), enabled: true, targets: vec![] };
            let row = Row { next_at: Some(due), schedule: Schedule::Cron(schedule) };
            let next = row.fired(Timestamp(due + late)).unwrap().next_at.unwrap();
            let every = i64::try_from(every).unwrap();
            prop_assert!(next > due + late);
            prop_assert!(next - every <= due + late);
            prop_assert_eq!((next - due) % every, 0);
        }
    }
}
