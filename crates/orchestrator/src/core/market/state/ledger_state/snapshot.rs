//! A state as bytes, so that a process that starts need not execute a chain from its first block. Nobody has to trust it: its
//! roots are worked out from its leaves, and whoever reads it holds them against the header of the block that it is of.
//!
//! Big-endian: version (1 byte), total (16), last deposit (8), number of accounts (4), each with key (30), balance (16),
//! withdrawable (16) and sequence (8); number of market entries (4), each with key (30) and digest (26); a hash over all of
//! it and the domain (32), because the sequences are in no root.

use std::collections::HashMap;

use super::{
    super::hash::{Tag, domain_hash, keccak},
    AccountLeaf, LedgerState, MarketLeaf,
};
use crate::core::market::{block::Hash32, terms::DomainId};

const VERSION: u8 = 2;
/// The version before, which had its checksum under a tag that names accounts now.
const OLD_VERSION: u8 = 1;
const HASH_BYTES: usize = 32;

impl LedgerState {
    /// The state as bytes; `None` while a verdict waits for its evidence, where no block ends.
    #[must_use]
    pub fn to_snapshot(&self) -> Option<Vec<u8>> {
        if !self.is_complete() {
            return None;
        }
        let size = 65 + self.accounts.len() * 70 + self.market.len() * 56;
        let mut bytes = Vec::with_capacity(size);
        bytes.push(VERSION);
        bytes.extend(self.total.to_be_bytes());
        bytes.extend(self.last_deposit.to_be_bytes());
        bytes.extend(u32::try_from(self.accounts.len()).ok()?.to_be_bytes());
        for leaf in &self.accounts {
            bytes.extend(leaf.key);
            bytes.extend(leaf.balance.to_be_bytes());
            bytes.extend(leaf.withdrawable.to_be_bytes());
            bytes.extend(leaf.sequence.to_be_bytes());
        }
        bytes.extend(u32::try_from(self.market.len()).ok()?.to_be_bytes());
        for leaf in &self.market {
            bytes.extend(leaf.key);
            bytes.extend(leaf.digest);
        }
        let sum = checksum(Tag::Snapshot, &self.domain_hash, &bytes);
        bytes.extend(sum.0);
        Some(bytes)
    }

    /// The state that [`LedgerState::to_snapshot`] wrote for this domain; `None` when a byte of it is not as it was.
    #[must_use]
    pub fn from_snapshot(domain: DomainId, bytes: &[u8]) -> Option<Self> {
        let (bytes, sum) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
        let mut rest = Rest(bytes);
        let tag = match rest.take::<1>()? {
            [VERSION] => Tag::Snapshot,
            [OLD_VERSION] => Tag::OwnedAccount,
            _ => return None,
        };
        if checksum(tag, &domain_hash(&domain), bytes).0 != sum {
            return None;
        }
        let mut state = Self::new(domain);
        state.total = u128::from_be_bytes(rest.take()?);
        state.last_deposit = u64::from_be_bytes(rest.take()?);
        let accounts = u32::from_be_bytes(rest.take()?);
        for _ in 0..accounts {
            state.accounts.push(AccountLeaf {
                key: rest.take()?,
                balance: u128::from_be_bytes(rest.take()?),
                withdrawable: u128::from_be_bytes(rest.take()?),
                sequence: u64::from_be_bytes(rest.take()?),
            });
        }
        let entries = u32::from_be_bytes(rest.take()?);
        for _ in 0..entries {
            state.market.push(MarketLeaf { key: rest.take()?, digest: rest.take()? });
        }
        state.dirty_accounts = (0..accounts).collect();
        state.dirty_market = (0..entries).collect();
        let by_key = |keys: &mut dyn Iterator<Item = [u8; 30]>| keys.zip(0..).collect::<HashMap<_, _>>();
        state.by_key = by_key(&mut state.accounts.iter().map(|leaf| leaf.key));
        state.market_by_key = by_key(&mut state.market.iter().map(|leaf| leaf.key));
        let unique =
            state.by_key.len() == state.accounts.len() && state.market_by_key.len() == state.market.len();
        (unique && rest.0.is_empty()).then_some(state)
    }
}

