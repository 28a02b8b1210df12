//! The sealed block of a settlement domain and its lifecycle.

use serde::{Deserialize, Serialize};

use super::{money::Amount, quantity::Timestamp, terms::DomainId};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// A 32-byte hash, in lower-case hex wherever it is serialised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash32(pub [u8; 32]);

impl std::fmt::Display for Hash32 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl std::fmt::Debug for Hash32 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Hash32 {
    type Err = InvalidHash;
    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let mut out = [0_u8; 32];
        let digits = text.strip_prefix("0x").ok_or(InvalidHash)?;
        hex::decode_to_slice(digits, &mut out).map_err(|_| InvalidHash)?;
        Ok(Self(out))
    }
}

/// Why a text is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is `0x` and 64 hex digits")]
pub struct InvalidHash;

impl Serialize for Hash32 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash32 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a block stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockState {
    /// Transfers gather.
    Open,
    /// Ordered, executed, rooted.
    Sealed,
    /// Its execution was checked and its proof made.
    Proven,
    /// Its records are on the data-availability layer.
    Published,
    /// The settlement layer knows it.
    Registered,
    /// The settlement layer took its state.
    Settled,
    /// Beyond challenge and reorganisation; terminal.
    Final,
    /// Refused; terminal.
    Rejected,
}

/// What happens to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockEvent {
    /// It was ordered and executed.
    Seal,
    /// Its execution was checked.
    Prove,
    /// Its records were published.
    Publish,
    /// The settlement layer took note of it.
    Register,
    /// The settlement layer took its state.
    Settle,
    /// Nobody can undo it any more.
    Finalise,
    /// It, or a block before it, was refused.
    Reject,
}

/// A move that the lifecycle does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {from:?} block can't take {event:?}")]
pub struct InvalidBlockTransition {
    /// The state.
    pub from: BlockState,
    /// The event.
    pub event: BlockEvent,
}

/// The lifecycle of blocks.
///
/// # Errors
/// [`InvalidBlockTransition`] for every pair that is not listed.
pub const fn transition(from: BlockState, event: BlockEvent) -> Result<BlockState, InvalidBlockTransition> {
    use BlockEvent as E;
    use BlockState as S;
    Ok(match (from, event) {
        (S::Open, E::Seal) => S::Sealed,
        (S::Sealed, E::Prove) => S::Proven,
        (S::Proven, E::Publish) => S::Published,
        (S::Published, E::Register) => S::Registered,
        (S::Registered, E::Settle) => S::Settled,
        (S::Settled, E::Finalise) => S::Final,
        (S::Sealed | S::Proven | S::Published | S::Registered | S::Settled, E::Reject) => S::Rejected,
        _ => return Err(InvalidBlockTransition { from, event }),
    })
}

/// The part of a block that the settlement layer commits to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockHeader {
    /// Its domain.
    pub domain: DomainId,
    /// Counted from 1; block 0 is the empty state.
    pub number: u64,
    /// Hash of the parent's header; zero for block 1.
    pub parent: Hash32,
    /// State root after the block.
    pub state_root: Hash32,
    /// What deposits ever credited, after the block.
    pub total: Amount,
    /// Root over the block's steps; in the first format, over its records.
    pub events_root: Hash32,
    /// Root over the evidence that the block's verdicts rest on.
    pub evidence_root: Hash32,
    /// Index of the last consumed deposit.
    pub last_deposit: u64,
    /// How many records it has.
    pub records: u32,
    /// Index that the next entry of the market tree takes; `None` in the first format, which did not commit to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_market: Option<u32>,
}

impl BlockHeader {
    /// The rules that the block was sealed by.
    #[must_use]
    pub const fn format(&self) -> BlockFormat {
        match self.next_market {
            None => BlockFormat::Records,
            Some(_) => BlockFormat::Steps,
        }
    }
}

/// By which rules a block is sealed and executed. A chain may go from the first to the second, and never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlockFormat {
    /// The first one: the events root is over the records, and credits may stand anywhere. Chains have it in their past;
    /// nothing is sealed by it any more.
    Records,
    /// The present one: the events root is over steps with the state after each, and credits follow their payment.
    Steps,
}

/// A block with its way to finality.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// What is committed to.
    pub header: BlockHeader,
    /// Hash of the header.
    pub hash: Hash32,
    /// Where it stands.
    pub state: BlockState,
    /// Storage key of its records.
    pub records_key: String,
    /// Reference on the data-availability layer, once published.
    pub da_reference: Option<String>,
    /// The transaction that registered it.
    pub register_transaction: Option<String>,
    /// The transaction that settled it.
    pub settle_transaction: Option<String>,
    /// Why it was rejected.
    pub rejection: Option<String>,
    /// The round of sealing that made it. One that was refused and is sealed again, perhaps with the same content, has a
    /// later round, jobs of its own and transactions of its own.
    pub round: u64,
    /// When it was sealed.
    pub sealed_at: Timestamp,
    /// When it became final.
    pub final_at: Option<Timestamp>,
}

impl Block {
    /// The id of a block's document: `<domain>/<number, 12 digits>`.
    #[must_use]
    pub fn id_of(domain: &DomainId, number: u64) -> String {
        format!("{domain}/{number:012}")
    }
}

impl Entity for Block {
    const NAME: &'static str = "block";
    const COLLECTION: Collection = schema::BLOCKS;
    fn document_id(&self) -> String {
        Self::id_of(&self.header.domain, self.header.number)
    }
}

#[cfg(test)]
mod tests {
    use super::{BlockEvent as E, BlockState as S, *};

    #[test]
    fn every_pair_of_state_and_event() {
        let states =
            [S::Open, S::Sealed, S::Proven, S::Published, S::Registered, S::Settled, S::Final, S::Rejected];
        let way = [E::Seal, E::Prove, E::Publish, E::Register, E::Settle, E::Finalise];
        for (i, from) in states.into_iter().enumerate() {
            for (j, event) in way.into_iter().enumerate() {
                let expected =
                    if i == j { Ok(states[i + 1]) } else { Err(InvalidBlockTransition { from, event }) };
                assert_eq!(transition(from, event), expected);
            }
            let refusable = (1..=5).contains(&i);
            let event = E::Reject;
            let expected =
                if refusable { Ok(S::Rejected) } else { Err(InvalidBlockTransition { from, event }) };
            assert_eq!(transition(from, event), expected);
        }
    }
}
