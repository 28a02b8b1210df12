//! The books of a domain added up, held against what its settlement layer has.

use serde::{Deserialize, Serialize};

use super::{AccountService, UnsealedMarker, deposits::DepositCursor};
use crate::{
    core::{
        client::{
            database::{Filter, Query, ReaderExt},
            schema,
        },
        madara::settlement::Holdings,
        market::{
            account::{Account, AccountKey, Transfer},
            money::Amount,
            terms::DomainId,
        },
    },
    error::Result,
    service::work::Call,
};

/// How often an audit adds everything up before it reports a difference.
const LOOKS: u32 = 4;
/// Waiting transfers read at once.
const PAGE: usize = 500;

/// The sum over all accounts of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerAudit {
    /// The domain.
    pub domain: DomainId,
    /// Stored accounts, summed ones included.
    pub accounts: u64,
    /// What is owed to accounts: balances and what was ever released for withdrawal.
    pub liabilities: Amount,
    /// What deposits ever credited.
    pub deposited: Amount,
    /// Whether both are equal: the sum over all accounts is zero.
    pub balanced: bool,
    /// What was ever released for withdrawal; a part of the liabilities.
    pub released: Amount,
    /// What the settlement layer has; `None` when it does not answer.
    pub layer: Option<LayerAudit>,
}

/// What the settlement layer of a domain has, beside what the ledger says. Money that is missing is told apart from money that is
/// only late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerAudit {
    /// What it holds for accounts.
    pub held: Amount,
    /// What it ever paid to owners.
    pub paid: Amount,
    /// What accounts still have to get.
    pub owed: Amount,
    /// Whether it holds at least that.
    pub solvent: bool,
    /// What was released and is not paid: it is on its way, or waits for a block, or was set aside.
    pub lag: Amount,
}

impl LayerAudit {
    /// Of a ledger that was added up before the layer was asked: what came in or was paid in between leaves the layer no poorer
    /// than it should be.
    #[must_use]
    pub fn of(liabilities: Amount, released: Amount, holdings: Holdings) -> Self {
        let Holdings { held, paid } = holdings;
        let owed = liabilities.saturating_sub(paid);
        Self { held, paid, owed, solvent: held >= owed, lag: released.saturating_sub(paid) }
    }
}

impl AccountService {
    /// Adds up all accounts of a domain. The pages that it reads are not one snapshot, so it looks again before it reports a
    /// difference that money on the move explains.
    ///
    /// # Errors
    /// [`crate::error::ErrorCode::Forbidden`] unless an operator calls; database errors.
    pub async fn audit(&self, call: &Call, domain: &DomainId) -> Result<LedgerAudit> {
        call.operators_only("audit the whole ledger")?;
        let mut audit = self.add_up(domain).await?;
        for _ in 1..LOOKS {
            if audit.balanced {
                break;
            }
            audit = self.add_up(domain).await?;
        }
        let holdings = self.domains.get(domain)?.holdings().await;
        let warned = holdings.inspect_err(|error| {
            tracing::warn!(%domain, error = crate::error::chain(error), "the settlement layer was not asked for its holdings");
        });
        audit.layer = warned.ok().map(|holdings| LayerAudit::of(audit.liabilities, audit.released, holdings));
        Ok(audit)
    }

    async fn add_up(&self, domain: &DomainId) -> Result<LedgerAudit> {
        let accounts = self.work.reader.list_all::<Account>(Filter::eq("domain", domain.as_str())).await?;
        let (mut liabilities, mut released) = (Amount::ZERO, Amount::ZERO);
        for stored in accounts.iter().filter(|stored| !stored.value.key.is_summed()) {
            for part in [stored.value.balance, stored.value.withdrawable] {
                liabilities = liabilities.checked_add(part).ok_or_else(super::overflow)?;
            }
            released = released.checked_add(stored.value.withdrawable).ok_or_else(super::overflow)?;
        }
        let fees = self.summed(domain, AccountKey::Fees, usize::MAX).await?.0;
        let deposited = self.summed(domain, AccountKey::External, usize::MAX).await?.0;
        let liabilities = liabilities.checked_add(fees).ok_or_else(super::overflow)?;
        let balanced = liabilities == deposited;
        Ok(LedgerAudit {
            domain: domain.clone(),
            accounts: accounts.len() as u64,
            liabilities,
            deposited,
            balanced,
            released,
            layer: None,
        })
    }

    /// The present sum of a summed account, and whether it is complete. Deposits are summed by their watcher. Fees are
    /// materialised at sealing; of what waits for the next block, at most `limit` items are added.
    pub(super) async fn summed(
        &self,
        domain: &DomainId,
        key: AccountKey,
        limit: usize,
    ) -> Result<(Amount, bool)> {
        let reader = &self.work.reader;
        if key == AccountKey::External {
            let cursor = reader.load::<DepositCursor>(&DepositCursor::id_of(domain)).await?;
            return Ok((cursor.map_or(Amount::ZERO, |cursor| cursor.value.total), true));
        }
        let stored = reader.load::<Account>(&Account::id_of(domain, &key)).await?;
        let mut sum = stored.map_or(Amount::ZERO, |stored| stored.value.balance);
        let (mut after, mut seen) = (None, 0);
        while seen < limit {
            let unsealed = Filter::eq("domain", domain.as_str()).and(Filter::eq("kind", "transfer"));
            let page = PAGE.min(limit - seen);
            let query = Query::new(schema::UNSEALED).filter(unsealed).limit(page).after(after);
            let (markers, next) = reader.list::<UnsealedMarker>(query).await?;
            seen += markers.len();
            let ids: Vec<String> = markers.into_iter().map(|marker| marker.value.id).collect();
            for transfer in reader.list_all::<Transfer>(Filter::Ids(ids)).await? {
                if transfer.value.credit == key {
                    sum = sum.checked_add(transfer.value.amount).ok_or_else(super::overflow)?;
                }
            }
            match next {
                Some(cursor) => after = Some(cursor),
                None => return Ok((sum, true)),
            }
        }
        Ok((sum, false))
    }
}
