//! Disputes: opened by a tenant or by a metering difference, held in an account of their own, decided by the operator or
//! by the deadline.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{LedgerDraft, Posting};
use crate::{
    core::{
        client::{
            database::{Changeset, Filter, Query, ReaderExt, Sort, Stored},
            schema,
        },
        market::{
            account::{AccountKey, TransferKind},
            allocation::{Allocation, RestrictReason},
            dispute::{self, Dispute, DisputeEvent, DisputeKind, DisputeState},
            event::Audience,
            ids::{AllocationId, DisputeId, IdGenerator},
            money::Amount,
            party::Principal,
            quantity::{BasisPoints, Micros, Ppm},
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        allocation::{Counters, impose, record},
        job::{Trigger, TriggerReport},
        outbox,
        page::{Listing, PageRequest, list},
        work::{Answer, Call, Draft, Work},
    },
};

/// How disputes are dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DisputeSettings {
    /// How long the operator has.
    pub decision_time: Micros,
    /// The platform's share of held payments that go to the provider.
    pub fee: BasisPoints,
    /// The most that a violation forfeits, as a share of the escrow that funding drew.
    pub forfeit_cap: Ppm,
}

impl Default for DisputeSettings {
    fn default() -> Self {
        Self { decision_time: dispute::DECISION_TIME, fee: BasisPoints(200), forfeit_cap: Ppm(100_000) }
    }
}

/// What a dispute is opened with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenDispute {
    /// The allocation.
    pub allocation: AllocationId,
    /// What is claimed.
    pub kind: DisputeKind,
    /// The claim in words, 1 to 2,000 characters.
    pub claim: String,
    /// What it rests on, at most 50 ids or hashes.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// What is contested; as much of it as the escrow has, and the cap allows, is held.
    pub amount: Amount,
}

/// In whose favour the operator decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The provider gets the held money.
    Provider,
    /// The consumer gets it.
    Consumer,
}

/// The service; also the trigger `expire_disputes`.
#[derive(Clone)]
pub struct DisputeService {
    work: Work,
    settings: DisputeSettings,
}

/// Draws up a dispute inside a larger unit of work: holds the contested part of the escrow and adds the dispute and its
/// event to the changeset. `draft` must be of the allocation's domain, and is finished by the caller.
///
/// # Errors
/// Database errors.
pub async fn open_draft(
    draft: &mut LedgerDraft<'_>,
    changes: &mut Changeset,
    ids: &IdGenerator,
    settings: &DisputeSettings,
    allocation: &Allocation,
    open: OpenDispute,
    opened_by: String,
) -> Result<Dispute> {
    let id: DisputeId = ids.next();
    let escrow = AccountKey::Escrow(allocation.id);
    let mut held = open.amount.min(draft.balance(escrow).await?);
    if open.kind == DisputeKind::Violation {
        held = held.min(allocation.escrow_required.ppm(settings.forfeit_cap));
    }
    draft
        .post(Posting {
            kind: TransferKind::Hold,
            debit: escrow,
            credit: AccountKey::Held(id),
            amount: held,
            idempotency_key: format!("hold:{id}"),
            subject: id.to_string(),
        })
        .await?;
    let now = ids.now();
    let dispute = Dispute {
        id,
        domain: allocation.domain.clone(),
        allocation: allocation.id,
        consumer: allocation.consumer,
        provider: allocation.provider,
        kind: open.kind,
        claim: open.claim,
        evidence: open.evidence,
        held,
        state: DisputeState::Open,
        reason: None,
        opened_by,
        deadline: now.plus(settings.decision_time),
        created_at: now,
        decided_at: None,
    };
    changes.insert(&dispute);
    announce(changes, ids, "dispute.opened", &dispute);
    outbox::alert(
        changes,
        ids,
        format!("dispute {id} waits for a decision"),
        serde_json::json!({ "dispute": id, "held": held, "deadline": dispute.deadline.to_rfc3339() }),
    );
    Ok(dispute)
}

fn announce(changes: &mut Changeset, ids: &IdGenerator, kind: &str, dispute: &Dispute) {
    let tenants = vec![dispute.consumer.to_string(), dispute.provider.to_string()];
    let data = serde_json::json!({
        "allocation": dispute.allocation, "state": dispute.state, "held": dispute.held,
    });
    outbox::event(changes, ids, kind, dispute.id, Audience::Tenants(tenants), data);
}

impl DisputeService {
    /// A service with these settings.
    #[must_use]
    pub const fn new(work: Work, settings: DisputeSettings) -> Self {
        Self { work, settings }
    }

