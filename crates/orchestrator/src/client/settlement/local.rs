//! The local settlement layer: the contract's rules over a small SQLite file of its own, or over memory. Every call that
//! changes something is on the disk before it is answered.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::chain::{Chain, LocalRules, Row};
use crate::core::{
    client::clock::Clock,
    madara::settlement::{
        BlockProof, Deposit, SettledBlock, SettlementClient, SettlementError, TransactionStatus,
        WithdrawalClaim,
    },
    market::{account::AccountKey, block::BlockHeader, money::Amount, quantity::Timestamp, terms::DomainId},
};

type Result<T> = std::result::Result<T, SettlementError>;

struct Inner {
    chain: Chain,
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
        store
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 CREATE TABLE IF NOT EXISTS log (at INTEGER PRIMARY KEY AUTOINCREMENT, row TEXT NOT NULL);",
            )
            .map_err(unavailable)?;
        let chain = Self::read(&store)?;
        let inner = Arc::new(Mutex::new(Inner { chain, store: Some(store) }));
        Ok(Self { domain, rules, clock, inner, durable: true })
    }

    /// A layer that forgets everything when it is dropped.
    #[must_use]
    pub fn in_memory(domain: DomainId, rules: LocalRules, clock: Arc<dyn Clock>) -> Self {
        let inner = Arc::new(Mutex::new(Inner { chain: Chain::default(), store: None }));
        Self { domain, rules, clock, inner, durable: false }
    }

    /// Replays the log, as a node replays its chain.
    fn read(store: &rusqlite::Connection) -> Result<Chain> {
        let mut chain = Chain::default();
        let mut statement = store.prepare("SELECT row FROM log ORDER BY at").map_err(unavailable)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(unavailable)?;
        for row in rows {
            chain.put(serde_json::from_str::<Row>(&row.map_err(unavailable)?).map_err(unavailable)?);
        }
        Ok(chain)
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
        tokio::task::spawn_blocking(move || look(&inner.lock().chain, now)).await.map_err(unavailable)
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Chain, Timestamp) -> Result<(T, Vec<Row>)> + Send + 'static,
    ) -> Result<T> {
        let (inner, now) = (Arc::clone(&self.inner), self.clock.now());
        let run = move || {
            let inner = &mut *inner.lock();
            let (answer, rows) = change(&inner.chain, now)?;
            if let Some(store) = &mut inner.store {
                append(store, &rows)?;
            }
            for row in rows {
                inner.chain.put(row);
            }
            Ok(answer)
        };
        // In memory nothing waits for a disk, and a run that is to be repeated stays on its own thread.
        if !self.durable {
            return run();
        }
        tokio::task::spawn_blocking(run).await.map_err(unavailable)?
    }
}

/// Writes the rows of one call, all or none, and waits for the disk.
fn append(store: &mut rusqlite::Connection, rows: &[Row]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let transaction = store.transaction().map_err(unavailable)?;
    for row in rows {
        let text = serde_json::to_string(row).map_err(unavailable)?;
        transaction.execute("INSERT INTO log (row) VALUES (?1)", [text]).map_err(unavailable)?;
    }
    transaction.commit().map_err(unavailable)
}

#[async_trait]
impl SettlementClient for LocalSettlement {
    fn domain(&self) -> &DomainId {
        &self.domain
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

    async fn deposit(&self, key: &str, account: AccountKey, amount: Amount) -> Result<Deposit> {
        let (rules, key) = (self.rules, key.to_owned());
        self.change(move |chain, now| chain.deposit(&rules, now, &key, account, amount)).await
    }

    async fn withdraw(&self, claim: &WithdrawalClaim) -> Result<Amount> {
        let (rules, domain, claim) = (self.rules, self.domain.clone(), claim.clone());
        self.change(move |chain, now| chain.withdraw(&rules, &domain, now, &claim)).await
    }

    async fn nonce(&self) -> Result<u64> {
        self.look(|chain, _| chain.nonce()).await
    }
}
