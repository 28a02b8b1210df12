//! Who vouches for evidence on the chain: the contract's oracles, what they sign (EIP-712), and the key of one of them, where
//! this daemon hosts it.

use alloy::{
    primitives::{Address as ChainAddress, B256, Keccak256, Signature, U256, keccak256},
    signers::{SignerSync as _, local::PrivateKeySigner},
};
use parking_lot::RwLock;

use super::{abi::Settlement, node::Node};
use crate::core::{
    madara::{
        attestation::{AttestationError, EvidenceOracles},
        settlement::SettlementError,
    },
    market::{
        address::Address,
        block::{BlockHeader, Hash32},
        state::hash::domain_hash,
    },
};

/// The oracles as the contract last said.
#[derive(Debug, Default)]
struct Known {
    oracles: Vec<ChainAddress>,
    threshold: usize,
}

/// The contract's oracles.
pub struct Oracles {
    separator: B256,
    contract: ChainAddress,
    known: RwLock<Known>,
    own: Option<PrivateKeySigner>,
}

impl Oracles {
    /// The oracles of a contract; nothing is asked yet. `own` is the key of one of them.
    #[must_use]
    pub fn new(chain: u64, contract: ChainAddress, own: Option<PrivateKeySigner>) -> Self {
        Self { separator: separator(chain, contract), contract, known: RwLock::default(), own }
    }

    /// Asks the contract who they are.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`].
    pub async fn refresh(&self, node: &Node) -> Result<(), SettlementError> {
        let at = node.head().await?.number;
        let oracles = node.read(self.contract, &Settlement::oraclesCall {}, at).await?;
        let threshold = node.read(self.contract, &Settlement::thresholdCall {}, at).await?;
        let threshold = usize::try_from(threshold).unwrap_or(usize::MAX);
        *self.known.write() = Known { oracles, threshold };
        Ok(())
    }
}

fn separator(chain: u64, contract: ChainAddress) -> B256 {
    let mut hasher = Keccak256::new();
    hasher.update(keccak256(
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)",
    ));
    hasher.update(keccak256("Orchestrator Settlement"));
    hasher.update(keccak256("1"));
    hasher.update(U256::from(chain).to_be_bytes::<32>());
    hasher.update(contract.into_word());
    hasher.finalize()
}

fn digest(separator: &B256, domain: &Hash32, number: u64, evidence_root: &Hash32) -> B256 {
    let mut hasher = Keccak256::new();
    hasher.update(keccak256("Evidence(bytes32 domain,uint64 number,bytes32 evidenceRoot)"));
    hasher.update(domain.0);
    hasher.update(U256::from(number).to_be_bytes::<32>());
    hasher.update(evidence_root.0);
    let evidence = hasher.finalize();
    let mut hasher = Keccak256::new();
    hasher.update([0x19, 0x01]);
    hasher.update(separator);
    hasher.update(evidence);
    hasher.finalize()
}

impl EvidenceOracles for Oracles {
    fn threshold(&self) -> usize {
        self.known.read().threshold
    }

    fn digest(&self, header: &BlockHeader) -> Hash32 {
        Hash32(digest(&self.separator, &domain_hash(&header.domain), header.number, &header.evidence_root).0)
    }

    fn signer(&self, header: &BlockHeader, signature: &str) -> Result<Address, AttestationError> {
        let mut bytes = [0; 65];
        let digits = signature.strip_prefix("0x").ok_or(AttestationError::Form)?;
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| AttestationError::Form)?;
        // The contract knows one form of each signature only: the low s, and v as 27 or 28.
        if !matches!(bytes.last(), Some(27 | 28)) {
            return Err(AttestationError::NoSigner);
        }
        let signature = Signature::from_raw_array(&bytes).map_err(|_| AttestationError::NoSigner)?;
        if signature.normalize_s().is_some() {
            return Err(AttestationError::NoSigner);
        }
        let digest = B256::from(self.digest(header).0);
        let signer =
            signature.recover_address_from_prehash(&digest).map_err(|_| AttestationError::NoSigner)?;
        let address = Address(signer.into_array());
        if self.known.read().oracles.contains(&signer) {
            Ok(address)
        } else {
            Err(AttestationError::Stranger(address))
        }
    }

    fn own(&self, header: &BlockHeader) -> Option<String> {
        let digest = B256::from(self.digest(header).0);
        let signature = self.own.as_ref()?.sign_hash_sync(&digest).ok()?;
        Some(format!("0x{}", hex::encode(signature.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::core::market::{money::Amount, terms::DomainId};

    fn header(number: u64, evidence_root: Hash32) -> BlockHeader {
        BlockHeader {
            domain: DomainId("vectors".into()),
            number,
            parent: Hash32::default(),
            state_root: Hash32::default(),
            total: Amount::ZERO,
            events_root: Hash32::default(),
            evidence_root,
            last_deposit: 0,
            records: 0,
            next_market: Some(0),
        }
    }

    #[test]
    fn digests_are_those_of_the_contract() {
        let path = format!("{}/../../contracts/ethereum/vectors/format.json", env!("CARGO_MANIFEST_DIR"));
        let format: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let contract = format["contract"].as_str().unwrap().parse().unwrap();
        let oracles = Oracles::new(format["chainId"].as_u64().unwrap(), contract, None);
        for block in format["blocks"].as_array().unwrap() {
            let number = block["header"]["number"].as_u64().unwrap();
            let root = block["header"]["evidenceRoot"].as_str().unwrap().parse().unwrap();
            assert_eq!(block["evidenceDigest"], oracles.digest(&header(number, root)).to_string());
        }
    }

    #[test]
    fn only_signatures_of_oracles_for_this_block_count_and_in_one_form() {
        let key = PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).unwrap();
        let oracles = Oracles::new(1, ChainAddress::repeat_byte(1), Some(key.clone()));
        let (block, other) = (header(1, Hash32([1; 32])), header(2, Hash32([1; 32])));
        let signature = oracles.own(&block).unwrap();
        let own = Address(key.address().into_array());
        assert_eq!(oracles.signer(&block, &signature), Err(AttestationError::Stranger(own)));
        oracles.known.write().oracles.push(key.address());
        assert_eq!(oracles.signer(&block, &signature), Ok(own));
        assert!(matches!(oracles.signer(&other, &signature), Err(AttestationError::Stranger(_))));
        for wrong in ["", "0x", "0x00", &signature[2..], &signature[..130]] {
            assert_eq!(oracles.signer(&block, wrong), Err(AttestationError::Form), "{wrong}");
        }
        // The same curve point with the high s would be a second form of the same word.
        let mut bytes = hex::decode(&signature[2..]).unwrap();
        let order =
            U256::from_str_radix("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
                .unwrap();
        let high = order - U256::from_be_slice(&bytes[32..64]);
        bytes[32..64].copy_from_slice(&high.to_be_bytes::<32>());
        bytes[64] = 55 - bytes[64];
        let high = format!("0x{}", hex::encode(&bytes));
        assert_eq!(oracles.signer(&block, &high), Err(AttestationError::NoSigner));
        let zero = format!("0x{}1b", "00".repeat(64));
        assert_eq!(oracles.signer(&block, &zero), Err(AttestationError::NoSigner));
    }
}
