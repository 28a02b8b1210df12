//! Accounts as their owners see them: balances, transfers, deposits on the local chain, collateral and withdrawals.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{LedgerDraft, Posting, deposits::DepositWatcher, payout};
use crate::{
    core::{
        client::{
            database::{Changeset, Filter, Query, ReaderExt, Scalar, Sort},
            schema,
        },
        market::{
            account::{Account, AccountKey, Transfer, TransferKind},
            allocation::Allocation,
            dispute::Dispute,
            event::Audience,
            ids::{ConsumerId, ProviderId},
            money::Amount,
            party::{Consumer, Principal, Provider},
            terms::DomainId,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        outbox,
        page::{Listing, PageRequest, list},
        settlement::SettlementDomains,
        work::{Answer, Call, Draft, Work},
    },
};

/// Waiting transfers that a view of `fees` adds up, at most.
const MAX_ADDED: usize = 10_000;

/// An account with its balances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// Its name, which is its id in the API.
    pub id: AccountKey,
    /// Its domain.
    pub domain: DomainId,
    /// Money that can be moved inside the ledger; zero for `external`.
    pub balance: Amount,
    /// For `external` only: what deposits ever credited, that is its negative balance.
    pub deficit: Amount,
    /// Money ever released for withdrawal.
    pub withdrawable: Amount,
    /// Whether the balance is up to date. Only of `fees` it may not be: while very much waits for the next block, what
    /// waits is not added up for every view.
    pub complete: bool,
    /// Transfers that touched it; 0 for `fees` and `external` before they are sealed for the first time.
    pub sequence: u64,
}

/// A deposit on a chain, and its booking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositReceipt {
    /// The deposit's index on the chain.
    pub index: u64,
    /// The booked transfer; `None` while the deposit waits for confirmations.
    pub transfer: Option<Transfer>,
}

/// The service.
#[derive(Clone)]
pub struct AccountService {
    pub(super) work: Work,
    pub(super) domains: SettlementDomains,
    watcher: Arc<DepositWatcher>,
}

impl AccountService {
    /// A service over these ports.
    #[must_use]
    pub fn new(work: Work, domains: SettlementDomains) -> Self {
        let watcher = Arc::new(DepositWatcher::new(work.clone(), domains.clone()));
        Self { work, domains, watcher }
    }

    /// The domain that is meant when none is named.
    ///
    /// # Errors
    /// [`ErrorCode::NotSupported`] when this daemon settles none.
    pub fn default_domain(&self) -> Result<DomainId> {
        self.domains.first().cloned()
    }

    /// An account with its balances. One that nothing has touched is empty.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] for accounts of other tenants, and of tenants that do not exist.
    pub async fn account(&self, call: &Call, key: AccountKey) -> Result<AccountView> {
        let domain = self.visible(call, key).await?;
        self.view(domain, key).await
    }

    /// The transfers of an account, newest first.
    ///
    /// # Errors
    /// As [`AccountService::account`].
    pub async fn transfers(
        &self,
        call: &Call,
        key: AccountKey,
        page: PageRequest,
    ) -> Result<Listing<Transfer>> {
        let domain = self.visible(call, key).await?;
        let name = key.to_string();
        let side = Filter::Or(vec![Filter::eq("debit", name.as_str()), Filter::eq("credit", name.as_str())]);
        let filter = side.and(Filter::eq("domain", domain.as_str()));
        list(self.work.reader.as_ref(), filter, Sort::IdDescending, page).await
    }

    /// Puts money in on a layer that stands in for a chain, and books it. Repeated with the same idempotency key, it
    /// answers with the first deposit.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] unless an operator calls; an invalid field; what the settlement layer refuses.
    pub async fn deposit(&self, call: &Call, key: AccountKey, amount: Amount) -> Result<DepositReceipt> {
        call.operators_only("book deposits on the local chain")?;
        if !matches!(key, AccountKey::Consumer(_) | AccountKey::Provider(_)) {
            return Err(Error::field("account", "deposits go to `consumer:<id>` or `provider:<id>`"));
        }
        positive(amount)?;
        let domain = self.visible(call, key).await?;
        let client = self.domains.get(&domain)?;
        // The settlement layer keeps the name of the request, so that one that was cut off half way is not paid in twice.
        let request = match &call.request {
            Some(request) => request.id.clone(),
            None => self.work.ids.next::<crate::core::market::ids::TransferId>().to_string(),
        };
        let pay_in = || async {
            let deposit = client.deposit(&request, key, amount).await?;
            if deposit.amount != amount {
                return Err(Error::new(
                    ErrorCode::IdempotencyKeyReused,
                    "this idempotency key was used with another amount; use a new key for a new deposit",
                ));
            }
            match self.watcher.book(&domain).await {
                // The money is on the chain: the watcher books it soon, and a new request would pay in twice.
                Err(error) if error.retryable() => {
                    tracing::warn!(
                        index = deposit.index,
                        error = crate::error::chain(&error),
                        "booked later"
                    );
                }
                booked => {
                    booked?;
                }
            }
            let transfer = self.booked(&domain, deposit.index).await?;
            let mut changes = Changeset::new();
            let data = serde_json::json!({ "index": deposit.index, "amount": amount });
            let audience = Audience::Operators;
            outbox::event(&mut changes, &self.work.ids, "account.deposit_made", key, audience, data);
            Ok(Draft::new(changes, DepositReceipt { index: deposit.index, transfer }))
        };
        Ok(self.work.run(call, "account.deposit", pay_in).await?.value)
    }

