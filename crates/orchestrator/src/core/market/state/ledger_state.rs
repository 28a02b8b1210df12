//! The state of a domain and its one transition function. An application that fails changes nothing; many can be taken
//! back at once, which is how a poisoned item, or a whole block, is undone.

mod leaf;
mod prove;
mod snapshot;
pub mod witness;

use std::collections::HashMap;

use leaf::market_message;
pub use leaf::{AccountLeaf, MarketLeaf, account_leaf_hash, market_leaf_hash};

use super::{
    hash::{ShortHash, domain_hash, keccak_each},
    header::state_root,
    record::Record,
    step::StepState,
    tree::IndexTree,
};
use crate::core::market::{
    account::TransferKind,
    block::{BlockFormat, Hash32},
    money::Amount,
    terms::DomainId,
};

/// Why a record can't be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The account is already there.
    #[error("the account exists")]
    AccountExists,
    /// No account has this index.
    #[error("there is no account {0}")]
    UnknownAccount(u32),
    /// The account has less than that.
    #[error("account {0} has too little")]
    Overdraft(u32),
    /// A sum does not fit 128 bits.
    #[error("a sum is too large")]
    Overflow,
    /// A movement of nothing.
    #[error("nothing moves")]
    ZeroAmount,
    /// The kind is unknown, or does not fit the accounts.
    #[error("the kind of the transfer is wrong")]
    WrongKind,
    /// A deposit is not the next one.
    #[error("the next deposit is {expected}, not {found}")]
    WrongDeposit {
        /// The next one.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// It is already in the market tree.
    #[error("the market entry exists")]
    MarketExists,
    /// Nothing in the market tree has this index.
    #[error("there is no market entry {0}")]
    UnknownMarket(u32),
    /// A verdict without its evidence, or evidence without its verdict.
    #[error("verdict and evidence do not follow one another")]
    BrokenVerdict,
    /// A tree is full.
    #[error("the tree is full")]
    Full,
    /// A credit or a slash that no payment just before it covers.
    #[error("the credit is more than the payment before it, or not out of it")]
    Credit,
}

#[derive(Debug, Clone, Copy)]
enum Undo {
    OpenAccount,
    Account(u32, AccountLeaf),
    Deposit(u128),
    OpenMarket,
    Market(u32, [u8; 26]),
    Verdict(bool),
    Credit(Credit),
}

/// What of the payment just before may still be credited, and out of whose account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Credit {
    creditable: u128,
    creditor: u32,
}

impl Credit {
    /// What a transfer leaves of it.
    fn after(self, kind: u8, from: u32, to: u32, amount: u128) -> Result<Self, ApplyError> {
        const PAYMENT: u8 = TransferKind::Payment as u8;
        const FEE: u8 = TransferKind::Fee as u8;
        const CREDIT: u8 = TransferKind::Credit as u8;
        const SLASH: u8 = TransferKind::Slash as u8;
        Ok(match kind {
            PAYMENT => Self { creditable: amount, creditor: to },
            // The fee is a part of the period's payment, too; alone it opens nothing. The sum stops where the contract's does.
            FEE if self.creditable > 0 => Self { creditable: self.creditable.saturating_add(amount), ..self },
            FEE => self,
            CREDIT if from != self.creditor => return Err(ApplyError::Credit),
            CREDIT | SLASH => {
                let left = self.creditable.checked_sub(amount).ok_or(ApplyError::Credit)?;
                Self { creditable: left, ..self }
            }
            _ => Self::default(),
        })
    }
}

/// A point to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(usize);

/// The state of a domain after some records.
#[derive(Debug, Clone)]
pub struct LedgerState {
    domain: DomainId,
    domain_hash: Hash32,
    accounts: Vec<AccountLeaf>,
    by_key: HashMap<ShortHash, u32>,
    accounts_tree: IndexTree,
    dirty_accounts: Vec<u32>,
    market: Vec<MarketLeaf>,
    market_by_key: HashMap<ShortHash, u32>,
    market_tree: IndexTree,
    dirty_market: Vec<u32>,
    total: u128,
    last_deposit: u64,
    /// A verdict was applied whose evidence must follow.
    open_verdict: bool,
    credit: Credit,
    undo: Vec<Undo>,
}

