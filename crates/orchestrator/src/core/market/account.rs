//! The double-entry ledger's nouns: accounts, transfers and what they are for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    ids::{AllocationId, ConsumerId, DisputeId, ProviderId, TransferId},
    money::Amount,
    quantity::Timestamp,
    terms::DomainId,
};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// Names an account inside one settlement domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccountKey {
    /// The world outside: what came in by deposits is its negative balance.
    External,
    /// Platform fees.
    Fees,
    /// A consumer's spendable money.
    Consumer(ConsumerId),
    /// A provider's earnings.
    Provider(ProviderId),
    /// What a provider stands in with.
    Collateral(ProviderId),
    /// The money of one allocation.
    Escrow(AllocationId),
    /// Money that a dispute holds back.
    Held(DisputeId),
    /// Money that came in on a chain for an owner and a name which are no account of the market: the hash that records
    /// name it by. It is released at once, and its owner takes it back.
    Unclaimed([u8; 30]),
}

impl AccountKey {
    /// Whether the account is never stored as a row that transfers contend for: its balance is the sum of its
    /// transfers, materialised when a block is sealed.
    #[must_use]
    pub const fn is_summed(&self) -> bool {
        matches!(self, Self::External | Self::Fees)
    }
}

impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::External => f.write_str("external"),
            Self::Fees => f.write_str("fees"),
            Self::Consumer(id) => write!(f, "consumer:{id}"),
            Self::Provider(id) => write!(f, "provider:{id}"),
            Self::Collateral(id) => write!(f, "collateral:{id}"),
            Self::Escrow(id) => write!(f, "escrow:{id}"),
            Self::Held(id) => write!(f, "held:{id}"),
            Self::Unclaimed(hash) => write!(f, "unclaimed:{}", hex::encode(hash)),
        }
    }
}

/// Why a text names no account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no account: use `consumer:<id>`, `provider:<id>`, `collateral:<id>`, `escrow:<id>`, `held:<id>`, `unclaimed:<hash>`, `fees` or `external`"
)]
pub struct InvalidAccount(String);

impl FromStr for AccountKey {
    type Err = InvalidAccount;
    fn from_str(text: &str) -> Result<Self, InvalidAccount> {
        let invalid = || InvalidAccount(text.chars().take(80).collect());
        Ok(match text.split_once(':') {
            None if text == "external" => Self::External,
            None if text == "fees" => Self::Fees,
            Some(("consumer", id)) => Self::Consumer(id.parse().map_err(|_| invalid())?),
            Some(("provider", id)) => Self::Provider(id.parse().map_err(|_| invalid())?),
            Some(("collateral", id)) => Self::Collateral(id.parse().map_err(|_| invalid())?),
            Some(("escrow", id)) => Self::Escrow(id.parse().map_err(|_| invalid())?),
            Some(("held", id)) => Self::Held(id.parse().map_err(|_| invalid())?),
            Some(("unclaimed", digits)) => {
                let mut hash = [0; 30];
                hex::decode_to_slice(digits, &mut hash).map_err(|_| invalid())?;
                // One spelling only: an account has one name.
                if hex::encode(hash) != digits {
                    return Err(invalid());
                }
                Self::Unclaimed(hash)
            }
            _ => return Err(invalid()),
        })
    }
}

impl Serialize for AccountKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AccountKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A stored account of one domain. Document id: [`Account::id_of`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its domain.
    pub domain: DomainId,
    /// Its name in the domain.
    pub key: AccountKey,
    /// Money that can be moved inside the ledger.
    pub balance: Amount,
    /// Money ever released for withdrawal, cumulative; what the chain has paid out of it, the chain knows.
    pub withdrawable: Amount,
    /// Transfers that touched it so far; transfers carry the number they got, which gives their causal order.
    pub sequence: u64,
}

impl Account {
    /// The id of the account's document: `<domain>/<key>`.
    #[must_use]
    pub fn id_of(domain: &DomainId, key: &AccountKey) -> String {
        format!("{domain}/{key}")
    }

    /// An account that nothing has touched.
    #[must_use]
    pub const fn empty(domain: DomainId, key: AccountKey) -> Self {
        Self { domain, key, balance: Amount::ZERO, withdrawable: Amount::ZERO, sequence: 0 }
    }
}

/// What a transfer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum TransferKind {
    /// Money came in from the chain: external → consumer or provider.
    Deposit = 1,
    /// A provider posts collateral: provider → collateral.
    CollateralPost = 2,
    /// A provider takes collateral back: collateral → provider.
    CollateralRelease = 3,
    /// A consumer funds an allocation: consumer → escrow.
    Fund = 4,
    /// A period's payment: escrow → provider.
    Payment = 5,
    /// The platform's share: escrow → fees.
    Fee = 6,
    /// An SLA credit out of earnings: provider → consumer.
    Credit = 7,
    /// An SLA credit out of collateral: collateral → consumer.
    Slash = 8,
    /// What is left at the end: escrow → consumer.
    Refund = 9,
    /// Held by a dispute: escrow → held.
    Hold = 10,
    /// A dispute's outcome: held → provider or consumer.
    Release = 11,
    /// Released for withdrawal: the balance shrinks, the cumulative withdrawable of the same account grows.
    Withdraw = 12,
    /// A consumer forfeits a capped deposit, by a dispute only: escrow → provider.
    Forfeit = 13,
    /// What a unit's terms cost beyond the period's payment after repeated breaches: collateral → consumer.
    Penalty = 14,
}

/// A movement of money between two accounts of one domain; never changed once committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Its id.
    pub id: TransferId,
    /// Its domain.
    pub domain: DomainId,
    /// What it is for.
    pub kind: TransferKind,
    /// Where the money comes from.
    pub debit: AccountKey,
    /// Where it goes; equal to `debit` for a withdrawal only.
    pub credit: AccountKey,
    /// How much; never zero.
    pub amount: Amount,
    /// The debit account's sequence after it; `None` for summed accounts.
    pub debit_sequence: Option<u64>,
    /// The credit account's sequence after it; `None` for summed accounts and for withdrawals.
    pub credit_sequence: Option<u64>,
    /// Unique per domain: posting the same key twice is refused by the database.
    pub idempotency_key: String,
    /// What caused it, as an id.
    pub subject: String,
    /// When it was committed.
    pub created_at: Timestamp,
}

impl Entity for Account {
    const NAME: &'static str = "account";
    const COLLECTION: Collection = schema::ACCOUNTS;
    fn document_id(&self) -> String {
        Self::id_of(&self.domain, &self.key)
    }
}

impl Entity for Transfer {
    const NAME: &'static str = "transfer";
    const COLLECTION: Collection = schema::TRANSFERS;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}
