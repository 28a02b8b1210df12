//! Gathers what oracles sign of the evidence of blocks, for settlement layers that take no block without.

use serde::{Deserialize, Serialize};

use super::BlockStore;
use crate::{
    core::{
        client::database::{Changeset, Filter, Reader, ReaderExt},
        madara::attestation::EvidenceOracles,
        market::{
            address::Address,
            attestation::Attestation,
            block::{Block, Hash32},
            event::Audience,
            party::Principal,
            terms::DomainId,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        outbox,
        settlement::SettlementDomains,
        work::{Answer, Call, Draft, Work},
    },
};

/// What oracles are asked to sign, and who did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attested {
    /// The block's domain.
    pub domain: DomainId,
    /// The block's number.
    pub number: u64,
    /// Root over the evidence of its verdicts.
    pub evidence_root: Hash32,
    /// What they sign; `None` on layers that ask nobody.
    pub digest: Option<Hash32>,
    /// How many must.
    pub needed: usize,
    /// Who did.
    pub signers: Vec<Address>,
}

/// The signatures of a block, by ascending signer, as a layer wants them.
pub(super) async fn signatures_of(
    reader: &dyn Reader,
    block: &Block,
    oracles: &dyn EvidenceOracles,
) -> Result<Vec<String>> {
    let filter = Filter::eq("block", block.hash.to_string());
    let stored = reader.list_all::<Attestation>(filter).await?;
    // One whose key has been taken from the oracles since does not count any more.
    let counts =
        |signature: &String| Some((oracles.signer(&block.header, signature).ok()?, signature.clone()));
    let own = oracles.own(&block.header);
    let all = stored.into_iter().map(|it| it.value.signature).chain(own);
    let by_signer: std::collections::BTreeMap<Address, String> = all.filter_map(|it| counts(&it)).collect();
    Ok(by_signer.into_values().collect())
}

/// The service.
#[derive(Clone)]
pub struct AttestationService {
    work: Work,
    store: BlockStore,
    domains: SettlementDomains,
}

impl AttestationService {
    /// A service over these ports.
    #[must_use]
    pub const fn new(work: Work, store: BlockStore, domains: SettlementDomains) -> Self {
        Self { work, store, domains }
    }

    async fn block(&self, domain: &DomainId, number: u64) -> Result<Block> {
        let found = self.store.reader().load::<Block>(&Block::id_of(domain, number)).await?;
        Ok(found.ok_or_else(|| Error::not_found("block", number))?.value)
    }

    /// What oracles are asked to sign for a block, and who did.
    ///
    /// # Errors
    /// Not found; database errors.
    pub async fn attested(&self, _call: &Call, domain: &DomainId, number: u64) -> Result<Attested> {
        let block = self.block(domain, number).await?;
        let oracles = self.domains.oracles(domain)?;
        let filter = Filter::eq("block", block.hash.to_string());
        let stored = self.store.reader().list_all::<Attestation>(filter).await?;
        Ok(Attested {
            domain: domain.clone(),
            number,
            evidence_root: block.header.evidence_root,
            digest: oracles.map(|oracles| oracles.digest(&block.header)),
            needed: oracles.map_or(0, EvidenceOracles::threshold),
            signers: stored.into_iter().map(|it| it.value.signer).collect(),
        })
    }

    /// Takes an oracle's signature of a block's evidence. The same again has no further effect.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] unless an oracle or an operator calls; an invalid field for what is no signature of an oracle
    /// that the layer knows; [`ErrorCode::NotSupported`] on layers that ask nobody.
    pub async fn attest(
        &self,
        call: &Call,
        domain: &DomainId,
        number: u64,
        signature: &str,
    ) -> Result<Answer<Attestation>> {
        if !call.principal.is_operator() && !matches!(call.principal, Principal::Oracle(_)) {
            return Err(Error::new(
                ErrorCode::Forbidden,
                "only oracles and operators bring signatures of evidence",
            ));
        }
        let none =
            || Error::new(ErrorCode::NotSupported, format!("domain {domain} asks nobody to sign evidence"));
        let oracles = self.domains.oracles(domain)?.ok_or_else(none)?;
        let block = self.block(domain, number).await?;
        let signer = oracles
            .signer(&block.header, signature)
            .map_err(|error| Error::field("signature", error.to_string()))?;
        self.work
            .run(call, "block.attest", || async {
                let known = self
                    .store
                    .reader()
                    .load::<Attestation>(&Attestation::id_of(&block.hash, &signer))
                    .await?;
                let mut changes = Changeset::new();
                if let Some(known) = known {
                    return Ok(Draft::new(changes, known.value));
                }
                let attestation = Attestation {
                    domain: domain.clone(),
                    number,
                    block: block.hash,
                    signer,
                    signature: signature.to_lowercase(),
                    at: self.work.now(),
                };
                changes.insert(&attestation);
                let data = serde_json::json!({ "number": number, "signer": signer });
                let id = Block::id_of(domain, number);
                outbox::event(&mut changes, &self.work.ids, "block.attested", id, Audience::Public, data);
                Ok(Draft::new(changes, attestation))
            })
            .await
    }
}