impl LedgerState {
    /// The empty state.
    #[must_use]
    pub fn new(domain: DomainId) -> Self {
        Self {
            domain_hash: domain_hash(&domain),
            domain,
            accounts: Vec::new(),
            by_key: HashMap::new(),
            accounts_tree: IndexTree::default(),
            dirty_accounts: Vec::new(),
            market: Vec::new(),
            market_by_key: HashMap::new(),
            market_tree: IndexTree::default(),
            dirty_market: Vec::new(),
            total: 0,
            last_deposit: 0,
            open_verdict: false,
            credit: Credit::default(),
            undo: Vec::new(),
        }
    }

    /// The domain.
    #[must_use]
    pub const fn domain(&self) -> &DomainId {
        &self.domain
    }

    /// The hash of the domain's name.
    #[must_use]
    pub const fn domain_hash(&self) -> &Hash32 {
        &self.domain_hash
    }

    /// The index of an account.
    #[must_use]
    pub fn account_index(&self, key: &ShortHash) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// An account by index.
    #[must_use]
    pub fn account(&self, index: u32) -> Option<&AccountLeaf> {
        self.accounts.get(index as usize)
    }

    /// Every account, by index.
    #[must_use]
    pub fn accounts(&self) -> &[AccountLeaf] {
        &self.accounts
    }

    /// The index of something in the market tree.
    #[must_use]
    pub fn market_index(&self, key: &ShortHash) -> Option<u32> {
        self.market_by_key.get(key).copied()
    }

    /// Something in the market tree, by index.
    #[must_use]
    pub fn market_leaf(&self, index: u32) -> Option<&MarketLeaf> {
        self.market.get(index as usize)
    }

    /// The index that the next entry of the market tree takes.
    #[must_use]
    pub fn next_market_index(&self) -> u32 {
        u32::try_from(self.market.len()).unwrap_or(u32::MAX)
    }

    /// What deposits ever credited.
    #[must_use]
    pub const fn total(&self) -> Amount {
        Amount(self.total)
    }

    /// Index of the last consumed deposit.
    #[must_use]
    pub const fn last_deposit(&self) -> u64 {
        self.last_deposit
    }

