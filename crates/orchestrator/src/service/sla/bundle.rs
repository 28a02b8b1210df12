//! What anybody needs to check one verdict of a chain, and the credit that follows from it, in one document: what the
//! verdict's record is the hash of, who the parties are, the allocation's terms, and the evidence as it lies in storage.
//! `GET /evidence/{subject}` answers with it; a mirror is any web server that has such documents as files.

use async_trait::async_trait;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::verdict::SlaService;
use crate::{
    core::{
        client::database::{Changeset, DatabaseError, Entity, Filter, Query, ReaderExt, Scalar, Stored},
        madara::evidence::{EvidenceError, EvidenceSource},
        market::{
            address::Address,
            allocation::{Allocation, Span},
            ids::UnitId,
            money::Amount,
            party::{Consumer, Provider},
            state::commitment::{AllocationTerms, verdict_subject},
            terms::DomainId,
            verdict::SlaVerdict,
        },
    },
    error::{Error, ErrorCode, Result},
};

/// The version of the form.
pub const BUNDLE_VERSION: u32 = 1;

/// The document. `File` is [`super::verdict::EvidenceFile`] for who reads it, and its bytes for who serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictBundle<File> {
    /// Version of this form: 1.
    pub version: u32,
    /// The settlement domain.
    pub domain: DomainId,
    /// The unit that was judged. The record's subject is the hash of `<unit>/<period_key>`.
    pub unit: UnitId,
    /// The period that was judged, `<allocation>/<number>`.
    pub period_key: String,
    /// What the period cost, fee included; says which payment of the escrow is its own.
    pub payment: Amount,
    /// The allocation's owners and terms; `None` for a verdict that no money rests on.
    pub allocation: Option<AllocationBundle>,
    /// What was judged by which rules on which evidence.
    pub file: File,
}

/// What is to be known of an allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationBundle {
    /// The consumer's address, in a domain whose accounts have owners.
    pub consumer_owner: Option<Address>,
    /// The provider's.
    pub provider_owner: Option<Address>,
    /// The text whose digest the market tree has held: JSON of [`AllocationTerms`], as it stands now.
    pub terms: String,
    /// What renewals replaced in it.
    #[serde(default)]
    pub earlier: Vec<Span>,
}

impl SlaService {
    /// The bundle behind the verdict whose record on the chain has this subject. Open to everybody: the record is public,
    /// and who can't see this can't check it. It has no names of people and no secrets.
    ///
    /// # Errors
    /// [`crate::error::ErrorCode::NotFound`]; [`crate::error::ErrorCode::Unavailable`] when the storage does not answer;
    /// database errors.
    pub async fn bundle(&self, subject: &[u8; 16]) -> Result<VerdictBundle<Box<RawValue>>> {
        let subject = hex::encode(subject);
        let filter = Filter::eq("record_subject", subject.as_str());
        let found = self.work.reader.list_all::<SlaVerdict>(filter).await?;
        let found = found.into_iter().next().ok_or_else(|| Error::not_found("verdict", subject))?;
        let verdict = found.value;
        let allocation = match verdict.allocation {
            None => None,
            Some(id) => {
                let found = self.work.reader.load::<Allocation>(&id.to_string()).await?;
                Some(
                    self.allocation_bundle(found.ok_or_else(|| Error::not_found("allocation", id))?.value)
                        .await?,
                )
            }
        };
        let text = String::from_utf8(self.evidence_bytes(&verdict).await?).map_err(Error::internal)?;
        Ok(VerdictBundle {
            version: BUNDLE_VERSION,
            domain: verdict.domain,
            unit: verdict.unit,
            period_key: verdict.period_key,
            payment: verdict.payment,
            allocation,
            file: RawValue::from_string(text).map_err(Error::internal)?,
        })
    }

    /// Gives verdicts of before the name that their records have on the chain, page by page; one that changes meanwhile was
    /// named by somebody else. Answers how many it named.
    ///
    /// # Errors
    /// Database errors.
    pub async fn name_records(&self) -> Result<u64> {
        let mut named = 0;
        let mut after = None;
        loop {
            let query = Query::new(SlaVerdict::COLLECTION)
                .filter(Filter::Eq("record_subject".to_owned(), Scalar::Null))
                .limit(500)
                .after(after);
            let (page, next) = self.work.reader.list::<SlaVerdict>(query).await?;
            for Stored { version, mut value } in page {
                let subject = verdict_subject(value.unit, &value.period_key);
                value.record_subject = Some(hex::encode(subject));
                let mut changes = Changeset::new();
                changes.replace(version, &value);
                match self.work.committer.commit(changes).await {
                    Ok(()) => named += 1,
                    Err(DatabaseError::Conflict { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match next {
                Some(cursor) => after = Some(cursor),
                None => return Ok(named),
            }
        }
    }

    async fn allocation_bundle(&self, allocation: Allocation) -> Result<AllocationBundle> {
        let consumer = self.work.reader.load::<Consumer>(&allocation.consumer.to_string()).await?;
        let provider = self.work.reader.load::<Provider>(&allocation.provider.to_string()).await?;
        Ok(AllocationBundle {
            consumer_owner: consumer.and_then(|found| found.value.owner),
            provider_owner: provider.and_then(|found| found.value.owner),
            terms: AllocationTerms::of(&allocation).commitment().text,
            earlier: allocation.earlier,
        })
    }

    /// The file that a verdict rests on, as it lies in storage.
    pub(super) async fn evidence_bytes(&self, verdict: &SlaVerdict) -> Result<Vec<u8>> {
        let stream = self.storage.get(&self.settings.evidence_bucket, &verdict.evidence_key).await?;
        let bytes = stream.try_fold(Vec::new(), |mut all, part| async move {
            all.extend_from_slice(&part);
            Ok(all)
        });
        Ok(bytes.await?)
    }
}

/// A market that is checked where its evidence lies.
#[async_trait]
impl EvidenceSource for SlaService {
    async fn bundle(&self, subject: &[u8; 16]) -> Result<Option<Vec<u8>>, EvidenceError> {
        match Self::bundle(self, subject).await {
            Ok(bundle) => {
                let bytes = serde_json::to_vec(&bundle);
                bytes.map(Some).map_err(|error| EvidenceError::Unexpected(error.to_string()))
            }
            Err(error) if error.code == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(EvidenceError::Unavailable(crate::error::chain(&error))),
        }
    }
}