    /// Opens a dispute. A provider claims a violation, a consumer contests a bill or a metering; each about its own
    /// allocations.
    ///
    /// # Errors
    /// Not found for allocations of others; an invalid field; database errors.
    pub async fn open(&self, call: &Call, open: OpenDispute) -> Result<Answer<Dispute>> {
        check(&open)?;
        self.work
            .run(call, "dispute.open", || async {
                let missing = || Error::not_found("allocation", open.allocation);
                let found = self.work.reader.load::<Allocation>(&open.allocation.to_string()).await?;
                let allocation = found.ok_or_else(missing)?.value;
                if !is_party(&call.principal, &allocation) {
                    return Err(missing());
                }
                may_claim(&call.principal, open.kind)?;
                let ids = &self.work.ids;
                let mut changes = Changeset::new();
                let mut draft = LedgerDraft::new(self.work.reader.as_ref(), ids, allocation.domain.clone());
                let dispute = open_draft(
                    &mut draft,
                    &mut changes,
                    ids,
                    &self.settings,
                    &allocation,
                    open.clone(),
                    call.principal.tenant(),
                )
                .await?;
                draft.finish(&mut changes);
                Ok(Draft::new(changes, dispute))
            })
            .await
    }

    /// A dispute.
    ///
    /// # Errors
    /// Not found for disputes of others; database errors.
    pub async fn get(&self, call: &Call, id: DisputeId) -> Result<Dispute> {
        let found = self.work.reader.load::<Dispute>(&id.to_string()).await?;
        let dispute = found.ok_or_else(|| Error::not_found("dispute", id))?.value;
        let mine = match call.principal {
            Principal::Consumer(me) => me == dispute.consumer,
            Principal::Provider(me) => me == dispute.provider,
            Principal::Operator(_) | Principal::System => true,
            Principal::Oracle(_) => false,
        };
        if mine { Ok(dispute) } else { Err(Error::not_found("dispute", id)) }
    }

    /// The disputes that the caller may see, newest first; of one allocation when it is given.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] for oracles; database errors.
    pub async fn list(
        &self,
        call: &Call,
        allocation: Option<AllocationId>,
        page: PageRequest,
    ) -> Result<Listing<Dispute>> {
        let mut filter = match call.principal {
            Principal::Consumer(me) => Filter::eq("consumer", me.to_string()),
            Principal::Provider(me) => Filter::eq("provider", me.to_string()),
            Principal::Operator(_) | Principal::System => Filter::All,
            Principal::Oracle(_) => {
                return Err(Error::new(ErrorCode::Forbidden, "oracles have no disputes"));
            }
        };
        if let Some(allocation) = allocation {
            filter = filter.and(Filter::eq("allocation", allocation.to_string()));
        }
        list(self.work.reader.as_ref(), filter, Sort::IdDescending, page).await
    }

    /// Decides a dispute; operators only.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; not found; [`ErrorCode::InvalidState`] once it is decided; an empty reason.
    pub async fn decide(
        &self,
        call: &Call,
        id: DisputeId,
        decision: Decision,
        reason: &str,
    ) -> Result<Answer<Dispute>> {
        call.operators_only("decide disputes")?;
        if reason.trim().is_empty() || reason.chars().count() > 2_000 {
            return Err(Error::field("reason", "say why in 1 to 2,000 characters"));
        }
        let event = match decision {
            Decision::Provider => DisputeEvent::DecideForProvider,
            Decision::Consumer => DisputeEvent::DecideForConsumer,
        };
        self.settle(call, id, event, reason).await
    }

    async fn settle(
        &self,
        call: &Call,
        id: DisputeId,
        event: DisputeEvent,
        reason: &str,
    ) -> Result<Answer<Dispute>> {
        self.work
            .run(call, "dispute.decide", || async {
                let found = self.work.reader.load::<Dispute>(&id.to_string()).await?;
                self.outcome(found.ok_or_else(|| Error::not_found("dispute", id))?, event, reason).await
            })
            .await
    }

    async fn outcome(
        &self,
        stored: Stored<Dispute>,
        event: DisputeEvent,
        reason: &str,
    ) -> Result<Draft<Dispute>> {
        let Stored { version, value: mut dispute } = stored;
        let state = dispute::transition(dispute.state, event).map_err(|error| {
            Error::new(ErrorCode::InvalidState, "this dispute is decided already").because(error)
        })?;
        let ids = &self.work.ids;
        let mut draft = LedgerDraft::new(self.work.reader.as_ref(), ids, dispute.domain.clone());
        for posting in self.payout(&dispute, state) {
            draft.post(posting).await?;
        }
        dispute.state = state;
        dispute.reason = Some(reason.to_owned());
        dispute.decided_at = Some(self.work.now());
        let mut changes = Changeset::new();
        changes.replace(version, &dispute);
        draft.finish(&mut changes);
        announce(&mut changes, ids, "dispute.decided", &dispute);
        if dispute.kind == DisputeKind::Violation && state == DisputeState::ForProvider {
            self.restrict(&mut changes, dispute.allocation).await?;
        }
        Ok(Draft::new(changes, dispute))
    }

