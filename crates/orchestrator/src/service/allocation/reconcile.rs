//! The comparison of what providers hold with what the database says, by level: whatever event was lost, this finds it.
//! What is over here and still there is removed; what is in use here and not there is made again, and people are told.
//!
//! The blast radius is bounded: so many teardowns an hour over all replicas, a share of what each provider holds (then it
//! stops until an operator has looked), and none at a provider whose answer, or whose part of our own database, looks wrong.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    core::{
        client::{
            database::{Changeset, DatabaseError, Entity, Filter, ReaderExt},
            provider::ProviderDirectory,
            schema::{self, Collection},
        },
        job::{JobKind, NewJob},
        market::{
            allocation::{Allocation, AllocationState},
            ids::{AllocationId, Id, UnitId},
            party::Provider,
            quantity::{Micros, Timestamp},
        },
    },
    error::{Error, Result, chain},
    service::{
        allocation::{BlastRadius, restored},
        job::{Trigger, TriggerReport},
        work::Work,
    },
};

const DAY: Micros = Micros::from_days(1);
const HOUR: Micros = Micros::from_secs(3_600);
/// Fewer things out of line than this are never taken for a sick observer.
const FEW: usize = 3;

/// How carefully reconciling goes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReconcileSettings {
    /// Teardowns an hour, over all providers and replicas.
    pub teardowns_per_hour: u32,
    /// What may be torn down at one provider.
    pub blast_radius: BlastRadius,
    /// How long an allocation must have been as it is: jobs that are under way are left alone.
    pub settled_for: Micros,
}

impl Default for ReconcileSettings {
    fn default() -> Self {
        Self {
            teardowns_per_hour: 20,
            blast_radius: BlastRadius::default(),
            settled_for: Micros::from_secs(300),
        }
    }
}

/// Teardowns in the present hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Budget {
    since: Timestamp,
    used: u32,
}

impl Entity for Budget {
    const NAME: &'static str = "reconcile_budget";
    const COLLECTION: Collection = schema::META;
    fn document_id(&self) -> String {
        BUDGET.into()
    }
}

const BUDGET: &str = "reconcile_budget";

/// The trigger that compares and repairs.
pub struct Reconcile {
    work: Work,
    providers: Arc<dyn ProviderDirectory>,
    settings: ReconcileSettings,
}

/// What is out of line at one provider.
struct Findings {
    orphans: Vec<AllocationId>,
    missing: Vec<AllocationId>,
    /// Whose grace ended a day ago, and which are still there: their purge was given up.
    overdue: Vec<AllocationId>,
    notes: Vec<String>,
}

impl Reconcile {
    /// The trigger over the given ports.
    #[must_use]
    pub fn new(work: Work, providers: Arc<dyn ProviderDirectory>, settings: ReconcileSettings) -> Self {
        Self { work, providers, settings }
    }

    /// Compares one provider. What it holds is asked first, so that what comes up meanwhile is never taken for an orphan.
    async fn compare(&self, provider: &Provider, report: &mut TriggerReport) -> Result<Findings> {
        let unreachable = |error: crate::core::client::provider::ProviderError| {
            Error::new(crate::error::ErrorCode::ProviderFailed, error.to_string()).because(error)
        };
        let settled = self.work.now().minus(self.settings.settled_for);
        let client = self.providers.client(provider).await.map_err(unreachable)?;
        let held: BTreeSet<_> = client.allocations().await.map_err(unreachable)?.into_iter().collect();
        let states = [AllocationState::Active, AllocationState::Restricted, AllocationState::Closing];
        let states = states.iter().map(|state| state.as_str().into()).collect();
        let filter = Filter::eq("provider", provider.id.to_string()).and(Filter::In("state".into(), states));
        let expected = self.work.reader.list_all::<Allocation>(filter).await?;
        report.examined += u64::try_from(held.len().max(expected.len())).unwrap_or(u64::MAX);
        let day_ago = self.work.now().minus(DAY);
        let overdue = expected.iter().map(|stored| &stored.value);
        let overdue = overdue
            .filter(|a| a.state == AllocationState::Closing && a.purge_at.is_some_and(|at| at <= day_ago))
            .map(|a| a.id)
            .collect();
        let mut findings = Findings { orphans: Vec::new(), missing: Vec::new(), overdue, notes: Vec::new() };
        let in_use: Vec<_> = expected
            .iter()
            .map(|stored| &stored.value)
            .filter(|a| a.state.is_in_use() && a.activated_at.is_some_and(|at| at <= settled))
            .collect();
        findings.missing = in_use.iter().map(|a| a.id).filter(|id| !held.contains(id)).collect();
        if findings.missing.len() > FEW && findings.missing.len() * 2 > in_use.len() {
            let count = findings.missing.len();
            findings.notes.push(format!("{}: {count} missing, its answer is not trusted", provider.id));
            findings.missing.clear();
            return Ok(findings);
        }
        let expected: BTreeSet<_> = expected.iter().map(|stored| stored.value.id).collect();
        let gaps = restored::gaps(self.work.reader.as_ref()).await?;
        let (mut unknown, mut taken_back) = (Vec::new(), 0_usize);
        for id in held.difference(&expected) {
            match self.work.reader.load::<Allocation>(&id.to_string()).await? {
                Some(stored) if stored.value.state.is_terminal() && stored.value.updated_at <= settled => {
                    findings.orphans.push(*id);
                }
                Some(_) => {}
                // The prober's own allocation carries the unit's number.
                None if self.is_probe(*id).await? => {}
                None if gaps.iter().any(|gap| gap.holds(*id)) => taken_back += 1,
                None => unknown.push(*id),
            }
        }
        if taken_back > 0 {
            let note = format!("{}: {taken_back} unknown since a restore, left to a person", provider.id);
            findings.notes.push(note);
        }
        if unknown.len() > FEW && unknown.len() * 2 > held.len() {
            let count = unknown.len();
            findings.notes.push(format!("{}: {count} unknown, our database is not trusted", provider.id));
        } else {
            findings.orphans.append(&mut unknown);
        }
        Ok(findings)
    }