fn checksum(tag: Tag, domain: &Hash32, bytes: &[u8]) -> Hash32 {
    keccak(tag, &[&domain.0, bytes])
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::market::state::Record;

    /// A state with some accounts and entries, after `steps` movements.
    fn state(accounts: u8, entries: u8, steps: &[(u8, u8, u64)]) -> LedgerState {
        let mut state = LedgerState::new(DomainId::local());
        for n in 0..accounts {
            state.apply(&Record::OpenAccount { key: [n; 30] }).unwrap();
            let deposit = Record::Deposit { index: u64::from(n) + 1, to: u32::from(n), amount: 1 << 70 };
            state.apply(&deposit).unwrap();
        }
        for n in 0..entries {
            state.apply(&Record::MarketOpen { key: [n; 30] }).unwrap();
            state.apply(&Record::MarketSet { index: u32::from(n), digest: [n + 1; 26] }).unwrap();
        }
        for (from, to, amount) in steps {
            let (from, to) = (u32::from(*from), u32::from(*to));
            // Some are refused, and change nothing.
            let _ = state.apply(&Record::Transfer { kind: 4, from, to, amount: u128::from(*amount) });
        }
        state.settle();
        state
    }

    #[test]
    fn the_bytes_are_what_they_were() {
        let bytes = state(2, 1, &[(0, 1, 5)]).to_snapshot().unwrap();
        assert_eq!(bytes.len(), 65 + 2 * 70 + 56);
        assert_eq!(hex::encode(keccak(Tag::Record, &[&bytes]).0), GOLDEN);
    }

    const GOLDEN: &str = "0a19049bf2fdf454516c2c282c91629a4bf0dc31b18bf646f165f190a3b57119";

    #[test]
    fn one_of_the_version_before_is_read() {
        let mut now = state(2, 1, &[(0, 1, 5)]);
        let mut bytes = now.to_snapshot().unwrap();
        bytes.truncate(bytes.len() - HASH_BYTES);
        bytes[0] = OLD_VERSION;
        let sum = checksum(Tag::OwnedAccount, &now.domain_hash, &bytes);
        bytes.extend(sum.0);
        let mut read = LedgerState::from_snapshot(DomainId::local(), &bytes).unwrap();
        assert_eq!(read.root(), now.root());
    }

    #[test]
    fn no_snapshot_in_the_middle_of_a_verdict() {
        let mut state = state(1, 0, &[]);
        let status = crate::core::market::verdict::VerdictStatus::Met;
        state.apply(&Record::Verdict { subject: [1; 16], status, credit: 0, coverage: 0 }).unwrap();
        assert_eq!(state.to_snapshot(), None);
        state.apply(&Record::VerdictEvidence { root: [1; 30] }).unwrap();
        assert!(state.to_snapshot().is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn a_state_comes_back_whole_goes_on_the_same_and_every_byte_counts(
            accounts in 0_u8..20, entries in 0_u8..20,
            steps in prop::collection::vec((0_u8..20, 0_u8..20, any::<u64>()), 0..30),
            later in prop::collection::vec((0_u8..20, 0_u8..20, any::<u64>()), 0..10),
            at in any::<usize>(), flip in 1_u8..,
        ) {
            let mut before = state(accounts, entries, &steps);
            let bytes = before.to_snapshot().unwrap();
            let mut after = LedgerState::from_snapshot(DomainId::local(), &bytes).unwrap();
            prop_assert_eq!(after.accounts(), before.accounts());
            prop_assert_eq!(after.root(), before.root());
            prop_assert_eq!(after.last_deposit(), before.last_deposit());
            for (from, to, amount) in later {
                let (from, to) = (u32::from(from), u32::from(to));
                let record = Record::Transfer { kind: 4, from, to, amount: u128::from(amount) };
                prop_assert_eq!(after.apply(&record), before.apply(&record));
            }
            prop_assert_eq!(after.to_snapshot(), before.to_snapshot());
            prop_assert_eq!(after.root(), before.root());
            let mut damaged = bytes.clone();
            let at = at % damaged.len();
            damaged[at] ^= flip;
            prop_assert!(LedgerState::from_snapshot(DomainId::local(), &damaged).is_none());
            prop_assert!(LedgerState::from_snapshot(DomainId::local(), &bytes[..at]).is_none());
            prop_assert!(LedgerState::from_snapshot(DomainId("other".into()), &bytes).is_none());
        }
    }
}
