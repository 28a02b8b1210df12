//! Sends transactions so that each key happens once, whatever falls over: the signed bytes are journalled before a node hears of
//! them, every form that was ever signed is remembered, and what is not mined is sent again, dearer up to a cap. How one transaction
//! gets on is in [`super::advance`]; here is who asks for it.
//!
//! **Blobs** are not journalled: they can be made again from the block's records. While a transaction is open this process keeps
//! them in memory. After a restart they are gone; as long as a node has the transaction, nothing needs them. When no node has it any
//! more, its status is [`Status::Needs`], and the next [`Sender::send`] under its key, which brings them again, sends the very bytes
//! that are in the journal.

use std::{collections::BTreeMap, sync::Arc};

use alloy::{
    eips::{BlockId, eip7594::BlobTransactionSidecarEip7594},
    primitives::{Address, B256, Bytes},
    signers::local::PrivateKeySigner,
};
use parking_lot::Mutex;
use sha3::{Digest, Keccak256};

use super::{
    abi,
    fees::{Caps, Fees},
    journal::Journal,
    node::{Finality, Node, request},
    signer::{Call, Policy, PolicySigner},
};
use crate::client::db::memory::MemoryDatabase;
use crate::core::{
    client::{
        clock::Clock,
        database::{Committer, Reader, Stored},
    },
    madara::{
        settlement::SettlementError,
        transaction::{Attempt, ChainTransaction, TransactionState},
    },
    market::{block::Hash32, money::Amount, quantity::Micros},
};

pub(super) type Result<T> = std::result::Result<T, SettlementError>;
pub(super) type Sidecar = Arc<BlobTransactionSidecarEip7594>;

/// How the sender behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderRules {
    /// When a transaction is done.
    pub finality: Finality,
    /// How long the next transaction in line may wait before more is offered for it.
    pub bump_after: Micros,
}

/// How far a transaction is, for whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Not mined yet; the sender sees to it.
    Pending,
    /// In this block, which may still go.
    Included(u64),
    /// In this block for good.
    Final(u64),
    /// Executed without effect, for good.
    Rejected(String),
    /// Given up, and its nonce used up.
    Abandoned,
    /// Not mined, and the caps allow no higher fees: a person should look. It is not lost, and goes on by itself when the
    /// market falls or the caps rise.
    Paused(String),
    /// No node has it, and its blobs are not here: whoever asked for it must ask again with them.
    Needs,
}

/// How the open transactions are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SenderReport {
    /// How many may still change.
    pub open: usize,
    /// Which are paused, and why.
    pub paused: Vec<(String, String)>,
    /// Which can't go on without their blobs.
    pub needs: Vec<String>,
}

/// Sends the transactions of one signer to one contract.
pub struct Sender {
    pub(super) node: Node,
    pub(super) signer: PolicySigner,
    pub(super) journal: Journal,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rules: SenderRules,
    sidecars: Mutex<BTreeMap<String, Sidecar>>,
}

impl Sender {
    /// A sender over a node and a journal; the chain must be the one that the signer's policy names.
    ///
    /// # Errors
    /// [`SettlementError::Refused`] for another chain, [`SettlementError::Unavailable`] when the node can't say which.
    pub async fn connect(
        node: Node,
        signer: PolicySigner,
        (reader, committer): (Arc<dyn Reader>, Arc<dyn Committer>),
        clock: Arc<dyn Clock>,
        rules: SenderRules,
    ) -> Result<Self> {
        let (chain, wanted) = (node.chain_id().await?, signer.policy().chain);
        if chain != wanted {
            return Err(SettlementError::Refused(format!("the node is on chain {chain}, not on {wanted}")));
        }
        let name = format!("{chain}/{:#x}", signer.address());
        let journal = Journal::new(reader, committer, name);
        Ok(Self { node, signer, journal, clock, rules, sidecars: Mutex::default() })
    }

    /// One that sends nothing, for whoever only looks: its policy allows no function, and its key is nobody's.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`] when the node can't say which chain it is on.
    pub async fn watching(
        node: Node,
        contract: Address,
        finality: Finality,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let chain = node.chain_id().await?;
        let caps = Caps { gas: 0, blob: 0 };
        let signer = PolicySigner::new(
            PrivateKeySigner::random(),
            Policy { chain, contract, methods: &[], gas: 0, caps },
        );
        let database = MemoryDatabase::with_schema();
        let rules = SenderRules { finality, bump_after: Micros::from_secs(60) };
        Self::connect(node, signer, (database.clone(), database), clock, rules).await
    }

    /// The node that it sends to.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// The contract that it calls.
    #[must_use]
    pub fn contract(&self) -> Address {
        self.signer.policy().contract
    }

    /// Who signs.
    #[must_use]
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// The most gas that one transaction may take.
    #[must_use]
    pub fn most_gas(&self) -> u64 {
        self.signer.policy().gas
    }

    /// The id of the chain.
    #[must_use]
    pub fn chain(&self) -> u64 {
        self.signer.policy().chain
    }

