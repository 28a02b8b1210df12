//! What the blocks of a chain say of verdicts and of the money that rests on them, taken down record by record. The records
//! were executed before: nothing is checked here, and no record can fail.

use std::collections::{BTreeMap, HashMap};

use crate::core::market::{
    account::TransferKind,
    block::BlockFormat,
    state::{Record, ShortHash},
    verdict::VerdictStatus,
};

/// A verdict's two records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) block: u64,
    pub(super) subject: [u8; 16],
    pub(super) status: VerdictStatus,
    pub(super) credit: u32,
    pub(super) coverage: u32,
    pub(super) root: ShortHash,
}

/// A credit, a slash or a penalty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Movement {
    pub(super) block: u64,
    /// Number of the record, over all blocks.
    pub(super) at: u64,
    pub(super) kind: u8,
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) amount: u128,
    /// What `from` held before.
    pub(super) held: u128,
}

/// A payment out of an account with what stands behind it.
#[derive(Debug, Clone)]
pub(super) struct Charge {
    pub(super) block: u64,
    /// Number of its last record, over all blocks.
    pub(super) at: u64,
    pub(super) format: BlockFormat,
    pub(super) escrow: u32,
    /// Who was paid; `None` when there is a fee and nothing else.
    pub(super) provider: Option<u32>,
    pub(super) earned: u128,
    pub(super) fee: u128,
    /// In the first format these may stand anywhere, so they are [`Book::loose`].
    pub(super) credits: Vec<Movement>,
    pub(super) slashes: Vec<Movement>,
}

/// The balances of an account that stands in for a provider: `(number of the record, balance after it)`, ascending.
type History = Vec<(u64, u128)>;

/// What was taken down.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) claims: Vec<Claim>,
    pub(super) charges: Vec<Charge>,
    /// Credits and slashes of blocks of the first format.
    pub(super) loose: Vec<Movement>,
    pub(super) penalties: Vec<Movement>,
    /// Whatever else moved: from, kind and to, with the first block in which it did.
    pub(super) others: BTreeMap<(u32, u8, u32), u64>,
    /// What each entry of the market tree was ever set to, with the block, by the entry's name.
    digests: HashMap<ShortHash, Vec<(u64, [u8; 26])>>,
    market: Vec<ShortHash>,
    accounts: HashMap<ShortHash, u32>,
    balances: Vec<u128>,
    collateral: HashMap<u32, History>,
    /// The last charge of each account.
    last_charge: HashMap<u32, usize>,
    /// The charge that the next record may belong to.
    open: Option<usize>,
    block: u64,
    at: u64,
}

const PAYMENT: u8 = TransferKind::Payment as u8;
const FEE: u8 = TransferKind::Fee as u8;
const CREDIT: u8 = TransferKind::Credit as u8;
const SLASH: u8 = TransferKind::Slash as u8;
const PENALTY: u8 = TransferKind::Penalty as u8;
const POST: u8 = TransferKind::CollateralPost as u8;
const RELEASE: u8 = TransferKind::CollateralRelease as u8;

impl Book {
    /// Takes down the records of the next block.
    pub(super) fn block(&mut self, number: u64, format: BlockFormat, records: &[Record]) {
        self.block = number;
        for record in records {
            self.at += 1;
            self.record(format, record);
        }
        self.open = None;
    }

    /// The last block.
    pub(super) const fn last(&self) -> u64 {
        self.block
    }

    /// The number after the last record.
    pub(super) const fn end(&self) -> u64 {
        self.at + 1
    }

    /// The index of an account.
    pub(super) fn account(&self, name: &ShortHash) -> Option<u32> {
        self.accounts.get(name).copied()
    }