    /// Makes the allocation of an upheld violation read-only, and tells the provider; one that is not in use any more is
    /// past that.
    async fn restrict(&self, changes: &mut Changeset, id: AllocationId) -> Result<()> {
        let found = self.work.reader.load::<Allocation>(&id.to_string()).await?;
        let Some(Stored { version, value: mut allocation }) = found else { return Ok(()) };
        if !allocation.state.is_in_use() {
            return Ok(());
        }
        let ids = &self.work.ids;
        if impose(changes, ids, &mut allocation, version, RestrictReason::Violation)? {
            let kind = "allocation.restricted";
            record(changes, ids, version, &allocation, Counters::Unchanged, kind);
        }
        Ok(())
    }

    /// Where the held money goes. A payment to the provider bears the platform's fee; a forfeit does not.
    fn payout(&self, dispute: &Dispute, state: DisputeState) -> Vec<Posting> {
        let held = AccountKey::Held(dispute.id);
        let posting = |kind, credit, amount, what: &str| Posting {
            kind,
            debit: held,
            credit,
            amount,
            idempotency_key: format!("{what}:{}", dispute.id),
            subject: dispute.id.to_string(),
        };
        let provider = AccountKey::Provider(dispute.provider);
        match (state, dispute.kind) {
            (DisputeState::ForProvider, DisputeKind::Violation) => {
                vec![posting(TransferKind::Forfeit, provider, dispute.held, "forfeit")]
            }
            (DisputeState::ForProvider, DisputeKind::Metering | DisputeKind::Billing) => {
                let fee = dispute.held.basis_points(self.settings.fee).min(dispute.held);
                vec![
                    posting(TransferKind::Release, provider, dispute.held.saturating_sub(fee), "release"),
                    posting(TransferKind::Fee, AccountKey::Fees, fee, "release-fee"),
                ]
            }
            (DisputeState::ForConsumer | DisputeState::Lapsed, _) => {
                let consumer = AccountKey::Consumer(dispute.consumer);
                vec![posting(TransferKind::Release, consumer, dispute.held, "release")]
            }
            (DisputeState::Open, _) => Vec::new(),
        }
    }
}

#[async_trait]
impl Trigger for DisputeService {
    fn name(&self) -> &'static str {
        "expire_disputes"
    }

    async fn fire(&self) -> Result<TriggerReport> {
        let mut report = TriggerReport::default();
        let filter = Filter::eq("state", "open")
            .and(Filter::Le("deadline".to_owned(), self.work.now().as_micros().into()));
        let query = Query::new(schema::DISPUTES).filter(filter);
        let (overdue, _) = self.work.reader.list::<Dispute>(query).await?;
        for stored in overdue {
            report.examined += 1;
            let id = stored.value.id;
            let call = Call::system("expire_disputes");
            let reason = "nobody decided in time: the lower figure stands";
            match self.settle(&call, id, DisputeEvent::Deadline, reason).await {
                Ok(_) => report.changed += 1,
                // Decided by somebody in between.
                Err(error) if error.code == ErrorCode::InvalidState => {}
                Err(error) => {
                    report.failed += 1;
                    tracing::warn!(dispute = %id, error = crate::error::chain(&error), "a dispute could not lapse");
                }
            }
        }
        Ok(report)
    }
}

fn check(open: &OpenDispute) -> Result<()> {
    if open.claim.trim().is_empty() || open.claim.chars().count() > 2_000 {
        return Err(Error::field("claim", "say what is claimed in 1 to 2,000 characters"));
    }
    if open.evidence.len() > 50 || open.evidence.iter().any(|item| item.is_empty() || item.len() > 200) {
        return Err(Error::field("evidence", "at most 50 ids or hashes of 1 to 200 characters"));
    }
    if open.amount.is_zero() {
        return Err(Error::field("amount", "must be more than zero"));
    }
    Ok(())
}

fn is_party(principal: &Principal, allocation: &Allocation) -> bool {
    match principal {
        Principal::Consumer(me) => *me == allocation.consumer,
        Principal::Provider(me) => *me == allocation.provider,
        Principal::Operator(_) | Principal::System => true,
        Principal::Oracle(_) => false,
    }
}

fn may_claim(principal: &Principal, kind: DisputeKind) -> Result<()> {
    let allowed = match (principal, kind) {
        (Principal::Provider(_), DisputeKind::Violation | DisputeKind::Metering)
        | (Principal::Consumer(_), DisputeKind::Billing | DisputeKind::Metering)
        | (Principal::Operator(_) | Principal::System, _) => true,
        (Principal::Provider(_) | Principal::Consumer(_) | Principal::Oracle(_), _) => false,
    };
    if allowed {
        Ok(())
    } else {
        Err(Error::field(
            "kind",
            "providers claim `violation` or `metering`, consumers `billing` or `metering`",
        ))
    }
}
