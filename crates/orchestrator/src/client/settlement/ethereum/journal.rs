//! The journal in the database: reads and writes [`ChainTransaction`]s, and hands out nonces. A nonce is taken by the very commit
//! that journals the signed transaction, guarded by the version of the signer's document: replicas that sign with one key never
//! use a nonce twice, and no crash leaves a nonce taken without a transaction for it.

use std::sync::Arc;

use super::node::{not_now, unavailable};
use crate::core::{
    client::database::{Changeset, Committer, DatabaseError, Filter, Reader, ReaderExt as _, Scalar, Stored},
    madara::{
        settlement::SettlementError,
        transaction::{ChainSigner, ChainTransaction, TransactionState},
    },
};

type Result<T> = std::result::Result<T, SettlementError>;

/// How often a nonce is asked for when others are always faster.
const TRIES: usize = 100;

/// The transactions of one signer.
#[derive(Clone)]
pub struct Journal {
    reader: Arc<dyn Reader>,
    committer: Arc<dyn Committer>,
    signer: String,
}

/// What happened to a change.
#[derive(Debug)]
pub enum Saved {
    /// It is written, and has this version now.
    Yes(u64),
    /// Somebody else changed the transaction meanwhile: read again.
    Changed,
}

impl Journal {
    /// The journal of a signer, `<chain id>/<address>`.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>, committer: Arc<dyn Committer>, signer: String) -> Self {
        Self { reader, committer, signer }
    }

    /// Whose journal it is.
    #[must_use]
    pub fn signer(&self) -> &str {
        &self.signer
    }

    /// The transaction under a key.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`] when the database does not answer, as everywhere here.
    pub async fn load(&self, key: &str) -> Result<Option<Stored<ChainTransaction>>> {
        self.reader.load(key).await.map_err(unavailable)
    }

    /// All that may still change, by nonce.
    ///
    /// # Errors
    /// As [`Journal::load`].
    pub async fn open(&self) -> Result<Vec<Stored<ChainTransaction>>> {
        let states = TransactionState::OPEN.map(Scalar::from).to_vec();
        let open = Filter::In("state.kind".to_owned(), states);
        let filter = Filter::And(vec![open, Filter::eq("signer", self.signer.as_str())]);
        let mut found: Vec<Stored<ChainTransaction>> =
            self.reader.list_all(filter).await.map_err(unavailable)?;
        found.sort_by_key(|transaction| transaction.value.nonce);
        Ok(found)
    }

    /// The next nonce, once the first was handed out.
    ///
    /// # Errors
    /// As [`Journal::load`].
    pub async fn next(&self) -> Result<Option<u64>> {
        let id = ChainSigner::id_of(&self.signer);
        let found: Option<Stored<ChainSigner>> = self.reader.load(&id).await.map_err(unavailable)?;
        Ok(found.map(|signer| signer.value.next))
    }

    /// Takes the next nonce, at least `least`, and journals what `make` signs with it, in one commit. `replaced` is the entry of
    /// that key that it takes the place of. When the key has got another entry meanwhile, that one is returned and nothing
    /// changed.
    ///
    /// `make` may take its time, such as for a key elsewhere. Whoever commits meanwhile is not overwritten: then `make` is asked
    /// for a later nonce, and what it signed first is thrown away, unheard of by any node. When `make` fails, no nonce is taken.
    ///
    /// # Errors
    /// As [`Journal::load`], and what `make` says.
    pub async fn reserve<Made>(
        &self,
        least: u64,
        replaced: Option<u64>,
        make: impl Fn(u64) -> Made,
    ) -> Result<Stored<ChainTransaction>>
    where
        Made: Future<Output = Result<ChainTransaction>>,
    {
        for _ in 0..TRIES {
            let id = ChainSigner::id_of(&self.signer);
            let found: Option<Stored<ChainSigner>> = self.reader.load(&id).await.map_err(unavailable)?;
            let nonce = found.as_ref().map_or(least, |signer| signer.value.next.max(least));
            let transaction = make(nonce).await?;
            let signer = ChainSigner { signer: self.signer.clone(), next: nonce + 1 };
            let mut changes = Changeset::new();
            match found {
                Some(found) => changes.replace(found.version, &signer),
                None => changes.insert(&signer),
            };
            match replaced {
                Some(version) => changes.replace(version, &transaction),
                None => changes.insert(&transaction),
            };
            match self.committer.commit(changes).await {
                Ok(()) => {
                    let version = replaced.map_or(1, |version| version + 1);
                    return Ok(Stored { version, value: transaction });
                }
                Err(DatabaseError::Conflict { .. } | DatabaseError::AlreadyExists { .. }) => {
                    let there = self.load(&transaction.key).await?;
                    if let Some(there) = there.filter(|there| replaced != Some(there.version)) {
                        return Ok(there);
                    }
                }
                Err(error) => return Err(unavailable(error)),
            }
        }
        Err(not_now("the nonces are in demand"))
    }

    /// Journals a transaction whose nonce is none of those that are handed out; `None` when its key is taken.
    ///
    /// # Errors
    /// As [`Journal::load`].
    pub async fn put(&self, transaction: &ChainTransaction) -> Result<Option<Stored<ChainTransaction>>> {
        let mut changes = Changeset::new();
        changes.insert(transaction);
        match self.committer.commit(changes).await {
            Ok(()) => Ok(Some(Stored { version: 1, value: transaction.clone() })),
            Err(DatabaseError::AlreadyExists { .. }) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Writes a transaction that was read at a version.
    ///
    /// # Errors
    /// As [`Journal::load`].
    pub async fn save(&self, version: u64, transaction: &ChainTransaction) -> Result<Saved> {
        let mut changes = Changeset::new();
        changes.replace(version, transaction);
        match self.committer.commit(changes).await {
            Ok(()) => Ok(Saved::Yes(version + 1)),
            Err(DatabaseError::Conflict { .. }) => Ok(Saved::Changed),
            Err(error) => Err(unavailable(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use parking_lot::Mutex;

    use super::*;
    use crate::{
        client::db::memory::MemoryDatabase,
        core::market::{block::Hash32, quantity::Timestamp},
    };

    fn signed(key: &str, nonce: u64) -> ChainTransaction {
        ChainTransaction {
            key: key.to_owned(),
            signer: "1/0x0".to_owned(),
            nonce,
            method: String::new(),
            asked: Hash32::default(),
            blobs: Vec::new(),
            created_at: Timestamp(1),
            changed_at: Timestamp(1),
            attempts: Vec::new(),
            state: TransactionState::Prepared,
            unwanted: false,
        }
    }

    fn journal(database: &Arc<MemoryDatabase>) -> Journal {
        Journal::new(database.clone(), database.clone(), "1/0x0".to_owned())
    }

    #[tokio::test]
    async fn who_signs_slowly_signs_again_with_the_next_nonce() {
        let database = MemoryDatabase::with_schema();
        let (slow, fast) = (&journal(&database), &journal(&database));
        let (nonces, first) = (&Mutex::new(Vec::new()), &AtomicBool::new(true));
        let make = |nonce| async move {
            nonces.lock().push(nonce);
            // While this one's key thinks, another replica takes the nonce.
            if first.swap(false, Ordering::Relaxed) {
                fast.reserve(7, None, |nonce| async move { Ok(signed("fast", nonce)) }).await?;
            }
            Ok(signed("slow", nonce))
        };
        assert_eq!(slow.reserve(7, None, make).await.unwrap().value.nonce, 8);
        assert_eq!(*nonces.lock(), [7, 8]);
        assert_eq!(slow.load("fast").await.unwrap().unwrap().value.nonce, 7);
        // Of one key there is one transaction, the one that was journalled first.
        let again = slow.reserve(7, None, |nonce| async move { Ok(signed("fast", nonce)) }).await;
        assert_eq!(again.unwrap().value.nonce, 7);
        assert_eq!(slow.next().await.unwrap(), Some(9));
    }

    #[tokio::test]
    async fn a_key_that_does_not_sign_takes_no_nonce() {
        let database = MemoryDatabase::with_schema();
        let journal = journal(&database);
        let silent = journal.reserve(7, None, |_| async move { Err(not_now("no answer")) }).await;
        assert!(silent.unwrap_err().retryable());
        assert_eq!((journal.next().await.unwrap(), journal.open().await.unwrap().len()), (None, 0));
    }
}
