//! The deposit watcher: what the chain has confirmed becomes a transfer, once, in the order of the chain's indexes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{LedgerDraft, Owners, Posting};
use crate::{
    core::{
        client::{
            database::{Changeset, DatabaseError, Entity, ReaderExt, Stored},
            schema::{self, Collection},
        },
        madara::settlement::Deposit,
        market::{
            account::{AccountKey, TransferKind},
            event::Audience,
            money::Amount,
            state::account_key_hash,
            terms::DomainId,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        job::{Trigger, TriggerReport},
        outbox,
        settlement::SettlementDomains,
        work::{Call, Draft, Work},
    },
};

/// Deposits booked in one commit, at most.
const BATCH: usize = 100;

/// Bookings lost in a row to somebody who booked the same deposits at the same time, at most.
const MAX_COLLISIONS: u32 = 16;

/// How far the deposits of a domain are booked; kept in `meta`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositCursor {
    /// The domain.
    pub domain: DomainId,
    /// Index of the last booked deposit; 0 before the first.
    pub booked: u64,
    /// What deposits ever credited: the negative balance of `external`.
    pub total: Amount,
}

impl DepositCursor {
    pub(super) fn id_of(domain: &DomainId) -> String {
        format!("deposits/{domain}")
    }
}

impl Entity for DepositCursor {
    const NAME: &'static str = "deposit_cursor";
    const COLLECTION: Collection = schema::META;
    fn document_id(&self) -> String {
        Self::id_of(&self.domain)
    }
}

/// The idempotency key under which a deposit is booked.
#[must_use]
pub fn booking_key(index: u64) -> String {
    format!("deposit:{index}")
}

/// The index of a deposit, read back from its booking's idempotency key.
#[must_use]
pub fn booked_index(idempotency_key: &str) -> Option<u64> {
    idempotency_key.strip_prefix("deposit:")?.parse().ok()
}

/// Two bookings of the same deposits at once hit the same transfers, or both the first cursor: the slower one has lost, and
/// nothing is wrong.
fn collision(error: DatabaseError) -> Error {
    match error {
        DatabaseError::AlreadyExists { collection: schema::TRANSFERS | schema::META, .. } => {
            Error::new(ErrorCode::Conflict, "the deposits were booked at the same time; try again")
        }
        error => Error::from(error),
    }
}

/// The watcher.
#[derive(Clone)]
pub struct DepositWatcher {
    work: Work,
    domains: SettlementDomains,
    /// What alerts have said of transactions that wait.
    told: Arc<Mutex<BTreeMap<DomainId, BTreeSet<String>>>>,
}

impl DepositWatcher {
    /// A watcher over these ports.
    #[must_use]
    pub fn new(work: Work, domains: SettlementDomains) -> Self {
        Self { work, domains, told: Arc::default() }
    }

