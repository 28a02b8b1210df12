//! What oracles said of a block's evidence.

use serde::{Deserialize, Serialize};

use super::{address::Address, block::Hash32, quantity::Timestamp, terms::DomainId};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// An oracle's signature of a block's evidence root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The block's domain.
    pub domain: DomainId,
    /// The block's number.
    pub number: u64,
    /// Hash of the block's header.
    pub block: Hash32,
    /// Who signed.
    pub signer: Address,
    /// 65 bytes in hex.
    pub signature: String,
    /// When it came.
    pub at: Timestamp,
}

impl Attestation {
    /// The id of its document: one for each block and signer.
    #[must_use]
    pub fn id_of(block: &Hash32, signer: &Address) -> String {
        format!("{block}/{signer}")
    }
}

impl Entity for Attestation {
    const NAME: &'static str = "attestation";
    const COLLECTION: Collection = schema::ATTESTATIONS;
    fn document_id(&self) -> String {
        Self::id_of(&self.block, &self.signer)
    }
}
