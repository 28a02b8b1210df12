//! One billing period of one allocation: collect the evidence, judge, read the meter, pay. The `sla_check` job does it
//! for whole periods, the release job through [`FinalSettlement`] for the last, partial one.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes as Buffer;
use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::{settings::SlaSettings, verdict::EvidenceFile};
use crate::{
    core::{
        client::{
            database::{Changeset, Cursor, Entity, Filter, Query, ReaderExt, Sort},
            storage::StorageClient,
        },
        market::{
            account::{AccountKey, TransferKind},
            allocation::{Allocation, Usage},
            billing::{
                PeriodCharge, PeriodUsage, REPEATED_BREACHES, breaches_in_a_row, capped_byte_seconds,
                period_charge,
            },
            dispute::DisputeKind,
            event::Audience,
            evidence::EvidenceSubject,
            ids::UnitId,
            money::Amount,
            quantity::{Bytes, Micros, Ppm},
            score::Reputation,
            sla::{Bucket, EvidenceSet, Sight, Window, credit_of},
            state::commitment::verdict_subject,
            unit::DataUnit,
            verdict::{SlaVerdict, VerdictStatus},
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        allocation::FinalSettlement,
        job::step::At,
        ledger::{
            LedgerDraft, Posting, UnsealedKind, UnsealedMarker,
            dispute::{OpenDispute, open_draft},
            post_charge,
        },
        outbox,
        work::Work,
    },
};

/// Judges and pays periods.
#[derive(Clone)]
pub struct PeriodSettlement {
    pub(super) work: Work,
    storage: Arc<dyn StorageClient>,
    pub(super) settings: SlaSettings,
}

/// What is known of a period before its money moves.
struct Judged {
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

    pub(super) async fn between<T: Entity>(&self, subject: &str, window: Window) -> Result<Vec<T>> {
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
    async fn judge(&self, at: At<'_>, allocation: &Allocation, window: Window) -> Result<Judged> {
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
        at.take(async {
            self.storage.create_bucket(bucket).await?;
            let body = futures::stream::once(async move { Ok(Buffer::from(bytes)) }).boxed();
            self.storage.put(bucket, &key, body).await
        })
        .await?;
        Ok(Judged { judgement, credit, key })
    }

    /// Posts the money of the time up to `usage.read_at`, adds the verdict and the events, and brings the allocation's
    /// settled fields up to date. The caller writes allocation and ledger.
    #[expect(clippy::too_many_arguments, reason = "what a period is made of")]
    pub(super) async fn settle(
        &self,
        at: At<'_>,
        allocation: &mut Allocation,
        period: u32,
        window: Window,
        usage: Usage,
        ledger: &mut LedgerDraft<'_>,
        changes: &mut Changeset,
    ) -> Result<SlaVerdict> {
        let judged = self.judge(at, allocation, window).await?;
        let period_key = format!("{}/{period}", allocation.id);
        let settled = allocation.settled_usage;
        let from = allocation.settled_through.or(allocation.activated_at).unwrap_or(window.from);
        let seconds = usage.read_at.since(from).get().div_ceil(1_000_000);
        let metered = usage.byte_seconds.saturating_sub(settled.byte_seconds);
        let sent = Bytes(usage.egress.get().saturating_sub(settled.egress.get()));
        let billed =
            self.billed(allocation, &settled, metered, sent, Window { from, to: usage.read_at }).await?;
        let mut draw = PeriodUsage {
            byte_seconds: capped_byte_seconds(billed.byte_seconds, allocation.bytes, seconds),
            egress: billed.egress,
            escrow: ledger.balance(AccountKey::Escrow(allocation.id)).await?,
            collateral: ledger.balance(AccountKey::Collateral(allocation.provider)).await?,
        };
        let charge = self.charge(allocation, &draw, judged.credit)?;
        post_charge(ledger, allocation, &period_key, &charge).await?;
        if billed.disputed {
            draw.byte_seconds = capped_byte_seconds(metered, allocation.bytes, seconds);
            draw.egress = sent;
            let claimed = self.charge(allocation, &draw, judged.credit)?;
            let difference = claimed.payment.saturating_sub(charge.payment);
            let open = metering_dispute(allocation, &period_key, difference);
            let disputes = &self.settings.disputes;
            open_draft(ledger, changes, &self.work.ids, disputes, allocation, open, "system".into()).await?;
        }
        let slashed = self.slash(allocation, judged.judgement.status, &period_key, ledger, changes).await?;
        allocation.paid = allocation.paid.checked_add(charge.payment).ok_or_else(overflow)?;
        let credited = charge.credited().checked_add(slashed).ok_or_else(overflow)?;
        allocation.credited = allocation.credited.checked_add(credited).ok_or_else(overflow)?;
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

    /// Counts breached periods in a row. Each third one costs the share of the collateral that the unit's contract says,
    /// beyond the credit; the count then begins anew.
    async fn slash(
        &self,
        allocation: &mut Allocation,
        status: VerdictStatus,
        period_key: &str,
        ledger: &mut LedgerDraft<'_>,
        changes: &mut Changeset,
    ) -> Result<Amount> {
        let (count, repeated) = breaches_in_a_row(allocation.breached_in_a_row, status);
        allocation.breached_in_a_row = count;
        let share = allocation.sla.collateral_slash.min(Ppm::ONE);
        if !repeated || share == Ppm(0) {
            return Ok(Amount::ZERO);
        }
        let collateral = AccountKey::Collateral(allocation.provider);
        let amount = ledger.balance(collateral).await?.ppm(share);
        ledger
            .post(Posting {
                kind: TransferKind::Penalty,
                debit: collateral,
                credit: AccountKey::Consumer(allocation.consumer),
                amount,
                idempotency_key: format!("repeated:{period_key}"),
                subject: allocation.id.to_string(),
            })
            .await?;
        let data = serde_json::json!({"amount": amount, "breached_in_a_row": REPEATED_BREACHES});
        let audience = Audience::Tenants(parties(allocation));
        outbox::event(changes, &self.work.ids, "collateral.slashed", allocation.id, audience, data);
        Ok(amount)
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
            record_subject: Some(hex::encode(verdict_subject(allocation.unit, &period_key))),
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
        let tenants = parties(allocation);
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
}

fn parties(allocation: &Allocation) -> Vec<String> {
    vec![allocation.consumer.to_string(), allocation.provider.to_string()]
}

/// What the provider claims beyond what was billed.
fn metering_dispute(allocation: &Allocation, period_key: &str, difference: Amount) -> OpenDispute {
    OpenDispute {
        allocation: allocation.id,
        kind: DisputeKind::Metering,
        claim: "the provider's meter and an oracle's differ by more than the tolerance; the lower was billed"
            .into(),
        evidence: vec![period_key.to_owned()],
        amount: difference,
    }
}

fn overflow() -> Error {
    Error::new(ErrorCode::Overflow, "the payment does not fit 128 bits")
}

#[async_trait]
impl FinalSettlement for PeriodSettlement {
    async fn settle_final(
        &self,
        at: At<'_>,
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
        self.settle(at, allocation, period, window, usage, ledger, changes).await.map(|_| ())
    }
}
