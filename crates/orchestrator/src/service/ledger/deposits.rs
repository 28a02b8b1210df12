//! The deposit watcher: what the chain has confirmed becomes a transfer, once, in the order of the chain's indexes.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{LedgerDraft, Posting};
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
}

impl DepositWatcher {
    /// A watcher over these ports.
    #[must_use]
    pub const fn new(work: Work, domains: SettlementDomains) -> Self {
        Self { work, domains }
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

    async fn cursor(&self, domain: &DomainId) -> Result<Stored<DepositCursor>> {
        let found = self.work.reader.load::<DepositCursor>(&DepositCursor::id_of(domain)).await?;
        Ok(found.unwrap_or_else(|| Stored {
            version: 0,
            value: DepositCursor { domain: domain.clone(), booked: 0, total: Amount::ZERO },
        }))
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
            draft
                .post(Posting {
                    kind: TransferKind::Deposit,
                    debit: AccountKey::External,
                    credit: deposit.account,
                    amount: deposit.amount,
                    idempotency_key: booking_key(deposit.index),
                    subject: booking_key(deposit.index),
                })
                .await?;
            cursor.value.booked = deposit.index;
            cursor.value.total =
                cursor.value.total.checked_add(deposit.amount).ok_or_else(super::overflow)?;
            let data = serde_json::json!({ "index": deposit.index, "amount": deposit.amount });
            let audience = match deposit.account {
                AccountKey::Consumer(id) => Audience::Tenants(vec![id.to_string()]),
                AccountKey::Provider(id) => Audience::Tenants(vec![id.to_string()]),
                _ => Audience::Operators,
            };
            outbox::event(&mut changes, ids, "account.deposit", deposit.account, audience, data);
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
