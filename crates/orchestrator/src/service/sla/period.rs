//! One billing period of one allocation: collect the evidence, judge, read the meter, pay. The `sla_check` job does it
//! for whole periods, the release job through [`FinalSettlement`] for the last, partial one.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes as Buffer;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    settings::SlaSettings,
    verdict::{EvidenceFile, storage_error},
};
use crate::{
    core::{
        client::{
            database::{Changeset, Cursor, Entity, Filter, Query, ReaderExt, Sort},
            provider::{ProviderDirectory, ProviderError},
            storage::StorageClient,
        },
        job::{JobKind, NewJob},
        market::{
            account::{AccountKey, TransferKind},
            allocation::{AccessState, Allocation, AllocationState, RestrictReason, Usage},
            billing::{PeriodCharge, PeriodUsage, capped_byte_seconds, period_charge},
            dispute::{DECISION_TIME, Dispute, DisputeKind, DisputeState},
            event::Audience,
            evidence::EvidenceSubject,
            ids::{AllocationId, DisputeId, UnitId},
            money::Amount,
            party::Provider,
            quantity::{Bytes, Micros, Ppm, Timestamp},
            score::Reputation,
            sla::{Bucket, EvidenceSet, Sight, Window, bucket_start, credit_of},
            unit::DataUnit,
            verdict::SlaVerdict,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        allocation::FinalSettlement,
        job::{JobContext, JobError, JobHandler, Policy, Processed},
        ledger::{LedgerDraft, Posting, UnsealedKind, UnsealedMarker},
        outbox,
        work::Work,
    },
};

/// What an `sla_check` job is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeriodInput {
    /// The allocation.
    pub allocation: AllocationId,
    /// Which period, counted from 0 at activation.
    pub period: u32,
}

/// Judges and pays periods.
#[derive(Clone)]
pub struct PeriodSettlement {
    work: Work,
    storage: Arc<dyn StorageClient>,
    settings: SlaSettings,
}

/// What is known of a period before its money moves.
struct Judged {
    file: EvidenceFile,
    judgement: crate::core::market::sla::Judgement,
    credit: Ppm,
    key: String,
}

impl PeriodSettlement {
    /// A settlement over the unit of work and the storage of evidence.
    #[must_use]
    pub fn new(work: Work, storage: Arc<dyn StorageClient>, settings: SlaSettings) -> Self {
        Self { work, storage, settings }
    }

    /// The window of a period; `None` before activation.
    #[must_use]
    pub fn window(&self, allocation: &Allocation, period: u32) -> Option<Window> {
        let length = self.settings.billing_period;
        let offset = Micros(length.get().saturating_mul(u64::from(period)));
        let from = allocation.activated_at?.plus(offset);
        Some(Window { from, to: from.plus(length) })
    }

    /// Gathers what was seen of a unit in a window.
    ///
    /// # Errors
    /// Database errors.
    pub async fn evidence(&self, unit: &DataUnit, window: Window) -> Result<EvidenceSet> {
        let subject = unit.id.to_string();
        let buckets: Vec<Bucket> = self.between(&subject, window).await?;
        let mut oracles: Vec<_> = buckets.iter().map(|b| b.oracle).collect();
        oracles.sort_unstable();
        oracles.dedup();
        let mut sights = Vec::new();
        for oracle in oracles {
            sights.extend(self.between::<Sight>(&Sight::subject_of(oracle), window).await?);
        }
        let maintenance = unit
            .maintenance
            .iter()
            .filter(|m| m.from < window.to && m.to > window.from.minus(Micros::from_days(30)))
            .copied()
            .collect();
        Ok(EvidenceSet { buckets, sights, maintenance }.sorted())
    }

    async fn between<T: Entity>(&self, subject: &str, window: Window) -> Result<Vec<T>> {
        let filter = Filter::eq("subject", subject)
            .and(Filter::Ge("start".into(), window.from.as_micros().into()))
            .and(Filter::Lt("start".into(), window.to.as_micros().into()));
        let mut all = Vec::new();
        let mut after: Option<Cursor> = None;
        loop {
            let query = Query::new(T::COLLECTION)
                .filter(filter.clone())
                .sort(Sort::Field("start".into()))
                .limit(10_000)
                .after(after);
            let (page, next) = self.work.reader.list::<T>(query).await?;
            all.extend(page.into_iter().map(|stored| stored.value));
            match next {
                Some(cursor) => after = Some(cursor),
                None => return Ok(all),
            }
        }
    }

