//! Fetches blobs back from a beacon node: `GET /eth/v1/beacon/blobs/{block}`, with the wanted versioned hashes as a filter. What
//! comes is not trusted: a blob counts only under the hash that is computed of it, so any node will do, and one that sends too much or
//! takes too long is given up.

use std::collections::BTreeMap;

use alloy::eips::eip4844::BYTES_PER_BLOB;
use reqwest::StatusCode;
use url::Url;

use super::blobs::versioned_hash;
use crate::{
    client::{network::http::build_client, settlement::ethereum::node::BlockRef},
    core::market::{block::Hash32, quantity::Micros},
};

/// Bytes in an answer, at most: 72 blobs in hex are more than a block will hold for years.
const LIMIT: usize = 72 * (2 * BYTES_PER_BLOB + 8) + 4_096;

/// Why blobs could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum BeaconError {
    /// The address is none.
    #[error("the beacon node's address is none")]
    Address,
    /// The client could not be made, or the request failed.
    #[error("the beacon node does not answer")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An answer that makes no sense here.
    #[error("the beacon node answered with status {0}")]
    Status(u16),
    /// An answer that is too long, or not what it should be.
    #[error("the beacon node's answer has more than {LIMIT} bytes, or is no list of blobs")]
    Answer,
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> BeaconError {
    BeaconError::Failed(Box::new(error))
}

/// How a beacon node names the block of the execution chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockIds {
    /// By its number: nodes for tests.
    Numbers,
    /// By its slot, which follows from its time.
    Slots {
        /// When slot 0 was, in seconds since 1970.
        genesis: u64,
        /// Seconds in a slot.
        seconds: u64,
    },
}

impl BlockIds {
    fn of(self, block: &BlockRef) -> u64 {
        match self {
            Self::Numbers => block.number,
            Self::Slots { genesis, seconds } => block.time.saturating_sub(genesis) / seconds.max(1),
        }
    }
}

/// A beacon node.
#[derive(Debug, Clone)]
pub struct Beacon {
    client: reqwest::Client,
    base: Url,
    ids: BlockIds,
}

#[derive(serde::Deserialize)]
struct Answer {
    data: Vec<String>,
}

impl Beacon {
    /// A node at an address; nothing is asked yet.
    ///
    /// # Errors
    /// [`BeaconError`] when the address is none, or there can be no client.
    pub fn new(base: &str, ids: BlockIds, timeout: Micros) -> Result<Self, BeaconError> {
        let mut base: Url = base.parse().map_err(|_| BeaconError::Address)?;
        // So that what is joined to it comes behind its path.
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let timeout = timeout.to_std();
        let builder = || reqwest::Client::builder().timeout(timeout).connect_timeout(timeout);
        Ok(Self { client: build_client(builder).map_err(failed)?, base, ids })
    }

    /// The bytes of those of the wanted blobs that the node has of a block, each under the hash that it has indeed.
    ///
    /// # Errors
    /// [`BeaconError`]; a block that the node does not know has no blobs.
    pub async fn blobs(
        &self,
        block: &BlockRef,
        wanted: &[Hash32],
    ) -> Result<BTreeMap<Hash32, Vec<u8>>, BeaconError> {
        let path = format!("eth/v1/beacon/blobs/{}", self.ids.of(block));
        let url = self.base.join(&path).map_err(|_| BeaconError::Address)?;
        let hashes: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        let filtered = self.client.get(url.clone()).query(&[("versioned_hashes", hashes.join(","))]);
        let mut response = filtered.send().await.map_err(failed)?;
        // Nodes without the filter may take offence at it.
        if response.status() == StatusCode::BAD_REQUEST {
            response = self.client.get(url).send().await.map_err(failed)?;
        }
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(BTreeMap::new()),
            status if !status.is_success() => return Err(BeaconError::Status(status.as_u16())),
            _ => {}
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > LIMIT {
                return Err(BeaconError::Answer);
            }
            body.extend_from_slice(&chunk);
        }
        let wanted = wanted.to_vec();
        tokio::task::spawn_blocking(move || matching(&body, &wanted)).await.map_err(failed)?
    }
}

/// The wanted blobs of an answer.
fn matching(body: &[u8], wanted: &[Hash32]) -> Result<BTreeMap<Hash32, Vec<u8>>, BeaconError> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| BeaconError::Answer)?;
    let mut found = BTreeMap::new();
    for text in answer.data {
        let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(&text)).map_err(|_| BeaconError::Answer)?;
        if bytes.len() != BYTES_PER_BLOB {
            return Err(BeaconError::Answer);
        }
        // What has no hash is no blob, and none that is wanted.
        let Ok(hash) = versioned_hash(&bytes) else { continue };
        if wanted.contains(&hash) {
            found.insert(hash, bytes);
        }
        if found.len() == wanted.len() {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_does_not_count() {
        let blob = |byte: u8| vec![byte; BYTES_PER_BLOB];
        let hash = versioned_hash(&blob(1)).unwrap();
        let answer = |bytes: &[u8]| {
            let data: Vec<_> = bytes.iter().map(|byte| format!("0x{}", hex::encode(blob(*byte)))).collect();
            serde_json::to_vec(&serde_json::json!({ "data": data })).unwrap()
        };
        assert_eq!(matching(&answer(&[2, 1]), &[hash]).unwrap(), [(hash, blob(1))].into());
        assert!(matching(&answer(&[2]), &[hash]).unwrap().is_empty());
        // No element of the field.
        assert!(matching(&answer(&[0xff]), &[hash]).unwrap().is_empty());
        assert!(matching(b"{\"data\":[\"0x00\"]}", &[hash]).is_err());
        assert!(matching(b"<html>", &[hash]).is_err());
    }

    #[test]
    fn slots_follow_from_the_time() {
        let block = BlockRef {
            number: 9,
            hash: Hash32::default(),
            parent: Hash32::default(),
            time: 1_606_824_023 + 25,
            base_fee: 0,
        };
        assert_eq!(BlockIds::Slots { genesis: 1_606_824_023, seconds: 12 }.of(&block), 2);
        assert_eq!(BlockIds::Numbers.of(&block), 9);
    }
}