    /// Whether a block may end here: no verdict waits for its evidence.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        !self.open_verdict
    }

    /// The present point.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        Mark(self.undo.len())
    }

    /// Makes everything so far permanent; marks made before lose their meaning.
    pub fn settle(&mut self) {
        self.undo = Vec::new();
    }

    /// Applies a record of a block of the present format.
    ///
    /// # Errors
    /// [`ApplyError`]; the state is then unchanged.
    pub fn apply(&mut self, record: &Record) -> Result<(), ApplyError> {
        self.apply_as(BlockFormat::Steps, record)
    }

    /// Applies a record by the rules of a format.
    ///
    /// # Errors
    /// [`ApplyError`]; the state is then unchanged.
    pub fn apply_as(&mut self, format: BlockFormat, record: &Record) -> Result<(), ApplyError> {
        if self.open_verdict != matches!(record, Record::VerdictEvidence { .. }) {
            return Err(ApplyError::BrokenVerdict);
        }
        let mut credit = Credit::default();
        match *record {
            Record::OpenAccount { key } => self.open_account(key)?,
            Record::Transfer { kind, from, to, amount } => {
                self.check_transfer(kind, from, to, amount)?;
                if format == BlockFormat::Steps {
                    credit = self.credit.after(kind, from, to, amount)?;
                }
                self.transfer(from, to, amount)?;
            }
            Record::Deposit { index, to, amount } => self.deposit(index, to, amount)?,
            Record::MarketOpen { key } => self.open_market(key)?,
            Record::MarketSet { index, digest } => self.set_market(index, digest)?,
            Record::Verdict { .. } | Record::VerdictEvidence { .. } => {
                self.undo.push(Undo::Verdict(self.open_verdict));
                self.open_verdict = !self.open_verdict;
            }
        }
        self.set_credit(credit);
        Ok(())
    }

    /// Applies the records of a block to its end. Whoever needs its steps, too, calls [`execute`](super::execute).
    ///
    /// # Errors
    /// As [`LedgerState::apply`]; the records before the wrong one stay applied.
    pub fn apply_block(&mut self, format: BlockFormat, records: &[Record]) -> Result<(), ApplyError> {
        records.iter().try_for_each(|record| self.apply_as(format, record))?;
        self.end_block();
        Ok(())
    }

    /// Ends a block: what was paid in it can't be credited in the next one.
    pub fn end_block(&mut self) {
        self.set_credit(Credit::default());
    }

    fn set_credit(&mut self, credit: Credit) {
        if credit != self.credit {
            self.undo.push(Undo::Credit(self.credit));
            self.credit = credit;
        }
    }

    /// Everything that the next record may depend on.
    pub fn step_state(&mut self) -> StepState {
        StepState {
            state_root: self.root(),
            last_deposit: self.last_deposit,
            next_market: self.next_market_index(),
            open_verdict: self.open_verdict,
            creditable: self.credit.creditable,
            creditor: self.credit.creditor,
        }
    }

    fn open_account(&mut self, key: ShortHash) -> Result<(), ApplyError> {
        let index = next_place(self.accounts.len())?;
        if self.by_key.contains_key(&key) {
            return Err(ApplyError::AccountExists);
        }
        self.by_key.insert(key, index);
        self.accounts.push(AccountLeaf { key, balance: 0, withdrawable: 0, sequence: 0 });
        self.dirty_accounts.push(index);
        self.undo.push(Undo::OpenAccount);
        Ok(())
    }

    /// What can be said of a transfer without looking at balances, in the order in which the contract says it.
    fn check_transfer(&self, kind: u8, from: u32, to: u32, amount: u128) -> Result<(), ApplyError> {
        if amount == 0 {
            return Err(ApplyError::ZeroAmount);
        }
        let withdraw = kind == TransferKind::Withdraw as u8;
        let known = (TransferKind::Deposit as u8 + 1..=TransferKind::Penalty as u8).contains(&kind);
        if !known || withdraw != (from == to) {
            return Err(ApplyError::WrongKind);
        }
        let missing = [from, to].into_iter().find(|index| self.account(*index).is_none());
        missing.map_or(Ok(()), |index| Err(ApplyError::UnknownAccount(index)))
    }

    /// Moves money between two accounts, or releases it when they are one.
    fn transfer(&mut self, from: u32, to: u32, amount: u128) -> Result<(), ApplyError> {
        let mut debit = *self.account(from).ok_or(ApplyError::UnknownAccount(from))?;
        debit.balance = debit.balance.checked_sub(amount).ok_or(ApplyError::Overdraft(from))?;
        debit.sequence += 1;
        if from == to {
            debit.withdrawable = debit.withdrawable.checked_add(amount).ok_or(ApplyError::Overflow)?;
        } else {
            let credit = self.credited(to, amount)?;
            self.put_account(to, credit);
        }
        self.put_account(from, debit);
        Ok(())
    }

    fn deposit(&mut self, index: u64, to: u32, amount: u128) -> Result<(), ApplyError> {
        if amount == 0 {
            return Err(ApplyError::ZeroAmount);
        }
        let expected = self.last_deposit.checked_add(1).ok_or(ApplyError::Overflow)?;
        if index != expected {
            return Err(ApplyError::WrongDeposit { expected, found: index });
        }
        let total = self.total.checked_add(amount).ok_or(ApplyError::Overflow)?;
        let credit = self.credited(to, amount)?;
        self.put_account(to, credit);
        self.undo.push(Undo::Deposit(self.total));
        self.total = total;
        self.last_deposit = index;
        Ok(())
    }

    fn credited(&self, to: u32, amount: u128) -> Result<AccountLeaf, ApplyError> {
        let mut credit = *self.account(to).ok_or(ApplyError::UnknownAccount(to))?;
        credit.balance = credit.balance.checked_add(amount).ok_or(ApplyError::Overflow)?;
        credit.sequence += 1;
        Ok(credit)
    }

    fn put_account(&mut self, index: u32, leaf: AccountLeaf) {
        if let Some(slot) = self.accounts.get_mut(index as usize) {
            self.undo.push(Undo::Account(index, *slot));
            *slot = leaf;
            self.dirty_accounts.push(index);
        }
    }

    fn open_market(&mut self, key: ShortHash) -> Result<(), ApplyError> {
        let index = next_place(self.market.len())?;
        if self.market_by_key.contains_key(&key) {
            return Err(ApplyError::MarketExists);
        }
        self.market_by_key.insert(key, index);
        self.market.push(MarketLeaf { key, digest: [0; 26] });
        self.dirty_market.push(index);
        self.undo.push(Undo::OpenMarket);
        Ok(())
    }

    fn set_market(&mut self, index: u32, digest: [u8; 26]) -> Result<(), ApplyError> {
        let leaf = self.market.get_mut(index as usize).ok_or(ApplyError::UnknownMarket(index))?;
        self.undo.push(Undo::Market(index, leaf.digest));
        leaf.digest = digest;
        self.dirty_market.push(index);
        Ok(())
    }

    /// Takes back everything since `mark`.
    pub fn rollback(&mut self, mark: Mark) {
        while self.undo.len() > mark.0 {
            match self.undo.pop() {
                Some(Undo::OpenAccount) => {
                    if let Some(leaf) = self.accounts.pop() {
                        self.by_key.remove(&leaf.key);
                    }
                }
                Some(Undo::Account(index, leaf)) => {
                    if let Some(slot) = self.accounts.get_mut(index as usize) {
                        *slot = leaf;
                        self.dirty_accounts.push(index);
                    }
                }
                Some(Undo::Deposit(total)) => {
                    self.total = total;
                    self.last_deposit -= 1;
                }
                Some(Undo::OpenMarket) => {
                    if let Some(leaf) = self.market.pop() {
                        self.market_by_key.remove(&leaf.key);
                    }
                }
                Some(Undo::Market(index, digest)) => {
                    if let Some(slot) = self.market.get_mut(index as usize) {
                        slot.digest = digest;
                        self.dirty_market.push(index);
                    }
                }
                Some(Undo::Verdict(open)) => self.open_verdict = open,
                Some(Undo::Credit(credit)) => self.credit = credit,
                None => break,
            }
        }
    }

    /// Root of the accounts tree.
    pub fn accounts_root(&mut self) -> Hash32 {
        self.accounts_tree.truncate(self.accounts.len());
        let leaves = take_dirty(&mut self.dirty_accounts, &self.accounts);
        let hashes = keccak_each(&leaves, |(_, leaf)| leaf.message());
        for ((index, _), hash) in leaves.into_iter().zip(hashes) {
            self.accounts_tree.set(index, hash);
        }
        self.accounts_tree.root()
    }

    /// Root of the market tree.
    pub fn market_root(&mut self) -> Hash32 {
        self.market_tree.truncate(self.market.len());
        let leaves = take_dirty(&mut self.dirty_market, &self.market);
        let hashes = keccak_each(&leaves, |(_, leaf)| market_message(&leaf.key, &leaf.digest));
        for ((index, _), hash) in leaves.into_iter().zip(hashes) {
            self.market_tree.set(index, hash);
        }
        self.market_tree.root()
    }

    /// The state root.
    pub fn root(&mut self) -> Hash32 {
        let accounts = self.accounts_root();
        let market = self.market_root();
        state_root(&self.domain_hash, &accounts, &market, self.next_index(), self.total)
    }

    /// How many accounts there are, which is the index of the next one.
    #[must_use]
    pub fn next_index(&self) -> u32 {
        u32::try_from(self.accounts.len()).unwrap_or(u32::MAX)
    }

    /// Whether what is owed to accounts is what deposits ever credited.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let owed = self
            .accounts
            .iter()
            .try_fold(0_u128, |sum, leaf| sum.checked_add(leaf.balance)?.checked_add(leaf.withdrawable));
        owed == Some(self.total)
    }
}

/// The index of the next leaf of a tree. The last one stays unused, so that a number of leaves fits 32 bits, too.
fn next_place(leaves: usize) -> Result<u32, ApplyError> {
    u32::try_from(leaves).ok().filter(|index| *index < u32::MAX).ok_or(ApplyError::Full)
}

/// The leaves that changed and are still there, with their places in ascending order.
fn take_dirty<'a, T>(dirty: &mut Vec<u32>, leaves: &'a [T]) -> Vec<(usize, &'a T)> {
    dirty.sort_unstable();
    dirty.dedup();
    dirty.drain(..).filter_map(|index| Some((index as usize, leaves.get(index as usize)?))).collect()
}