    /// The thousandths of a point that a unit's reputation has.
    async fn reputation(&self, unit: UnitId) -> Result<u32> {
        let found = self.work.reader.load::<Reputation>(&unit.to_string()).await?;
        Ok(found.map_or(crate::core::market::reputation::START, |r| r.value.millipoints))
    }

    /// Judges a window and stores the evidence under its hash, before anything refers to it.
    async fn judge(&self, allocation: &Allocation, window: Window) -> Result<Judged> {
        let found = self.work.reader.load::<DataUnit>(&allocation.unit.to_string()).await?;
        let unit = found.ok_or_else(|| Error::not_found("unit", allocation.unit))?.value;
        let file = EvidenceFile {
            window,
            provider: unit.provider,
            terms: allocation.sla.clone(),
            rules: self.settings.rules.clone(),
            reputation: self.reputation(allocation.unit).await?,
            evidence: self.evidence(&unit, window).await?,
        };
        let judgement = file.judge()?;
        let credit = credit_of(&judgement, &file.terms, file.reputation);
        let bytes = serde_json::to_vec(&file).map_err(Error::internal)?;
        let key = format!("sla/{}", hex::encode(Sha256::digest(&bytes)));
        let bucket = &self.settings.evidence_bucket;
        self.storage.create_bucket(bucket).await.map_err(storage_error)?;
        let body = futures::stream::once(async move { Ok(Buffer::from(bytes)) }).boxed();
        self.storage.put(bucket, &key, body).await.map_err(storage_error)?;
        Ok(Judged { file, judgement, credit, key })
    }

    /// Posts the money of the time up to `usage.read_at`, adds the verdict and the events, and brings the allocation's
    /// settled fields up to date. The caller writes allocation and ledger.
    async fn settle(
        &self,
        allocation: &mut Allocation,
        period: u32,
        window: Window,
        usage: Usage,
        ledger: &mut LedgerDraft<'_>,
        changes: &mut Changeset,
    ) -> Result<SlaVerdict> {
        let judged = self.judge(allocation, window).await?;
        let period_key = format!("{}/{period}", allocation.id);
        let settled = allocation.settled_usage;
        let from = allocation.settled_through.or(allocation.activated_at).unwrap_or(window.from);
        let seconds = usage.read_at.since(from).get().div_ceil(1_000_000);
        let metered = usage.byte_seconds.saturating_sub(settled.byte_seconds);
        let sent = Bytes(usage.egress.get().saturating_sub(settled.egress.get()));
        let billed = self
            .billed(allocation, &settled, metered, sent, &judged.file.evidence, from, usage.read_at)
            .await?;
        let mut draw = PeriodUsage {
            byte_seconds: capped_byte_seconds(billed.byte_seconds, allocation.bytes, seconds),
            egress: billed.egress,
            escrow: ledger.balance(AccountKey::Escrow(allocation.id)).await?,
            collateral: ledger.balance(AccountKey::Collateral(allocation.provider)).await?,
        };
        let charge = self.charge(allocation, &draw, judged.credit)?;
        self.post(allocation, &period_key, &charge, ledger).await?;
        if billed.disputed {
            draw.byte_seconds = capped_byte_seconds(metered, allocation.bytes, seconds);
            draw.egress = sent;
            let claimed = self.charge(allocation, &draw, judged.credit)?;
            let difference = claimed.payment.saturating_sub(charge.payment);
            self.dispute(allocation, &period_key, difference, ledger, changes).await?;
        }
        allocation.paid = allocation.paid.checked_add(charge.payment).ok_or_else(overflow)?;
        allocation.credited = allocation.credited.checked_add(charge.credited()).ok_or_else(overflow)?;
        allocation.periods_settled = period.saturating_add(1);
        allocation.settled_through = Some(usage.read_at);
        // The meter is cumulative; a reading that went backwards must not be billed again when it catches up.
        allocation.settled_usage = Usage {
            byte_seconds: settled.byte_seconds.max(usage.byte_seconds),
            egress: settled.egress.max(usage.egress),
            ..usage
        };
        allocation.usage = usage;
        let verdict = self.verdict(allocation, period, period_key, window, judged, &charge);
        self.announce(allocation, &verdict, changes);
        Ok(verdict)
    }

