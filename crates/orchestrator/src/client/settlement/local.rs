//! The local settlement layer: the contract's rules over a small SQLite file of its own, or over memory. Every call that
//! changes something is on the disk before it is answered. Several processes may share one file: each follows the log of
//! the others before it answers, and changes under the file's write lock.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::TransactionBehavior;

use super::chain::{Chain, LocalRules, Row};
use crate::core::{
    client::clock::Clock,
    madara::{
        attestation::EvidenceOracles,
        payout::PayoutClient,
        settlement::{
            BlockProof, CallToSign, Deposit, Holdings, SettledBlock, SettlementClient, SettlementError,
            TransactionStatus, WithdrawalClaim,
        },
    },
    market::{
        account::AccountKey, address::Address, block::BlockHeader, money::Amount, quantity::Timestamp,
        terms::DomainId,
    },
};

type Result<T> = std::result::Result<T, SettlementError>;

/// How long a call waits for another process that writes.
const BUSY: Duration = Duration::from_secs(10);

struct Inner {
    chain: Chain,
    /// The last row of the log that is in `chain`.
    last: i64,
    /// `None`: in memory.
    store: Option<rusqlite::Connection>,
}

/// The layer.
#[derive(Clone)]
pub struct LocalSettlement {
    domain: DomainId,
    rules: LocalRules,
    clock: Arc<dyn Clock>,
    inner: Arc<Mutex<Inner>>,
    durable: bool,
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> SettlementError {
    SettlementError::Unavailable(Box::new(error))
}

impl LocalSettlement {
    /// Opens the layer over a file, which is made when it is missing.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`] when the file can't be opened, or holds something else.
    pub fn open(path: &Path, domain: DomainId, rules: LocalRules, clock: Arc<dyn Clock>) -> Result<Self> {
        let store = rusqlite::Connection::open(path).map_err(unavailable)?;
        store.busy_timeout(BUSY).map_err(unavailable)?;
        store
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 CREATE TABLE IF NOT EXISTS log (at INTEGER PRIMARY KEY AUTOINCREMENT, row TEXT NOT NULL);",
            )
            .map_err(unavailable)?;
        let (mut chain, mut last) = (Chain::default(), 0);
        follow(&store, &mut chain, &mut last)?;
        let inner = Arc::new(Mutex::new(Inner { chain, last, store: Some(store) }));
        Ok(Self { domain, rules, clock, inner, durable: true })
    }

    /// The layer of a file that nobody writes to, such as a copy: whatever would change it is refused.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`] when the file can't be opened, or holds something else.
    pub fn look_at(path: &Path, domain: DomainId, clock: Arc<dyn Clock>) -> Result<Self> {
        let store = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(unavailable)?;
        let (mut chain, mut last) = (Chain::default(), 0);
        follow(&store, &mut chain, &mut last)?;
        let inner = Arc::new(Mutex::new(Inner { chain, last, store: Some(store) }));
        Ok(Self { domain, rules: LocalRules::default(), clock, inner, durable: true })
    }

    /// A layer that forgets everything when it is dropped.
    #[must_use]
    pub fn in_memory(domain: DomainId, rules: LocalRules, clock: Arc<dyn Clock>) -> Self {
        let inner = Arc::new(Mutex::new(Inner { chain: Chain::default(), last: 0, store: None }));
        Self { domain, rules, clock, inner, durable: false }
    }

    /// Undoes a settled block that is not final, and all that follow it, as an upheld challenge does on a chain.
    ///
    /// # Errors
    /// [`SettlementError::Refused`] for unknown and for final blocks.
    pub async fn challenge(&self, number: u64, reason: &str) -> Result<()> {
        let (rules, reason) = (self.rules, reason.to_owned());
        self.change(move |chain, now| Ok(((), chain.challenge(&rules, now, number, &reason)?))).await
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Chain, Timestamp) -> T + Send + 'static,
    ) -> Result<T> {
        let (inner, now) = (Arc::clone(&self.inner), self.clock.now());
        if !self.durable {
            return Ok(look(&inner.lock().chain, now));
        }
        // The lock may be held by a call that waits for the disk.
        tokio::task::spawn_blocking(move || {
            let Inner { chain, last, store } = &mut *inner.lock();
            if let Some(store) = store {
                follow(store, chain, last)?;
            }
            Ok(look(chain, now))
        })
        .await
        .map_err(unavailable)?
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Chain, Timestamp) -> Result<(T, Vec<Row>)> + Send + 'static,
    ) -> Result<T> {
        let (inner, now) = (Arc::clone(&self.inner), self.clock.now());
        let run = move || {
            let Inner { chain, last, store } = &mut *inner.lock();
            let Some(store) = store else {
                let (answer, rows) = change(chain, now)?;
                rows.into_iter().for_each(|row| chain.put(row));
                return Ok(answer);
            };
            let locked =
                store.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unavailable)?;
            follow(&locked, chain, last)?;
            let (answer, rows) = change(chain, now)?;
            let end = append(locked, &rows)?.unwrap_or(*last);
            rows.into_iter().for_each(|row| chain.put(row));
            *last = end;
            Ok(answer)
        };
        // In memory nothing waits for a disk, and a run that is to be repeated stays on its own thread.
        if !self.durable {
            return run();
        }
        tokio::task::spawn_blocking(run).await.map_err(unavailable)?
    }
}

