//! The blocks that stand on the chain, out of the contract's events: registered, and neither fallen nor dropped by the exit.

use std::collections::BTreeMap;

use alloy::{
    primitives::{Address, B256},
    rpc::types::{Filter, Log},
    sol_types::{SolEvent as _, SolInterface as _},
};

use super::{
    abi::Settlement,
    logs,
    node::{Node, not_now},
};
use crate::core::{
    madara::settlement::SettlementError,
    market::{
        block::{BlockHeader, Hash32},
        money::Amount,
        state::{Step, registered_steps},
        terms::DomainId,
    },
};

type Result<T> = std::result::Result<T, SettlementError>;

/// A block as it was registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredBlock {
    /// Its header.
    pub header: BlockHeader,
    /// The header's hash, as the contract worked it out.
    pub hash: Hash32,
    /// Versioned hashes of its blobs.
    pub blobs: Vec<Hash32>,
    /// Its steps.
    pub steps: Vec<Step>,
    /// The transaction that registered it.
    pub transaction: Hash32,
}

/// What an event changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A block is registered.
    Stands(Box<RegisteredBlock>),
    /// Blocks from this number on fell, or were dropped by the exit.
    Gone(u64),
}

/// Where the contract is, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The settlement domain.
    pub domain: DomainId,
    /// The contract.
    pub contract: Address,
    /// The block in which it was made.
    pub from_block: u64,
    /// Blocks in one question for events, at most.
    pub log_range: u64,
}

impl Place {
    /// Every block that stands, by its number.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`], also for events that can't be read.
    pub async fn blocks(&self, node: &Node) -> Result<BTreeMap<u64, RegisteredBlock>> {
        let mut blocks = BTreeMap::new();
        for log in self.events(node).await? {
            match self.change(&log)? {
                Change::Stands(block) => {
                    blocks.insert(block.header.number, *block);
                }
                Change::Gone(from) => {
                    blocks.split_off(&from);
                }
            }
        }
        Ok(blocks)
    }

    /// The events that tell which blocks stand.
    async fn events(&self, node: &Node) -> Result<Vec<Log>> {
        logs::all(node, &Self::filter(self.contract), self.from_block, self.log_range).await
    }

    /// What these events are.
    pub(super) fn filter(contract: Address) -> Filter {
        let wanted = vec![
            Settlement::Registered::SIGNATURE_HASH,
            Settlement::Fallen::SIGNATURE_HASH,
            Settlement::ExitOpened::SIGNATURE_HASH,
        ];
        Filter::new().address(contract).event_signature(wanted)
    }

    /// What one of them tells.
    pub(super) fn change(&self, log: &Log) -> Result<Change> {
        use Settlement::SettlementEvents as E;
        let (topics, data) = (log.inner.topics(), &log.inner.data.data);
        let event = <E as alloy::sol_types::SolEventInterface>::decode_raw_log(topics, data)
            .map_err(|error| not_now(error.to_string()))?;
        match event {
            E::Registered(event) => {
                let block = self.read(&event, log.transaction_hash.unwrap_or_default())?;
                Ok(Change::Stands(Box::new(block)))
            }
            E::Fallen(event) => Ok(Change::Gone(event.number)),
            E::ExitOpened(event) => Ok(Change::Gone(event.lastFinal.saturating_add(1))),
            _ => Err(not_now("the node's events are others than it was asked for")),
        }
    }

    fn read(&self, event: &Settlement::Registered, transaction: B256) -> Result<RegisteredBlock> {
        let header = header_of(&self.domain, &event.header);
        let steps = registered_steps(&event.steps, header.records as usize);
        Ok(RegisteredBlock {
            hash: Hash32(event.hash.0),
            blobs: event.versionedHashes.iter().map(|hash| Hash32(hash.0)).collect(),
            steps: steps
                .ok_or_else(|| not_now("the node's events have other steps than the contract takes"))?,
            transaction: Hash32(transaction.0),
            header,
        })
    }

    /// What oracles signed of a block, out of the transaction that registered it; `None` when it was not a plain call of the
    /// contract.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`].
    pub async fn signatures(&self, node: &Node, block: &RegisteredBlock) -> Result<Option<Vec<String>>> {
        let Some(input) = node.input(block.transaction, self.contract).await? else { return Ok(None) };
        Ok(match Settlement::SettlementCalls::abi_decode(&input) {
            Ok(Settlement::SettlementCalls::register(call)) => {
                Some(call.signatures.iter().map(|it| format!("0x{}", hex::encode(it))).collect())
            }
            _ => None,
        })
    }
}

/// A header of the chain as one of ours.
#[must_use]
pub fn header_of(domain: &DomainId, header: &Settlement::Header) -> BlockHeader {
    BlockHeader {
        domain: domain.clone(),
        number: header.number,
        parent: Hash32(header.parent.0),
        state_root: Hash32(header.stateRoot.0),
        total: Amount(header.total),
        events_root: Hash32(header.eventsRoot.0),
        evidence_root: Hash32(header.evidenceRoot.0),
        last_deposit: header.lastDeposit,
        records: header.records,
        next_market: Some(header.nextMarket),
    }
}

/// A header of ours as the chain's; `None` for one of the first format, which no chain takes.
#[must_use]
pub fn header_for(header: &BlockHeader) -> Option<Settlement::Header> {
    Some(Settlement::Header {
        number: header.number,
        parent: header.parent.0.into(),
        stateRoot: header.state_root.0.into(),
        total: header.total.0,
        eventsRoot: header.events_root.0.into(),
        evidenceRoot: header.evidence_root.0.into(),
        lastDeposit: header.last_deposit,
        records: header.records,
        nextMarket: header.next_market?,
    })
}
