//! How money comes in where owners pay by transactions of their own: what to sign for an account or an allocation, and what is on
//! its way.

use serde::{Deserialize, Serialize};

use super::{AccountService, Owners, deposits::DepositCursor};
use crate::{
    core::{
        client::database::ReaderExt,
        madara::settlement::{CallToSign, Deposit},
        market::{
            account::AccountKey,
            allocation::{Allocation, AllocationState},
            ids::AllocationId,
            money::Amount,
        },
    },
    error::{Error, Result},
    service::{allocation::change::may_see, work::Call},
};

/// Deposits on their way that are looked through, at most.
const LOOKED_THROUGH: usize = 128;

/// How to pay in to an account, and what is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayingIn {
    /// The account.
    pub account: AccountKey,
    /// What the owner signs and sends, in this order; nothing where the operator books deposits, and for an amount of zero.
    pub calls: Vec<CallToSign>,
    /// Deposits for the account that the chain has, and that are not booked yet.
    pub waiting: Vec<Deposit>,
}

/// What funding an allocation takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funding {
    /// What its escrow needs; zero when it is not reserved (any more).
    pub required: Amount,
    /// What its consumer can spend.
    pub balance: Amount,
    /// How much must come in before it can be funded.
    pub missing: Amount,
    /// How that comes in.
    pub paying_in: PayingIn,
}

impl AccountService {
    /// What an owner signs to pay so much in, and what is on its way.
    ///
    /// # Errors
    /// As [`AccountService::account`]; an invalid field for accounts that nobody pays in to; what the settlement layer says.
    pub async fn paying_in(&self, call: &Call, key: AccountKey, amount: Amount) -> Result<PayingIn> {
        if !matches!(key, AccountKey::Consumer(_) | AccountKey::Provider(_)) {
            return Err(Error::field("account", "deposits go to `consumer:<id>` or `provider:<id>`"));
        }
        let domain = self.visible(call, key).await?;
        let client = self.domains.get(&domain)?;
        let reader = self.work.reader.as_ref();
        let owner = Owners::new(reader, &domain, client.treasury()).owner(key).await?;
        let calls = match owner {
            Some(owner) if !amount.is_zero() => client.deposit_calls(owner, key, amount),
            _ => Vec::new(),
        };
        let cursor = reader.load::<DepositCursor>(&DepositCursor::id_of(&domain)).await?;
        let booked = cursor.map_or(0, |cursor| cursor.value.booked);
        let coming = client.deposits(booked, LOOKED_THROUGH).await?;
        let own = |deposit: &Deposit| deposit.account == key && deposit.owner == owner;
        Ok(PayingIn { account: key, calls, waiting: coming.into_iter().filter(own).collect() })
    }

    /// What funding an allocation takes: for its consumer and operators.
    ///
    /// # Errors
    /// Not found for unknown allocations and those of others; as [`AccountService::paying_in`].
    pub async fn funding(&self, call: &Call, id: AllocationId) -> Result<Funding> {
        let found = self.work.reader.load::<Allocation>(&id.to_string()).await?;
        let seen = found.map(|stored| stored.value).filter(|allocation| may_see(call, allocation));
        let allocation = seen.ok_or_else(|| Error::not_found("allocation", id))?;
        let key = AccountKey::Consumer(allocation.consumer);
        let balance = self.account(call, key).await?.balance;
        let required = match allocation.state {
            AllocationState::Reserved => allocation.escrow_required,
            _ => Amount::ZERO,
        };
        let missing = required.saturating_sub(balance);
        Ok(Funding { required, balance, missing, paying_in: self.paying_in(call, key, missing).await? })
    }
}
