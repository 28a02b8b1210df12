//! What the market tree commits to, as canonical text: JSON of fixed structs with their fields in the order given here,
//! integers only. Anyone with the text can recompute the digest.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::hash::{Tag, cut, keccak};
use crate::core::market::{
    allocation::{Allocation, AllocationState, Span},
    ids::{AllocationId, ConsumerId, ProviderId, UnitId},
    quantity::{Bytes, Micros, Timestamp},
    score::Reputation,
    terms::{PriceTerms, SlaTerms},
    unit::{DataUnit, UnitMode},
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

/// An allocation's frozen terms and its state, as the market tree commits to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationTerms {
    /// Version of this form: 1.
    pub version: u8,
    /// The allocation.
    pub allocation: AllocationId,
    /// Who pays.
    pub consumer: ConsumerId,
    /// Who earns.
    pub provider: ProviderId,
    /// What it is cut from.
    pub unit: UnitId,
    /// Size.
    pub bytes: Bytes,
    /// Egress that the escrow covers; a renewal changes it.
    pub egress_allowance: Bytes,
    /// How long it runs from activation; a renewal changes it.
    pub period: Micros,
    /// Frozen price.
    pub price: PriceTerms,
    /// Frozen promise.
    pub sla: SlaTerms,
    /// Where it stands.
    pub state: AllocationState,
    /// When it became active.
    pub activated_at: Option<Timestamp>,
    /// When its period ends; a renewal changes it.
    pub ends_at: Option<Timestamp>,
}

impl AllocationTerms {
    /// Those of an allocation, as it stands.
    #[must_use]
    pub fn of(allocation: &Allocation) -> Self {
        Self {
            version: 1,
            allocation: allocation.id,
            consumer: allocation.consumer,
            provider: allocation.provider,
            unit: allocation.unit,
            bytes: allocation.bytes,
            egress_allowance: allocation.egress_allowance,
            period: allocation.period,
            price: allocation.price,
            sla: allocation.sla.clone(),
            state: allocation.state,
            activated_at: allocation.activated_at,
            ends_at: allocation.ends_at,
        }
    }

    /// The name and the canonical text.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        Commitment::of(format!("allocation:{}", self.allocation), self)
    }

    /// What never changes in an allocation's life, with all else at a fixed value.
    #[must_use]
    pub fn frozen(&self) -> Self {
        let state = AllocationState::Reserved;
        let (egress_allowance, period) = (Bytes(0), Micros(0));
        Self { state, egress_allowance, period, activated_at: None, ends_at: None, ..self.clone() }
    }

    /// The digest of every text that the tree may have held for the allocation so far: each state, before and after activation,
    /// with what renewals replaced.
    #[must_use]
    pub fn digests(&self, earlier: &[Span]) -> BTreeSet<[u8; 26]> {
        let now =
            Span { egress_allowance: self.egress_allowance, period: self.period, ends_at: self.ends_at };
        let mut digests = BTreeSet::new();
        for span in earlier.iter().chain([&now]) {
            for state in AllocationState::ALL {
                for (activated_at, ends_at) in [(None, None), (self.activated_at, span.ends_at)] {
                    let Span { egress_allowance, period, .. } = *span;
                    let at = Self { egress_allowance, period, state, activated_at, ends_at, ..self.clone() };
                    digests.insert(at.commitment().digest());
                }
            }
        }
        digests
    }
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
        AllocationTerms::of(allocation).commitment()
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
pub fn verdict_subject(unit: UnitId, period_key: &str) -> [u8; 16] {
    cut(&keccak(Tag::Verdict, &[format!("{unit}/{period_key}").as_bytes()]))
}
