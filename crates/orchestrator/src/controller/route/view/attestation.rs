//! What oracles sign of blocks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::common::Time;
use crate::{core::market::attestation::Attestation, service::block::Attested};

/// What oracles are asked to sign of a block's evidence, and who did.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttestedView {
    /// The block's domain.
    pub domain: String,
    /// The block's number.
    pub number: u64,
    /// Root over the evidence of its verdicts.
    pub evidence_root: String,
    /// What they sign (on Ethereum an EIP-712 digest); `null` on settlement layers that ask nobody.
    pub digest: Option<String>,
    /// How many must.
    pub needed: usize,
    /// The addresses of those who did.
    pub signers: Vec<String>,
}

impl From<Attested> for AttestedView {
    fn from(attested: Attested) -> Self {
        Self {
            domain: attested.domain.0,
            number: attested.number,
            evidence_root: attested.evidence_root.to_string(),
            digest: attested.digest.map(|digest| digest.to_string()),
            needed: attested.needed,
            signers: attested.signers.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A signature of a block's evidence.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attest {
    /// r, s and v of the block's `digest`, 65 bytes in hex behind `0x`.
    pub signature: String,
}

/// A signature that was taken.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttestationView {
    /// The block's domain.
    pub domain: String,
    /// The block's number.
    pub number: u64,
    /// The oracle's address on the settlement layer.
    pub signer: String,
    /// When it came.
    pub at: Time,
}

impl From<Attestation> for AttestationView {
    fn from(attestation: Attestation) -> Self {
        Self {
            domain: attestation.domain.0,
            number: attestation.number,
            signer: attestation.signer.to_string(),
            at: attestation.at.into(),
        }
    }
}
