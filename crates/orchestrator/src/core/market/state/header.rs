//! The hashes that a block commits to.

use super::{
    hash::{Tag, domain_hash, keccak, keccak_each},
    record::{Record, record_message},
    tree::list_root,
};
use crate::core::market::{
    block::{BlockHeader, Hash32},
    terms::DomainId,
};

/// The state root: domain, both trees, number of accounts, and what deposits ever credited.
#[must_use]
pub fn state_root(
    domain: &Hash32,
    accounts: &Hash32,
    market: &Hash32,
    next_index: u32,
    total: u128,
) -> Hash32 {
    keccak(Tag::State, &[&domain.0, &accounts.0, &market.0, &next_index.to_be_bytes(), &total.to_be_bytes()])
}

/// The state root before the first block.
#[must_use]
pub fn genesis_root(domain: &DomainId) -> Hash32 {
    super::LedgerState::new(domain.clone()).root()
}

/// The hash of a header.
#[must_use]
pub fn header_hash(header: &BlockHeader) -> Hash32 {
    let next_market = header.next_market.map(u32::to_be_bytes);
    keccak(
        Tag::Header,
        &[
            &domain_hash(&header.domain).0,
            &header.number.to_be_bytes(),
            &header.parent.0,
            &header.state_root.0,
            &header.total.0.to_be_bytes(),
            &header.events_root.0,
            &header.evidence_root.0,
            &header.last_deposit.to_be_bytes(),
            &header.records.to_be_bytes(),
            // Nothing in the first format.
            next_market.as_ref().map_or(&[], |bytes| bytes),
        ],
    )
}

/// Root over the evidence of a block's verdicts: over its evidence records.
#[must_use]
pub fn evidence_root(records: &[Record]) -> Hash32 {
    let evidence = records.iter().filter(|record| matches!(record, Record::VerdictEvidence { .. }));
    let evidence: Vec<&Record> = evidence.collect();
    list_root(keccak_each(&evidence, |record| record_message(record)))
}
