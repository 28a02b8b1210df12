//! The ledger: every movement of money is a transfer between two accounts of one domain. A [`LedgerDraft`] gathers the
//! postings of one unit of work, folds those that touch the same account, and writes accounts, transfers and the markers
//! for the next block into the changeset.

pub mod accounts;
pub mod audit;
pub mod charge;
pub mod deposits;
pub mod dispute;
pub mod funding;
pub mod owners;
pub mod payout;

pub use accounts::AccountService;
pub use charge::post_charge;
pub use deposits::DepositWatcher;
pub use dispute::DisputeService;
pub use owners::Owners;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    core::{
        client::{
            database::{Changeset, Entity, Reader, ReaderExt, Stored},
            schema::{self, Collection},
        },
        market::{
            account::{Account, AccountKey, Transfer, TransferKind},
            ids::{IdGenerator, TransferId},
            money::Amount,
            terms::DomainId,
        },
    },
    error::{Error, ErrorCode, Result},
};

/// What the next block of a domain must carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsealedMarker {
    /// Id of what is to be sealed; also the marker's id.
    pub id: String,
    /// The domain.
    pub domain: DomainId,
    /// What it is.
    pub kind: UnsealedKind,
}

/// What a marker points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnsealedKind {
    /// A transfer.
    Transfer,
    /// A verdict.
    Verdict,
    /// A unit's terms.
    Unit,
    /// An allocation's frozen terms and state.
    Allocation,
    /// A unit's reputation.
    Score,
}

impl Entity for UnsealedMarker {
    const NAME: &'static str = "unsealed_marker";
    const COLLECTION: Collection = schema::UNSEALED;
    fn document_id(&self) -> String {
        self.id.clone()
    }
}

/// A movement to be posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// What it is for.
    pub kind: TransferKind,
    /// Where the money comes from.
    pub debit: AccountKey,
    /// Where it goes.
    pub credit: AccountKey,
    /// How much; a posting of zero is left out.
    pub amount: Amount,
    /// Unique per domain: posting it twice is refused by the database.
    pub idempotency_key: String,
    /// What caused it, as an id.
    pub subject: String,
}

/// The postings of one unit of work in one domain.
pub struct LedgerDraft<'a> {
    reader: &'a dyn Reader,
    ids: &'a IdGenerator,
    domain: DomainId,
    accounts: BTreeMap<AccountKey, Stored<Account>>,
    transfers: Vec<Transfer>,
}

impl<'a> LedgerDraft<'a> {
    /// No postings yet.
    #[must_use]
    pub fn new(reader: &'a dyn Reader, ids: &'a IdGenerator, domain: DomainId) -> Self {
        Self { reader, ids, domain, accounts: BTreeMap::new(), transfers: Vec::new() }
    }

    /// What an account can spend, postings of this draft included. Zero for accounts that nothing has touched, and for
    /// summed accounts.
    ///
    /// # Errors
    /// Database errors.
    pub async fn balance(&mut self, key: AccountKey) -> Result<Amount> {
        if key.is_summed() {
            return Ok(Amount::ZERO);
        }
        Ok(self.account(key).await?.value.balance)
    }

    /// Adds a posting; one of zero is left out.
    ///
    /// # Errors
    /// [`ErrorCode::InsufficientFunds`] when the debited account, `external` apart, would fall below zero;
    /// [`ErrorCode::Overflow`]; database errors.
    pub async fn post(&mut self, posting: Posting) -> Result<()> {
        if posting.amount.is_zero() {
            return Ok(());
        }
        let withdraw = posting.kind == TransferKind::Withdraw;
        if (posting.debit == posting.credit) != withdraw {
            return Err(Error::internal("a transfer needs two accounts, a withdrawal one"));
        }
        let debit_sequence = self.debit(&posting, withdraw).await?;
        let credit_sequence = if withdraw { None } else { self.credit(&posting).await? };
        self.transfers.push(Transfer {
            id: self.ids.next::<TransferId>(),
            domain: self.domain.clone(),
            kind: posting.kind,
            debit: posting.debit,
            credit: posting.credit,
            amount: posting.amount,
            debit_sequence,
            credit_sequence,
            idempotency_key: posting.idempotency_key,
            subject: posting.subject,
            created_at: self.ids.now(),
        });
        Ok(())
    }

    /// What an account ever released for withdrawal, postings of this draft included.
    ///
    /// # Errors
    /// Database errors.
    pub async fn released(&mut self, key: AccountKey) -> Result<Amount> {
        Ok(self.account(key).await?.value.withdrawable)
    }

    async fn debit(&mut self, posting: &Posting, withdraw: bool) -> Result<Option<u64>> {
        match posting.debit {
            AccountKey::External => return Ok(None),
            // Fees leave by a withdrawal of their own only, which this ledger does not offer yet.
            AccountKey::Fees => {
                return Err(Error::new(ErrorCode::NotSupported, "paying fees out is not supported"));
            }
            _ => {}
        }
        let account = &mut self.account(posting.debit).await?.value;
        account.balance = account.balance.checked_sub(posting.amount).ok_or_else(|| {
            Error::new(
                ErrorCode::InsufficientFunds,
                format!(
                    "account {} has {} and {} are needed",
                    posting.debit, account.balance, posting.amount
                ),
            )
        })?;
        if withdraw {
            account.withdrawable = account.withdrawable.checked_add(posting.amount).ok_or_else(overflow)?;
        }
        account.sequence += 1;
        Ok(Some(account.sequence))
    }

    async fn credit(&mut self, posting: &Posting) -> Result<Option<u64>> {
        if posting.credit.is_summed() {
            return Ok(None);
        }
        let account = &mut self.account(posting.credit).await?.value;
        account.balance = account.balance.checked_add(posting.amount).ok_or_else(overflow)?;
        account.sequence += 1;
        Ok(Some(account.sequence))
    }

    /// The transfers drafted so far.
    #[must_use]
    pub fn transfers(&self) -> &[Transfer] {
        &self.transfers
    }

    /// Writes everything into the changeset. A draft without postings writes nothing.
    pub fn finish(self, changes: &mut Changeset) {
        for (_, stored) in self.accounts {
            match stored.version {
                // Accounts that were only looked at, and that nothing has touched, are not made.
                0 if stored.value.sequence == 0 => {}
                0 => {
                    changes.insert(&stored.value);
                }
                // One that was only looked at is written too: the draft rests on the balance that it saw.
                version => {
                    changes.replace(version, &stored.value);
                }
            }
        }
        for transfer in self.transfers {
            let marker = UnsealedMarker {
                id: transfer.id.to_string(),
                domain: self.domain.clone(),
                kind: UnsealedKind::Transfer,
            };
            changes.insert(&transfer).insert(&marker);
        }
    }

    async fn account(&mut self, key: AccountKey) -> Result<&mut Stored<Account>> {
        use std::collections::btree_map::Entry;
        match self.accounts.entry(key) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let id = Account::id_of(&self.domain, &key);
                let found = self.reader.load::<Account>(&id).await?;
                let account = found.unwrap_or_else(|| Stored {
                    version: 0,
                    value: Account::empty(self.domain.clone(), key),
                });
                Ok(entry.insert(account))
            }
        }
    }
}

/// A sum that fits nowhere.
pub(in crate::service) fn overflow() -> Error {
    Error::new(ErrorCode::Overflow, "the sum does not fit 128 bits")
}
