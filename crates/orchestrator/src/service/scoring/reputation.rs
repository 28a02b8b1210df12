//! Reputations: judged once per unit and day, with the reason of each change.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    core::{
        client::database::{Changeset, DatabaseError, Entity, Filter, Query, ReaderExt, Stored},
        market::{
            event::Audience,
            ids::{OracleId, ProviderId, UnitId},
            party::{Oracle, Provider},
            quantity::Timestamp,
            reputation::{START, after_day, read_day},
            score::{Reputation, ReputationChange},
            sla::{Window, judge},
            unit::{DataUnit, UnitMode},
        },
    },
    error::{Error, Result},
    service::{
        answers::SharedAnswers,
        job::{Trigger, TriggerReport},
        ledger::{UnsealedKind, UnsealedMarker},
        outbox,
        sla::{PeriodSettlement, SlaSettings},
        work::{Call, Work},
    },
};

/// How many changes a reputation remembers.
const HISTORY: usize = 90;
/// How many missed days are judged at once after a pause; more decay to the same value anyway.
const CATCH_UP: i64 = 400;

/// A provider's reputation: the mean over its units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderReputation {
    /// The provider.
    pub provider: ProviderId,
    /// Thousandths of a point, floored.
    pub millipoints: u32,
    /// Of how many units; those that were not judged yet count with what everybody starts with.
    pub units: u64,
}

/// Shows reputations.
#[derive(Clone)]
pub struct ReputationService {
    work: Work,
    answers: SharedAnswers,
}

impl ReputationService {
    /// A service over the unit of work.
    #[must_use]
    pub fn new(work: Work) -> Self {
        Self { work, answers: SharedAnswers::none() }
    }

    /// With answers that replicas share: what is told is then at most a second old.
    #[must_use]
    pub fn with_answers(self, answers: SharedAnswers) -> Self {
        Self { answers, ..self }
    }

    /// A unit's reputation with its latest changes; open to everybody with a key. A unit that was not judged yet has 50.
    ///
    /// # Errors
    /// [`crate::error::ErrorCode::NotFound`]; database errors.
    pub async fn of_unit(&self, _call: &Call, id: UnitId) -> Result<Reputation> {
        self.answers.through(&format!("reputation/{id}"), self.read_unit(id)).await
    }

    /// A provider's reputation; open to everybody with a key.
    ///
    /// # Errors
    /// [`crate::error::ErrorCode::NotFound`]; database errors.
    pub async fn of_provider(&self, _call: &Call, id: ProviderId) -> Result<ProviderReputation> {
        self.answers.through(&format!("standing/{id}"), self.read_provider(id)).await
    }

    async fn read_unit(&self, id: UnitId) -> Result<Reputation> {
        if let Some(found) = self.work.reader.load::<Reputation>(&id.to_string()).await? {
            return Ok(found.value);
        }
        let found = self.work.reader.load::<DataUnit>(&id.to_string()).await?;
        let unit = found.ok_or_else(|| Error::not_found("unit", id))?.value;
        Ok(fresh(&unit, 0))
    }

    async fn read_provider(&self, id: ProviderId) -> Result<ProviderReputation> {
        let reader = self.work.reader.as_ref();
        let known = reader.load::<Provider>(&id.to_string()).await?;
        known.ok_or_else(|| Error::not_found("provider", id))?;
        let owned = || Filter::eq("provider", id.to_string());
        let units = reader.list_all::<DataUnit>(owned()).await?;
        let judged: BTreeMap<UnitId, u32> = reader
            .list_all::<Reputation>(owned())
            .await?
            .into_iter()
            .map(|stored| (stored.value.unit, stored.value.millipoints))
            .collect();
        let present = units.iter().filter(|unit| unit.value.mode != UnitMode::Decommissioned);
        let points: Vec<u32> =
            present.map(|unit| judged.get(&unit.value.id).copied().unwrap_or(START)).collect();
        let (sum, units) = (points.iter().map(|points| u64::from(*points)).sum::<u64>(), points.len() as u64);
        let mean = sum.checked_div(units).and_then(|mean| u32::try_from(mean).ok()).unwrap_or(START);
        Ok(ProviderReputation { provider: id, millipoints: mean, units })
    }
}

fn fresh(unit: &DataUnit, day: i64) -> Reputation {
    Reputation {
        unit: unit.id,
        provider: unit.provider,
        millipoints: START,
        day,
        history: Vec::new(),
        updated_at: unit.created_at,
    }
}

/// Judges the days that have ended, once per unit and day.
pub struct DailyReputation {
    work: Work,
    settlement: PeriodSettlement,
    settings: SlaSettings,
}

impl DailyReputation {
    /// The trigger; `settlement` gathers the evidence.
    #[must_use]
    pub const fn new(work: Work, settlement: PeriodSettlement, settings: SlaSettings) -> Self {
        Self { work, settlement, settings }
    }

    fn day_length(&self) -> i64 {
        i64::try_from(self.settings.reputation_day.get()).unwrap_or(i64::MAX).max(1)
    }

