//! Verdicts, and the evidence that they rest on.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    core::{
        client::{
            database::{Filter, ReaderExt, Sort},
            storage::StorageClient,
        },
        market::{
            allocation::Allocation,
            block::Hash32,
            ids::{AllocationId, ProviderId, UnitId, VerdictId},
            party::Principal,
            sla::{EvidenceSet, JudgeRules, Judgement, Window, judge},
            terms::SlaTerms,
            unit::DataUnit,
            verdict::SlaVerdict,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        allocation::change::may_see,
        page::{Listing, PageRequest, list},
        sla::settings::SlaSettings,
        work::{Call, Work},
    },
};

/// Everything that a verdict was computed from, as it lies in storage under its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceFile {
    /// What was judged.
    pub window: Window,
    /// The owner of the unit.
    pub provider: ProviderId,
    /// The frozen promise.
    pub terms: SlaTerms,
    /// The rules.
    pub rules: JudgeRules,
    /// The unit's reputation when it was judged, in thousandths of a point; for one of the penalty policies.
    pub reputation: u32,
    /// The evidence, in canonical order.
    pub evidence: EvidenceSet,
}

impl EvidenceFile {
    /// Judges it again.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] never happens for these types.
    pub fn judge(&self) -> Result<Judgement> {
        judge(self.window, &self.evidence, &self.terms, &self.rules, self.provider).map_err(Error::internal)
    }
}

/// A verdict with what anyone needs to judge again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictProof {
    /// The verdict.
    pub verdict: SlaVerdict,
    /// What it rests on.
    pub file: EvidenceFile,
    /// What judging the file again gives.
    pub recomputed: Judgement,
    /// The root of the file's evidence; equal to the verdict's.
    pub evidence_root: Hash32,
}

/// Shows verdicts.
#[derive(Clone)]
pub struct SlaService {
    pub(super) work: Work,
    pub(super) storage: Arc<dyn StorageClient>,
    pub(super) settings: SlaSettings,
}

impl SlaService {
    /// A service over the unit of work and the storage of evidence.
    #[must_use]
    pub fn new(work: Work, storage: Arc<dyn StorageClient>, settings: SlaSettings) -> Self {
        Self { work, storage, settings }
    }

    /// Verdicts of an allocation, oldest first; for its consumer, its provider and operators.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], also for other tenants' allocations; database errors.
    pub async fn of_allocation(
        &self,
        call: &Call,
        id: AllocationId,
        page: PageRequest,
    ) -> Result<Listing<SlaVerdict>> {
        let found = self.work.reader.load::<Allocation>(&id.to_string()).await?;
        let allowed = found.is_some_and(|a| may_see(call, &a.value));
        if !allowed {
            return Err(Error::not_found("allocation", id));
        }
        list(self.work.reader.as_ref(), Filter::eq("allocation", id.to_string()), Sort::Id, page).await
    }

    /// Verdicts of a unit, oldest first; for its provider and operators. Consumers read its QoS history instead.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; [`ErrorCode::NotFound`]; database errors.
    pub async fn of_unit(&self, call: &Call, id: UnitId, page: PageRequest) -> Result<Listing<SlaVerdict>> {
        let found = self.work.reader.load::<DataUnit>(&id.to_string()).await?;
        let unit = found.ok_or_else(|| Error::not_found("unit", id))?.value;
        match call.principal {
            Principal::Operator(_) | Principal::System => {}
            Principal::Provider(own) if own == unit.provider => {}
            Principal::Provider(_) => return Err(Error::not_found("unit", id)),
            _ => {
                return Err(Error::new(
                    ErrorCode::Forbidden,
                    "a unit's verdicts are for its provider; read its QoS history instead",
                ));
            }
        }
        list(self.work.reader.as_ref(), Filter::eq("unit", id.to_string()), Sort::Id, page).await
    }

    /// One verdict; for the allocation's consumer and provider, and operators.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], also for other tenants' verdicts; database errors.
    pub async fn get(&self, call: &Call, id: VerdictId) -> Result<SlaVerdict> {
        let found = self.work.reader.load::<SlaVerdict>(&id.to_string()).await?;
        let verdict = found.ok_or_else(|| Error::not_found("verdict", id))?.value;
        if call.principal.is_operator() {
            return Ok(verdict);
        }
        let allowed = match verdict.allocation {
            Some(allocation) => self
                .work
                .reader
                .load::<Allocation>(&allocation.to_string())
                .await?
                .is_some_and(|a| may_see(call, &a.value)),
            None => false,
        };
        if allowed { Ok(verdict) } else { Err(Error::not_found("verdict", id)) }
    }

    /// A verdict with its evidence, judged again.
    ///
    /// # Errors
    /// As [`SlaService::get`]; [`ErrorCode::Unavailable`] when the storage does not answer.
    pub async fn proof(&self, call: &Call, id: VerdictId) -> Result<VerdictProof> {
        let verdict = self.get(call, id).await?;
        let bytes = self.evidence_bytes(&verdict).await?;
        let file: EvidenceFile = serde_json::from_slice(&bytes).map_err(Error::internal)?;
        let recomputed = file.judge()?;
        let evidence_root = recomputed.evidence_root;
        Ok(VerdictProof { verdict, file, recomputed, evidence_root })
    }
}
