//! The journal of chain transactions: what this daemon signed, under which key and nonce, and what became of it. A transaction
//! is written here, signed, before any node hears of it; so whatever a node may have is known after any crash, and a key that has
//! an entry never gets a second nonce while the first may still take effect.

use serde::{Deserialize, Serialize};

use crate::core::{
    client::{
        database::Entity,
        schema::{self, Collection},
    },
    market::{block::Hash32, money::Amount, quantity::Timestamp},
};

/// One signed form of a transaction. A bump makes another one with the same nonce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The nonce that it was signed with.
    pub nonce: u64,
    /// Its hash.
    pub hash: Hash32,
    /// What was signed, in lower-case hex, with its signature; blobs are not in it.
    pub raw: String,
    /// Most that a unit of gas may cost, in base units of the chain's own coin.
    pub gas_fee: Amount,
    /// Of which so much goes to whoever builds the block.
    pub tip: Amount,
    /// Most that a unit of blob gas may cost.
    pub blob_fee: Option<Amount>,
    /// It calls nothing, and only uses the nonce up.
    pub empty: bool,
    /// When it was signed.
    pub at: Timestamp,
}

/// How far a transaction is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TransactionState {
    /// Signed and written here; a node may or may not know it.
    Prepared,
    /// A node took it.
    Sent,
    /// It is in a block, which may still go.
    Included {
        /// The block's number.
        block: u64,
        /// The block's hash: when another block has the number, the transaction is out again.
        hash: Hash32,
        /// Why it had no effect, when it had none.
        reverted: Option<String>,
    },
    /// It took effect for good; terminal.
    Final {
        /// The block's number.
        block: u64,
        /// The block's hash.
        hash: Hash32,
    },
    /// It was executed without effect, for good; terminal.
    Failed {
        /// Why.
        reason: String,
    },
    /// Nobody wants it any more, and its nonce went to an empty transaction; terminal.
    Abandoned,
}

impl TransactionState {
    /// The names of the states that are not terminal.
    pub const OPEN: [&'static str; 3] = ["prepared", "sent", "included"];

    /// Whether nothing will change it any more.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        match self {
            Self::Prepared | Self::Sent | Self::Included { .. } => false,
            Self::Final { .. } | Self::Failed { .. } | Self::Abandoned => true,
        }
    }
}

/// A transaction of this daemon. Its id is its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainTransaction {
    /// Makes it happen once.
    pub key: String,
    /// Who signs: `<chain id>/<address>`.
    pub signer: String,
    /// Its place among the signer's transactions.
    pub nonce: u64,
    /// The function that it calls; empty when it only uses the nonce up.
    pub method: String,
    /// Hash of what was asked: the same key with another question is refused.
    pub asked: Hash32,
    /// Versioned hashes of the blobs that it carries.
    pub blobs: Vec<Hash32>,
    /// Every form that was ever signed, the newest last. Any of them may be the one that is mined.
    pub attempts: Vec<Attempt>,
    /// How far it is.
    pub state: TransactionState,
    /// Nobody wants it any more; it may still happen.
    pub unwanted: bool,
    /// When it was first signed.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
}

impl Entity for ChainTransaction {
    const NAME: &'static str = "chain_transaction";
    const COLLECTION: Collection = schema::CHAIN_TRANSACTIONS;
    fn document_id(&self) -> String {
        self.key.clone()
    }
}

/// Hands out the nonces of a signer: whoever takes one replaces this document in the same commit that journals the transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainSigner {
    /// `<chain id>/<address>`.
    pub signer: String,
    /// The next nonce.
    pub next: u64,
}

impl ChainSigner {
    /// The id of a signer's document.
    #[must_use]
    pub fn id_of(signer: &str) -> String {
        format!("signer/{signer}")
    }
}

impl Entity for ChainSigner {
    const NAME: &'static str = "chain_signer";
    const COLLECTION: Collection = schema::META;
    fn document_id(&self) -> String {
        Self::id_of(&self.signer)
    }
}