    async fn is_probe(&self, id: AllocationId) -> Result<bool> {
        let unit = UnitId::from_uuid(id.uuid());
        Ok(self.work.reader.get(schema::UNITS, &unit.to_string()).await?.is_some())
    }

    /// Enqueues the removal of an orphan, within the budgets. Answers whether it did; an error text when one is used up.
    async fn tear_down(&self, provider: &Provider, id: AllocationId) -> Result<Result<bool, &'static str>> {
        let now = self.work.now();
        let stored = self.work.reader.load::<Budget>(BUDGET).await?;
        let mut budget = match &stored {
            Some(stored) if stored.value.since.plus(HOUR) > now => stored.value.clone(),
            _ => Budget { since: now, used: 0 },
        };
        if budget.used >= self.settings.teardowns_per_hour {
            return Ok(Err("the teardowns of this hour are used up"));
        }
        budget.used += 1;
        let mut changes = Changeset::new();
        if !self.settings.blast_radius.take(&self.work, provider.id, &mut changes).await? {
            self.commit(changes).await?;
            return Ok(Err(STOPPED));
        }
        match stored {
            Some(stored) => changes.replace(stored.version, &budget),
            None => changes.insert(&budget),
        };
        let key = format!("orphan:{id}:{}", now.as_micros() / 3_600_000_000);
        NewJob::now(JobKind::Purge, id, key, now)
            .input(json!({"orphan": true, "provider": provider.id}))
            .enqueue(&mut changes, &self.work.ids);
        self.commit(changes).await.map(Ok)
    }

    /// Enqueues the repair of an allocation that its provider lost, once a day.
    async fn repair(&self, id: AllocationId) -> Result<bool> {
        let now = self.work.now();
        let mut changes = Changeset::new();
        NewJob::now(JobKind::Provision, id, format!("repair:{id}:{}", now.as_micros() / 86_400_000_000), now)
            .input(json!({"repair": true}))
            .enqueue(&mut changes, &self.work.ids);
        self.commit(changes).await
    }

    /// Enqueues another purge of an allocation whose grace is long over, once a day.
    async fn purge(&self, provider: &Provider, id: AllocationId) -> Result<Result<bool, &'static str>> {
        let now = self.work.now();
        let key = format!("late:{id}:{}", now.as_micros() / 86_400_000_000);
        let dedup = Filter::eq("dedup", format!("{}:{key}", JobKind::Purge));
        if self.work.reader.count(schema::JOBS, dedup).await? > 0 {
            return Ok(Ok(false));
        }
        let mut changes = Changeset::new();
        if !self.settings.blast_radius.take(&self.work, provider.id, &mut changes).await? {
            self.commit(changes).await?;
            return Ok(Err(STOPPED));
        }
        NewJob::now(JobKind::Purge, id, key, now).enqueue(&mut changes, &self.work.ids);
        self.commit(changes).await.map(Ok)
    }

    /// Commits; what another replica did at the same time, or what was done before, is left at that.
    async fn commit(&self, changes: Changeset) -> Result<bool> {
        if changes.is_empty() {
            return Ok(false);
        }
        match self.work.committer.commit(changes).await {
            Ok(()) => Ok(true),
            Err(DatabaseError::AlreadyExists { .. } | DatabaseError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn tear_down_all(
        &self,
        provider: &Provider,
        findings: &Findings,
        report: &mut TriggerReport,
    ) -> Result<()> {
        for id in &findings.overdue {
            match self.purge(provider, *id).await? {
                Ok(done) => report.changed += u64::from(done),
                Err(why) => {
                    report.note = Some(why.into());
                    return Ok(());
                }
            }
        }
        for id in &findings.orphans {
            match self.tear_down(provider, *id).await? {
                Ok(done) => report.changed += u64::from(done),
                Err(why) => {
                    report.note = Some(why.into());
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn mend(&self, provider: &Provider, findings: Findings, report: &mut TriggerReport) -> Result<()> {
        for id in &findings.missing {
            report.changed += u64::from(self.repair(*id).await?);
        }
        self.tear_down_all(provider, &findings, report).await?;
        if !findings.notes.is_empty() {
            report.failed += 1;
            report.note = Some(findings.notes.join("; "));
        }
        Ok(())
    }
}

/// Why nothing is torn down at a provider.
const STOPPED: &str = "too much was torn down at a provider; it stopped there until an operator has looked";

#[async_trait]
impl Trigger for Reconcile {
    fn name(&self) -> &'static str {
        "reconcile"
    }

    async fn fire(&self) -> Result<TriggerReport> {
        let mut report = TriggerReport::default();
        for stored in self.work.reader.list_all::<Provider>(Filter::All).await? {
            let provider = stored.value;
            let outcome = match self.compare(&provider, &mut report).await {
                Ok(findings) => self.mend(&provider, findings, &mut report).await,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                report.failed += 1;
                tracing::warn!(provider = %provider.id, error = chain(&error), "provider not reconciled");
            }
        }
        Ok(report)
    }
}