    /// Moves money from a provider's earnings to its collateral.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] for other providers; [`ErrorCode::InsufficientFunds`].
    pub async fn post_collateral(
        &self,
        call: &Call,
        provider: ProviderId,
        amount: Amount,
    ) -> Result<Answer<Transfer>> {
        let posting =
            (TransferKind::CollateralPost, AccountKey::Provider(provider), AccountKey::Collateral(provider));
        self.move_collateral(call, provider, amount, posting).await
    }

    /// Moves collateral back to a provider's earnings; only when none of its allocations is live.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] for other providers; [`ErrorCode::InvalidState`] while an allocation needs it;
    /// [`ErrorCode::InsufficientFunds`].
    pub async fn release_collateral(
        &self,
        call: &Call,
        provider: ProviderId,
        amount: Amount,
    ) -> Result<Answer<Transfer>> {
        let posting = (
            TransferKind::CollateralRelease,
            AccountKey::Collateral(provider),
            AccountKey::Provider(provider),
        );
        self.move_collateral(call, provider, amount, posting).await
    }

    async fn move_collateral(
        &self,
        call: &Call,
        provider: ProviderId,
        amount: Amount,
        (kind, debit, credit): (TransferKind, AccountKey, AccountKey),
    ) -> Result<Answer<Transfer>> {
        self.owner_only(call, debit)?;
        positive(amount)?;
        let domain = self.visible(call, debit).await?;
        let key = self.request_key(call, "collateral");
        self.work
            .run(call, "account.collateral", || async {
                if kind == TransferKind::CollateralRelease {
                    self.no_live_allocation(provider).await?;
                }
                let subject = provider.to_string();
                let posting = Posting { kind, debit, credit, amount, idempotency_key: key.clone(), subject };
                self.post_one(&domain, posting).await
            })
            .await
    }

    /// Releases money of an account for withdrawal: its balance shrinks, its cumulative withdrawable grows. Once a block
    /// with it is final, the chain pays it out against an inclusion proof.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] for other tenants' accounts; an invalid field for accounts that nobody withdraws from;
    /// [`ErrorCode::InsufficientFunds`].
    pub async fn withdraw(&self, call: &Call, key: AccountKey, amount: Amount) -> Result<Answer<Transfer>> {
        if !matches!(key, AccountKey::Consumer(_) | AccountKey::Provider(_)) {
            return Err(Error::field("account", "money leaves from `consumer:<id>` or `provider:<id>` only"));
        }
        self.owner_only(call, key)?;
        positive(amount)?;
        let domain = self.visible(call, key).await?;
        let idempotency_key = self.request_key(call, "withdraw");
        self.work
            .run(call, "account.withdraw", || async {
                let posting = Posting {
                    kind: TransferKind::Withdraw,
                    debit: key,
                    credit: key,
                    amount,
                    idempotency_key: idempotency_key.clone(),
                    subject: key.to_string(),
                };
                self.post_one(&domain, posting).await
            })
            .await
    }

    async fn post_one(&self, domain: &DomainId, posting: Posting) -> Result<Draft<Transfer>> {
        let mut draft = LedgerDraft::new(self.work.reader.as_ref(), &self.work.ids, domain.clone());
        let (tenants, releases) = (owner_of(posting.debit), posting.kind == TransferKind::Withdraw);
        draft.post(posting).await?;
        let transfer = draft.transfers().first().cloned();
        let transfer = transfer.ok_or_else(|| Error::field("amount", "must be more than zero"))?;
        let mut changes = Changeset::new();
        if releases && self.domains.get(domain)?.payouts().is_some() {
            let released = draft.released(transfer.debit).await?;
            payout::ask(&self.work, &mut changes, domain, transfer.debit, released).await?;
        }
        draft.finish(&mut changes);
        let data = serde_json::json!({ "kind": transfer.kind, "amount": transfer.amount });
        let audience = Audience::Tenants(tenants);
        outbox::event(&mut changes, &self.work.ids, "account.transfer", transfer.debit, audience, data);
        Ok(Draft::new(changes, transfer))
    }

    async fn booked(&self, domain: &DomainId, index: u64) -> Result<Option<Transfer>> {
        let filter = Filter::eq("domain", domain.as_str())
            .and(Filter::eq("idempotency_key", super::deposits::booking_key(index)));
        let query = Query::new(schema::TRANSFERS).filter(filter).limit(1);
        let (found, _) = self.work.reader.list::<Transfer>(query).await?;
        Ok(found.into_iter().next().map(|stored| stored.value))
    }

