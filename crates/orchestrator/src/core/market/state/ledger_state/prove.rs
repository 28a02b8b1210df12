//! Inclusion proofs out of a state.

use super::{
    super::{
        hash::{ShortHash, market_key_hash},
        proof::{AccountProof, AccountsProof, MarketProof, ProvedLeaf},
    },
    LedgerState,
};
use crate::core::market::money::Amount;

impl LedgerState {
    /// The inclusion proof of an account.
    pub fn prove_account(&mut self, key: &ShortHash) -> Option<AccountProof> {
        let market_root = self.market_root();
        let state_root = self.root();
        let index = self.account_index(key)?;
        let leaf = *self.account(index)?;
        Some(AccountProof {
            key: hex::encode(key),
            index,
            balance: Amount(leaf.balance),
            withdrawable: Amount(leaf.withdrawable),
            siblings: self.accounts_tree.siblings(index as usize)?,
            market_root,
            next_index: self.next_index(),
            total: self.total(),
            state_root,
        })
    }

    /// One inclusion proof of several accounts: hashes that their ways to the root share are there once. `None` when one is
    /// not there, or none is asked for.
    pub fn prove_accounts(&mut self, keys: &[ShortHash]) -> Option<AccountsProof> {
        let market_root = self.market_root();
        let state_root = self.root();
        let mut indexes = keys.iter().map(|key| self.account_index(key)).collect::<Option<Vec<u32>>>()?;
        indexes.sort_unstable();
        indexes.dedup();
        let proved = |index: u32| {
            let leaf = self.account(index)?;
            Some(ProvedLeaf {
                key: hex::encode(leaf.key),
                index,
                balance: Amount(leaf.balance),
                withdrawable: Amount(leaf.withdrawable),
            })
        };
        let leaves = indexes.iter().map(|index| proved(*index)).collect::<Option<Vec<_>>>()?;
        Some(AccountsProof {
            leaves,
            siblings: self.accounts_tree.siblings_of(&indexes)?,
            market_root,
            next_index: self.next_index(),
            total: self.total(),
            state_root,
        })
    }

    /// The inclusion proof of what the market tree holds under a name.
    pub fn prove_market(&mut self, name: &str) -> Option<MarketProof> {
        let (accounts_root, state_root) = (self.accounts_root(), self.root());
        let index = self.market_index(&market_key_hash(&self.domain, name))?;
        Some(MarketProof {
            name: name.to_owned(),
            index,
            digest: hex::encode(self.market_leaf(index)?.digest),
            siblings: self.market_tree.path(index as usize)?,
            accounts_root,
            next_index: self.next_index(),
            total: self.total(),
            state_root,
        })
    }
}