    /// The number of the last day whose reports are all in.
    fn last_closed(&self) -> i64 {
        let until = self.work.now().minus(self.settings.lateness).as_micros();
        until.div_euclid(self.day_length()) - 1
    }

    async fn judge_unit(&self, unit: &DataUnit, last: i64) -> Result<bool> {
        let born = unit.created_at.as_micros().div_euclid(self.day_length());
        let found = self.work.reader.load::<Reputation>(&unit.id.to_string()).await?;
        let Stored { version, value: mut reputation } =
            found.unwrap_or_else(|| Stored { version: 0, value: fresh(unit, born - 1) });
        if reputation.day >= last {
            return Ok(false);
        }
        let before = reputation.millipoints;
        let mut outvoted: Vec<(OracleId, Timestamp)> = Vec::new();
        for day in (reputation.day + 1).max(last - CATCH_UP)..=last {
            let from = Timestamp(day.saturating_mul(self.day_length()));
            let window = Window { from, to: from.plus(self.settings.reputation_day) };
            let evidence = self.settlement.evidence(unit, window).await?;
            let judgement = judge(window, &evidence, &unit.sla, &self.settings.rules, unit.provider)
                .map_err(Error::internal)?;
            let (after, delta, reason) = after_day(reputation.millipoints, read_day(&judgement));
            if delta != 0 {
                reputation.history.push(ReputationChange { day, delta, reason });
            }
            reputation.millipoints = after;
            outvoted.extend(judgement.outvoted);
        }
        let surplus = reputation.history.len().saturating_sub(HISTORY);
        reputation.history.drain(..surplus);
        reputation.day = last;
        reputation.updated_at = self.work.now();
        let mut changes = Changeset::new();
        if version == 0 {
            changes.insert(&reputation);
        } else {
            changes.replace(version, &reputation);
        }
        if reputation.millipoints != before {
            self.announce(unit, &reputation, before, &mut changes);
        }
        self.lower_standing(&outvoted, &mut changes).await?;
        match self.work.committer.commit(changes).await {
            Ok(()) => Ok(true),
            // Another replica was faster, or an oracle reported meanwhile: the next run looks again.
            Err(DatabaseError::Conflict { .. } | DatabaseError::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn announce(&self, unit: &DataUnit, reputation: &Reputation, before: u32, changes: &mut Changeset) {
        changes.insert(&UnsealedMarker {
            id: format!("{}@reputation-{}", unit.id, reputation.day),
            domain: unit.domain.clone(),
            kind: UnsealedKind::Score,
        });
        let data = serde_json::json!({
            "before_millipoints": before, "after_millipoints": reputation.millipoints,
            "reason": reputation.history.last().map(|c| c.reason.clone()),
        });
        outbox::event(changes, &self.work.ids, "unit.reputation", unit.id, Audience::Public, data);
    }

    /// Outvoted buckets cost their oracle a part of its standing.
    async fn lower_standing(
        &self,
        outvoted: &[(OracleId, Timestamp)],
        changes: &mut Changeset,
    ) -> Result<()> {
        let mut oracles: Vec<OracleId> = outvoted.iter().map(|o| o.0).collect();
        oracles.sort_unstable();
        oracles.dedup();
        for oracle in oracles {
            let count = outvoted.iter().filter(|o| o.0 == oracle).count() as u64;
            let Some(mut stored) = self.work.reader.load::<Oracle>(&oracle.to_string()).await? else {
                continue;
            };
            let penalty = count.saturating_mul(u64::from(self.settings.outvoted_penalty.get()));
            let standing = u64::from(stored.value.standing.get()).saturating_sub(penalty);
            stored.value.standing.0 = u32::try_from(standing).unwrap_or(0);
            changes.replace(stored.version, &stored.value);
            let data = serde_json::json!({"outvoted": count, "standing_ppm": standing});
            outbox::event(changes, &self.work.ids, "oracle.outvoted", oracle, Audience::Operators, data);
        }
        Ok(())
    }
}

#[async_trait]
impl Trigger for DailyReputation {
    fn name(&self) -> &'static str {
        "daily_reputation"
    }

    async fn fire(&self) -> Result<TriggerReport> {
        let mut report = TriggerReport::default();
        let last = self.last_closed();
        let mut after = None;
        loop {
            let query = Query::new(DataUnit::COLLECTION).limit(1_000).after(after);
            let (page, next) = self.work.reader.list::<DataUnit>(query).await?;
            for unit in page.into_iter().map(|u| u.value).filter(|u| u.mode != UnitMode::Decommissioned) {
                report.examined += 1;
                match self.judge_unit(&unit, last).await {
                    Ok(true) => report.changed += 1,
                    Ok(false) => {}
                    Err(error) => {
                        report.failed += 1;
                        tracing::warn!(unit = %unit.id, error = %crate::error::chain(&error), "a reputation could not be judged");
                    }
                }
            }
            match next {
                Some(cursor) => after = Some(cursor),
                None => return Ok(report),
            }
        }
    }
}
