//! Maintenance windows and the end of decommissioned units: announced by people, carried out by a trigger. A unit with
//! something ahead of it has a [`UnitDue`] row, so that the trigger never walks over the whole market.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{MaintenanceRequest, MarketService};
use crate::{
    core::{
        client::{
            database::{Changeset, Entity, Expect, Filter, Query, Reader, ReaderExt, Sort, Stored},
            schema::{self, Collection},
        },
        market::{
            ids::UnitId,
            quantity::{Micros, Timestamp},
            unit::{DataUnit, MaintenanceWindow, UnitEvent, UnitMode, transition},
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        job::{Trigger, TriggerReport},
        work::{Answer, Call, Draft},
    },
};

/// Windows that a unit remembers; older ones are dropped once they are over.
const MAX_WINDOWS: usize = 64;
/// How often a unit that is being taken out is looked at.
const RECHECK: Micros = Micros::from_secs(60);
/// Units dealt with per run.
const BATCH: usize = 1_000;

/// Says when the trigger must look at a unit next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitDue {
    /// The unit.
    pub id: UnitId,
    /// When, in microseconds.
    pub at: i64,
}

impl Entity for UnitDue {
    const NAME: &'static str = "unit_due";
    const COLLECTION: Collection = schema::UNIT_DUES;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}

impl UnitDue {
    /// Sets, moves or removes the unit's row.
    pub(super) async fn set(
        changes: &mut Changeset,
        reader: &dyn Reader,
        id: UnitId,
        at: Option<Timestamp>,
    ) -> Result<()> {
        let stored = reader.load::<Self>(&id.to_string()).await?;
        match (stored, at) {
            (None, None) => {}
            (None, Some(at)) => {
                changes.insert(&Self { id, at: at.as_micros() });
            }
            (Some(row), Some(at)) => {
                changes.replace(row.version, &Self { id, at: at.as_micros() });
            }
            (Some(row), None) => {
                changes.delete(Self::COLLECTION, id, Expect::Version(row.version));
            }
        }
        Ok(())
    }
}

impl MarketService {
    /// Announces a window. One that is announced a day ahead is left out of the SLA; with shorter notice it is allowed, but
    /// the time counts.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `InvalidField`, `InvalidState`.
    pub async fn announce_maintenance(
        &self,
        call: &Call,
        id: UnitId,
        request: MaintenanceRequest,
    ) -> Result<Answer<DataUnit>> {
        let compute = || async {
            let Stored { version, value: mut unit } = self.owned_unit(call, id).await?;
            let now = self.work.now();
            if matches!(unit.mode, UnitMode::Decommissioning | UnitMode::Decommissioned) {
                return Err(Error::new(ErrorCode::InvalidState, "the unit is being taken out"));
            }
            if request.from < now {
                return Err(Error::field("from", "a window can't begin in the past"));
            }
            self.add_window(&mut unit, now, request)?;
            self.write_windows(version, unit, "unit.maintenance_announced").await
        };
        self.work.run(call, "unit.announce_maintenance", compute).await
    }

    /// Begins maintenance at once, without notice: the time counts.
    ///
    /// # Errors
    /// As [`MarketService::announce_maintenance`].
    pub async fn begin_maintenance(
        &self,
        call: &Call,
        id: UnitId,
        until: Timestamp,
    ) -> Result<Answer<DataUnit>> {
        let compute = || async {
            let Stored { version, value: mut unit } = self.owned_unit(call, id).await?;
            let now = self.work.now();
            unit.mode = transition(unit.mode, UnitEvent::BeginMaintenance, unit.live)?;
            self.add_window(&mut unit, now, MaintenanceRequest { from: now, to: until })?;
            self.write_windows(version, unit, "unit.maintenance_began").await
        };
        self.work.run(call, "unit.begin_maintenance", compute).await
    }

    /// Ends maintenance now; the windows under way end with it.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `InvalidState`.
    pub async fn end_maintenance(&self, call: &Call, id: UnitId) -> Result<Answer<DataUnit>> {
        let compute = || async {
            let Stored { version, value: mut unit } = self.owned_unit(call, id).await?;
            let now = self.work.now();
            unit.mode = transition(unit.mode, UnitEvent::EndMaintenance, unit.live)?;
            for window in unit.maintenance.iter_mut().filter(|window| window.contains(now)) {
                window.to = now;
            }
            unit.maintenance.retain(|window| window.from < window.to);
            self.write_windows(version, unit, "unit.maintenance_ended").await
        };
        self.work.run(call, "unit.end_maintenance", compute).await
    }