    /// When something is there for good.
    #[must_use]
    pub const fn finality(&self) -> Finality {
        self.rules.finality
    }

    /// The next nonce.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`].
    pub async fn nonce(&self) -> Result<u64> {
        let pending = self.node.count(self.signer.address(), BlockId::pending()).await?;
        Ok(self.journal.next().await?.unwrap_or_default().max(pending))
    }

    /// Calls the contract once for a key, with blobs if there are some, and says how far it is. The same key again only looks after
    /// what it did the first time; one that failed or was given up stays so.
    ///
    /// # Errors
    /// [`SettlementError::Refused`] when the contract or the policy refuses the call, or the key was used for another: then
    /// nothing was signed. [`SettlementError::Unavailable`] when a node or the database does not answer, or the contract refuses what
    /// it may take later: ask again with the same key.
    pub async fn send(&self, key: &str, input: Bytes, sidecar: Option<Sidecar>) -> Result<Status> {
        self.send_within(key, input, sidecar, None).await
    }

    /// As [`Sender::send`], with a limit on gas instead of an estimate: for calls that swallow failures, of which an estimate
    /// finds the least gas at which everything fails.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send_with_gas(&self, key: &str, input: Bytes, gas: u64) -> Result<Status> {
        self.send_within(key, input, None, Some(gas)).await
    }

    async fn send_within(
        &self,
        key: &str,
        input: Bytes,
        sidecar: Option<Sidecar>,
        gas: Option<u64>,
    ) -> Result<Status> {
        let blobs: Vec<B256> = sidecar.iter().flat_map(|sidecar| sidecar.versioned_hashes()).collect();
        let asked = self.asked(&input, &blobs);
        let found = self.journal.load(key).await?;
        let other = |found: &Stored<ChainTransaction>| found.value.asked != asked;
        let used = || SettlementError::Refused("the key was used for something else".to_owned());
        if found.as_ref().is_some_and(other) {
            return Err(used());
        }
        if let Some(sidecar) = sidecar {
            self.sidecars.lock().insert(key.to_owned(), sidecar);
        }
        let found = match found {
            Some(found) => found,
            None => self.prepare(key, asked, input, blobs, gas).await.inspect_err(|error| {
                // Nothing is journalled that would need them.
                if !error.retryable() {
                    self.forget(key);
                }
            })?,
        };
        // Another replica may have been faster with something else.
        if other(&found) {
            return Err(used());
        }
        self.advance(found).await
    }

    /// How far the transaction of a key is; looks after it, and after those before it.
    ///
    /// # Errors
    /// [`SettlementError::NoTransaction`], [`SettlementError::Unavailable`].
    pub async fn status(&self, key: &str) -> Result<Status> {
        let found = self.journal.load(key).await?;
        let found = found.ok_or_else(|| SettlementError::NoTransaction(key.to_owned()))?;
        if !found.value.state.is_terminal() {
            let mined = self.node.count(self.signer.address(), BlockId::latest()).await?;
            if mined < found.value.nonce {
                self.tend_below(found.value.nonce, mined).await?;
            }
        }
        self.advance(found).await
    }

    /// Every hash that the transaction of a key may be mined under.
    ///
    /// # Errors
    /// As [`Sender::status`].
    pub async fn hashes(&self, key: &str) -> Result<Vec<Hash32>> {
        let found = self.journal.load(key).await?;
        let found = found.ok_or_else(|| SettlementError::NoTransaction(key.to_owned()))?;
        Ok(found.value.attempts.iter().map(|attempt| attempt.hash).collect())
    }

    /// Says that nobody wants the call of a key any more. If it is not mined yet, an empty transaction tries to take its place; the
    /// nonce is used up either way. (A node that still has a transaction with blobs takes none without in its place: then the
    /// call may happen all the same.)
    ///
    /// # Errors
    /// As [`Sender::status`].
    pub async fn abandon(&self, key: &str) -> Result<Status> {
        let found = self.journal.load(key).await?;
        let mut found = found.ok_or_else(|| SettlementError::NoTransaction(key.to_owned()))?;
        if !found.value.state.is_terminal() && !found.value.unwanted {
            found.value.unwanted = true;
            if let super::journal::Saved::Yes(version) =
                self.journal.save(found.version, &found.value).await?
            {
                found.version = version;
            }
        }
        self.advance(found).await
    }

    /// Looks after every open transaction, in the order of their nonces: to be called again and again by one of the daemon's
    /// background tasks.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`].
    pub async fn tend(&self) -> Result<SenderReport> {
        let mined = self.node.count(self.signer.address(), BlockId::latest()).await?;
        self.tend_below(u64::MAX, mined).await
    }

    async fn tend_below(&self, end: u64, mined: u64) -> Result<SenderReport> {
        let open: Vec<_> =
            self.journal.open().await?.into_iter().filter(|found| found.value.nonce < end).collect();
        let mut report = SenderReport { open: open.len(), ..SenderReport::default() };
        let mut expected = mined;
        for found in open {
            // Nonces that nobody knows anything of, such as after a journal was restored: what comes behind them would wait for good.
            for gap in expected..found.value.nonce {
                self.fill(gap).await?;
            }
            expected = expected.max(found.value.nonce + 1);
            let key = found.value.key.clone();
            match self.advance(found).await? {
                Status::Paused(reason) => report.paused.push((key, reason)),
                Status::Needs => report.needs.push(key),
                _ => {}
            }
        }
        if end < u64::MAX {
            for gap in expected..end {
                self.fill(gap).await?;
            }
        }
        Ok(report)
    }

    /// Uses a nonce up that is not in the journal.
    async fn fill(&self, nonce: u64) -> Result<()> {
        let key = format!("empty/{}/{nonce}", self.journal.signer());
        if self.journal.load(&key).await?.is_some() {
            return Ok(());
        }
        let fees = self.node.fees(false).await?.capped(self.signer.policy().caps);
        let attempt = self.sign_empty(nonce, fees).await?;
        let transaction = self.entry(&key, Hash32::default(), Vec::new(), attempt);
        tracing::warn!(nonce, "a nonce is missing from the journal: an empty transaction uses it up");
        let made = self.journal.put(&ChainTransaction { unwanted: true, ..transaction }).await?;
        if let Some(made) = made {
            self.advance(made).await?;
        }
        Ok(())
    }

    fn asked(&self, input: &[u8], blobs: &[B256]) -> Hash32 {
        let mut hasher = Keccak256::new();
        hasher.update(self.contract().as_slice());
        hasher.update((blobs.len() as u64).to_be_bytes());
        blobs.iter().for_each(|hash| hasher.update(hash.as_slice()));
        hasher.update(input);
        Hash32(hasher.finalize().into())
    }

    /// Asks what the call takes, takes a nonce, signs and journals. No node has it yet.
    async fn prepare(
        &self,
        key: &str,
        asked: Hash32,
        input: Bytes,
        blobs: Vec<B256>,
        gas: Option<u64>,
    ) -> Result<Stored<ChainTransaction>> {
        let mut question = request(Some(self.signer.address()), self.contract(), input.clone());
        if !blobs.is_empty() {
            question.blob_versioned_hashes = Some(blobs.clone());
        }
        let fees = self.node.fees(!blobs.is_empty()).await?.capped(self.signer.policy().caps);
        question.max_fee_per_blob_gas = fees.blob;
        let gas = match gas {
            Some(gas) => gas,
            None => {
                let estimate = self.node.estimate(question).await?;
                // States differ by the time that it is mined.
                estimate.saturating_add(estimate / 4).min(self.signer.policy().gas).max(estimate)
            }
        };
        let pending = self.node.count(self.signer.address(), BlockId::pending()).await?;
        let hashes: Vec<Hash32> = blobs.iter().map(|hash| Hash32(hash.0)).collect();
        let call = Call { input, gas, blobs };
        let (call, hashes) = (&call, &hashes);
        let make = |nonce| async move {
            let attempt = self.sign(nonce, call, fees).await?;
            let method = abi::method(&call.input).unwrap_or_default();
            let entry = self.entry(key, asked, hashes.clone(), attempt);
            Ok(ChainTransaction { method: method.to_owned(), ..entry })
        };
        self.journal.reserve(pending, None, make).await
    }

    fn entry(&self, key: &str, asked: Hash32, blobs: Vec<Hash32>, attempt: Attempt) -> ChainTransaction {
        ChainTransaction {
            key: key.to_owned(),
            signer: self.journal.signer().to_owned(),
            nonce: attempt.nonce,
            method: String::new(),
            asked,
            blobs,
            created_at: attempt.at,
            changed_at: attempt.at,
            attempts: vec![attempt],
            state: TransactionState::Prepared,
            unwanted: false,
        }
    }

    pub(super) async fn sign(&self, nonce: u64, call: &Call, fees: Fees) -> Result<Attempt> {
        Ok(self.attempt(nonce, self.signer.sign(nonce, call, fees).await?, fees, false))
    }

    pub(super) async fn sign_empty(&self, nonce: u64, fees: Fees) -> Result<Attempt> {
        let fees = Fees { blob: None, ..fees };
        Ok(self.attempt(nonce, self.signer.sign_empty(nonce, fees).await?, fees, true))
    }

    fn attempt(&self, nonce: u64, signed: super::signer::SignedCall, fees: Fees, empty: bool) -> Attempt {
        Attempt {
            nonce,
            hash: signed.hash,
            raw: hex::encode(signed.raw),
            gas_fee: Amount(fees.gas),
            tip: Amount(fees.tip),
            blob_fee: fees.blob.map(Amount),
            empty,
            at: self.clock.now(),
        }
    }

    /// The blobs of a key, while this process has them.
    pub(super) fn sidecar(&self, key: &str) -> Option<Sidecar> {
        self.sidecars.lock().get(key).cloned()
    }

    pub(super) fn forget(&self, key: &str) {
        self.sidecars.lock().remove(key);
    }
}