/// Replays what the log has after `last`, as a node follows its chain.
fn follow(store: &rusqlite::Connection, chain: &mut Chain, last: &mut i64) -> Result<()> {
    let mut statement =
        store.prepare_cached("SELECT at, row FROM log WHERE at > ?1 ORDER BY at").map_err(unavailable)?;
    let rows = statement
        .query_map([*last], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
        .map_err(unavailable)?;
    for row in rows {
        let (at, row) = row.map_err(unavailable)?;
        chain.put(serde_json::from_str::<Row>(&row).map_err(unavailable)?);
        *last = at;
    }
    Ok(())
}

/// Writes the rows of one call, all or none, and waits for the disk; answers the place of the last one.
fn append(transaction: rusqlite::Transaction<'_>, rows: &[Row]) -> Result<Option<i64>> {
    for row in rows {
        let text = serde_json::to_string(row).map_err(unavailable)?;
        transaction.execute("INSERT INTO log (row) VALUES (?1)", [text]).map_err(unavailable)?;
    }
    let last = (!rows.is_empty()).then(|| transaction.last_insert_rowid());
    transaction.commit().map_err(unavailable)?;
    Ok(last)
}

#[async_trait]
impl SettlementClient for LocalSettlement {
    fn domain(&self) -> &DomainId {
        &self.domain
    }

    fn treasury(&self) -> Option<Address> {
        None
    }

    fn oracles(&self) -> Option<&dyn EvidenceOracles> {
        None
    }

    fn payouts(&self) -> Option<&dyn PayoutClient> {
        None
    }

    async fn holdings(&self) -> Result<Holdings> {
        self.look(|chain, _| chain.holdings()).await?
    }

    async fn register_proof(
        &self,
        key: &str,
        header: &BlockHeader,
        proof: &BlockProof,
        da_reference: &str,
    ) -> Result<String> {
        let (rules, domain) = (self.rules, self.domain.clone());
        let (key, header, proof, data) =
            (key.to_owned(), header.clone(), proof.clone(), da_reference.to_owned());
        self.change(move |chain, now| chain.register((&rules, &domain, now), &key, &header, &proof, &data))
            .await
    }

    async fn update_state(&self, key: &str, header: &BlockHeader) -> Result<String> {
        let (key, header) = (key.to_owned(), header.clone());
        self.change(move |chain, now| chain.update(now, &key, &header)).await
    }

    async fn transaction(&self, id: &str) -> Result<TransactionStatus> {
        let (rules, id) = (self.rules, id.to_owned());
        self.look(move |chain, now| chain.status(&rules, now, &id)).await?
    }

    async fn last_settled(&self) -> Result<SettledBlock> {
        let (rules, domain) = (self.rules, self.domain.clone());
        self.look(move |chain, now| chain.last_settled(&rules, &domain, now)).await
    }

    async fn block(&self, number: u64) -> Result<Option<(BlockHeader, String)>> {
        self.look(move |chain, _| chain.block(number)).await
    }

    async fn deposits(&self, after: u64, limit: usize) -> Result<Vec<Deposit>> {
        let rules = self.rules;
        self.look(move |chain, now| chain.deposits(&rules, now, after, limit)).await
    }

    fn deposit_calls(&self, _owner: Address, _account: AccountKey, _amount: Amount) -> Vec<CallToSign> {
        Vec::new()
    }

    async fn deposit(&self, key: &str, account: AccountKey, amount: Amount) -> Result<Deposit> {
        let (rules, key) = (self.rules, key.to_owned());
        self.change(move |chain, now| chain.deposit(&rules, now, &key, account, amount)).await
    }

    async fn withdraw(&self, claim: &WithdrawalClaim) -> Result<Amount> {
        let (rules, domain, claim) = (self.rules, self.domain.clone(), claim.clone());
        self.change(move |chain, now| chain.withdraw(&rules, &domain, now, &claim)).await
    }

    async fn tend(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn nonce(&self) -> Result<u64> {
        self.look(|chain, _| chain.nonce()).await
    }
}