    fn charge(&self, allocation: &Allocation, usage: &PeriodUsage, credit: Ppm) -> Result<PeriodCharge> {
        period_charge(&allocation.price, usage, self.settings.fee, credit).ok_or_else(overflow)
    }

    fn verdict(
        &self,
        allocation: &Allocation,
        period: u32,
        period_key: String,
        window: Window,
        judged: Judged,
        charge: &PeriodCharge,
    ) -> SlaVerdict {
        SlaVerdict {
            id: self.work.ids.next(),
            domain: allocation.domain.clone(),
            subject: EvidenceSubject::Allocation(allocation.id),
            unit: allocation.unit,
            allocation: Some(allocation.id),
            period_key,
            period,
            from: window.from,
            to: window.to,
            metrics: judged.judgement.metrics,
            coverage: judged.judgement.coverage,
            status: judged.judgement.status,
            credit: judged.credit,
            payment: charge.payment,
            credited: charge.credited(),
            attribution: judged.judgement.attribution,
            evidence_root: judged.judgement.evidence_root,
            evidence_key: judged.key,
            created_at: self.work.now(),
        }
    }

    fn announce(&self, allocation: &Allocation, verdict: &SlaVerdict, changes: &mut Changeset) {
        changes.insert(verdict).insert(&UnsealedMarker {
            id: verdict.id.to_string(),
            domain: verdict.domain.clone(),
            kind: UnsealedKind::Verdict,
        });
        let tenants = vec![allocation.consumer.to_string(), allocation.provider.to_string()];
        let data = serde_json::json!({
            "verdict": verdict.id, "status": verdict.status, "period": verdict.period,
            "payment": verdict.payment, "credited": verdict.credited, "coverage_ppm": verdict.coverage,
        });
        outbox::event(
            changes,
            &self.work.ids,
            "sla.verdict",
            allocation.id,
            Audience::Tenants(tenants),
            data,
        );
    }

    async fn post(
        &self,
        allocation: &Allocation,
        key: &str,
        charge: &PeriodCharge,
        ledger: &mut LedgerDraft<'_>,
    ) -> Result<()> {
        use AccountKey as A;
        let (escrow, provider) = (A::Escrow(allocation.id), A::Provider(allocation.provider));
        let consumer = A::Consumer(allocation.consumer);
        for (kind, debit, credit, amount, name) in [
            (TransferKind::Payment, escrow, provider, charge.earned, "payment"),
            (TransferKind::Fee, escrow, A::Fees, charge.fee, "fee"),
            (TransferKind::Credit, provider, consumer, charge.credit_from_earnings, "credit"),
            (
                TransferKind::Slash,
                A::Collateral(allocation.provider),
                consumer,
                charge.credit_from_collateral,
                "slash",
            ),
        ] {
            let idempotency_key = format!("{key}/{name}");
            let subject = allocation.id.to_string();
            ledger.post(Posting { kind, debit, credit, amount, idempotency_key, subject }).await?;
        }
        Ok(())
    }