    /// What an entry of the market tree was ever set to, in order, with the blocks.
    pub(super) fn digests(&self, name: &ShortHash) -> &[(u64, [u8; 26])] {
        self.digests.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether the collateral in `account` was, at some moment from record `from` up to record `to`, one that `fits`. An
    /// account that is not there holds nothing.
    pub(super) fn held(&self, account: Option<u32>, from: u64, to: u64, fits: impl Fn(u128) -> bool) -> bool {
        let Some(account) = account else { return fits(0) };
        let Some(history) = self.collateral.get(&account) else { return fits(self.balance(account)) };
        let next = history.partition_point(|(at, _)| *at <= from);
        // Before the first entry it held what the first entry says.
        let first = history.get(next.saturating_sub(1)).map_or(0, |(_, balance)| *balance);
        let later = history.iter().skip(next).take_while(|(at, _)| *at < to).map(|(_, balance)| *balance);
        fits(first) || later.into_iter().any(fits)
    }

    fn balance(&self, account: u32) -> u128 {
        self.balances.get(account as usize).copied().unwrap_or(0)
    }

    fn set_balance(&mut self, account: u32, balance: u128) {
        if let Some(slot) = self.balances.get_mut(account as usize) {
            *slot = balance;
        }
        if let Some(history) = self.collateral.get_mut(&account) {
            history.push((self.at, balance));
        }
    }

    fn record(&mut self, format: BlockFormat, record: &Record) {
        let open = self.open.take();
        match *record {
            Record::OpenAccount { key } => {
                self.accounts.insert(key, u32::try_from(self.balances.len()).unwrap_or(u32::MAX));
                self.balances.push(0);
            }
            Record::Transfer { kind, from, to, amount } => {
                self.transfer(format, open, (kind, from, to, amount))
            }
            Record::Deposit { to, amount, .. } => {
                self.set_balance(to, self.balance(to).saturating_add(amount));
            }
            Record::MarketOpen { key } => self.market.push(key),
            Record::MarketSet { index, digest } => {
                if let Some(key) = self.market.get(index as usize) {
                    self.digests.entry(*key).or_default().push((self.block, digest));
                }
            }
            Record::Verdict { subject, status, credit, coverage } => {
                let block = self.block;
                self.claims.push(Claim { block, subject, status, credit, coverage, root: [0; 30] });
            }
            Record::VerdictEvidence { root } => {
                if let Some(claim) = self.claims.last_mut() {
                    claim.root = root;
                }
            }
        }
    }

    fn transfer(&mut self, format: BlockFormat, open: Option<usize>, parts: (u8, u32, u32, u128)) {
        let (kind, from, to, amount) = parts;
        let movement =
            Movement { block: self.block, at: self.at, kind, from, to, amount, held: self.balance(from) };
        match kind {
            PAYMENT => self.open = Some(self.charge(format, movement, Some(to))),
            FEE => {
                // A period's fee is the next thing that leaves the account which paid. One of a dispute leaves another account.
                let known = self.last_charge.get(&from).and_then(|at| self.charges.get_mut(*at));
                match known.filter(|charge| charge.fee == 0) {
                    Some(charge) => (charge.fee, charge.at) = (amount, self.at),
                    None => _ = self.charge(format, movement, None),
                }
                self.open = open;
            }
            CREDIT | SLASH => match open.and_then(|at| self.charges.get_mut(at)) {
                Some(charge) => {
                    charge.at = self.at;
                    let part = if kind == CREDIT { &mut charge.credits } else { &mut charge.slashes };
                    part.push(movement);
                    self.open = open;
                }
                None => self.loose.push(movement),
            },
            PENALTY => self.penalties.push(movement),
            _ => _ = self.others.entry((from, kind, to)).or_insert(self.block),
        }
        if format == BlockFormat::Records {
            self.open = None;
        }
        let stands_in = match kind {
            POST => Some(to),
            RELEASE | SLASH | PENALTY => Some(from),
            _ => None,
        };
        if let Some(account) = stands_in {
            let before = (self.at.saturating_sub(1), self.balance(account));
            self.collateral.entry(account).or_insert_with(|| vec![before]);
        }
        self.set_balance(from, self.balance(from).saturating_sub(amount));
        if from != to {
            self.set_balance(to, self.balance(to).saturating_add(amount));
        }
    }

    /// A new charge; answers its place.
    fn charge(&mut self, format: BlockFormat, movement: Movement, provider: Option<u32>) -> usize {
        let Movement { block, at, from: escrow, amount, .. } = movement;
        let (earned, fee) = if provider.is_some() { (amount, 0) } else { (0, amount) };
        let (credits, slashes) = (Vec::new(), Vec::new());
        self.charges.push(Charge { block, at, format, escrow, provider, earned, fee, credits, slashes });
        let place = self.charges.len() - 1;
        self.last_charge.insert(escrow, place);
        place
    }
}
