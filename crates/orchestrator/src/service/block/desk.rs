//! The service that shows blocks and their records, and lets an operator get sealing going again.

use serde::{Deserialize, Serialize};

use super::{
    BlockStore, ChainTip, Quarantined,
    order::{parts_of, period_of},
    prove::validity_proof,
};
use crate::{
    core::{
        client::{
            database::{Changeset, Expect, Filter, ReaderExt, Scalar, Sort, Stored},
            schema,
        },
        madara::settlement::BlockProof,
        market::{
            account::Transfer,
            block::{Block, BlockState},
            event::Audience,
            state::Record,
            terms::DomainId,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        ledger::{UnsealedKind, UnsealedMarker},
        outbox,
        page::{Listing, PageRequest, list},
        work::{Answer, Call, Draft, Work},
    },
};

/// Shows blocks, which are public to everyone with a key, and takes the operator's decisions.
#[derive(Clone)]
pub struct BlockService {
    work: Work,
    store: BlockStore,
}

/// A part of a block's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPage {
    /// Number of the first one within the block, from 0.
    pub from: usize,
    /// In the order of execution.
    pub records: Vec<Record>,
    /// Where to go on; `None` at the end.
    pub next: Option<usize>,
}

/// Which proof of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofKind {
    /// That its records, executed again, lead from the parent's state to its own.
    #[default]
    Reexecution,
    /// A succinct one.
    Validity,
}

/// What resuming came to; `id` names the domain for the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The domain.
    pub id: DomainId,
    /// Why sealing had stopped.
    pub reason: String,
}

impl BlockService {
    /// A service over the unit of work and the stored blocks.
    #[must_use]
    pub const fn new(work: Work, store: BlockStore) -> Self {
        Self { work, store }
    }

    /// The blocks of a domain, newest first.
    ///
    /// # Errors
    /// Database errors.
    pub async fn list(&self, _call: &Call, domain: &DomainId, page: PageRequest) -> Result<Listing<Block>> {
        let filter = Filter::eq("header.domain", domain.as_str());
        list(self.store.reader(), filter, Sort::IdDescending, page).await
    }

    /// A block by number.
    ///
    /// # Errors
    /// Not found; database errors.
    pub async fn get(&self, _call: &Call, domain: &DomainId, number: u64) -> Result<Block> {
        let found = self.store.reader().load::<Block>(&Block::id_of(domain, number)).await?;
        Ok(found.ok_or_else(|| Error::not_found("block", number))?.value)
    }

    /// The records of a block, at most `limit` from number `from` on: what the data-availability layer has, too.
    ///
    /// # Errors
    /// Not found; storage errors.
    pub async fn records(
        &self,
        call: &Call,
        domain: &DomainId,
        number: u64,
        from: usize,
        limit: usize,
    ) -> Result<RecordPage> {
        let block = self.get(call, domain, number).await?;
        let all = self.store.records(&block).await?;
        let records: Vec<Record> = all.iter().skip(from).take(limit.clamp(1, 1_000)).copied().collect();
        let end = from.saturating_add(records.len());
        Ok(RecordPage { from, records, next: (end < all.len()).then_some(end) })
    }

    /// The proof that a block follows from its parent.
    ///
    /// # Errors
    /// Not found, also while the block is not proved yet; [`ErrorCode::NotSupported`] for validity proofs.
    pub async fn proof(
        &self,
        call: &Call,
        domain: &DomainId,
        number: u64,
        kind: ProofKind,
    ) -> Result<BlockProof> {
        let block = self.get(call, domain, number).await?;
        match kind {
            ProofKind::Validity => validity_proof(&block.header),
            ProofKind::Reexecution if block.state < BlockState::Proven => {
                Err(Error::new(ErrorCode::NotFound, "the block is not proved yet"))
            }
            ProofKind::Reexecution => self.store.proof(&block).await,
        }
    }

    /// What no block could carry, newest last; for operators.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; database errors.
    pub async fn quarantined(
        &self,
        call: &Call,
        domain: &DomainId,
        page: PageRequest,
    ) -> Result<Listing<Quarantined>> {
        call.operators_only("see what no block could carry")?;
        let filter = Filter::eq("marker.domain", domain.as_str());
        list(self.work.reader.as_ref(), filter, Sort::Id, page).await
    }

    /// Lets sealing go on after it had stopped because blocks were refused; for operators, who have looked why.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; [`ErrorCode::InvalidState`] when it has not stopped.
    pub async fn resume(&self, call: &Call, domain: &DomainId) -> Result<Answer<Resumed>> {
        call.operators_only("let sealing go on")?;
        self.work
            .run(call, "block.resume", || async {
                let Stored { version, value: mut tip } = self.store.tip(domain).await?;
                let Some(reason) = tip.halted.take() else {
                    return Err(Error::new(ErrorCode::InvalidState, "sealing has not stopped"));
                };
                tip.rejections = 0;
                tip.round += 1;
                let mut changes = Changeset::new();
                changes.replace(version, &tip);
                let data = serde_json::json!({ "reason": reason });
                outbox::event(
                    &mut changes,
                    &self.work.ids,
                    "block.resumed",
                    domain,
                    Audience::Operators,
                    data,
                );
                Ok(Draft::new(changes, Resumed { id: domain.clone(), reason }))
            })
            .await
    }

    /// Puts a quarantined item back, to be sealed with what waits for it, and with the other parts of its charge; for
    /// operators. What is still wrong with it
    /// brings it back into quarantine.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; not found.
    pub async fn retry(&self, call: &Call, id: &str) -> Result<Answer<UnsealedMarker>> {
        call.operators_only("put a quarantined item back")?;
        self.work
            .run(call, "block.retry", || async {
                let found = self.work.reader.load::<Quarantined>(id).await?;
                let item = found.ok_or_else(|| Error::not_found("quarantined item", id))?;
                let marker = item.value.marker.clone();
                let mut changes = Changeset::new();
                for Stored { version, value } in self.charge_of(item).await? {
                    let id = &value.marker.id;
                    changes.delete(schema::QUARANTINED, id, Expect::Version(version)).insert(&value.marker);
                }
                Ok(Draft::new(changes, marker))
            })
            .await
    }

    /// The item, and those that can only be sealed with it: the parts of one charge.
    async fn charge_of(&self, item: Stored<Quarantined>) -> Result<Vec<Stored<Quarantined>>> {
        let reader = self.work.reader.as_ref();
        let transfer = match item.value.marker.kind {
            UnsealedKind::Transfer => reader.load::<Transfer>(&item.value.marker.id).await.unwrap_or(None),
            _ => None,
        };
        let Some(transfer) = transfer else { return Ok(vec![item]) };
        let Some(period) = period_of(&transfer.value) else { return Ok(vec![item]) };
        let keys = parts_of(period).map(Scalar::from).collect();
        let filter = Filter::eq("domain", transfer.value.domain.as_str())
            .and(Filter::In("idempotency_key".to_owned(), keys));
        let parts = reader.list_all::<Transfer>(filter).await?;
        let ids = parts.into_iter().map(|part| part.value.id.to_string()).collect();
        Ok(reader.list_all::<Quarantined>(Filter::Ids(ids)).await?)
    }

    /// Where the chain of a domain stands.
    ///
    /// # Errors
    /// Database errors.
    pub async fn tip(&self, _call: &Call, domain: &DomainId) -> Result<ChainTip> {
        Ok(self.store.tip(domain).await?.value)
    }
}
