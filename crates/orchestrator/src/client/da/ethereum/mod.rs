//! Blobs of Ethereum as the data-availability layer: blocks are published by transactions that carry blobs, at most six each, to the
//! settlement contract, which takes note of them; they are fetched back from a beacon node, found by the contract's
//! `Published` events, and checked against the hashes that the chain has.

pub mod beacon;
pub mod blobs;
pub mod reference;

use std::{collections::BTreeMap, sync::Arc};

use alloy::{
    eips::eip4844::Blob,
    primitives::{B256, U256},
    rpc::types::Filter,
    sol_types::{SolCall as _, SolEvent as _},
};
use async_trait::async_trait;

pub use self::{
    beacon::{Beacon, BlockIds},
    reference::Reference,
};
use crate::{
    client::settlement::ethereum::{
        abi::Settlement,
        logs,
        sender::{Sender, Status},
    },
    core::{
        madara::{
            da::{DaClient, DaError, DaLimits},
            settlement::SettlementError,
        },
        market::{block::Hash32, quantity::Micros, state::record::RECORD_BYTES, terms::DomainId},
    },
};

type Result<T> = std::result::Result<T, DaError>;

/// Records in a block, at most: the registration of more would be larger than what nodes take.
const MAX_RECORDS: usize = 90_000;
/// How often a part whose transaction had no effect is published again.
const ROUNDS: u32 = 8;

/// How the layer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaSettings {
    /// The block in which the contract was made: nothing of it is earlier.
    pub from_block: u64,
    /// Blocks in one question for events, at most.
    pub log_range: u64,
    /// How long to wait before looking again at what is not included for good yet.
    pub poll: Micros,
}

/// The layer.
pub struct EthereumDa {
    domain: DomainId,
    sender: Arc<Sender>,
    beacon: Beacon,
    settings: DaSettings,
}

