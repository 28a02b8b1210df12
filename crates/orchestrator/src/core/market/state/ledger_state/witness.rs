//! What a challenger shows of the trees, so that a contract which knows only their roots can execute a step: the leaves that
//! its records touch, each with its siblings, in the order of use. The contract stops at the first record that is wrong; so
//! does the witness. What is shown when is in `docs/ethereum.md`.

use super::{AccountLeaf, ApplyError, LedgerState};
use crate::core::market::{
    account::TransferKind,
    block::Hash32,
    state::{
        hash::ShortHash,
        record::{RECORD_BYTES, Record},
    },
};

/// A deposit as the chain has it: the account's name as records have it, and how much.
pub type ChainDeposit = (ShortHash, u128);

/// Executes the cells of a step, and says what the contract must be shown to do the same, and what is wrong with them: `None`
/// when each could be applied. After a wrong cell the state is the one before it.
pub fn witness_of(
    state: &mut LedgerState,
    cells: &[[u8; RECORD_BYTES]],
    deposit: &dyn Fn(u64) -> Option<ChainDeposit>,
) -> (Vec<u8>, Option<WrongCell>) {
    let mut shown = Vec::new();
    for (at, cell) in cells.iter().enumerate() {
        let Some(record) = Record::decode(cell) else { return (shown, Some(WrongCell::NoRecord(at))) };
        let foreign = state.show(&record, deposit, &mut shown);
        if foreign {
            return (shown, Some(WrongCell::OtherDeposit(at)));
        }
        if let Err(error) = state.apply(&record) {
            return (shown, Some(WrongCell::Refused(at, error)));
        }
    }
    (shown, None)
}

/// What is wrong with a cell of a step, by its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongCell {
    /// It is no record.
    #[error("cell {0} is no record")]
    NoRecord(usize),
    /// The chain has no such deposit: another amount, for another account, or none at all.
    #[error("the deposit of record {0} is not the chain's")]
    OtherDeposit(usize),
    /// The record can't be applied.
    #[error("record {0}: {1}")]
    Refused(usize, ApplyError),
}

impl LedgerState {
    /// Shows what the next record touches; whether it is a deposit that the chain does not have.
    fn show(
        &mut self,
        record: &Record,
        deposit: &dyn Fn(u64) -> Option<ChainDeposit>,
        shown: &mut Vec<u8>,
    ) -> bool {
        if self.open_verdict != matches!(record, Record::VerdictEvidence { .. }) {
            return false;
        }
        match *record {
            Record::OpenAccount { key } => self.show_new_account(&key, shown),
            Record::Transfer { kind, from, to, amount } => self.show_transfer(kind, from, to, amount, shown),
            Record::Deposit { index, to, amount } => {
                return self.show_deposit((index, to, amount), deposit, shown);
            }
            Record::MarketOpen { key } => self.show_new_entry(&key, shown),
            Record::MarketSet { index, .. } => self.show_entry(index, shown),
            Record::Verdict { .. } | Record::VerdictEvidence { .. } => {}
        }
        false
    }

    fn show_new_account(&mut self, key: &ShortHash, shown: &mut Vec<u8>) {
        if self.next_index() == u32::MAX {
            return;
        }
        match self.account_index(key) {
            Some(index) => {
                shown.push(1);
                shown.extend(index.to_be_bytes());
                self.show_account(index, shown);
            }
            None => {
                shown.push(0);
                let next = self.next_index();
                extend(shown, self.account_siblings(next));
            }
        }
    }

    fn show_new_entry(&mut self, key: &ShortHash, shown: &mut Vec<u8>) {
        if self.next_market_index() == u32::MAX {
            return;
        }
        match self.market_index(key) {
            Some(index) => {
                shown.push(1);
                shown.extend(index.to_be_bytes());
                self.show_entry(index, shown);
            }
            None => {
                shown.push(0);
                let next = self.next_market_index();
                extend(shown, self.market_siblings(next));
            }
        }
    }

    fn show_transfer(&mut self, kind: u8, from: u32, to: u32, amount: u128, shown: &mut Vec<u8>) {
        let checked = self.check_transfer(kind, from, to, amount);
        let credit = self.credit.after(kind, from, to, amount);
        let (Ok(()), Ok(_), Some(debit)) = (checked, credit, self.account(from).copied()) else { return };
        self.show_account(from, shown);
        let Some(balance) = debit.balance.checked_sub(amount) else { return };
        if kind == TransferKind::Withdraw as u8 {
            return;
        }
        // The credited leaf is shown as it is behind the debit.
        let mark = self.mark();
        self.put_account(from, AccountLeaf { balance, ..debit });
        self.show_account(to, shown);
        self.rollback(mark);
    }

    fn show_deposit(
        &mut self,
        (index, to, amount): (u64, u32, u128),
        deposit: &dyn Fn(u64) -> Option<ChainDeposit>,
        shown: &mut Vec<u8>,
    ) -> bool {
        let next = self.last_deposit.checked_add(1);
        if amount == 0 || Some(index) != next {
            return false;
        }
        let Some((key, _)) = deposit(index).filter(|(_, found)| *found == amount) else { return true };
        if self.total.checked_add(amount).is_none() {
            return false;
        }
        let Some(account) = self.account(to).copied() else { return false };
        self.show_account(to, shown);
        account.key != key
    }

    fn show_account(&mut self, index: u32, shown: &mut Vec<u8>) {
        let Some(leaf) = self.account(index).copied() else { return };
        shown.extend(leaf.key);
        shown.extend(leaf.balance.to_be_bytes());
        shown.extend(leaf.withdrawable.to_be_bytes());
        extend(shown, self.account_siblings(index));
    }

    fn show_entry(&mut self, index: u32, shown: &mut Vec<u8>) {
        let Some(leaf) = self.market_leaf(index).copied() else { return };
        shown.extend(leaf.key);
        shown.extend(leaf.digest);
        extend(shown, self.market_siblings(index));
    }

    /// The siblings of an account's leaf, or of the place of the next one, in the present tree.
    fn account_siblings(&mut self, index: u32) -> Option<Vec<Hash32>> {
        self.accounts_root();
        self.accounts_tree.siblings_at(index as usize)
    }

    /// The siblings of a leaf of the market tree, or of the place of the next one, in the present tree.
    fn market_siblings(&mut self, index: u32) -> Option<Vec<Hash32>> {
        self.market_root();
        self.market_tree.siblings_at(index as usize)
    }
}

fn extend(shown: &mut Vec<u8>, siblings: Option<Vec<Hash32>>) {
    shown.extend(siblings.into_iter().flatten().flat_map(|hash| hash.0));
}