    /// Opens a metering dispute over what the provider claims beyond what was billed, and holds it.
    async fn dispute(
        &self,
        allocation: &Allocation,
        key: &str,
        difference: Amount,
        ledger: &mut LedgerDraft<'_>,
        changes: &mut Changeset,
    ) -> Result<()> {
        let left = ledger.balance(AccountKey::Escrow(allocation.id)).await?;
        let held = difference.min(left);
        let id: DisputeId = self.work.ids.next();
        let now = self.work.now();
        ledger
            .post(Posting {
                kind: TransferKind::Hold,
                debit: AccountKey::Escrow(allocation.id),
                credit: AccountKey::Held(id),
                amount: held,
                idempotency_key: format!("{key}/hold"),
                subject: id.to_string(),
            })
            .await?;
        let dispute = Dispute {
            id,
            domain: allocation.domain.clone(),
            allocation: allocation.id,
            consumer: allocation.consumer,
            provider: allocation.provider,
            kind: DisputeKind::Metering,
            claim:
                "the provider's meter and an oracle's differ by more than the tolerance; the lower was billed"
                    .into(),
            evidence: vec![key.to_owned()],
            held,
            state: DisputeState::Open,
            reason: None,
            opened_by: "system".into(),
            deadline: now.plus(DECISION_TIME),
            created_at: now,
            decided_at: None,
        };
        changes.insert(&dispute);
        let tenants = vec![allocation.consumer.to_string(), allocation.provider.to_string()];
        let data = serde_json::json!({"allocation": allocation.id, "held": held});
        outbox::event(changes, &self.work.ids, "dispute.opened", id, Audience::Tenants(tenants), data);
        Ok(())
    }
}

/// What is billed, and whether an oracle's meter disagreed.
struct Billed {
    byte_seconds: u128,
    egress: Bytes,
    disputed: bool,
}

impl PeriodSettlement {
    /// The lower of the provider's meter and the oracles' when they differ by more than the tolerance. Oracles report the
    /// allocation's cumulative usage; the median of those that read it in the last bucket counts.
    #[expect(clippy::too_many_arguments, reason = "the two meters, each at the two ends of the period")]
    async fn billed(
        &self,
        allocation: &Allocation,
        settled: &Usage,
        metered: u128,
        sent: Bytes,
        _evidence: &EvidenceSet,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Billed> {
        let plain = Billed { byte_seconds: metered, egress: sent, disputed: false };
        let window = Window {
            from: bucket_start(to.minus(self.settings.rules.bucket), self.settings.rules.bucket).max(from),
            to,
        };
        let mut readings: Vec<_> = self
            .between::<Bucket>(&allocation.id.to_string(), window)
            .await?
            .into_iter()
            .filter_map(|b| b.usage)
            .map(|u| {
                (
                    u.byte_seconds.saturating_sub(settled.byte_seconds),
                    u.egress.saturating_sub(settled.egress.get()),
                )
            })
            .collect();
        readings.sort_unstable();
        let Some((seen, seen_egress)) =
            readings.len().checked_sub(1).and_then(|last| readings.get(last / 2)).copied()
        else {
            return Ok(plain);
        };
        let tolerance = self.settings.metering_tolerance;
        let apart = differ(metered, seen, tolerance)
            || differ(u128::from(sent.get()), u128::from(seen_egress), tolerance);
        if !apart {
            return Ok(plain);
        }
        Ok(Billed {
            byte_seconds: metered.min(seen),
            egress: Bytes(sent.get().min(seen_egress)),
            disputed: true,
        })
    }
}

/// Whether two figures differ by more than `tolerance` of the higher.
fn differ(one: u128, other: u128, tolerance: Ppm) -> bool {
    let high = Amount(one.max(other));
    one.abs_diff(other) > high.ppm(tolerance).get()
}

fn overflow() -> Error {
    Error::new(ErrorCode::Overflow, "the payment does not fit 128 bits")
}

#[async_trait]
impl FinalSettlement for PeriodSettlement {
    async fn settle_final(
        &self,
        allocation: &mut Allocation,
        usage: Usage,
        ledger: &mut LedgerDraft<'_>,
        changes: &mut Changeset,
    ) -> Result<()> {
        let Some(activated) = allocation.activated_at else { return Ok(()) };
        let from = allocation.settled_through.unwrap_or(activated);
        if usage.read_at <= from {
            return Ok(());
        }
        // What is unpaid begins where the last whole period ended.
        let period = allocation.periods_settled;
        let begin = self.window(allocation, period).map_or(from, |w| w.from);
        let window = Window { from: begin.min(usage.read_at), to: usage.read_at };
        self.settle(allocation, period, window, usage, ledger, changes).await.map(|_| ())
    }
}

/// The `sla_check` job: judges and pays one whole period.
pub struct SlaCheck {
    settlement: PeriodSettlement,
    providers: Arc<dyn ProviderDirectory>,
}

impl SlaCheck {
    /// The handler.
    #[must_use]
    pub fn new(settlement: PeriodSettlement, providers: Arc<dyn ProviderDirectory>) -> Self {
        Self { settlement, providers }
    }

