//! Signatures of oracles: Ed25519, strict, over the canonical bytes.

use ed25519_dalek::{Signature, VerifyingKey};

use super::canonical::statement_bytes;
use crate::core::market::evidence::EvidenceReport;

/// Reads a public key of 64 lower-case hex digits; weak keys are refused.
#[must_use]
pub fn parse_key(text: &str) -> Option<VerifyingKey> {
    if text.len() != 64 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0_u8; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak())
}

/// Whether the report carries a valid signature of this key.
#[must_use]
pub fn verifies(report: &EvidenceReport, public_key: &str) -> bool {
    let mut bytes = [0_u8; 64];
    if hex::decode_to_slice(&report.signature, &mut bytes).is_err() {
        return false;
    }
    let (Some(key), Ok(message)) = (parse_key(public_key), statement_bytes(&report.statement)) else {
        return false;
    };
    key.verify_strict(&message, &Signature::from_bytes(&bytes)).is_ok()
}