impl From<SettlementError> for DaError {
    fn from(error: SettlementError) -> Self {
        match error {
            SettlementError::Deferred(after) => Self::Deferred(after),
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> DaError {
    DaError::Unavailable(Box::new(error))
}

/// Why a part is not published.
#[derive(Debug, thiserror::Error)]
#[error("the publication had no effect: {0}")]
struct NoEffect(String);

/// Arithmetic over blobs takes a while.
async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, blobs::BlobError> + Send + 'static,
) -> Result<std::result::Result<T, blobs::BlobError>> {
    tokio::task::spawn_blocking(work).await.map_err(unavailable)
}

impl EthereumDa {
    /// The data of one domain.
    #[must_use]
    pub const fn new(domain: DomainId, sender: Arc<Sender>, beacon: Beacon, settings: DaSettings) -> Self {
        Self { domain, sender, beacon, settings }
    }

    /// A reference that is of this domain, chain and contract.
    fn own(&self, text: &str) -> Result<Reference> {
        let reference: Reference = text.parse()?;
        let (chain, contract) = (self.sender.chain(), self.sender.contract());
        if (reference.chain, reference.contract, &reference.domain) == (chain, contract, &self.domain) {
            Ok(reference)
        } else {
            Err(DaError::NotPublished(text.to_owned()))
        }
    }

    /// The keys under which a part may have been published, one for each round.
    fn keys(&self, number: u64, part: usize, hashes: &[Hash32]) -> impl Iterator<Item = String> {
        let key = format!("publish/{}/{number}/{part}/{}", self.domain, blobs::blobs_root(hashes));
        (0..ROUNDS).map(move |round| if round == 0 { key.clone() } else { format!("{key}~{round}") })
    }

    /// Publishes one part: blobs of one transaction.
    async fn publish_part(
        &self,
        number: u64,
        part: usize,
        blobs: Vec<Blob>,
        hashes: &[Hash32],
    ) -> Result<()> {
        // The proofs are dear, and need not be made for what is under way.
        let under_way = match self.part_status(number, part, hashes).await? {
            Some(Status::Pending | Status::Included(_) | Status::Final(_) | Status::Paused(_)) => true,
            None | Some(Status::Needs | Status::Rejected(_) | Status::Abandoned) => false,
        };
        if under_way {
            return Ok(());
        }
        let sidecar = compute(move || blobs::sidecar(blobs)).await?.map_err(unavailable)?;
        let index = u32::try_from(part).unwrap_or(u32::MAX);
        let (sidecar, mut reason) = (Arc::new(sidecar), String::new());
        for key in self.keys(number, part, hashes) {
            let input = Settlement::publishCall { number, part: index }.abi_encode();
            match self.sender.send(&key, input.into(), Some(Arc::clone(&sidecar))).await? {
                // It had no effect, and never will: the next round is another transaction.
                Status::Rejected(why) => reason = why,
                Status::Abandoned => "given up".clone_into(&mut reason),
                _ => return Ok(()),
            }
        }
        Err(unavailable(NoEffect(reason)))
    }

    /// How far a part is; `None` when no transaction of it is known here.
    async fn part_status(&self, number: u64, part: usize, hashes: &[Hash32]) -> Result<Option<Status>> {
        let mut last = None;
        for key in self.keys(number, part, hashes) {
            match self.sender.status(&key).await {
                Ok(status @ (Status::Rejected(_) | Status::Abandoned)) => last = Some(status),
                Ok(status) => return Ok(Some(status)),
                Err(SettlementError::NoTransaction(_)) => return Ok(last),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(last)
    }

    /// Whether the contract has taken note of blobs, for good: of what another daemon published there is no journal here.
    async fn noted(&self, hashes: &[Hash32]) -> Result<bool> {
        let node = self.sender.node();
        let Some(settled) = node.settled(self.sender.finality()).await? else { return Ok(false) };
        for hash in hashes {
            let call = Settlement::publishedAtCall { versionedHash: B256::from(hash.0) };
            if node.read(self.sender.contract(), &call, settled.number).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The bytes of blobs that the contract has noted, each checked against its hash; `None` when one is not to be had. The number
    /// that they were published under is only where the search begins: the contract goes by hashes, and an operator may have
    /// named any.
    ///
    /// # Errors
    /// [`DaError::Unavailable`].
    pub async fn blobs(&self, number: u64, hashes: &[Hash32]) -> Result<Option<Vec<Vec<u8>>>> {
        let mut found = BTreeMap::new();
        for under in [Some(number), None] {
            for (block, wanted) in self.places(under, hashes).await? {
                let Some(block) = self.sender.node().block(block).await? else { continue };
                found.extend(self.beacon.blobs(&block, &wanted).await.map_err(unavailable)?);
            }
            if hashes.iter().all(|hash| found.contains_key(hash)) {
                break;
            }
        }
        Ok(hashes.iter().map(|hash| found.get(hash).cloned()).collect())
    }

    /// In which blocks of the chain blobs of a block were published, the newest of each.
    async fn places(&self, number: Option<u64>, hashes: &[Hash32]) -> Result<BTreeMap<u64, Vec<Hash32>>> {
        let mut filter = Filter::new()
            .address(self.sender.contract())
            .event_signature(Settlement::Published::SIGNATURE_HASH);
        if let Some(number) = number {
            filter = filter.topic1(B256::from(U256::from(number)));
        }
        let DaSettings { from_block, log_range, .. } = self.settings;
        let found = logs::all(self.sender.node(), &filter, from_block, log_range).await?;
        let mut newest = BTreeMap::new();
        for log in found {
            let (Some(block), Ok(event)) = (log.block_number, Settlement::Published::decode_log(&log.inner))
            else {
                continue;
            };
            for hash in &event.versionedHashes {
                newest.insert(Hash32(hash.0), block);
            }
        }
        let mut places: BTreeMap<u64, Vec<Hash32>> = BTreeMap::new();
        for hash in hashes {
            if let Some(block) = newest.get(hash) {
                places.entry(*block).or_default().push(*hash);
            }
        }
        Ok(places)
    }
}

#[async_trait]
impl DaClient for EthereumDa {
    async fn publish_state_diff(&self, domain: &DomainId, block: u64, data: &[u8]) -> Result<String> {
        let limit = self.limits().max_bytes;
        if data.len() > limit {
            return Err(DaError::TooLarge { size: data.len(), limit });
        }
        if *domain != self.domain {
            return Err(DaError::Mismatch(format!("{domain}/{block}")));
        }
        let bytes = data.to_vec();
        let encoded = compute(move || {
            let encoded = blobs::encode(block, &bytes)?;
            let hashes = blobs::versioned_hashes(&encoded)?;
            Ok((encoded, hashes))
        });
        // What is no block can't be published as one.
        let (encoded, hashes) = encoded.await?.map_err(|_| DaError::Mismatch(format!("{domain}/{block}")))?;
        let parts = encoded.chunks(blobs::PART_BLOBS).zip(hashes.chunks(blobs::PART_BLOBS));
        for (part, (blobs, hashes)) in parts.enumerate() {
            self.publish_part(block, part, blobs.to_vec(), hashes).await?;
        }
        let (chain, contract) = (self.sender.chain(), self.sender.contract());
        Ok(Reference { chain, contract, domain: domain.clone(), number: block, hashes }.to_string())
    }

    async fn verify_inclusion(&self, reference: &str) -> Result<bool> {
        let reference = self.own(reference)?;
        let mut waiting = false;
        for (part, hashes) in reference.hashes.chunks(blobs::PART_BLOBS).enumerate() {
            match self.part_status(reference.number, part, hashes).await? {
                Some(Status::Final(_)) => {}
                Some(Status::Pending | Status::Included(_) | Status::Paused(_)) => waiting = true,
                // Only whoever has the records can go on.
                Some(Status::Needs) => return Ok(false),
                None | Some(Status::Rejected(_) | Status::Abandoned) => {
                    if !self.noted(hashes).await? {
                        return Ok(false);
                    }
                }
            }
        }
        if waiting { Err(DaError::Deferred(self.settings.poll)) } else { Ok(true) }
    }

    async fn validate(&self, reference: &str, data: &[u8]) -> Result<()> {
        let parsed = self.own(reference)?;
        let (number, bytes) = (parsed.number, data.to_vec());
        let hashes = compute(move || blobs::versioned_hashes(&blobs::encode(number, &bytes)?)).await?;
        match hashes {
            Ok(hashes) if hashes == parsed.hashes => Ok(()),
            _ => Err(DaError::Mismatch(reference.to_owned())),
        }
    }

    async fn fetch(&self, reference: &str) -> Result<Vec<u8>> {
        let parsed = self.own(reference)?;
        let blobs = self.blobs(parsed.number, &parsed.hashes).await?;
        let blobs = blobs.ok_or_else(|| DaError::NotPublished(reference.to_owned()))?;
        let blobs: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
        blobs::decode(parsed.number, &blobs).map_err(|_| DaError::Mismatch(reference.to_owned()))
    }

    fn commitment(&self, reference: &str) -> Result<Hash32> {
        Ok(reference.parse::<Reference>()?.commitment())
    }

    fn limits(&self) -> DaLimits {
        DaLimits { max_bytes: (MAX_RECORDS + 1) * RECORD_BYTES }
    }
}