    async fn no_live_allocation(&self, provider: ProviderId) -> Result<()> {
        let live = ["reserved", "funded", "provisioning", "active", "restricted", "closing"];
        let states = live.into_iter().map(Scalar::from).collect();
        let filter = Filter::eq("provider", provider.to_string()).and(Filter::In("state".to_owned(), states));
        match self.work.reader.count(schema::ALLOCATIONS, filter).await? {
            0 => Ok(()),
            live => Err(Error::new(
                ErrorCode::InvalidState,
                format!(
                    "{live} live allocations need this collateral; it can be released when they are closed"
                ),
            )),
        }
    }

    /// The key of a movement: that of the request, so that a replay is the same movement, or a fresh one.
    fn request_key(&self, call: &Call, what: &str) -> String {
        match &call.request {
            Some(request) => format!("{what}:{}", request.id),
            None => format!("{what}:{}", self.work.ids.next::<crate::core::market::ids::TransferId>()),
        }
    }

    /// Refuses everyone but the owner of an account.
    pub(crate) fn owner_only(&self, call: &Call, key: AccountKey) -> Result<()> {
        let owner = match (call.principal, key) {
            (Principal::Consumer(me), AccountKey::Consumer(id)) => me == id,
            (Principal::Provider(me), AccountKey::Provider(id) | AccountKey::Collateral(id)) => me == id,
            (Principal::System, _) => true,
            (Principal::Operator(_) | Principal::Oracle(_), _) => {
                return Err(Error::new(ErrorCode::Forbidden, "only the owner moves the money of an account"));
            }
            _ => false,
        };
        if owner { Ok(()) } else { Err(Error::not_found("account", key)) }
    }

    /// The domain of an account that the caller may see.
    pub(crate) async fn visible(&self, call: &Call, key: AccountKey) -> Result<DomainId> {
        let hidden = || Error::not_found("account", key);
        let reader = &self.work.reader;
        let (domain, owners) = match key {
            AccountKey::External | AccountKey::Fees => (self.domains.first()?.clone(), Vec::new()),
            AccountKey::Unclaimed(_) => (self.domain_that_has(key).await?.ok_or_else(hidden)?, Vec::new()),
            AccountKey::Consumer(id) => {
                let found = reader.load::<Consumer>(&id.to_string()).await?.ok_or_else(hidden)?;
                (found.value.domain, vec![Principal::Consumer(id)])
            }
            AccountKey::Provider(id) | AccountKey::Collateral(id) => {
                let found = reader.load::<Provider>(&id.to_string()).await?.ok_or_else(hidden)?;
                (found.value.domain, vec![Principal::Provider(id)])
            }
            AccountKey::Escrow(id) => {
                let found = reader.load::<Allocation>(&id.to_string()).await?.ok_or_else(hidden)?.value;
                (found.domain, parties(found.consumer, found.provider))
            }
            AccountKey::Held(id) => {
                let found = reader.load::<Dispute>(&id.to_string()).await?.ok_or_else(hidden)?.value;
                (found.domain, parties(found.consumer, found.provider))
            }
        };
        if call.principal.is_operator() || owners.contains(&call.principal) {
            Ok(domain)
        } else {
            Err(hidden())
        }
    }

    /// The domain in whose ledger an account is; for accounts that no entity of the market names.
    async fn domain_that_has(&self, key: AccountKey) -> Result<Option<DomainId>> {
        for domain in self.domains.domains() {
            let id = Account::id_of(domain, &key);
            if self.work.reader.load::<Account>(&id).await?.is_some() {
                return Ok(Some(domain.clone()));
            }
        }
        Ok(None)
    }

    async fn view(&self, domain: DomainId, key: AccountKey) -> Result<AccountView> {
        let stored = self.work.reader.load::<Account>(&Account::id_of(&domain, &key)).await?;
        let account = stored.map_or_else(|| Account::empty(domain.clone(), key), |stored| stored.value);
        let (mut balance, mut complete) = (account.balance, true);
        if key.is_summed() {
            (balance, complete) = self.summed(&domain, key, MAX_ADDED).await?;
        }
        let (balance, deficit) =
            if key == AccountKey::External { (Amount::ZERO, balance) } else { (balance, Amount::ZERO) };
        Ok(AccountView {
            id: key,
            domain,
            balance,
            deficit,
            withdrawable: account.withdrawable,
            complete,
            sequence: account.sequence,
        })
    }
}

fn parties(consumer: ConsumerId, provider: ProviderId) -> Vec<Principal> {
    vec![Principal::Consumer(consumer), Principal::Provider(provider)]
}

/// The tenants that events about an account are for.
pub(in crate::service) fn owner_of(key: AccountKey) -> Vec<String> {
    match key {
        AccountKey::Consumer(id) => vec![id.to_string()],
        AccountKey::Provider(id) | AccountKey::Collateral(id) => vec![id.to_string()],
        AccountKey::External
        | AccountKey::Fees
        | AccountKey::Escrow(_)
        | AccountKey::Held(_)
        | AccountKey::Unclaimed(_) => Vec::new(),
    }
}

fn positive(amount: Amount) -> Result<()> {
    if amount.is_zero() { Err(Error::field("amount", "must be more than zero")) } else { Ok(()) }
}
