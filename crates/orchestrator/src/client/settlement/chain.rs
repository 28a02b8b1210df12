//! The rules of the settlement contract as a plain state machine: what the local layer applies, and what the contracts
//! of the chains apply in their own languages. It knows no IO; every call says what time it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::{
    madara::settlement::{
        BlockProof, Deposit, Holdings, SettledBlock, SettlementError, TransactionStatus, WithdrawalClaim,
    },
    market::{
        account::AccountKey,
        block::{BlockHeader, Hash32},
        money::Amount,
        quantity::{Micros, Timestamp},
        state::{
            AccountProof, Step, StepState, account_key_hash,
            header::{genesis_root, header_hash},
            step_sizes, steps_root, verify_account,
        },
        terms::DomainId,
    },
};

/// Parameters of the local layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalRules {
    /// How long a deposit waits before it counts as confirmed.
    pub confirm_after: Micros,
    /// How long a settled block can be challenged; then it is final.
    pub final_after: Micros,
}

impl Default for LocalRules {
    fn default() -> Self {
        Self { confirm_after: Micros::ZERO, final_after: Micros::from_secs(1) }
    }
}

/// A block that was registered, and maybe settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChainBlock {
    pub(super) header: BlockHeader,
    pub(super) hash: Hash32,
    pub(super) da_reference: String,
    pub(super) settled_at: Option<Timestamp>,
}

/// A transaction, under the key that makes it happen once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Transaction {
    pub(super) id: String,
    pub(super) key: String,
    /// What was asked; the same key with another question is refused.
    pub(super) asked: String,
    pub(super) at: Timestamp,
    pub(super) rejected: Option<String>,
    /// The deposit that it made, if it made one.
    pub(super) deposit: Option<u64>,
}

/// A row that a call changed, to be written durably before the call is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Row {
    Block(ChainBlock),
    DropBlock(u64),
    Transaction(Transaction),
    Deposit(Deposit),
    Paid(AccountKey, Amount),
}

/// The contract's storage.
#[derive(Debug, Clone, Default)]
pub(super) struct Chain {
    blocks: BTreeMap<u64, ChainBlock>,
    transactions: BTreeMap<String, Transaction>,
    by_key: BTreeMap<String, String>,
    deposits: Vec<Deposit>,
    paid: BTreeMap<AccountKey, Amount>,
}

type Result<T> = std::result::Result<T, SettlementError>;

fn refused<T>(reason: impl Into<String>) -> Result<T> {
    Err(SettlementError::Refused(reason.into()))
}

impl Chain {
    /// Puts a row in place: when the store is opened, and after each call.
    pub(super) fn put(&mut self, row: Row) {
        match row {
            Row::Block(block) => {
                self.blocks.insert(block.header.number, block);
            }
            Row::DropBlock(number) => {
                self.blocks.remove(&number);
            }
            Row::Transaction(transaction) => {
                self.by_key.insert(transaction.key.clone(), transaction.id.clone());
                self.transactions.insert(transaction.id.clone(), transaction);
            }
            Row::Deposit(deposit) => self.deposits.push(deposit),
            Row::Paid(account, amount) => {
                self.paid.insert(account, amount);
            }
        }
    }

    /// The number of transactions so far: also how often anything took effect.
    pub(super) fn nonce(&self) -> u64 {
        self.transactions.len() as u64
    }