    /// The provider's meter; of an allocation that is gone there, the last reading stands.
    async fn read_meter(&self, allocation: &Allocation) -> Result<Usage> {
        let reader = &self.settlement.work.reader;
        let found = reader.load::<Provider>(&allocation.provider.to_string()).await?;
        let provider = found.ok_or_else(|| Error::not_found("provider", allocation.provider))?.value;
        let failed = |error: ProviderError| {
            Error::new(ErrorCode::ProviderFailed, "the provider's meter can't be read").because(error)
        };
        let client = self.providers.client(&provider).await.map_err(failed)?;
        match client.usage(allocation.id).await {
            Ok(usage) => Ok(usage),
            Err(ProviderError::Unknown(_)) => {
                Ok(Usage { read_at: self.settlement.work.now(), ..allocation.usage })
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn draft(&self, input: PeriodInput) -> Result<Changeset> {
        let work = &self.settlement.work;
        let mut changes = Changeset::new();
        let found = work.reader.load::<Allocation>(&input.allocation.to_string()).await?;
        let mut stored = found.ok_or_else(|| Error::not_found("allocation", input.allocation))?;
        let allocation = &mut stored.value;
        // Paid already, or taken over by the release job, which pays everything that is open.
        let open = matches!(allocation.state, AllocationState::Active | AllocationState::Restricted);
        if !open || allocation.periods_settled > input.period {
            return Ok(changes);
        }
        if allocation.periods_settled < input.period {
            return Err(Error::new(ErrorCode::Conflict, "an earlier period is not settled yet"));
        }
        let window = self
            .settlement
            .window(allocation, input.period)
            .ok_or_else(|| Error::new(ErrorCode::InvalidState, "the allocation was never active"))?;
        let usage = self.read_meter(allocation).await?;
        let mut ledger = LedgerDraft::new(work.reader.as_ref(), &work.ids, allocation.domain.clone());
        self.settlement.settle(allocation, input.period, window, usage, &mut ledger, &mut changes).await?;
        let left = ledger.balance(AccountKey::Escrow(allocation.id)).await?;
        if left.is_zero() && allocation.escrow_required > Amount::ZERO {
            self.exhaust(allocation, input.period, &mut changes);
        }
        allocation.updated_at = work.now();
        ledger.finish(&mut changes);
        changes.replace(stored.version, &stored.value);
        Ok(changes)
    }

    /// Restricts an allocation whose escrow is used up.
    fn exhaust(&self, allocation: &mut Allocation, period: u32, changes: &mut Changeset) {
        let ids = &self.settlement.work.ids;
        if !allocation.restrictions.insert(RestrictReason::EscrowExhausted) {
            return;
        }
        allocation.state = AllocationState::Restricted;
        allocation.access = AccessState::Restricted;
        let key = format!("{}/escrow/{period}", allocation.id);
        NewJob::now(JobKind::SyncAccess, allocation.id, key, ids.now())
            .input(serde_json::json!({"allocation": allocation.id}))
            .enqueue(changes, ids);
        let tenants = vec![allocation.consumer.to_string(), allocation.provider.to_string()];
        let data = serde_json::json!({"reason": "escrow_exhausted"});
        outbox::event(changes, ids, "allocation.restricted", allocation.id, Audience::Tenants(tenants), data);
        changes.insert(&UnsealedMarker {
            id: format!("{}@{}", allocation.id, ids.now().as_micros()),
            domain: allocation.domain.clone(),
            kind: UnsealedKind::Allocation,
        });
    }
}

#[async_trait]
impl JobHandler for SlaCheck {
    fn kind(&self) -> JobKind {
        JobKind::SlaCheck
    }

    fn policy(&self) -> Policy {
        Policy { max_attempts: 20, ..Policy::default() }
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let input: PeriodInput = serde_json::from_value(context.job().input.clone())
            .map_err(|error| JobError::Permanent(Error::internal(error)))?;
        Ok(Processed::Done(self.draft(input).await?))
    }
}
