//! What names the data of a block on Ethereum: chain, contract, domain, number, and the versioned hashes of its blobs. It stays the
//! same however often the transactions behind it were bumped, and it is enough to fetch the data back: the contract's
//! `Published` events say in which blocks the hashes were.

use std::{fmt, str::FromStr};

use alloy::primitives::Address;

use super::blobs::blobs_root;
use crate::core::{
    madara::da::DaError,
    market::{block::Hash32, terms::DomainId},
};

/// A reference: `eip4844/<chain>/<contract>/<domain>/<block>/<versioned hashes, with commas>`, `none` for a block without records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The chain's id.
    pub chain: u64,
    /// The contract.
    pub contract: Address,
    /// The settlement domain.
    pub domain: DomainId,
    /// The block of the domain.
    pub number: u64,
    /// Its blobs, in their order.
    pub hashes: Vec<Hash32>,
}

impl Reference {
    /// What the contract keeps of the blobs.
    #[must_use]
    pub fn commitment(&self) -> Hash32 {
        blobs_root(&self.hashes)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eip4844/{}/{:#x}/{}/{}/", self.chain, self.contract, self.domain, self.number)?;
        if self.hashes.is_empty() {
            return f.write_str("none");
        }
        let hashes: Vec<_> = self.hashes.iter().map(ToString::to_string).collect();
        f.write_str(&hashes.join(","))
    }
}

impl FromStr for Reference {
    type Err = DaError;
    fn from_str(text: &str) -> Result<Self, DaError> {
        let parse = || {
            let rest = text.strip_prefix("eip4844/")?;
            let (chain, rest) = rest.split_once('/')?;
            let (contract, rest) = rest.split_once('/')?;
            // A domain may have a slash in its name.
            let mut rest = rest.rsplitn(3, '/');
            let (hashes, number, domain) = (rest.next()?, rest.next()?, rest.next()?);
            let hashes = match hashes {
                "none" => Vec::new(),
                listed => listed.split(',').map(str::parse).collect::<Result<_, _>>().ok()?,
            };
            Some(Self {
                chain: chain.parse().ok()?,
                contract: contract.parse().ok()?,
                domain: DomainId(domain.to_owned()),
                number: number.parse().ok()?,
                hashes,
            })
        };
        parse().ok_or_else(|| DaError::NotPublished(text.chars().take(200).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_back() {
        let mut reference = Reference {
            chain: 1,
            contract: Address::repeat_byte(9),
            domain: DomainId("a/b".into()),
            number: 7,
            hashes: vec![Hash32([1; 32]), Hash32([2; 32])],
        };
        assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        reference.hashes.clear();
        assert!(reference.to_string().ends_with("/a/b/7/none"));
        assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        for wrong in ["", "local/3/0xab", "../../etc/passwd", "eip4844/1/0x00/d/1/none"] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
    }
}