    /// What is held for accounts: what was paid in, less what was paid out.
    pub(super) fn holdings(&self) -> Result<Holdings> {
        let sum = |mut amounts: Box<dyn Iterator<Item = Amount> + '_>| {
            amounts.try_fold(Amount::ZERO, Amount::checked_add).ok_or(SettlementError::Overflow)
        };
        let paid = sum(Box::new(self.paid.values().copied()))?;
        let deposited = sum(Box::new(self.deposits.iter().map(|deposit| deposit.amount)))?;
        Ok(Holdings { held: deposited.saturating_sub(paid), paid })
    }

    /// The transaction made under a key, if it asked the same.
    fn known(&self, key: &str, asked: &str) -> Result<Option<&Transaction>> {
        let Some(found) = self.by_key.get(key).and_then(|id| self.transactions.get(id)) else {
            return Ok(None);
        };
        if found.asked == asked { Ok(Some(found)) } else { refused("the key was used for something else") }
    }

    fn transaction_row(&self, key: &str, asked: String, now: Timestamp) -> Transaction {
        Transaction {
            id: format!("local-{:08}", self.nonce() + 1),
            key: key.to_owned(),
            asked,
            at: now,
            rejected: None,
            deposit: None,
        }
    }

    fn last_settled_block(&self) -> Option<&ChainBlock> {
        self.blocks.values().rev().find(|block| block.settled_at.is_some())
    }

    /// Hash, state root, total and deposit index before block `number`; `None` when its parent is not known.
    fn parent(&self, domain: &DomainId, number: u64) -> Option<(Hash32, Hash32, u64)> {
        match number {
            0 => None,
            1 => Some((Hash32::default(), genesis_root(domain), 0)),
            _ => self
                .blocks
                .get(&(number - 1))
                .map(|parent| (parent.hash, parent.header.state_root, parent.header.last_deposit)),
        }
    }

    pub(super) fn register(
        &self,
        (rules, domain, now): (&LocalRules, &DomainId, Timestamp),
        key: &str,
        header: &BlockHeader,
        proof: &BlockProof,
        da_reference: &str,
    ) -> Result<(String, Vec<Row>)> {
        let hash = header_hash(header);
        let asked = format!("register {hash} {da_reference}");
        if let Some(known) = self.known(key, &asked)? {
            return Ok((known.id.clone(), Vec::new()));
        }
        if header.domain != *domain {
            return refused("the block is of another domain");
        }
        if da_reference.is_empty() {
            return refused("the block's data is not published");
        }
        let settled = self.last_settled_block().map_or(0, |block| block.header.number);
        if header.number <= settled {
            return refused(format!("block {} is settled already", header.number));
        }
        let Some((parent, pre_state, consumed)) = self.parent(domain, header.number) else {
            return refused(format!("block {} has no parent here", header.number));
        };
        if header.parent != parent {
            return refused("the parent is another block");
        }
        let BlockProof::Reexecution { pre_state: from, post_state: to, events_root, steps, .. } = proof;
        if *from != pre_state || *to != header.state_root || *events_root != header.events_root {
            return refused("the proof is of another block");
        }
        self.check_money(rules, now, header, consumed)?;
        self.check_steps(header, steps)?;
        let transaction = self.transaction_row(key, asked, now);
        let id = transaction.id.clone();
        // Another block of this number gives way, and what was built on it goes.
        let mut rows: Vec<Row> =
            self.blocks.range(header.number..).map(|(n, _)| Row::DropBlock(*n)).collect();
        rows.push(Row::Block(ChainBlock {
            header: header.clone(),
            hash,
            da_reference: da_reference.to_owned(),
            settled_at: None,
        }));
        rows.push(Row::Transaction(transaction));
        Ok((id, rows))
    }

    /// A block consumes deposits in order, none twice, none that is not confirmed, and credits exactly what came in.
    fn check_money(
        &self,
        rules: &LocalRules,
        now: Timestamp,
        header: &BlockHeader,
        consumed: u64,
    ) -> Result<()> {
        if header.last_deposit < consumed {
            return refused("the block gives deposits back");
        }
        let confirmed =
            self.deposits.iter().take_while(|deposit| self.shown(rules, now, deposit).confirmed).count()
                as u64;
        if header.last_deposit > confirmed {
            return refused("the block consumes deposits that are not confirmed");
        }
        let upto = usize::try_from(header.last_deposit).unwrap_or(usize::MAX);
        let sum = self
            .deposits
            .iter()
            .take(upto)
            .try_fold(Amount::ZERO, |sum, deposit| sum.checked_add(deposit.amount));
        if sum == Some(header.total) {
            Ok(())
        } else {
            refused("the block's total is not what was deposited")
        }
    }

    /// The events root is over these steps, as many and as long as the records need, and the last one leads to the header's
    /// state. A chain never goes back to an older format.
    fn check_steps(&self, header: &BlockHeader, steps: &[Step]) -> Result<()> {
        let parent = header.number.checked_sub(1).and_then(|number| self.blocks.get(&number));
        if parent.is_some_and(|parent| parent.header.format() > header.format()) {
            return refused("the block has an older format than its parent");
        }
        let Some(end) = StepState::end_of(header) else { return Ok(()) };
        if !steps.iter().map(|step| step.count as usize).eq(step_sizes(header.records as usize))
            || steps_root(steps) != header.events_root
            || steps.last().is_some_and(|last| last.state != end.hash())
        {
            return refused("the steps are not those of the block");
        }
        Ok(())
    }

    pub(super) fn update(
        &self,
        now: Timestamp,
        key: &str,
        header: &BlockHeader,
    ) -> Result<(String, Vec<Row>)> {
        let hash = header_hash(header);
        let asked = format!("update {hash}");
        if let Some(known) = self.known(key, &asked)? {
            return Ok((known.id.clone(), Vec::new()));
        }
        let settled = self.last_settled_block().map_or(0, |block| block.header.number);
        if header.number != settled + 1 {
            return refused(format!("block {} does not follow block {settled}", header.number));
        }
        let registered = self.blocks.get(&header.number).filter(|block| block.hash == hash);
        let Some(block) = registered else { return refused("the block is not registered") };
        let transaction = self.transaction_row(key, asked, now);
        let id = transaction.id.clone();
        let block = ChainBlock { settled_at: Some(now), ..block.clone() };
        Ok((id, vec![Row::Block(block), Row::Transaction(transaction)]))
    }

    /// Whether a block is beyond challenge.
    fn is_final(&self, rules: &LocalRules, now: Timestamp, block: &ChainBlock) -> bool {
        block.settled_at.is_some_and(|at| at.plus(rules.final_after) <= now)
    }

    /// An upheld challenge: the block and everything after it is undone.
    pub(super) fn challenge(
        &self,
        rules: &LocalRules,
        now: Timestamp,
        number: u64,
        reason: &str,
    ) -> Result<Vec<Row>> {
        let Some(block) = self.blocks.get(&number) else { return refused("there is no such block") };
        if self.is_final(rules, now, block) {
            return refused("the block is final");
        }
        let mut rows = Vec::new();
        for (n, block) in self.blocks.range(number..) {
            rows.push(Row::DropBlock(*n));
            for transaction in self.transactions.values() {
                let about = [
                    format!("update {}", block.hash),
                    format!("register {} {}", block.hash, block.da_reference),
                ];
                if about.contains(&transaction.asked) {
                    rows.push(Row::Transaction(Transaction {
                        rejected: Some(reason.to_owned()),
                        ..transaction.clone()
                    }));
                }
            }
        }
        Ok(rows)
    }

    pub(super) fn status(&self, rules: &LocalRules, now: Timestamp, id: &str) -> Result<TransactionStatus> {
        let found = self.transactions.get(id).ok_or_else(|| SettlementError::NoTransaction(id.to_owned()))?;
        Ok(match &found.rejected {
            Some(reason) => TransactionStatus::Rejected(reason.clone()),
            None if found.at.plus(rules.final_after) <= now => TransactionStatus::Final,
            None => TransactionStatus::Included,
        })
    }

    pub(super) fn last_settled(&self, rules: &LocalRules, domain: &DomainId, now: Timestamp) -> SettledBlock {
        self.last_settled_block().map_or_else(
            || SettledBlock {
                number: 0,
                hash: Hash32::default(),
                state_root: genesis_root(domain),
                is_final: true,
            },
            |block| SettledBlock {
                number: block.header.number,
                hash: block.hash,
                state_root: block.header.state_root,
                is_final: self.is_final(rules, now, block),
            },
        )
    }

    pub(super) fn block(&self, number: u64) -> Option<(BlockHeader, String)> {
        let block = self.blocks.get(&number).filter(|block| block.settled_at.is_some())?;
        Some((block.header.clone(), block.da_reference.clone()))
    }

    pub(super) fn deposits(
        &self,
        rules: &LocalRules,
        now: Timestamp,
        after: u64,
        limit: usize,
    ) -> Vec<Deposit> {
        let skip = usize::try_from(after).unwrap_or(usize::MAX);
        let seen = self.deposits.iter().skip(skip).take(limit);
        seen.map(|deposit| self.shown(rules, now, deposit)).collect()
    }

    fn shown(&self, rules: &LocalRules, now: Timestamp, deposit: &Deposit) -> Deposit {
        Deposit { confirmed: deposit.at.plus(rules.confirm_after) <= now, ..deposit.clone() }
    }

    pub(super) fn deposit(
        &self,
        rules: &LocalRules,
        now: Timestamp,
        key: &str,
        account: AccountKey,
        amount: Amount,
    ) -> Result<(Deposit, Vec<Row>)> {
        let asked = format!("deposit {account} {amount}");
        if let Some(known) = self.known(key, &asked)? {
            let index = known.deposit.unwrap_or(0);
            let found = self.deposits.iter().find(|deposit| deposit.index == index);
            return match found {
                Some(deposit) => Ok((self.shown(rules, now, deposit), Vec::new())),
                None => refused("the key was used for something else"),
            };
        }
        if !matches!(account, AccountKey::Consumer(_) | AccountKey::Provider(_)) {
            return refused("deposits go to consumers and providers only");
        }
        if amount.is_zero() {
            return refused("a deposit of nothing");
        }
        let sum = self.deposits.iter().try_fold(amount, |sum, deposit| sum.checked_add(deposit.amount));
        if sum.is_none() {
            return Err(SettlementError::Overflow);
        }
        let index = self.deposits.len() as u64 + 1;
        let deposit = Deposit { index, account, owner: None, amount, confirmed: false, at: now };
        let transaction = Transaction { deposit: Some(index), ..self.transaction_row(key, asked, now) };
        let shown = self.shown(rules, now, &deposit);
        Ok((shown, vec![Row::Deposit(deposit), Row::Transaction(transaction)]))
    }

    pub(super) fn withdraw(
        &self,
        rules: &LocalRules,
        domain: &DomainId,
        now: Timestamp,
        claim: &WithdrawalClaim,
    ) -> Result<(Amount, Vec<Row>)> {
        let block = self.blocks.get(&claim.block).filter(|block| self.is_final(rules, now, block));
        let Some(block) = block else { return refused(format!("block {} is not final", claim.block)) };
        let key = account_key_hash(domain, None, &claim.account);
        let proof = AccountProof {
            key: hex::encode(key),
            index: claim.index,
            balance: claim.balance,
            withdrawable: claim.cumulative,
            siblings: claim.siblings.clone(),
            market_root: claim.market_root,
            next_index: claim.next_index,
            total: claim.total,
            state_root: block.header.state_root,
        };
        if !verify_account(domain, &key, &block.header.state_root, &proof) {
            return refused("the proof does not hold");
        }
        let paid = self.paid.get(&claim.account).copied().unwrap_or_default();
        let due = claim.cumulative.saturating_sub(paid);
        if due.is_zero() {
            return Ok((due, Vec::new()));
        }
        Ok((due, vec![Row::Paid(claim.account, claim.cumulative)]))
    }
}