    /// Books every confirmed deposit of a domain; returns how many.
    ///
    /// # Errors
    /// Database errors; an unavailable settlement layer.
    pub async fn book(&self, domain: &DomainId) -> Result<u64> {
        let client = self.domains.get(domain)?;
        let (mut booked, mut collisions) = (0, 0);
        loop {
            let call = Call::system("watch_deposits");
            let compute = || async {
                let cursor = self.cursor(domain).await?;
                let mut deposits = client.deposits(cursor.value.booked, BATCH).await?;
                // The first one that is not confirmed holds back those after it: the order is the chain's.
                let ready = deposits.iter().take_while(|deposit| deposit.confirmed).count();
                deposits.truncate(ready);
                self.draft(cursor, &deposits).await
            };
            match self.work.run_mapped(&call, "deposits.book", compute, collision).await {
                Ok(answer) => {
                    booked += answer.value;
                    if answer.value < BATCH as u64 {
                        return Ok(booked);
                    }
                }
                // Whoever was faster has moved the cursor: there is progress, and perhaps more to book.
                Err(error) if error.code == ErrorCode::Conflict && collisions < MAX_COLLISIONS => {
                    collisions += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks after what was sent to the chain, at the same rhythm. What a person must look at becomes an alert, once for as long as it
    /// lasts.
    async fn tend(&self, domain: &DomainId) -> Result<()> {
        let problems = self.domains.get(domain)?.tend().await?;
        // What stands behind the colon, such as a fee, changes all the time.
        let head = |problem: &String| problem.split(": ").next().unwrap_or_default().to_owned();
        let news: Vec<String> = {
            let mut told = self.told.lock();
            let before = told.entry(domain.clone()).or_default();
            let news = problems.iter().filter(|it| !before.contains(&head(it))).cloned().collect();
            *before = problems.iter().map(head).collect();
            news
        };
        if news.is_empty() {
            return Ok(());
        }
        let compute = || async {
            let mut changes = Changeset::new();
            let title = format!("transactions of domain {domain} wait for a person");
            outbox::alert(&mut changes, &self.work.ids, title, serde_json::json!({ "waiting": &news }));
            Ok(Draft::new(changes, ()))
        };
        self.work.run(&Call::system("watch_deposits"), "settlement.waiting", compute).await?;
        Ok(())
    }

    async fn cursor(&self, domain: &DomainId) -> Result<Stored<DepositCursor>> {
        let found = self.work.reader.load::<DepositCursor>(&DepositCursor::id_of(domain)).await?;
        Ok(found.unwrap_or_else(|| Stored {
            version: 0,
            value: DepositCursor { domain: domain.clone(), booked: 0, total: Amount::ZERO },
        }))
    }

    /// The account that a deposit credits. What was paid in for an account of the market by another owner's address, or under
    /// a name that is none, is nobody's here.
    async fn account_of(&self, domain: &DomainId, deposit: &Deposit) -> Result<AccountKey> {
        let Some(owner) = deposit.owner else { return Ok(deposit.account) };
        let treasury = self.domains.treasury(domain)?;
        let owners = Owners::new(self.work.reader.as_ref(), domain, treasury);
        let takes_deposits = matches!(deposit.account, AccountKey::Consumer(_) | AccountKey::Provider(_));
        if takes_deposits && owners.owner(deposit.account).await? == Some(owner) {
            return Ok(deposit.account);
        }
        Ok(AccountKey::Unclaimed(account_key_hash(domain, Some(&owner), &deposit.account)))
    }

    async fn draft(&self, mut cursor: Stored<DepositCursor>, deposits: &[Deposit]) -> Result<Draft<u64>> {
        let mut changes = Changeset::new();
        if deposits.is_empty() {
            return Ok(Draft::new(changes, 0));
        }
        let ids = &self.work.ids;
        let mut draft = LedgerDraft::new(self.work.reader.as_ref(), ids, cursor.value.domain.clone());
        for deposit in deposits {
            if deposit.index != cursor.value.booked + 1 {
                return Err(Error::internal("the settlement layer left out a deposit"));
            }
            let account = self.account_of(&cursor.value.domain, deposit).await?;
            let posting = |kind, debit, idempotency_key| Posting {
                kind,
                debit,
                credit: account,
                amount: deposit.amount,
                idempotency_key,
                subject: booking_key(deposit.index),
            };
            let key = booking_key(deposit.index);
            draft.post(posting(TransferKind::Deposit, AccountKey::External, key)).await?;
            if matches!(account, AccountKey::Unclaimed(_)) {
                // Nobody here can spend it: it goes back to whom it was made for.
                let key = format!("unclaimed:{}", deposit.index);
                draft.post(posting(TransferKind::Withdraw, account, key)).await?;
            }
            cursor.value.booked = deposit.index;
            cursor.value.total =
                cursor.value.total.checked_add(deposit.amount).ok_or_else(super::overflow)?;
            let data = serde_json::json!({ "index": deposit.index, "amount": deposit.amount });
            let audience = match account {
                AccountKey::Consumer(id) => Audience::Tenants(vec![id.to_string()]),
                AccountKey::Provider(id) => Audience::Tenants(vec![id.to_string()]),
                _ => Audience::Operators,
            };
            outbox::event(&mut changes, ids, "account.deposit", account, audience, data);
        }
        draft.finish(&mut changes);
        match cursor.version {
            0 => changes.insert(&cursor.value),
            version => changes.replace(version, &cursor.value),
        };
        Ok(Draft::new(changes, deposits.len() as u64))
    }
}

#[async_trait]
impl Trigger for DepositWatcher {
    fn name(&self) -> &'static str {
        "watch_deposits"
    }

    async fn fire(&self) -> Result<TriggerReport> {
        let mut report = TriggerReport::default();
        let domains: Vec<DomainId> = self.domains.domains().cloned().collect();
        for domain in domains {
            report.examined += 1;
            if let Err(error) = self.tend(&domain).await {
                tracing::warn!(%domain, error = crate::error::chain(&error), "open transactions could not be looked after");
            }
            match self.book(&domain).await {
                Ok(booked) => report.changed += booked,
                Err(error) => {
                    report.failed += 1;
                    tracing::warn!(%domain, error = crate::error::chain(&error), "deposits could not be booked");
                }
            }
        }
        Ok(report)
    }
}
