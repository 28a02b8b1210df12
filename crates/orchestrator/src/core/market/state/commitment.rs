//! What the market tree commits to, as canonical text: JSON of fixed structs with their fields in the order given here,
//! integers only. Anyone with the text can recompute the digest.

use serde::Serialize;

use super::hash::{Tag, cut, keccak};
use crate::core::market::{
    allocation::{Allocation, AllocationState},
    quantity::{Bytes, Micros, Timestamp},
    score::Reputation,
    terms::{PriceTerms, SlaTerms},
    unit::{DataUnit, UnitMode},
    verdict::SlaVerdict,
};

#[derive(Serialize)]
struct UnitTerms<'a> {
    version: u8,
    unit: String,
    provider: String,
    price: &'a PriceTerms,
    sla: &'a SlaTerms,
    mode: UnitMode,
}

#[derive(Serialize)]
struct AllocationTerms<'a> {
    version: u8,
    allocation: String,
    consumer: String,
    provider: String,
    unit: String,
    bytes: Bytes,
    egress_allowance: Bytes,
    period: Micros,
    price: &'a PriceTerms,
    sla: &'a SlaTerms,
    state: AllocationState,
    activated_at: Option<Timestamp>,
    ends_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct Score {
    version: u8,
    unit: String,
    millipoints: u32,
    day: i64,
}

/// Something that the market tree commits to: its name there, and its canonical text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    /// Its name in the tree.
    pub name: String,
    /// The canonical text.
    pub text: String,
}

impl Commitment {
    fn of(name: String, value: &impl Serialize) -> Self {
        // Plain structs always serialise.
        Self { name, text: serde_json::to_string(value).unwrap_or_default() }
    }

    /// A unit's terms.
    #[must_use]
    pub fn unit(unit: &DataUnit) -> Self {
        let terms = UnitTerms {
            version: 1,
            unit: unit.id.to_string(),
            provider: unit.provider.to_string(),
            price: &unit.price,
            sla: &unit.sla,
            mode: unit.mode,
        };
        Self::of(format!("unit:{}", unit.id), &terms)
    }

    /// An allocation's frozen terms and its state.
    #[must_use]
    pub fn allocation(allocation: &Allocation) -> Self {
        let terms = AllocationTerms {
            version: 1,
            allocation: allocation.id.to_string(),
            consumer: allocation.consumer.to_string(),
            provider: allocation.provider.to_string(),
            unit: allocation.unit.to_string(),
            bytes: allocation.bytes,
            egress_allowance: allocation.egress_allowance,
            period: allocation.period,
            price: &allocation.price,
            sla: &allocation.sla,
            state: allocation.state,
            activated_at: allocation.activated_at,
            ends_at: allocation.ends_at,
        };
        Self::of(format!("allocation:{}", allocation.id), &terms)
    }

    /// A unit's reputation.
    #[must_use]
    pub fn score(score: &Reputation) -> Self {
        let value = Score {
            version: 1,
            unit: score.unit.to_string(),
            millipoints: score.millipoints,
            day: score.day,
        };
        Self::of(format!("score:{}", score.unit), &value)
    }

    /// What the tree holds of the text.
    #[must_use]
    pub fn digest(&self) -> [u8; 26] {
        cut(&keccak(Tag::Digest, &[self.text.as_bytes()]))
    }
}

/// How a verdict's record names what was judged, and when.
#[must_use]
pub fn verdict_subject(verdict: &SlaVerdict) -> [u8; 16] {
    cut(&keccak(Tag::Verdict, &[format!("{}/{}", verdict.unit, verdict.period_key).as_bytes()]))
}