    fn add_window(&self, unit: &mut DataUnit, now: Timestamp, request: MaintenanceRequest) -> Result<()> {
        let MaintenanceRequest { from, to } = request;
        if to <= from {
            return Err(Error::field("to", "a window ends after it begins"));
        }
        if to.since(from) > self.settings.longest_maintenance {
            let hours = self.settings.longest_maintenance.as_secs() / 3_600;
            return Err(Error::field("to", format!("a window is at most {hours} hours long")));
        }
        if unit.maintenance.iter().any(|window| window.from < to && from < window.to) {
            return Err(Error::field("from", "the window overlaps one that was announced before"));
        }
        unit.maintenance.push(MaintenanceWindow { announced_at: now, from, to });
        unit.maintenance.sort_by_key(|window| window.from);
        let ahead = unit.maintenance.iter().filter(|window| window.to > now).count();
        if ahead > MAX_WINDOWS {
            return Err(Error::field("from", format!("a unit has at most {MAX_WINDOWS} windows ahead")));
        }
        // What is over is kept for verdicts that are still to come, as far as it fits.
        let surplus = unit.maintenance.len().saturating_sub(2 * MAX_WINDOWS);
        unit.maintenance.drain(..surplus);
        Ok(())
    }

    async fn write_windows(&self, version: u64, mut unit: DataUnit, kind: &str) -> Result<Draft<DataUnit>> {
        let now = self.work.now();
        unit.updated_at = now;
        let mut changes = Changeset::new();
        UnitDue::set(&mut changes, self.work.reader.as_ref(), unit.id, next_due(&unit, now)).await?;
        changes.replace(version, &unit);
        self.announce(&mut changes, kind, &unit);
        Ok(Draft::new(changes, unit))
    }

    /// Brings one unit in line with its windows, or lets it go when it is empty. Answers whether it changed.
    async fn settle_unit(&self, id: UnitId) -> Result<bool> {
        let call = Call::system(format!("unit_maintenance/{id}"));
        let compute = || async {
            let Stored { version, value: mut unit } = self.stored_unit(id).await?;
            let now = self.work.now();
            let current = unit.maintenance.iter().any(|window| window.contains(now));
            let (event, kind) = match unit.mode {
                UnitMode::Open if current => (UnitEvent::BeginMaintenance, "unit.maintenance_began"),
                UnitMode::Maintenance if !current => (UnitEvent::EndMaintenance, "unit.maintenance_ended"),
                UnitMode::Decommissioning if unit.live == 0 => (UnitEvent::Emptied, "unit.decommissioned"),
                _ => {
                    let mut changes = Changeset::new();
                    let due = next_due(&unit, now);
                    UnitDue::set(&mut changes, self.work.reader.as_ref(), id, due).await?;
                    return Ok(Draft::new(changes, false));
                }
            };
            unit.mode = transition(unit.mode, event, unit.live)?;
            let Draft { changes, .. } = self.write_windows(version, unit, kind).await?;
            Ok(Draft::new(changes, true))
        };
        Ok(self.work.run(&call, "unit.settle", compute).await?.value)
    }
}

/// When the unit must be looked at next.
fn next_due(unit: &DataUnit, now: Timestamp) -> Option<Timestamp> {
    match unit.mode {
        UnitMode::Decommissioned => None,
        UnitMode::Decommissioning => Some(now.plus(RECHECK)),
        UnitMode::Maintenance => {
            unit.maintenance.iter().filter(|window| window.contains(now)).map(|window| window.to).max()
        }
        UnitMode::Open => {
            unit.maintenance.iter().filter(|window| window.to > now).map(|window| window.from).min()
        }
    }
}

/// The trigger that begins and ends maintenance by the windows, and lets emptied units go.
pub struct UnitMaintenance {
    market: MarketService,
}

impl UnitMaintenance {
    /// The trigger over the market's service.
    #[must_use]
    pub const fn new(market: MarketService) -> Self {
        Self { market }
    }
}

#[async_trait]
impl Trigger for UnitMaintenance {
    fn name(&self) -> &'static str {
        "unit_maintenance"
    }

    async fn fire(&self) -> Result<TriggerReport> {
        let work = &self.market.work;
        let query = Query::new(UnitDue::COLLECTION)
            .filter(Filter::Le("at".into(), work.now().as_micros().into()))
            .sort(Sort::Field("at".into()))
            .limit(BATCH);
        let (due, _) = work.reader.list::<UnitDue>(query).await?;
        let mut report = TriggerReport::default();
        for row in due {
            report.examined += 1;
            match self.market.settle_unit(row.value.id).await {
                Ok(changed) => report.changed += u64::from(changed),
                Err(error) => {
                    report.failed += 1;
                    tracing::warn!(unit = %row.value.id, error = crate::error::chain(&error), "unit not settled");
                }
            }
        }
        Ok(report)
    }
}
